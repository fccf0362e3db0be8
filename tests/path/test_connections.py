"""`connections` holds over all workers, and all of them are used."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from postroom import rounds
from tests.faults.mail import BRISK, SECONDS, Receiver, assert_at_rest, assert_delivered, meanwhile, scaled
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
# One lane a worker, so that three of the four must share the work, and the fourth would like to.
NARROW = f"max_lanes = 1\n{BRISK}"


async def test_four_workers_share_three_connections(folder: Path):
    """With connections = 3 and rounds rung for all the time, no fourth session is ever open, kill -9 included."""
    count = scaled(200, 5000)
    async with (
        Receiver({"DOT": "slow 0.02", "CONNECT": "slow 0.02"}) as receiver,
        Stack(folder, receiver.port, worker=NARROW, agent="connections = 3") as stack,
        closing(rounds.rounds_pool(stack.redis.url)) as pool,
    ):
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two", "three", "four"))
        async with meanwhile(lambda: rounds.ring(pool, "orders"), 0.02):
            accepted: dict[str, float] = {}
            load = asyncio.create_task(
                stack.accept_many((sample(f"c-{n}") for n in range(count)), into=accepted)
            )
            await receiver.until_mails(count // 4, SECONDS)
            stack.kill("one")
            await stack.start_worker("five")
            await load
            await assert_delivered(stack, receiver, accepted, SECONDS)
            # Bursts with pauses: lanes leave and come back in all of the workers.
            for burst in range(3):
                more = await stack.accept_many(sample(f"b-{burst}-{n}") for n in range(10))
                await assert_delivered(stack, receiver, more)
                await asyncio.sleep(0.2 * burst)
            assert 3 == receiver.peak
        await assert_at_rest(stack, receiver, killed=True, renewing=0.7)


@asynccontextmanager
async def closing(pool: ArqRedis) -> AsyncIterator[ArqRedis]:
    yield pool
    await pool.aclose(close_connection_pool=True)
