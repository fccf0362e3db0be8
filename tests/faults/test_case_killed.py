"""Cases 5 to 11: workers that die or freeze at every point of an attempt."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, ambiguous, assert_at_rest, assert_delivered, until
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
LEASE = 'lease = "2s"\nlinger = "500ms"\nsweep = "200ms"\nround = "5s"'
# More than the sockets of both sides hold, so that the middle of the body is the middle.
LONG_BODY = [{"name": "a.bin", "content_type": "application/octet-stream", "content": "A" * 8_000_000}]


def fate(message: dict, receiver: Receiver) -> tuple[str, int, int]:
    """Return what a message ended as, its copies at the receiver, and its ambiguous outcomes."""
    return message["state"], receiver.copies()[message["id"]], ambiguous(message)


async def strike_each(stack: Stack, failpoint: str) -> dict[str, str]:
    """Let a worker meet the point with a message of each policy; return the ids by policy.

    The second message is posted once the first has met its fate, so that each meets its own worker.
    """
    armed = ["armed-1", "armed-2"]
    await asyncio.gather(stack.start_api(), stack.start_workers(*armed, failpoint=failpoint))
    ids = {}
    for policy in ("retry", "hold"):
        ids[policy] = await stack.accept(sample(policy, on_ambiguous=policy))
        if failpoint.endswith("=stop"):
            await until_stopped(stack, len(ids))
        else:
            armed.remove(await stack.until_dead(*armed))
    return ids


async def until_stopped(stack: Stack, count: int) -> None:
    """Wait until so many of the stack's processes are frozen."""

    def frozen() -> bool:
        stats = [Path(f"/proc/{process.pid}/stat").read_text() for process in stack.processes.values()]
        return sum(stat.rpartition(") ")[2].startswith("T") for stat in stats) == count

    await until(frozen, f"{count} processes are frozen")


async def killed_at(folder: Path, failpoint: str) -> tuple[tuple[str, int, int], tuple[str, int, int]]:
    """Kill a worker at the point, with each policy; return both fates after another worker took over."""
    async with Receiver() as receiver, Stack(folder, receiver.port, worker=LEASE) as stack:
        ids = await strike_each(stack, failpoint)
        await stack.start_worker("heir")
        messages = await stack.until_all_finished(ids.values())
        metrics = await stack.metrics(stack.worker_metrics["heir"])
        known = sum(map(ambiguous, messages.values()))
        assert known == metrics.get('postroom_ambiguous_outcomes_total{agent="orders"}', 0)
        assert ([], []) == (stack.exited(), stack.mishaps())
        return fate(messages[ids["retry"]], receiver), fate(messages[ids["hold"]], receiver)


async def test_case_05_worker_killed_before_its_mark(folder: Path):
    """After claim, RCPT, 354 and in mid-body, one after the other: re-claimed after a lease, one copy."""
    points = ("claimed", "after_rcpt", "after_354", "mid_body")
    async with Receiver() as receiver, Stack(folder, receiver.port, worker=LEASE) as stack:
        starts = (stack.start_worker(point, failpoint=point) for point in points)
        await asyncio.gather(stack.start_api(), *starts)
        message_id = await stack.accept(sample("case-5", attachments=LONG_BODY))
        left = set(points)
        while left:
            left.remove(await stack.until_dead(*left))
        assert 0 == len(receiver.mails)
        await stack.start_worker("heir")
        messages = await assert_delivered(stack, receiver, [message_id])
        assert ("sent", 1, 0) == fate(messages[message_id], receiver)
        assert 1 == len(messages[message_id]["attempts"])
        await assert_at_rest(stack, receiver, killed=True, renewing=0.7)


async def test_case_06_worker_killed_after_its_mark(folder: Path):
    """Before the dot. `retry`: one copy, one ambiguous outcome. `hold`: no copy, unconfirmed."""
    retry, hold = await killed_at(folder, "after_mark")
    assert (("sent", 1, 1), ("unconfirmed", 0, 1)) == (retry, hold)


async def test_case_07_worker_killed_after_the_dot(folder: Path):
    """Before 250. `retry`: two copies, one ambiguous outcome. `hold`: one copy, unconfirmed."""
    retry, hold = await killed_at(folder, "after_dot")
    assert (("sent", 2, 1), ("unconfirmed", 1, 1)) == (retry, hold)


async def test_case_08_worker_killed_before_finish(folder: Path):
    """After 250. `retry`: two copies, one ambiguous outcome. `hold`: one copy, unconfirmed."""
    retry, hold = await killed_at(folder, "before_finish")
    assert (("sent", 2, 1), ("unconfirmed", 1, 1)) == (retry, hold)


async def test_case_09_worker_killed_after_finish(folder: Path):
    """Whatever the policy: one copy, sent, nothing ambiguous."""
    retry, hold = await killed_at(folder, "after_finish")
    assert (("sent", 1, 0), ("sent", 1, 0)) == (retry, hold)


async def test_case_10_worker_frozen_in_mid_body(folder: Path):
    """Beyond its lease, and back while another one sends: its mark is refused, it sends no dot, there is one copy."""
    async with (
        Receiver({"RCPT": ["ok", "slow 1.5", "ok"]}) as receiver,
        Stack(folder, receiver.port, worker=LEASE) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker("zombie", failpoint="mid_body=stop"))
        message_id = await stack.accept(sample("case-10", attachments=LONG_BODY))
        await until_stopped(stack, 1)
        await stack.start_worker("heir")
        await until(lambda: receiver.times["RCPT"] > 1, "the heir is sending")
        stack.resume("zombie")
        await stack.until(lambda: fence_seen(stack, "zombie", "advance"), "the zombie met the fence")
        messages = await assert_delivered(stack, receiver, [message_id])
        assert ("sent", 1, 0) == fate(messages[message_id], receiver)


async def test_case_11_worker_frozen_after_the_dot(folder: Path):
    """As in case 7; afterwards the zombie's late yes is refused by the fence, and with `hold` it is the truth."""
    async with Receiver() as receiver, Stack(folder, receiver.port, worker=LEASE) as stack:
        ids = await strike_each(stack, "after_dot=stop")
        await stack.start_worker("heir")
        messages = await stack.until_all_finished(ids.values())
        assert ("sent", 2, 1) == fate(messages[ids["retry"]], receiver)
        assert ("unconfirmed", 1, 1) == fate(messages[ids["hold"]], receiver)
        for name in ("armed-1", "armed-2"):
            stack.resume(name)

        async def told() -> bool:
            refused = [await fence_seen(stack, name, "finish") for name in ("armed-1", "armed-2")]
            return any(refused) and (await stack.get(ids["hold"]))["state"] == "sent"

        await stack.until(told, "both zombies have said what they knew")
        assert 3 == len(receiver.mails)


async def fence_seen(stack: Stack, name: str, step: str) -> bool:
    return any(
        line["event"] == "fence.rejected" and line["step"] == step and "agent" in line
        for line in stack.logs(name)
    )
