"""Backlog: messages/s of one worker with more and more waiting; the cost of a message must not grow with the queue."""

from bench.arithmetic import Row, compare, ratio_at_least
from bench.delivering import standing_rates
from bench.run import Run

LEVELS = (1_000, 10_000, 100_000, 300_000)
MUST = ratio_at_least(0.9)


def measure(run: Run) -> list[Row]:
    """One worker works on one agent's queue, short or long."""
    rates = standing_rates(run, {f"{level}": (["orders"], level) for level in LEVELS}, warmup=1.0)
    run.series["backlog"] = rates
    least = rates[f"{LEVELS[0]}"]
    return [
        compare(
            Row(
                scenario=f"backlog, {level:,} waiting",
                unit="messages/s",
                against=f"{LEVELS[0]:,} waiting",
                stretch="0.95 at 1M",
            ),
            list(zip(rates[f"{level}"], least, strict=True)),
            MUST,
        )
        for level in LEVELS[1:]
    ]
