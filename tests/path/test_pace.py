"""An agent's rate, over all workers."""

import asyncio
from pathlib import Path

import pytest

from postroom.ledger.keys import place_of
from tests.faults.mail import LONG, SECONDS, Receiver, assert_at_rest, assert_delivered, scaled
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)


class Grants:
    """How many of an agent's messages the workers have taken, again and again, by the clock of the ledger."""

    def __init__(self, stack: Stack, agent: str, count: int) -> None:
        self._ledger, self._queue, self._count = stack.ledger, f"{place_of(agent).prefix}q:{agent}:n", count
        self.seen: list[tuple[float, int]] = []

    async def watch(self) -> None:
        """Look until all are taken."""
        while not self.seen or self.seen[-1][1] < self._count:
            async with self._ledger.pipeline(transaction=True) as pipe:
                # What is taken stays in its queue under its lease, which is below zero there.
                (seconds, micros), waiting = await pipe.time().zcount(self._queue, 0, "+inf").execute()
            self.seen.append((seconds + micros / 1e6, self._count - waiting))

    def most_over(self, rate: float) -> float:
        """Return how many more than the rate were taken, between whichever two looks that is the most."""
        ahead = [(taken - rate * moment) for moment, taken in self.seen]
        lowest, most = ahead[0], 0.0
        for one in ahead:
            most, lowest = max(most, one - lowest), min(lowest, one)
        return most


async def test_three_workers_keep_one_rate(folder: Path):
    """At 50/s and a burst of 10 no time sees more mail taken than these allow, none is sent before, and the rate is used.

    Taken, by the ledger's clock: how close together mail then arrives depends on how busy this machine is.
    """
    count = scaled(130, 3000)
    agent = 'rate = "50/s"\nburst = 10'
    async with Receiver() as receiver, Stack(folder, receiver.port, agent=agent) as stack:
        await stack.start_api()
        accepted = await stack.accept_many(sample(f"p-{n}") for n in range(count))
        grants = Grants(stack, sample("any")["agent"], count)
        watching = asyncio.create_task(grants.watch())
        await stack.start_workers("one", "two", "three")
        messages = await assert_delivered(stack, receiver, accepted, SECONDS)
        await watching
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        times = receiver.arrivals.times
        used = (count - 10) / (times[-1] - times[0]) / 50
        windows = sorted(receiver.windows(1.0))
        over = grants.most_over(50)
        print(f"burst {over:.1f}; {windows[-1]} in the busiest second, {used:.1%} of the rate")  # noqa: T201
        assert over <= 10 + 1e-3
        if LONG:  # a short run is mostly burst
            assert windows[int(len(windows) * 0.99)] <= 60
        assert scaled(0.9, 0.97) <= used <= 1.03
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
