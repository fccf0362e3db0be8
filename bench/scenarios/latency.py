"""Latency: POST to the last byte in the sink, one message at a time; warm against Celery, and after a minute's rest."""

import itertools
import time
from functools import partial

from bench.arithmetic import Row, alone, compare, figure_at_most, percentile, ratio_at_most
from bench.latency import begin, waits
from bench.processes import Children
from bench.product import Agents, Product, RedisServer
from bench.run import Run
from bench.sinks.client import OwnSink
from bench.stacks import CONNECTIONS, start_celery

INTERVAL = 0.2
EACH = 60  # messages a leg
PAIRS = 5  # at least: one leg's p50 is a fifth more or less than the next one's
RESTED = 60  # agents that each have one message after a rest
REST = 60.0  # seconds
AGAINST = "FastAPI + Celery"


def measure(run: Run) -> list[Row]:
    """Both stacks stand by; the agents for the cold row rest meanwhile."""
    names = tuple(f"cold-{number}" for number in range(RESTED))
    with run.children() as children:
        sink, other = (OwnSink(children, run.cores.second, "smtp") for _ in range(2))
        redis = RedisServer(children, run.place("r"), run.cores.both)
        agents = Agents(("orders", *names), port=sink.port, connections=CONNECTIONS)
        product = Product(children, run.place("p"), redis, [agents])
        product.start_api(run.cores.both)
        product.start_worker(run.cores.both)
        celery = start_celery(children, run, other.port)
        one_by_one(children, run, product.port, sink, list(names), first=0)
        rested_from = time.monotonic()
        legs = {"postroom": (product.port, sink), "celery": (celery.port, other)}
        for port, into in legs.values():
            drip(children, run, port, into, first=1_000, each=10)
        found = in_turn(children, run, legs)
        time.sleep(max(0.0, rested_from + REST - time.monotonic()))
        cold = one_by_one(children, run, product.port, sink, list(names), first=90_000)
    run.series["latency"] = {**{n: [w for leg in ws for w in leg] for n, ws in found.items()}, "cold": cold}
    rows = [warm(found, "p50", 0.5, 0.5), warm(found, "p99", 0.99, 0.7)]
    row = Row(scenario="latency, cold, p99", unit="ms", stretch="50 ms")
    row.note = f"{len(cold)} agents, each idle for {REST:.0f} s; p50 {percentile(cold, 0.5):.0f} ms"
    return [*rows, alone(row, [percentile(cold, 0.99)], figure_at_most(150, " ms"))]


def in_turn(
    children: Children, run: Run, legs: dict[str, tuple[int, OwnSink]]
) -> dict[str, list[list[float]]]:
    """Drip into the stacks by turns and return the milliseconds of each leg."""
    found: dict[str, list[list[float]]] = {name: [] for name in legs}
    numbers = itertools.count(2_000, 1_000)

    def p50(name: str) -> float:
        port, sink = legs[name]
        found[name].append(drip(children, run, port, sink, first=next(numbers), each=EACH))
        return percentile(found[name][-1], 0.5)

    run.take_turns(PAIRS, **{name: partial(p50, name) for name in legs})
    return found


def warm(found: dict[str, list[list[float]]], word: str, share: float, bound: float) -> Row:
    """Return the row of one percentile."""
    row = Row(scenario=f"latency, warm, {word}", unit="ms", against=AGAINST, stretch="0.3×")
    ours, theirs = ([percentile(leg, share) for leg in found[name]] for name in ("postroom", "celery"))
    return compare(row, list(zip(ours, theirs, strict=True)), ratio_at_most(bound))


def drip(children: Children, run: Run, port: int, sink: OwnSink, *, first: int, each: int) -> list[float]:
    """Post to one agent, every 200 ms."""
    sink.clear()
    load = begin(children, run, port, ["orders"], each=each, interval=INTERVAL, first=first, spread=False)
    return waits(children, load, sink)


def one_by_one(
    children: Children, run: Run, port: int, sink: OwnSink, agents: list[str], *, first: int
) -> list[float]:
    """Post one message to each agent, 200 ms apart."""
    sink.clear()
    load = begin(children, run, port, agents, each=1, interval=INTERVAL, first=first, spread=False)
    return waits(children, load, sink)
