"""How many series there are: bounded by agents for the queues, and the same whatever the number of messages."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.faults.mail import LONG, Receiver, scaled
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(1800 if LONG else 60)
AGENTS, MESSAGES = scaled((40, 400), (1000, 100_000))
WARM = scaled(6, 45)  # messages an agent, until both workers have met it with every priority
PRIORITIES = ("high", "normal", "bulk")
EACH = 20  # series an agent may have: those of the queues, and all others of an API and two workers
BASE = 600  # series of these three processes without any agent
QUEUES = re.compile(
    r"postroom_(queue|oldest|messages_unaccounted|agent_|channel_stopped|exporter|redis_(memory|durable))"
)


async def series(stack):
    """Return how many series of the shared gauges all processes have, and how many others."""
    shared, others = 0, 0
    for port in (stack.metrics_port, *stack.worker_metrics.values()):
        for name in await stack.metrics(port):
            if QUEUES.match(name):
                shared += 1
            else:
                others += 1
    return shared, others


async def test_series_are_bounded_by_agents_and_flat_in_messages(folder: Path):
    """1,000 agents and 100,000 messages in a long run; the figures are printed."""
    names = [f"team-{number}" for number in range(AGENTS)]
    async with Receiver() as receiver:
        agents = {
            name: agent_toml(name, channel(name, receiver.port), options='owner = "team"') for name in names
        }
        async with Stack(folder, receiver.port, worker="", agents=agents) as stack:
            await stack.start_api()
            first = [sample(f"first-{n}-{p}", agent=n, priority=p) for n in names for p in PRIORITIES]
            waiting = await stack.accept_many(first, callers=50)
            full, _ = await series(stack)
            await stack.start_workers("one", "two")
            await stack.until_all_finished(waiting, 600)
            # Both workers have met every agent, with every priority, before it is counted.
            warm = [
                sample(f"warm-{n}-{k}", agent=n, priority=PRIORITIES[k % 3])
                for k in range(WARM)
                for n in names
            ]
            await stack.until_all_finished(await stack.accept_many(warm, callers=50), 600)
            before = await series(stack)
            rest = MESSAGES - len(first) - len(warm)
            more = (
                sample(f"m-{n}", agent=names[n % AGENTS], priority=PRIORITIES[n % 3])
                for n in range(max(rest, 100))
            )
            ids = await stack.accept_many(more, callers=50)
            await stack.until_all_finished(ids, 900)
            after = await series(stack)
            sent = len(first) + len(warm)
            print("agents, shared series:", AGENTS, full)  # noqa: T201
            print("other series by messages:", {sent: before[1], sent + len(ids): after[1]})  # noqa: T201
            assert full < EACH * AGENTS
            assert full >= 11 * AGENTS  # three gauges of three priorities, whose it is, and the balance
            assert after[0] <= full
            # A worker may meet an agent, or a priority of it, for the first time; no message makes a series.
            assert after[1] <= before[1] * 1.05 + 20
            assert after[1] < EACH * AGENTS + BASE


async def test_scrapes_go_on_while_it_is_busy(folder: Path):
    """A scrape of so many agents is answered, and quickly enough for any Prometheus."""
    names = [f"team-{number}" for number in range(AGENTS)]
    async with Receiver() as receiver:
        agents = {name: agent_toml(name, channel(name, receiver.port)) for name in names}
        async with Stack(folder, receiver.port, worker="", agents=agents) as stack:
            await stack.start_api()
            await stack.accept_many((sample(f"m-{n}", agent=n) for n in names), callers=50)
            started = asyncio.get_running_loop().time()
            await stack.metrics(stack.metrics_port)
            took = asyncio.get_running_loop().time() - started
            print(f"a scrape of {AGENTS} agents took {took:.2f} s")  # noqa: T201
            assert took < 5
