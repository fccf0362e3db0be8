"""Cost per message does not grow with what waits, with the number of agents, or with that of workers."""

from collections import Counter
from pathlib import Path

import pytest

from tests.scale.town import SECONDS, median, only_long, put, rate, say, sink, tally, town
from tests.stack import agent_toml, channel

pytestmark = [pytest.mark.timeout(SECONDS), only_long]
MEASURE = 6.0  # seconds


async def test_a_backlog_of_300_000_slows_nothing_down(folder: Path):
    """One worker sends from 300,000 waiting messages at 0.9 of the rate it has with 3,000 behind them at least."""
    rates: dict[int, list[float]] = {3_000: [], 300_000: []}
    for pair in range(3):
        for waiting, found in rates.items():
            home = folder / f"{pair}-{waiting}"
            home.mkdir()
            async with sink() as port, town(home, port, 0) as stack:
                await put(stack, "orders", waiting + 30_000)  # more than it can send meanwhile
                await stack.start_worker("w0")
                found.append(await rate(stack, ["orders"], MEASURE))
    few, many = median(rates[3_000]), median(rates[300_000])
    say(f"{few:.0f}/s with 3,000 waiting, {many:.0f}/s with 300,000: {many / few:.2f}")
    assert many >= 0.9 * few


async def test_a_thousand_agents_cost_little_more_than_one(folder: Path):
    """100,000 messages over 1,000 agents go at 0.8 of the rate of one agent's at least."""
    count, rates = 100_000, {}
    names = [f"team-{number}" for number in range(1000)]
    for agents in (["orders"], names):
        home = folder / str(len(agents))
        home.mkdir()
        async with sink() as port:
            crowd = {n: agent_toml(n, channel(n, port)) for n in agents if n != "orders"}
            async with town(home, port, 0, agents=crowd) as stack:
                for name in agents:
                    await put(stack, name, count // len(agents))
                await stack.start_worker("w0")
                found = []
                while not found or found[-1] > 0:
                    found.append(await rate(stack, agents, 4.0))
                rates[len(agents)] = median(found[1:-2] or found[:-1])
                assert count == sum([await tally(stack, name) for name in agents])
    say(f"{rates[1]:.0f}/s from one agent, {rates[1000]:.0f}/s from 1,000: {rates[1000] / rates[1]:.2f}")
    assert rates[1000] >= 0.8 * rates[1]


async def test_four_workers_send_once_and_rest_cheaply(folder: Path):
    """Four workers never send a message twice, and each asks Redis less than 100 things a second at rest."""
    async with sink() as port, town(folder, port, 4) as stack:
        ids = await put(stack, "orders", 5_000)
        messages = await stack.until_all_finished(ids, 120)
        attempts = Counter(len(message["attempts"]) for message in messages.values())
        assert {1: 5_000} == dict(attempts)
        await stack.end("api")

        async def quiet() -> bool:
            return not (await stack.script_calls(1.0))["claim"]

        await stack.until(quiet, "all rounds have ended")
        commands = len(await stack.commands(4.0)) / 4
        say(f"four idle workers: {commands:.0f} commands a second in all")
        assert commands < 4 * 100
