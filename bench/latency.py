"""Milliseconds from POST to the last byte in the sink, of messages that drip in."""

from typing import Any

from bench.arithmetic import VoidError
from bench.bodies import order
from bench.processes import Child, Children, until
from bench.run import Run, as_json
from bench.sinks.client import OwnSink


def begin(children: Children, run: Run, port: int, agents: list[str], **words: Any) -> Child:
    """Let a load drip into a stack's API."""
    told = as_json(port=port, body=order(), agents=agents, **words)
    return children.module("drip", "bench.load.drip", run.cores.second, told, talks=True)


def waits(children: Children, load: Child, sink: OwnSink, *, arrival: float = 30.0) -> list[float]:
    """Wait for a load and for its messages; return their milliseconds, in the order of posting.

    Raises:
        VoidError: an answer was not 2xx, or a message did not arrive.
    """
    found = load.read()
    children.end(load)
    if found["bad_count"]:
        raise VoidError(f"{found['bad_count']} answers were not 2xx, the first: {found['bad'][0]}")
    posted: dict[str, float] = found["posted"]
    try:
        until(lambda: sink.count() >= len(posted), "all have arrived", seconds=arrival)
    except RuntimeError:
        raise VoidError(f"{sink.count()} of {len(posted)} arrived") from None
    times = sink.times()
    if missing := posted.keys() - times.keys():
        raise VoidError(f"{len(missing)} messages did not arrive")
    return [1000 * (times[word] - at) for word, at in posted.items()]
