"""`postroom ledger check`: is everything that was accepted accounted for? Straight at Redis."""

import asyncio
import os
import sys

from postroom.config.load import load_config
from postroom.errors import PostroomError
from postroom.ledger.balance import ENDS, Balance, BalanceRow, Verdict
from postroom.ledger.clients import reading_client
from postroom.ledger.errors import LedgerUnavailableError
from postroom.settings import read_settings

MOST_PRINTED = 100


def check_ledger(*, quick: bool) -> int:
    """Print every agent's balance and each message that does not fit; 1 where anything does not.

    Mail may go on meanwhile. `quick`: draw the balance only, and look at no message.
    """
    config = load_config(read_settings(os.environ).config, os.environ)
    try:
        rows, verdict = asyncio.run(_look(config.redis.url, quick=quick))
    except LedgerUnavailableError as error:
        raise PostroomError(str(error)) from None
    _print_rows(rows)
    wrong = [row for row in rows if row.unaccounted]
    if verdict is not None:
        _print_verdict(verdict)
    if wrong:
        print(f"Unaccounted for: {', '.join(f'{row.agent} {row.unaccounted:+d}' for row in wrong)}")
    if wrong or (verdict is not None and verdict.found):
        return 1
    if verdict is None:
        print("The sums agree. No message was looked at: leave out --quick to prove that each is there.")
    else:
        print("Everything that was accepted is accounted for.")
    return 0


async def _look(url: str, *, quick: bool) -> tuple[list[BalanceRow], Verdict | None]:
    client = reading_client(url, timeout=10.0)
    balance = Balance(client)
    try:
        rows = await balance.rows()
        if quick:
            return rows, None
        verdict = await balance.check(_tell if sys.stderr.isatty() else lambda _: None)
        return rows, verdict
    finally:
        await client.aclose()


def _tell(verdict: Verdict) -> None:
    print(f"\r{verdict.records} records, {verdict.queued} queued …", end="", file=sys.stderr, flush=True)


def _print_rows(rows: list[BalanceRow]) -> None:
    heads = ("ACCEPTED", *(end.upper() for end in ENDS), "WAITING", "UNACCOUNTED")
    print(f"{'AGENT':<24}" + "".join(f"{head:>{len(head) + 2}}" for head in heads))
    for row in rows:
        numbers = (row.accepted, *row.ends.values(), row.waiting, row.unaccounted)
        shown = (f"{number:>{len(head) + 2}}" for number, head in zip(numbers, heads, strict=True))
        print(f"{row.agent:<24}" + "".join(shown))


def _print_verdict(verdict: Verdict) -> None:
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for misfit in verdict.misfits[:MOST_PRINTED]:
        print(f"{misfit.id}: {misfit.problem}")
    if verdict.found > MOST_PRINTED:
        print(f"… and {verdict.found - MOST_PRINTED} more.")
    print(
        f"{verdict.records} records and {verdict.queued} places in queues looked at, {verdict.found} misfits."
    )
