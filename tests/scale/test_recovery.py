"""How long a killed worker's mail stands still, with the settings of production and a flood behind it."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.mail import Receiver, assert_delivered
from tests.scale.town import SECONDS, median, only_long, put, say, tally, town
from tests.stack import Stack

pytestmark = [pytest.mark.timeout(SECONDS), only_long]


async def test_a_killed_workers_mail_moves_again(folder: Path):
    """From `kill -9` to the last of the messages it held being sent: 20 s at the median, whatever else waits."""
    times = []
    async with Receiver({"DOT": "slow 0.02"}) as receiver, town(folder, receiver.port, 2) as stack:
        ids = await put(stack, "orders", 30_000)
        for number in range(5):
            victim = f"w{number}"
            await asyncio.sleep(2)
            stack.kill(victim)
            killed = time.time()
            held = await leased(stack)
            await stack.start_worker(f"w{number + 2}")
            await until_moved(stack, held)
            times.append(time.time() - killed)
            say(f"{len(held)} messages held by the dead worker moved after {times[-1]:.1f} s")
        await assert_delivered(stack, receiver, ids, 600)
        assert len(ids) == await tally(stack, "orders")
    assert median(times) <= 20


async def leased(stack: Stack) -> set[str]:
    """Return what is leased now: the dead worker's, and the living one's, which moves on at once."""
    found = set()
    async for key in stack.ledger.scan_iter("pr:*:q:orders:*"):
        found |= {i.decode() for i in await stack.ledger.zrangebyscore(key, "-inf", 0)}
    return found


async def until_moved(stack: Stack, held: set[str]) -> None:
    """Wait until each of them has ended."""

    async def moved() -> bool:
        messages = await stack.get_many(held)
        return all(message.get("finished") for message in messages.values())

    await stack.until(moved, "all of them are sent", 60)
