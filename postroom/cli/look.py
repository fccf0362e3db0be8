"""`postroom queue` and `postroom why`: looking into the ledger, straight at Redis."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis

from postroom.config.load import load_config
from postroom.config.structs import Config
from postroom.errors import PostroomError
from postroom.explain import explain, moment, next_attempt
from postroom.ids import is_message_id
from postroom.ledger.clients import reading_client
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.reading import Reading, StoredMessage
from postroom.ledger.watch import Watch
from postroom.settings import read_settings

T = TypeVar("T")


def show_queue() -> int:
    """Print a row for each agent and priority that has mail waiting."""
    _, rows = _ask(lambda client: Watch(client).depth())
    if not rows:
        print("No mail is waiting.")
        return 0
    print(f"{'AGENT':<34}{'PRIORITY':<10}{'WAITING':>9}{'DUE':>9}  OLDEST DUE")
    for row in sorted(rows, key=lambda r: (-r.oldest_due_ms, r.agent, r.priority)):
        oldest = f"{row.oldest_due_ms / 1000:.1f} s" if row.due else "-"
        print(f"{row.agent:<34}{row.priority:<10}{row.waiting:>9}{row.due:>9}  {oldest}")
    return 0


def show_why(message_id: str) -> int:
    """Print one sentence about a message, and the data behind it."""
    if not is_message_id(message_id):
        raise PostroomError("this is not the id of a message")
    config, stored = _ask(lambda client: Reading(client).message(message_id))
    if stored is None:
        raise PostroomError("no message with this id is kept (any more)")
    print(_sentence(config, stored))
    record = stored.record
    print(f"  caller {record.caller}, client_ref {record.client_ref}, priority {record.priority}")
    for event in record.timeline:
        print(f"  {moment(event.at)}  {event.type}")
    for attempt in record.attempts:
        codes = " ".join(str(c) for c in (attempt.reply_code, attempt.enhanced_code) if c)
        print(
            f"  attempt {attempt.n} over {attempt.channel}: {attempt.outcome} at {attempt.phase} {codes}".rstrip()
        )
    return 0


def _sentence(config: Config, stored: StoredMessage) -> str:
    record = stored.record
    agent = config.agents.get(record.agent)
    reason = explain(stored, agent)
    text = f"{record.id} is {record.state}"
    if reason is not None:
        text += f" ({reason.code}): {reason.text}"
    if (next_at := next_attempt(stored, agent)) is not None:
        text += f" Next attempt {moment(next_at)}, expires {moment(record.deadline)}."
    return text


def _ask(question: Callable[[Redis], Awaitable[T]]) -> tuple[Config, T]:
    config = load_config(read_settings(os.environ).config, os.environ)

    async def ask() -> T:
        client = reading_client(config.redis.url)
        try:
            return await question(client)
        finally:
            await client.aclose()

    try:
        return config, asyncio.run(ask())
    except LedgerUnavailableError:
        raise PostroomError("Redis does not answer") from None
