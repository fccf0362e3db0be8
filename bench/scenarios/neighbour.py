"""Noisy neighbour: p99 of twenty quiet agents while one floods and one is dead, against the same without the two."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from bench.arithmetic import Row, VoidError, compare, percentile, within
from bench.delivering import ROOM, start_fill
from bench.latency import begin, waits
from bench.processes import Children
from bench.product import Agents, Product, RedisServer, failures
from bench.run import Run
from bench.sinks.client import OwnSink

QUIET = tuple(f"quiet-{number}" for number in range(20))
FLOOD = 50_000
DEAD = 200
EACH = 20  # messages of each quiet agent
INTERVAL = 0.4


def measure(run: Run) -> list[Row]:
    """One API and one worker process on both cores, with loads and sinks beside them."""
    all_waits: dict[str, list[float]] = {"alone": [], "beside": []}

    with run.children() as children, blackhole() as dead:

        def p99(word: str) -> float:
            found = quiet_waits(children, run, dead if word == "beside" else 0)
            all_waits[word] += found
            return percentile(found, 0.99)

        found = run.take_turns(beside=lambda: p99("beside"), alone=lambda: p99("alone"))
    run.series["neighbour"] = all_waits
    row = Row(scenario="noisy neighbour, p99", unit="ms", against="without the two", stretch="+5 ms")
    row.note = f"{len(QUIET)} quiet agents, {FLOOD:,} waiting for the one that floods"
    return [compare(row, list(zip(found["beside"], found["alone"], strict=True)), within(1.5, 50, "ms"))]


def quiet_waits(children: Children, run: Run, dead: int) -> list[float]:
    """Return the milliseconds of the quiet agents' messages; with `dead`, beside a flood and the dead one.

    Raises:
        VoidError: a message ended otherwise than sent, or the flood was over too soon.
    """
    sink, other = (OwnSink(children, run.cores.both, "smtp") for _ in range(2))
    redis = RedisServer(children, run.place("r"), run.cores.both)
    agents = [
        Agents(QUIET, port=sink.port),
        Agents(("flood",), port=other.port),
        Agents(("dead",), port=dead or 9),
    ]
    product = Product(children, run.place("p"), redis, agents)
    if dead:
        for number, (agent, count) in enumerate((("flood", FLOOD), ("dead", DEAD))):
            load = start_fill(children, run, product, count, first=number * ROOM, agents=[agent])
            load.pin(run.cores.both)
            load.read()
            children.end(load)
    api, worker = product.start_api(run.cores.both), product.start_worker(run.cores.both)
    load = begin(children, run, product.port, list(QUIET), each=2, interval=INTERVAL, first=8 * ROOM)
    waits(children, load, sink)  # all are awake, the flood runs
    sink.clear()
    load = begin(
        children, run, product.port, list(QUIET), each=EACH, interval=INTERVAL, first=8 * ROOM + 1000
    )
    found = waits(children, load, sink)
    sent, ended = product.sent(), product.ended()
    children.end(api, worker)
    for one in (redis, sink, other):
        one.end()
    if bad := failures(ended):
        raise VoidError(f"not all were sent: {bad}")
    if dead and sent >= FLOOD:
        raise VoidError("the flood was over too soon")
    return found


@contextmanager
def blackhole() -> Iterator[int]:
    """Give a port at which nobody answers, not even the kernel: a listener whose backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()
