"""An agent's rate, over all workers."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, scaled
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)


async def test_three_workers_keep_one_rate(folder: Path):
    """At 50/s and a burst of 10 no second holds more than 62 mails at the receiver, and the rate is used."""
    count = scaled(130, 3000)
    agent = 'rate = "50/s"\nburst = 10'
    async with Receiver() as receiver, Stack(folder, receiver.port, agent=agent) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two", "three"))
        accepted = await stack.accept_many(sample(f"p-{n}") for n in range(count))
        messages = await assert_delivered(stack, receiver, accepted, SECONDS)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        times = receiver.arrivals.times
        used = (count - 10) / (times[-1] - times[0]) / 50
        windows = sorted(receiver.windows(1.0))
        print(f"{windows[-1]} in the busiest second, {used:.1%} of the rate")  # noqa: T201
        assert windows[-1] <= 62
        assert windows[int(len(windows) * 0.99)] <= scaled(62, 60)  # a short run is mostly burst
        assert used >= scaled(0.9, 0.97)
        await assert_at_rest(stack, receiver)


async def test_waiting_for_a_slow_rate_costs_nothing(folder: Path):
    """Mail held back by a rate of three a minute keeps neither Redis nor a connection busy."""
    async with Receiver() as receiver:
        slow = agent_toml("slow", channel("slow", receiver.port), options='rate = "3/min"\nburst = 1')
        async with Stack(folder, receiver.port, agents={"slow": slow}) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            ids = [await stack.accept(sample(f"slow-{n}", agent="slow")) for n in range(3)]
            await stack.until_finished(ids[0])
            await asyncio.sleep(0.7)  # past the linger
            calls = await stack.script_calls(1.0)
            assert calls["claim"] <= 10, calls
            assert 1 == len(receiver.mails)
            assert [] == stack.mishaps()
