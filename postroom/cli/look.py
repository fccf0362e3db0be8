"""`postroom queue` and `postroom why`: over the admin port where one is named, else straight at Redis."""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from redis.asyncio import Redis

from postroom.cli.admin import AdminApi, names_admin_port
from postroom.cli.labels import fit, read_labels
from postroom.config.load import load_config
from postroom.config.structs import Config
from postroom.errors import PostroomError, UsageError
from postroom.findings import Findings, find_why
from postroom.ids import is_message_id
from postroom.ledger.clients import reading_client
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.reading import Reading
from postroom.ledger.watch import QueueDepth, Watch
from postroom.settings import read_settings

T = TypeVar("T")


class _Queues(msgspec.Struct, frozen=True):
    queues: list[QueueDepth]


def show_queue(options: argparse.Namespace) -> int:
    """Print a row for each agent and priority that has mail waiting."""
    wanted = read_labels(options)
    if names_admin_port(options):
        rows = _ask_port(options, "/admin/queue", _Queues).queues
        agents = AdminApi(options).get("/admin/agents")["agents"] if wanted else []
        labels = {row["agent"]: row["labels"] for row in agents}
    else:
        config, rows = _ask_redis(lambda client: Watch(client).depth_and_held())
        labels = {name: agent.labels for name, agent in config.agents.items()}
    rows = [row for row in rows if fit(labels.get(row.agent, {}), wanted)]
    if not rows:
        print("No mail is waiting.")
        return 0
    print(f"{'AGENT':<34}{'PRIORITY':<10}{'WAITING':>9}{'DUE':>9}{'HELD':>8}  OLDEST DUE")
    for row in sorted(rows, key=lambda r: (-r.oldest_due_ms, r.agent, r.priority)):
        oldest = f"{row.oldest_due_ms / 1000:.1f} s" if row.due else "-"
        held = show_held(row.held, is_least=row.held_is_least)
        print(f"{row.agent:<34}{row.priority:<10}{row.waiting:>9}{row.due:>9}{held:>8}  {oldest}")
    return 0


def show_held(held: int, *, is_least: bool) -> str:
    """Return how many wait for a person, with a plus where not all were looked at."""
    return f"{held}+" if is_least else str(held)


def show_why(options: argparse.Namespace) -> int:
    """Print one sentence about a message, and the data behind it."""
    if not is_message_id(options.id):
        raise UsageError("this is not the id of a message")
    if names_admin_port(options):
        found = _ask_port(options, f"/admin/messages/{options.id}/why", Findings)
    else:
        found = _find_in_redis(options.id)
    print(found.sentence)
    for name, value in _data(found):
        print(f"  {name} {value}")
    print(f"  caller {found.caller}, client_ref {found.client_ref}, priority {found.priority}")
    for at, kind in found.events:
        print(f"  {at}  {kind}")
    for attempt in found.attempts:
        codes = " ".join(str(c) for c in (attempt.reply_code, attempt.enhanced_code) if c)
        print(
            f"  attempt {attempt.n} over {attempt.channel}: {attempt.outcome} at {attempt.phase} {codes}".rstrip()
        )
    return 0


def _data(found: Findings) -> list[tuple[str, str]]:
    rows = {
        "until": found.reason.until if found.reason else None,
        "rule": found.reason.rule if found.reason else None,
        "owner": found.owner,
        "agent paused by": found.agent_paused_by,
        "held by": found.held_by,
        "next attempt": found.next_attempt_at,
        "expires": found.expires_at,
    }
    return [(name, value) for name, value in rows.items() if value]


def _ask_port(options: argparse.Namespace, path: str, kind: type[T]) -> T:
    answer = AdminApi(options).get(path)
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError:
        raise PostroomError("the answer is not that of an API of this version") from None


def _find_in_redis(message_id: str) -> Findings:
    config, stored = _ask_redis(lambda client: Reading(client).message(message_id))
    if stored is None:
        raise PostroomError("no message with this id is kept (any more)")
    return find_why(stored, config.agents.get(stored.record.agent))


def _ask_redis(question: Callable[[Redis], Awaitable[T]]) -> tuple[Config, T]:
    config = load_config(read_settings(os.environ).config, os.environ)

    async def ask() -> T:
        client = reading_client(config.redis.url)
        try:
            return await question(client)
        finally:
            await client.aclose()

    try:
        return config, asyncio.run(ask())
    except LedgerUnavailableError as error:
        raise PostroomError(str(error)) from None
