"""Cases 14, 15, 17 and 26: Redis killed, away, full and forgetful."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.mail import (
    SECONDS,
    Load,
    Receiver,
    ambiguous,
    assert_at_rest,
    assert_delivered,
    meanwhile,
    scaled,
    until,
)
from tests.stack import PATIENCE, Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
ROOM = 6_000_000
FORGETFUL = '[retention]\ncontent = "300ms"'  # so that mail that was sent makes room
PATIENT = 'lease = "5s"\nlinger = "500ms"\nsweep = "200ms"\nround = "5s"'


async def test_case_14_redis_killed_and_restarted_in_mid_load(folder: Path):
    """Again and again, with its append-only file: nothing lost, duplicates accounted for, no worker exits."""
    draw = random.Random(2)
    async with Receiver({"DOT": "slow 0.005"}) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        load = Load(stack, 0.03)
        for _ in range(scaled(4, 20)):
            await asyncio.sleep(draw.uniform(0.3, scaled(0.8, 2.0)))  # so long it is well
            await asyncio.to_thread(stack.redis.kill)
            await asyncio.sleep(draw.uniform(0.0, 0.4))  # and so long away
            await asyncio.to_thread(stack.redis.start)
        ids = await load.stop()
        await assert_delivered(stack, receiver, ids)
        await assert_at_rest(stack, receiver, killed=True)
        assert [(b"pr:bell:", 2)] == await stack.ledger.pubsub_numsub("pr:bell:"), "a worker is deaf"


async def test_case_15_redis_down_with_sends_in_flight(folder: Path):
    """Nothing new is sent while it is down; what was in flight is written down afterwards: one copy each."""
    async with (
        Receiver({"DOT": "slow 1"}) as receiver,
        Stack(folder, receiver.port, worker=PATIENT, agent="connections = 4") as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        ids = [await stack.accept(sample(f"case-15-{number}")) for number in range(12)]
        await receiver.until("DOT", 4)
        await asyncio.to_thread(stack.redis.kill)
        down = time.time()
        await until(lambda: receiver.open == 0, "what was in flight has ended", 10)
        await asyncio.sleep(scaled(2.0, 60.0))  # it is away for so long
        assert 4 == len(receiver.mails)
        assert max(receiver.arrivals.times) - down < 0.5
        await asyncio.to_thread(stack.redis.start)
        messages = await assert_delivered(stack, receiver, ids)
        assert dict.fromkeys(ids, (1, 0)) == {
            i: (receiver.copies()[i], ambiguous(message)) for i, message in messages.items()
        }


async def test_case_17_redis_full(folder: Path):
    """Filled up by accepts, then to the brim: 503 storage_full, queued mail drains, accepting resumes.

    An API that starts while Redis takes nothing at all says the same, and tells of the queues.
    """
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
        await stack.end("api")
        await stack.start_api()
        assert (503, "storage_full") == ((found := await stack.post(sample("brim")))[0], found[1]["code"])
        metrics = await stack.metrics(stack.metrics_port)
        assert (1, 1) == (metrics["postroom_redis_up"], metrics['postroom_exporter{role="shared"}'])
        assert metrics['postroom_redis_memory_ratio{redis="ledger"}'] > 0.9
        assert len(ids) == sum(
            n for name, n in metrics.items() if name.startswith("postroom_queue_messages{")
        )
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


async def test_case_26_script_flush_under_load(folder: Path):
    """Again and again: every POST is a 202, and all of it arrives once."""
    count = scaled(300, 5000)
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        async with meanwhile(stack.ledger.script_flush, 0.01):
            statuses: Counter[int] = Counter()
            ids = []

            async def call(numbers: range) -> None:
                for number in numbers:
                    status, answer, _ = await stack.post(sample(f"flush-{number}"))
                    statuses[status] += 1
                    ids.append(answer.get("id"))

            await asyncio.gather(*(call(range(n, count, 8)) for n in range(8)))
            assert {202: count} == statuses
            await assert_delivered(stack, receiver, ids, PATIENCE)
            assert count == len(receiver.mails)
        await assert_at_rest(stack, receiver)


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
