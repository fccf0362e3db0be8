"""End to end: POST → in the sink, one API and one worker process, against what a team would build instead."""

from bench.arithmetic import Row, VoidError, compare, ratio_at_least
from bench.bodies import order
from bench.processes import Children, until
from bench.run import Run, as_json
from bench.sinks.client import OwnSink
from bench.stacks import STACKS, Stack

COUNTS = {"postroom": 8_000, "celery": 800, "arq": 800}  # some seconds each
WARMUP = 100
BASELINES = {
    "celery": ("FastAPI + Celery + Jinja2 + EmailMessage + smtplib", ratio_at_least(7, "×"), "15×"),
    "arq": ("one arq job per message + aiosmtplib", ratio_at_least(6, "×"), "12×"),
}


def measure(run: Run) -> list[Row]:
    """All processes of a stack, the load and the sink have both cores; there are no others for any stack."""
    with run.children() as children:
        rates = run.take_turns(
            postroom=lambda: rate(children, run, "postroom"),
            celery=lambda: rate(children, run, "celery"),
            arq=lambda: rate(children, run, "arq"),
        )
    run.series["end_to_end"] = rates
    rows = []
    for name, (against, must, stretch) in BASELINES.items():
        row = Row(scenario="end to end", unit="messages/s", against=against, stretch=stretch)
        rows.append(compare(row, list(zip(rates["postroom"], rates[name], strict=True)), must))
    return rows


def rate(children: Children, run: Run, name: str) -> float:
    """Start a stack, post to it as fast as it answers, and return the messages a second from the first POST on."""
    sink = OwnSink(children, run.cores.both, "smtp")
    stack = STACKS[name](children, run, sink.port)
    flood(children, run, stack, sink, first=0, count=WARMUP)
    found = flood(children, run, stack, sink, first=WARMUP, count=COUNTS[name])
    stack.end(children)
    sink.end()
    return found


def flood(children: Children, run: Run, stack: Stack, sink: OwnSink, *, first: int, count: int) -> float:
    """Post so many, wait until the sink has them all, and return the rate.

    Raises:
        VoidError: an answer was not 2xx, or a message arrived twice.
    """
    sink.clear()
    words = as_json(port=stack.port, body=order(), first=first, count=count)
    load = children.module("flood", "bench.load.flood", run.cores.both, words, talks=True)
    posted = load.read()
    children.end(load)
    if posted["bad_count"]:
        raise VoidError(f"{posted['bad_count']} answers were not 2xx, the first: {posted['bad'][0]}")
    until(lambda: sink.count() >= count, "all have arrived", child=stack.processes[1], seconds=60)
    taken = sink.stats()
    if taken["count"] != count:
        raise VoidError(f"{count} were posted and {taken['count']} arrived")
    return float(count / (taken["last"] - posted["began"]))
