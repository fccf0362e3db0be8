"""Backlog: messages/s of one worker with more and more waiting; the cost of a message must not grow with the queue."""

from bench.arithmetic import Row, compare, ratio_at_least
from bench.delivering import CONNECTIONS, Standing
from bench.product import Agents
from bench.run import Run
from bench.sinks.client import OwnSink

LEVELS = (1_000, 10_000, 100_000, 300_000)
MUST = ratio_at_least(0.9)


def measure(run: Run) -> list[Row]:
    """The worker has the first core to itself; sink, Redis and what refills the queue are on the second."""
    with run.children() as children:
        sink = OwnSink(children, run.cores.second, "smtp")
        agents = Agents(("orders",), port=sink.port, connections=CONNECTIONS)
        standing = {level: Standing(children, run, agents, level=level) for level in LEVELS}
        for one in standing.values():
            one.begin_filling()
        for one in standing.values():
            one.filled()
        run.say("queues are full")
        rates = run.take_turns(
            **{
                f"{level}": lambda one=one: one.rate([run.cores.first], warmup=1.0, seconds=3.0)
                for level, one in standing.items()
            }
        )
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
