"""Callers that hang up."""

import asyncio
import json
import random
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_delivered
from tests.stack import TOKEN, Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)


def request_bytes(stack: Stack, ref: str) -> bytes:
    body = json.dumps(sample(ref)).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:{stack.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def hang_up(stack: Stack, ref: str, share: float, linger: float) -> None:
    """Send a share of a POST and go; with all of it sent, go before the answer."""
    data = request_bytes(stack, ref)
    _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(data[: round(len(data) * share)])
    await writer.drain()
    await asyncio.sleep(linger)
    writer.transport.abort()


async def test_callers_that_hang_up_leave_accepting_unharmed(folder: Path):
    """Fifty callers go in the middle of a POST: everybody else's is a 202, then and afterwards."""
    draw = random.Random(6)
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        leaving = [
            hang_up(stack, f"gone-{n}", draw.choice((0.3, 0.7, 0.99, 1.0, 1.0)), draw.uniform(0, 0.02))
            for n in range(50)
        ]
        staying = [stack.post(sample(f"here-{n}")) for n in range(50)]
        mixed = [call for pair in zip(leaving, staying, strict=True) for call in pair]
        answers = [answer for answer in await asyncio.gather(*mixed) if answer is not None]
        answers += [await stack.post(sample(f"after-{n}")) for n in range(10)]
        assert [202] * 60 == [status for status, _, _ in answers]
        await assert_delivered(stack, receiver, [answer["id"] for _, answer, _ in answers])
        # A caller that went before its answer asks again, and gets the one message there is.
        again = [await stack.accept(sample(f"gone-{n}")) for n in range(50)]
        await assert_delivered(stack, receiver, again)
        assert 110 == len(receiver.mails)
