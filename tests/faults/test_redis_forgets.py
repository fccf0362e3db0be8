"""What Redis may forget without anybody noticing: every key of arq's."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, meanwhile, scaled
from tests.stack import PATIENCE, Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)


async def test_arqs_keys_are_only_an_alarm_clock(folder: Path):
    """With every key of arq's deleted again and again in mid-load, all of it arrives once."""
    count = scaled(300, 5000)
    async with Receiver({"DOT": "slow 0.01"}) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        async with meanwhile(lambda: delete_arqs_keys(stack), 0.05):
            bodies = (sample(f"arq-{n}", agent=("orders", "logins")[n % 2]) for n in range(count))
            accepted = await stack.accept_many(bodies)
            await assert_delivered(stack, receiver, accepted, PATIENCE)
            assert count == len(receiver.mails)
        await assert_at_rest(stack, receiver)


async def delete_arqs_keys(stack: Stack) -> None:
    names = [name async for name in stack.ledger.scan_iter("arq:*", count=1000)]
    await stack.ledger.delete("pr:rounds", *names)
