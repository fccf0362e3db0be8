"""Random faults against a load, then the promises: `python -m tests.faults.soak --seed 7 --minutes 1`.

Prints the seed, each strike, the account and a verdict; ends with 0 where every promise held.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from postroom.ledger.balance import Balance
from tests.faults.mail import BRISK, Receiver, ambiguous
from tests.faults.strikes import ALWAYS, LAUNCH, Striker, strikes
from tests.proxy import Proxy
from tests.stack import Stack, agent_toml, channel, sample

AGENTS = {"orders": "retry", "holding": "hold"}
CALLERS = 8
PAUSE = 0.1  # seconds a caller rests between two messages
SETTLING = 60.0  # seconds, at least, that what was accepted has to end once the faults are over
MEDIC = '[breaker]\nshortest = "200ms"\nlongest = "2s"'
SEVERAL = [{"address": f"{name}@example.com"} for name in ("ada", "nobody", "bob")]

Say = Callable[[str], None]


class Account:
    """What was promised and what came of it."""

    def __init__(
        self, accepted: dict[str, dict[str, Any]], messages: dict[str, Any], receiver: Receiver
    ) -> None:
        self.accepted, self.messages = accepted, messages
        self.copies = receiver.copies_by_recipient()
        self.ambiguous = {i: ambiguous(message) for i, message in messages.items()}

    def lost(self) -> list[str]:
        """Return what was accepted and did not end, or is said to be sent and did not arrive."""
        waiting = [
            f"{i} did not end: {message.get('state', 'unknown')}, {message.get('reason')}, {message.get('attempts')}"
            for i, message in self.messages.items()
            if not message.get("finished")
        ]
        return waiting + [
            f"{i} is sent, and recipient {recipient['index']} has no copy"
            for i, message in self.messages.items()
            for recipient in message.get("recipients", ())
            if recipient["state"] == "sent" and not self.copies[i, recipient["address"]]
        ]

    def unaccounted(self) -> list[str]:
        """Return copies beyond the first that no ambiguous outcome accounts for."""
        return [
            f"{i} arrived {count} times with {self.ambiguous.get(i, 0)} ambiguous outcomes"
            for (i, _), count in self.copies.items()
            if count - 1 > self.ambiguous.get(i, 0)
        ]

    def held_twice(self) -> list[str]:
        """Return second copies where the policy is `hold`."""
        return [
            f"{i} arrived {count} times although its policy is hold"
            for (i, _), count in self.copies.items()
            if count > 1 and i.startswith("holding-")
        ]

    def unfounded(self) -> list[str]:
        """Return what arrived without a 202, and what failed by our own fault."""
        strangers = {i for i, _ in self.copies} - set(self.accepted)
        ours = [
            f"{i} failed by our fault"
            for i, message in self.messages.items()
            if (message.get("reason") or {}).get("fault") == "postroom"
        ]
        return [f"{i} was never accepted" for i in strangers] + ours

    def lines(self) -> list[str]:
        """Return the figures."""
        states = Counter(message.get("state", "unknown") for message in self.messages.values())
        second = sum(count - 1 for count in self.copies.values())
        by_agent = Counter(i.rpartition("-")[0] for i in self.accepted)
        return [
            "accepted: " + ", ".join(f"{by_agent[a]} by {a} ({policy})" for a, policy in AGENTS.items()),
            "ended: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())),
            f"copies: {sum(self.copies.values())}, of them {second} second ones",
            f"ambiguous outcomes: {sum(self.ambiguous.values())}",
        ]


async def soak(folder: Path, seed: int, seconds: float, say: Say) -> list[str]:
    """Let strikes of this seed meet a load for so long; return which promises broke, and how."""
    async with Receiver(dict(ALWAYS)) as receiver, Proxy(("127.0.0.1", receiver.port)) as smtp:
        holding = agent_toml("holding", channel("holding", smtp.port), options='on_ambiguous = "hold"')
        stack = Stack(folder, smtp.port, worker=BRISK, agents={"holding": holding}, more=MEDIC)
        async with Proxy(stack.redis.path) as redis, stack:
            stack.redis_url = redis.redis_url
            await asyncio.gather(stack.start_api(), stack.start_workers("w0001", "w0002", launch=LAUNCH))
            striker = Striker(stack, receiver, redis, smtp)
            accepted = await _load(stack, seed, _striking(striker, seed, seconds, say))
            receiver.script = dict(ALWAYS)
            say(f"{time.strftime('%X')} the faults are over, {len(receiver.mails)} copies so far; settling")
            account = Account(
                accepted, await _settled(stack, list(accepted), max(SETTLING, 3 * seconds)), receiver
            )
            for line in account.lines():
                say(line)
            return [
                *account.lost(),
                *account.unaccounted(),
                *account.held_twice(),
                *account.unfounded(),
                *await _forgotten_refs(stack, accepted),
                *await check_ledger(stack),
                *striker.said,
                *stack.mishaps(),
                *(f"{name} ended by itself" for name in stack.exited()),
            ]


async def check_ledger(stack: Stack) -> list[str]:
    """Return what is left in the ledger's queues with every message ended, and what does not fit together."""
    names = [name.decode() async for name in stack.ledger.scan_iter("pr:{*}:q:*", count=1000)]
    balance = Balance(stack.ledger)
    verdict = await balance.check()
    return [
        *(f"{name} is not empty" for name in names),
        *(f"{misfit.id}: {misfit.problem}" for misfit in verdict.misfits),
        *(f"{row.agent}: {row.unaccounted} unaccounted" for row in await balance.rows() if row.unaccounted),
    ]


