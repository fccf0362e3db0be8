"""Redis filled up by accepts."""

import random
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_delivered
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
ROOM = 6_000_000
FORGETFUL = '[retention]\ncontent = "300ms"'  # so that mail that was sent makes room


async def test_a_full_redis_refuses_new_mail_and_drains_what_it_has(folder: Path):
    """Filled up by accepts, then to the brim: 503 storage_full, queued mail drains, accepting resumes."""
    draw = random.Random(3)
    async with Receiver() as receiver, Stack(folder, receiver.port, more=FORGETFUL) as stack:
        await stack.start_api()
        info = await stack.ledger.info("memory")
        await stack.ledger.config_set("maxmemory", info["used_memory"] + ROOM)
        ids = []
        for number in range(10_000):
            text = draw.randbytes(16_000).hex()
            body = sample(f"full-{number}", template=None, content={"subject": "Full", "text": text})
            status, answer, headers = await stack.post(body)
            if status != 202:
                break
            ids.append(answer["id"])
        assert (503, "storage_full", "15") == (status, answer["code"], headers["retry-after"])
        await fill_to_the_brim(stack)
        await stack.start_workers("one", "two")
        messages = await assert_delivered(stack, receiver, ids)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        await stack.ledger.delete("filler")

        async def accepted_again() -> bool:
            status, answer, _ = await stack.post(sample("room-again"))
            ids.append(answer.get("id"))
            return status == 202

        await stack.until(accepted_again, "accepting resumes")
        await assert_delivered(stack, receiver, ids[-1:])


async def fill_to_the_brim(stack: Stack) -> None:
    """Fill what the API leaves free, until Redis takes nothing more at all."""
    size = 1_000_000
    while size:
        try:
            await stack.ledger.append("filler", b"x" * size)
        except Exception as full:  # noqa: BLE001
            assert "OOM" in str(full) or "maxmemory" in str(full)  # noqa: PT017
            size //= 10
    for number in range(10_000):
        try:
            await stack.ledger.set(f"filler-{number}", "x")
        except Exception as full:  # noqa: BLE001
            assert "maxmemory" in str(full)  # noqa: PT017
            return
