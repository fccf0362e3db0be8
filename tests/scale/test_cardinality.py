"""How many series there are: bounded by agents for the queues, and the same whatever the number of messages."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.faults.mail import LONG, Receiver, scaled
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(1800 if LONG else 60)
AGENTS, MESSAGES = scaled((40, 400), (1000, 100_000))
PRIORITIES = ("high", "normal", "bulk")
EACH = 20  # series an agent may have: those of the queues, and all others of an API and two workers
OF_A_CALLER, OF_A_WORKER = 3, 7  # series of an agent with one caller and one channel, whatever it sends
BASE = 400  # series of these three processes without any agent
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

            async def send(word: str, count: int) -> None:
                wanted = (
                    sample(f"{word}-{n}", agent=names[n % AGENTS], priority=PRIORITIES[n // AGENTS % 3])
                    for n in range(count)
                )
                await stack.until_all_finished(await stack.accept_many(wanted, callers=50), 900)

            await stack.start_api()
            first = [sample(f"first-{n}-{p}", agent=n, priority=p) for n in names for p in PRIORITIES]
            waiting = await stack.accept_many(first, callers=50)
            full, _ = await series(stack)
            # One worker, so that it has met every agent with every priority from here on.
            await stack.start_worker("one")
            await stack.until_all_finished(waiting, 600)
            before = await series(stack)
            await send("more", MESSAGES // 2)
            after = await series(stack)
            await stack.start_worker("two")
            await send("still-more", MESSAGES // 2 - len(first))
            both = await series(stack)
            print("agents, shared series:", AGENTS, full)  # noqa: T201
            others = (before[1], after[1], both[1])
            print("others, before and after half of the messages, then of two workers:", *others)  # noqa: T201
            # Three gauges of three priorities, whose it is, its connections, and the balance.
            assert 12 * AGENTS <= full < EACH * AGENTS
            assert after[0] <= full
            assert after[1] == before[1]  # no message makes a series
            assert after[1] <= (OF_A_CALLER + OF_A_WORKER) * AGENTS + BASE
            assert both[1] <= (OF_A_CALLER + 2 * OF_A_WORKER) * AGENTS + BASE
            assert OF_A_CALLER + 2 * OF_A_WORKER < EACH


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
