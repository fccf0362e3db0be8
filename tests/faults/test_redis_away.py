"""Redis away at the worst moment."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)


async def test_an_outcome_on_its_way_is_never_given_back(folder: Path):
    """Redis dies between the server's yes and its being written, and the channel fails too: still one copy."""
    script = {
        "CONNECT": ["421 4.3.2 busy", "ok", "421 4.3.2 busy", "421 4.3.2 busy", "ok"],
        "DOT": ["accept raw 250 2.0.0 ok\r\n421 4.3.2 bye\r\n", "ok"],
    }
    async with Receiver(script) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        receiver.arrivals.then = stack.redis.kill
        message_id = await stack.accept(sample("once"))
        await receiver.until_mails(1)
        await asyncio.sleep(0.3)  # Redis is away for so long
        await asyncio.to_thread(stack.redis.start)
        messages = await assert_delivered(stack, receiver, [message_id])
        assert (1, 1) == (receiver.copies()[message_id], len(messages[message_id]["attempts"]))
        await assert_at_rest(stack, receiver, killed=True)
