"""Rounds that go to sleep and wake: nobody's mail waits for a ring that was lost."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, scaled, waited
from tests.stack import QUICK, Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
AGENTS = [f"a{number}" for number in range(6)]


async def test_mail_at_random_moments_never_waits_a_second(folder: Path):
    """Messages at random gaps around the linger, rounds falling asleep and waking: each is sent within 1 s."""
    draw = random.Random(5)
    low, high, count = scaled((0.02, 1.2, 3), (0.1, 3.0, 78))
    async with Receiver() as receiver:
        crowd = {name: agent_toml(name, channel(name, receiver.port)) for name in AGENTS}
        async with Stack(folder, receiver.port, worker=scaled(QUICK, ""), agents=crowd) as stack:
            await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
            ids: list[str] = []

            async def drip(agent: str, gaps: list[float]) -> None:
                for number, gap in enumerate(gaps):
                    await asyncio.sleep(gap)
                    ids.append(await stack.accept(sample(f"{agent}-{number}", agent=agent)))

            gaps = {name: [draw.uniform(low, high) for _ in range(count)] for name in AGENTS}
            await asyncio.gather(*(drip(name, gaps[name]) for name in AGENTS))
            messages = await assert_delivered(stack, receiver, ids)
            times = sorted(map(waited, messages.values()))
            print(f"sent after {times[len(times) // 2]:.3f} s (p50), {times[-1]:.3f} s (max)")  # noqa: T201
            assert [] == [seconds for seconds in times if seconds > 1]
            await assert_at_rest(stack, receiver)


async def test_mail_that_comes_while_a_round_says_goodbye_is_not_late(folder: Path):
    """A server that is slow to say goodbye does not keep the mail of that moment waiting."""
    async with Receiver({"QUIT": "slow 0.9"}) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        first = await stack.accept(sample("first"))
        await receiver.until("QUIT")
        late = await stack.accept(sample("late"))
        messages = await assert_delivered(stack, receiver, [first, late])
        assert [] == [seconds for seconds in map(waited, messages.values()) if seconds > 0.8]


async def test_a_ring_nobody_hears_does_not_wait_for_a_busy_connection(folder: Path):
    """With the bell's subscription cut and one message stuck at a slow server, the next one goes beside it."""
    async with Receiver({"DOT": ["slow 2", "ok"]}) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        slow = await stack.accept(sample("slow"))
        await receiver.until("DOT")
        # Nobody listens, and the mark that says so is not there either.
        await stack.ledger.client_kill_filter(_type="pubsub")
        await stack.ledger.delete(*[key async for key in stack.ledger.scan_iter("pr:{*}:idle:*")])
        beside = await stack.accept(sample("beside"))
        messages = await assert_delivered(stack, receiver, [slow, beside])
        assert waited(messages[beside]) <= 1
