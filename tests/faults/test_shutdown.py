"""Workers replaced under load."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, scaled
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
LEASE = 'lease = "20s"\nlinger = "500ms"\nsweep = "200ms"\nround = "30s"'


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
