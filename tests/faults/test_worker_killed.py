"""Workers that die or freeze: the ledger's leases and fences."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.mail import (
    BRISK,
    LONG,
    SECONDS,
    Receiver,
    ambiguous,
    assert_at_rest,
    assert_delivered,
    moment,
    scaled,
)
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
# Lease, second sight, sweep and the ring's marker; starting a worker and the machine's own pace.
RECOVERY = 20.0 if LONG else 2 * 1.6 + 0.2 + 1 + 4


async def test_what_a_killed_worker_held_is_taken_over(folder: Path):
    """After kill -9 in mid-load all arrives, copied no more often than ambiguous, within a lease and second sight."""
    count = scaled(400, 10_000)
    async with (
        Receiver({"DOT": "slow 0.02"}) as receiver,
        Stack(folder, receiver.port, worker=scaled(BRISK, "")) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker("first"))
        accepted: dict[str, float] = {}
        # In the long version mail is posted slower than it is sent, so that no backlog is measured as recovery.
        bodies = (sample(f"k-{n}") for n in range(count))
        load = asyncio.create_task(stack.accept_many(bodies, 8, pause=scaled(0, 0.03), into=accepted))
        await receiver.until_mails(count // 3, SECONDS)
        stack.kill("first")
        killed = time.time()
        await stack.start_worker("second")
        await load
        messages = await assert_delivered(stack, receiver, accepted, SECONDS)
        ended = [moment(messages[i]["events"][-1]["at"]) for i, at in accepted.items() if at <= killed]
        recovery = max(ended) - killed
        print(f"recovered {recovery:.1f} s after the kill")  # noqa: T201
        assert recovery <= RECOVERY
        await assert_at_rest(stack, receiver, killed=True, renewing=0.7)


async def test_a_worker_frozen_in_mid_body_sends_nothing_twice(folder: Path):
    """A worker frozen with half of a long body on the wire, beyond its lease, finds the fence raised: one copy."""
    attachment = {"name": "a.bin", "content_type": "application/octet-stream", "content": "A" * 8_000_000}
    async with (
        Receiver({"BODY": ["slow 1", "ok"]}) as receiver,
        Stack(folder, receiver.port, worker=BRISK) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker("first"))
        message_id = await stack.accept(sample("frozen", attachments=[attachment]))
        await receiver.until("BODY")
        stack.pause("first")
        await stack.start_worker("second")
        message = await stack.until_finished(message_id)
        stack.resume("first")

        async def fence_seen() -> bool:
            return any(line["event"] == "fence.rejected" for line in stack.logs("first"))

        await stack.until(fence_seen, "the first worker met the fence")
        assert ("sent", 1, 0) == (message["state"], receiver.copies()[message_id], ambiguous(message))
        await assert_delivered(stack, receiver, [message_id])


async def test_a_worker_frozen_after_its_mark_is_an_ambiguous_outcome(folder: Path):
    """Frozen after the dot and beyond its lease: at most two copies, and the outcome is on record."""
    async with (
        Receiver({"DOT": ["slow 0.5", "ok"]}) as receiver,
        Stack(folder, receiver.port, worker=BRISK) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker("first"))
        message_id = await stack.accept(sample("frozen"))
        await receiver.until("DOT")
        stack.pause("first")
        await stack.start_worker("second")
        message = await stack.until_finished(message_id)
        stack.resume("first")
        assert ("sent", 2, 1) == (message["state"], receiver.copies()[message_id], ambiguous(message))
        await assert_delivered(stack, receiver, [message_id])
