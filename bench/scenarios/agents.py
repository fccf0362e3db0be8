"""Agents: messages/s of one worker over more and more agents; the cost of a message must not grow with their number."""

from bench.arithmetic import Row, compare, ratio_at_least
from bench.delivering import CONNECTIONS, Standing
from bench.product import Agents
from bench.run import Run
from bench.sinks.client import OwnSink

LEVELS = {1: 20_000, 10: 2_000, 100: 200, 1_000: 100}  # agents, and how many messages wait for each of them
MUST = ratio_at_least(0.8)


def measure(run: Run) -> list[Row]:
    """The worker has the first core to itself; sink, Redis and what refills the queues are on the second."""
    with run.children() as children:
        sink = OwnSink(children, run.cores.second, "smtp")
        standing = {}
        for count, level in LEVELS.items():
            names = tuple(f"team-{number}" for number in range(count))
            agents = Agents(names, port=sink.port, connections=CONNECTIONS)
            standing[count] = Standing(children, run, agents, level=level)
            standing[count].begin_filling()
        for one in standing.values():
            one.filled()
        run.say("queues are full")
        rates = run.take_turns(
            **{
                f"{count}": lambda one=one: one.rate([run.cores.first], warmup=2.0, seconds=3.0)
                for count, one in standing.items()
            }
        )
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
