"""Cost: commands to Redis and round trips of a delivered message, from accept to end, against one arq job a message."""

import re
import socket
import threading
from typing import Self

from bench.arithmetic import Row, compare, figure_at_most
from bench.processes import Children
from bench.run import Run
from bench.scenarios.end_to_end import WARMUP, flood
from bench.sinks.client import OwnSink
from bench.stacks import STACKS

COUNTS = {"postroom": 2_000, "arq": 300}
INSIDE = re.compile(rb"^\+[0-9.]+ \[[0-9]+ lua\]")
REPLY = b"+OK\r\n"


def measure(run: Run) -> list[Row]:
    """The same load as end to end, all of it counted: also polls, rings, sweeps and heartbeats meanwhile."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COUNTS}
    with run.children() as children:
        for number in range(run.pairs):
            for name, counts in found.items():
                counts.append(count(children, run, name))
            told = " · ".join(
                f"{n} {c[-1][0]:.2f} commands, {c[-1][1]:.2f} round trips" for n, c in found.items()
            )
            run.say(f"{number + 1}/{run.pairs}: {told}")
    run.series["cost"] = found
    return [row(found, 0, "commands", 5, "3.2"), row(found, 1, "round trips", 1, "0.5")]


def row(found: dict[str, list[tuple[float, float]]], at: int, word: str, bound: float, stretch: str) -> Row:
    """Return the row of one of the two."""
    pairs = [(ours[at], theirs[at]) for ours, theirs in zip(found["postroom"], found["arq"], strict=True)]
    made = Row(scenario=f"cost, {word}", unit="a message", against="one arq job", stretch=stretch)
    return compare(made, pairs, figure_at_most(bound))


def count(children: Children, run: Run, name: str) -> tuple[float, float]:
    """Return commands and round trips for each message; first all is counted by Redis, then once more by looking on."""
    sink = OwnSink(children, run.cores.both, "smtp")
    stack = STACKS[name](children, run, sink.port)
    flood(children, run, stack, sink, first=0, count=WARMUP)
    many = COUNTS[name]
    reads = stack.redis.told("total_reads_processed")
    flood(children, run, stack, sink, first=WARMUP, count=many)
    reads = stack.redis.told("total_reads_processed") - reads
    with Monitor(stack.redis.path) as monitor:
        flood(children, run, stack, sink, first=WARMUP + many, count=many)
    stack.end(children)
    sink.end()
    return monitor.commands / many, reads / many


class Monitor:
    """Counts what clients tell Redis; what a script does inside is part of its call."""

    def __init__(self, path: str) -> None:
        self.commands = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._socket.sendall(b"MONITOR\r\n")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        with self._socket.makefile("rb") as lines:
            for line in lines:
                if line != REPLY and not INSIDE.match(line):
                    self.commands += 1
