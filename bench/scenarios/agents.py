"""Agents: messages/s of one worker over more and more agents; the cost of a message must not grow with their number."""

from bench.arithmetic import Row, compare, ratio_at_least
from bench.delivering import standing_rates
from bench.run import Run

LEVELS = {1: 20_000, 10: 2_000, 100: 200, 1_000: 100}  # agents, and how many messages wait for each of them
WARMUP = 6.0  # a worker begins a thousand rounds in a few seconds, which is not what the row is about
MUST = ratio_at_least(0.8)


def measure(run: Run) -> list[Row]:
    """One worker works through as much mail each time, of one agent or of many."""
    queues = {
        f"{count}": ([f"team-{number}" for number in range(count)], level) for count, level in LEVELS.items()
    }
    rates = standing_rates(run, queues, warmup=WARMUP)
    run.series["agents"] = rates
    return [
        compare(
            Row(scenario=f"agents, {count:,}", unit="messages/s", against="one agent", stretch="0.9"),
            list(zip(rates[f"{count}"], rates["1"], strict=True)),
            MUST,
        )
        for count in LEVELS
        if count > 1
    ]
