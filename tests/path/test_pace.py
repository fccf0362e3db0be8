"""An agent's rate, over all workers."""

import asyncio
from itertools import accumulate
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
        ahead = [taken - rate * moment for moment, taken in self.seen]
        return max(one - lowest for one, lowest in zip(ahead, accumulate(ahead, min), strict=True))

    def latest(self, arrivals: list[float]) -> float:
        """Return how long after one more had been taken one more arrived, in seconds, where that was longest."""
        looks, late = iter(self.seen), 0.0
        moment, taken = next(looks)
        for number, arrived in enumerate(arrivals, 1):
            while taken < number:
                moment, taken = next(looks)
            late = max(late, arrived - moment)
        return late


async def test_three_workers_keep_one_rate(folder: Path):
    """At 50/s and a burst of 10 no time sees more mail taken than these allow, it is sent at once, and the rate is used.

    Taken, by the ledger's clock: how close together mail then arrives depends on how busy this machine is too.
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
        over, late = grants.most_over(50), grants.latest(times)
        print(f"burst {over:.1f}, {late:.3f} s late; {windows[-1]} in a second, {used:.1%} used")  # noqa: T201
        assert over <= 10 + 1e-3
        assert late < 1
        assert windows[-1] <= 62 + 50 * late
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
