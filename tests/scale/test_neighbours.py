"""No agent can hurt another: dead, hanging and flooded ones beside two hundred quiet ones."""

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postroom.ledger.keys import place_of
from tests.scale.town import SECONDS, median, only_long, percentile, put, say, sink, town, waits
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = [pytest.mark.timeout(SECONDS), only_long]
QUIET = [f"quiet-{number}" for number in range(197)]
RUN = 12.0  # seconds


@contextmanager
def blackhole() -> Iterator[int]:
    """A port whose SYNs nobody answers: a listener whose backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()


async def quiet_mail(stack: Stack, run: str) -> list[str]:
    """Let every quiet agent have two messages at random moments."""
    draw, ids = random.Random(7), []

    async def drip(agent: str) -> None:
        for number in range(2):
            await asyncio.sleep(draw.uniform(0, RUN / 2))
            ids.append(await stack.accept(sample(f"{run}-{agent}-{number}", agent=agent)))

    await asyncio.gather(*(drip(agent) for agent in QUIET))
    return ids


async def p99(home: Path, *, trouble: bool) -> float:
    """Return the quiet agents' p99 from accepted to sent, with or without the three in trouble."""
    async with sink() as port:
        with blackhole() as dead:
            crowd = {name: agent_toml(name, channel(name, port)) for name in QUIET}
            crowd["dead"] = agent_toml("dead", channel("dead", dead))
            crowd["lost"] = agent_toml("lost", channel("lost", port).replace("127.0.0.1", "hang.test"))
            crowd["flood"] = agent_toml("flood", channel("flood", port))
            async with town(home, port, 0, agents=crowd) as stack:
                if trouble:
                    await put(stack, "flood", 100_000)
                    await put(stack, "dead", 200)
                    await put(stack, "lost", 200)
                await stack.start_workers("w0", "w1", launch=("--hang", "hang.test"))
                await asyncio.sleep(3)  # until rounds are awake
                ids = await quiet_mail(stack, home.name)
                found = percentile(await waits(stack, ids), 0.99)
                if trouble:
                    left = await stack.ledger.zcard(place_of("flood").prefix + "q:flood:n")
                    assert left > 0, "the flood was over too soon to tell anything"
                return found


async def test_three_in_trouble_cost_the_others_nothing_measurable(folder: Path):
    """The quiet agents' p99 stays within half as much again, or 50 ms, of what it is without the three."""
    alone, beside = [], []
    for pair in range(3):
        for times, trouble in ((alone, False), (beside, True)):
            home = folder / f"{trouble}-{pair}"
            await asyncio.to_thread(home.mkdir)
            times.append(await p99(home, trouble=trouble))
        say(f"p99 alone {alone[-1] * 1000:.0f} ms, beside the three {beside[-1] * 1000:.0f} ms")
    assert median(beside) <= max(1.5 * median(alone), median(alone) + 0.05)


async def test_four_hundred_agents_at_once_are_shared_out(folder: Path):
    """400 agents armed at once over 4 workers: none of them gets more than 40 % of the rounds."""
    names = [f"team-{number}" for number in range(400)]
    async with sink() as port:
        crowd = {name: agent_toml(name, channel(name, port)) for name in names}
        async with town(folder, port, 4, agents=crowd) as stack:
            bodies = (sample(f"a-{name}", agent=name) for name in names)
            ids = await stack.accept_many(bodies, callers=50)
            await stack.until_all_finished(ids, 60)
            found = [await stack.metrics(port) for port in stack.worker_metrics.values()]
            rounds = [metrics["postroom_rounds_total"] for metrics in found]
    say(f"rounds by worker: {rounds}")
    assert max(rounds) <= 0.4 * sum(rounds)
