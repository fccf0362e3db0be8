"""An agent's rate, over all workers."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, scaled
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)


async def test_two_workers_keep_one_rate(folder: Path):
    """At 20/s and a burst of 5 the receiver never gets more than 25 within a second, nor much less than 20."""
    count = scaled(60, 600)
    agent = 'rate = "20/s"\nburst = 5'
    async with Receiver() as receiver, Stack(folder, receiver.port, agent=agent) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        accepted = await stack.accept_many(sample(f"p-{n}") for n in range(count))
        messages = await assert_delivered(stack, receiver, accepted, SECONDS)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        times = receiver.arrivals.times
        print(f"{receiver.busiest(1.0)} in the busiest second, {times[-1] - times[0]:.1f} s in all")  # noqa: T201
        assert receiver.busiest(1.0) <= 25
        assert times[-1] - times[0] <= (count - 5) / 20 * 1.15 + 1
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
