"""SIGTERM: the message in hand is finished, the rest is given back, nothing is burnt."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, scaled
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
LEASE = 'lease = "20s"\nlinger = "500ms"\nsweep = "200ms"\nround = "30s"'


async def test_a_worker_that_is_told_to_go_finishes_and_gives_back(folder: Path):
    """At a slow server: exit 0, what it had claimed goes to another worker at once, one attempt and copy each."""
    quick, slow = 30, 60
    script = {"DOT": ["ok"] * quick + ["slow 0.7"] * 2 + ["ok"]}
    async with (
        Receiver(script) as receiver,
        Stack(folder, receiver.port, worker=LEASE, agent="connections = 2") as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker("old"))
        accepted = await stack.accept_many((sample(f"t-{n}") for n in range(quick + slow)), callers=32)
        await receiver.until("DOT", quick + 1)
        await stack.start_worker("new")
        assert 0 == await stack.end("old")
        gone = time.time()
        messages = await assert_delivered(stack, receiver, accepted)
        assert quick + slow == len(receiver.mails)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        assert max(receiver.arrivals.times) - gone <= 3, "the rest waited for a lease"


async def test_rolling_restarts_cost_nobody_anything(folder: Path):
    """Workers replaced one after the other under load: exit 0 each, every message in one attempt, one copy."""
    async with (
        Receiver({"DOT": "slow 0.01"}) as receiver,
        Stack(folder, receiver.port, worker=LEASE) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker("w0"))
        accepted: dict[str, float] = {}
        restarts = scaled(2, 10)
        bodies = (sample(f"r-{n}") for n in range(restarts * 300))
        load = asyncio.create_task(stack.accept_many(bodies, callers=2, into=accepted))
        for number in range(restarts):
            await stack.start_worker(f"w{number + 1}")
            assert 0 == await stack.end(f"w{number}")
        await load
        messages = await assert_delivered(stack, receiver, accepted)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        assert len(accepted) == len(receiver.mails)
        await assert_at_rest(stack, receiver)