async def _striking(striker: Striker, seed: int, seconds: float, say: Say) -> None:
    over = time.monotonic() + seconds
    for number, strike in enumerate(strikes(seed), 1):
        if time.monotonic() >= over:
            return
        say(f"{time.strftime('%X')} {number:3} {strike.name}")
        await striker.strike(strike)


async def _load(stack: Stack, seed: int, striking: Awaitable[None]) -> dict[str, dict[str, Any]]:
    """Post while the strikes last, like good callers; return the bodies by the ids they were accepted under."""
    accepted: dict[str, dict[str, Any]] = {}
    over = False

    async def call(caller: int) -> None:
        number = 0
        while not over:
            number += 1
            body = sample(f"soak-{seed}-{caller}-{number}", agent=list(AGENTS)[number % 2])
            if number % 10 == 0:
                body["to"] = SEVERAL
            accepted[await stack.accept(body)] = body
            await asyncio.sleep(PAUSE)

    calls = asyncio.gather(*(call(number) for number in range(CALLERS)))
    try:
        await striking
    finally:
        over = True
        await calls
    return accepted


async def _settled(stack: Stack, ids: list[str], seconds: float) -> dict[str, Any]:
    try:
        return await stack.until_all_finished(ids, seconds)
    except AssertionError:
        return await stack.get_many(ids)


async def _forgotten_refs(stack: Stack, accepted: dict[str, dict[str, Any]]) -> list[str]:
    """Ask again with refs that were accepted: each is the message it was."""
    chosen = random.Random(0).sample(sorted(accepted), min(50, len(accepted)))
    return [f"the ref of {i} is another message now" for i in chosen if i != await stack.accept(accepted[i])]


def main() -> int:
    """Soak for some minutes and say what came of it."""
    parser = argparse.ArgumentParser(description="Random faults against a load, then the promises.")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=1.0)
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed

    def say(line: str) -> None:
        print(line, flush=True)  # noqa: T201

    say(f"soak: SEED={seed} MINUTES={given.minutes:g}")
    with tempfile.TemporaryDirectory(prefix="pr") as folder:
        try:
            broken = asyncio.run(soak(Path(folder), seed, given.minutes * 60, say))
        except (
            AssertionError
        ) as error:  # a caller was told what it never may be, or a process did not come up
            broken = [str(error)]
    for line in broken:
        say(f"  broken: {line}")
    say(f"verdict: {'every promise held' if not broken else f'{len(broken)} BROKEN'} (SEED={seed})")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
