"""What the measurements at size share: a town of agents, sinks in processes of their own, mail put in by the thousand."""

import asyncio
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from postroom.ids import new_message_id
from postroom.ledger import keys
from postroom.ledger.accept import Acceptance, Offer
from postroom.ledger.clients import connection_maker
from postroom.ledger.pipe import ScriptPipe
from postroom.message import Address, Content, Payload
from tests.faults.mail import LONG, moment
from tests.stack import ROOT, Stack, free_port

SECONDS = 900  # for one test, `pytest.mark.timeout`
only_long = pytest.mark.skipif(not LONG, reason="takes minutes: make scale")
# As in production, but for what would only make a measurement wait.
PLAIN = 'linger = "1s"'


@asynccontextmanager
async def sink(script: dict[str, Any] | None = None) -> AsyncIterator[int]:
    """Run an SMTP server that takes everything, in its own process; yields its port.

    Postfix's `smtp-sink` where the machine has it, since it is not what is measured; else our scripted server.
    """
    fast = shutil.which("smtp-sink", path=f"{os.environ['PATH']}:/usr/sbin")
    process, port = await asyncio.to_thread(_start_fast, fast) if fast and not script else _start_own(script)
    try:
        yield port
    finally:
        process.kill()
        process.wait(10)


def _start_fast(binary: str) -> tuple[subprocess.Popen[bytes], int]:
    port, rights = free_port(), ["-u", "nobody"] if os.geteuid() == 0 else []
    process = subprocess.Popen([binary, *rights, f"127.0.0.1:{port}", "1000"])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.01)
    return process, port


def _start_own(script: dict[str, Any] | None) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, str(ROOT / "tests" / "smtpd.py"), "--script", json.dumps(script or {})]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


async def put(stack: Stack, agent: str, count: int, **changes: Any) -> list[str]:
    """Put mail into the ledger by its own script, many at once, as an API process would."""
    pipe = ScriptPipe(connection_maker(stack.redis.url), deadline=30)
    acceptance = Acceptance(pipe, pipe, content_ms=3_600_000, message_ms=72 * 3_600_000)
    ids: list[str] = []
    for start in range(0, count, 1000):
        offers = [_offer(agent, **changes) for _ in range(min(1000, count - start))]
        await asyncio.gather(*(acceptance.accept(offer) for offer in offers))
        ids += [offer.id for offer in offers]
    await pipe.aclose()
    return ids


def _offer(agent: str, **changes: Any) -> Offer:
    message_id = new_message_id(agent)
    payload = Payload(
        message_id=f"<{message_id}@shop.example>",
        sender=Address("orders@shop.example", "Shop"),
        to=(Address("ada@example.com", "Ada Lovelace"),),
        content=Content("Your order is on its way", "It left our house today.\n" * 20),
    )
    digest = hashlib.sha256(message_id.encode()).hexdigest()[:16]
    given = {
        "lifetime": 86_400_000,
        "standing_clock": True,
        "ref": digest,
        "digests": b"",
        "payload": payload,
    }
    return Offer(id=message_id, agent=agent, caller="shop", client_ref=message_id, **given | changes)


async def tally(stack: Stack, agent: str, state: str = "sent") -> int:
    """Return how many messages of an agent ended so, by the ledger's own count."""
    found = await stack.ledger.hget(keys.place_of(agent).prefix + "tally", f"{agent}|{state}")
    return int(found or 0)


async def rate(stack: Stack, agents: Iterable[str], seconds: float) -> float:
    """Return how many messages a second are sent, over a while from now on."""
    agents = list(agents)

    async def sent() -> int:
        return sum(await asyncio.gather(*(tally(stack, agent) for agent in agents)))

    before, started = await sent(), time.monotonic()
    await asyncio.sleep(seconds)
    return (await sent() - before) / (time.monotonic() - started)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value below which that share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def waits(stack: Stack, ids: Iterable[str]) -> list[float]:
    """Return the seconds from accepted to sent of messages that have all ended."""
    messages = await stack.until_all_finished(ids, 120)
    assert {"sent"} == {message["state"] for message in messages.values()}
    return [moment(m["events"][-1]["at"]) - moment(m["accepted_at"]) for m in messages.values()]


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def say(text: str) -> None:
    """Tell a figure to whoever runs `make scale`."""
    print(f"    {text}", flush=True)  # noqa: T201


@asynccontextmanager
async def town(folder: Path, port: int, workers: int, **options: Any) -> AsyncIterator[Stack]:
    """Run the product: one API and so many workers."""
    async with Stack(folder, port, **{"worker": PLAIN} | options) as stack:
        names = [f"w{number}" for number in range(workers)]
        await asyncio.gather(stack.start_api(), stack.start_workers(*names))
        yield stack
