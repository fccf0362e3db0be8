"""Deliver over SMTP: messages/s of one worker, against postfix's own load generator into the same sink."""

import time

from bench.arithmetic import Row, VoidError, compare, median, ratio_at_least
from bench.delivering import CONNECTIONS, COUNT, fill, rate_of_worker
from bench.machine import find_postfix, own_seconds
from bench.processes import Child, Children
from bench.product import Agents, Product, RedisServer
from bench.run import MORE_PAIRS, Run, as_json
from bench.sinks.client import OwnSink, PostfixSink, Sink

MUST = ratio_at_least(0.30)
SOURCE_COUNT = 15_000


def measure(run: Run) -> list[Row]:
    """Each sender has the first core to itself; the sink, and the worker's Redis, are on the second."""
    row = Row(scenario="deliver, SMTP", unit="messages/s", against="smtp-source -d", stretch="0.5")
    source, sink = find_postfix("smtp-source"), find_postfix("smtp-sink")
    with run.children() as children:
        message = sample(children, run)
        if source is None or sink is None:
            return [without_postfix(children, run, row, message)]
        size = str(len(message))
        rates = run.take_turns(
            MORE_PAIRS,
            postroom=lambda: worker_rate(children, run, PostfixSink(children, run.cores.second, sink)),
            smtp_source=lambda: source_rate(
                children, run, PostfixSink(children, run.cores.second, sink), source, size
            ),
            bare_python=lambda: bare_rate(
                children, run, PostfixSink(children, run.cores.second, sink), message
            ),
        )
    run.series["deliver_smtp"] = rates
    bare = f"a bare pipelined Python client: {median(rates['bare_python']):,.0f}/s"
    row.note = f"{size} bytes a message; {bare}; {run.spent_words()}"
    return [compare(row, list(zip(rates["postroom"], rates["smtp_source"], strict=True)), MUST)]


def without_postfix(children: Children, run: Run, row: Row, message: str) -> Row:
    """Measure what can be measured without postfix, and say loudly that the row is not."""
    run.say("postfix's smtp-source and smtp-sink are NOT INSTALLED: this row is skipped")
    rates = run.take_turns(
        postroom=lambda: worker_rate(children, run, OwnSink(children, run.cores.second, "smtp")),
        bare_python=lambda: bare_rate(children, run, OwnSink(children, run.cores.second, "smtp"), message),
    )
    run.series["deliver_smtp"] = rates
    row.against, row.stretch = "a bare pipelined Python client", ""
    row.note = "SKIPPED: postfix's smtp-source and smtp-sink are not installed; shown against the bare client"
    compare(row, list(zip(rates["postroom"], rates["bare_python"], strict=True)), None)
    row.must = "skipped"
    return row


def sample(children: Children, run: Run) -> str:
    """Let a worker send a few messages, for their size, and so that everything is in the caches of the disk."""
    sink = OwnSink(children, run.cores.second, "smtp")
    worker_rate(children, run, sink, 200, keep=True)
    found = sink.sample()
    sink.end()
    return found


def worker_rate(children: Children, run: Run, sink: Sink, count: int = COUNT, *, keep: bool = False) -> float:
    """Return the rate of one worker from a full queue, or whether all arrived."""
    redis = RedisServer(children, run.place("r"), run.cores.second)
    agents = Agents(("orders",), port=sink.port, connections=CONNECTIONS)
    product = Product(children, run.place("p"), redis, [agents])
    fill(children, run, product, count)
    worker: Child = product.start_worker(run.cores.first)
    rate = rate_of_worker(run, product, worker, count)
    arrived = sink.count()
    children.end(worker)
    redis.end()
    if not keep:
        sink.end()
    if arrived != count:
        raise VoidError(f"{count} were sent and {arrived} arrived")
    return rate


def source_rate(children: Children, run: Run, sink: PostfixSink, source: str, size: str) -> float:
    """Return the rate of postfix's load generator, over connections that it keeps."""
    words = ["-d", "-s", str(CONNECTIONS), "-m", str(SOURCE_COUNT), "-l", size]
    addresses = ["-f", "orders@shop.example", "-t", "ada.lovelace@customers.example"]
    began, before = time.monotonic(), own_seconds()
    command = [source, *words, *addresses, f"127.0.0.1:{sink.port}"]
    child = children.start("smtp-source", command, run.cores.first)
    code = child.wait(120)
    took, arrived = time.monotonic() - began, sink.count()
    run.spent(
        "smtp_source", own_seconds() - before, SOURCE_COUNT
    )  # it has ended, so what it took counts as ours
    children.end(child)
    sink.end()
    if code or arrived != SOURCE_COUNT:
        raise VoidError(f"smtp-source ended with {code}, and {arrived} of {SOURCE_COUNT} arrived")
    return SOURCE_COUNT / took


def bare_rate(children: Children, run: Run, sink: Sink, message: str) -> float:
    """Return the rate of the bare client."""
    client = children.module("bare", "bench.baselines.bare_smtp", run.cores.first, talks=True)
    client.read()
    words = as_json(port=sink.port, connections=CONNECTIONS, count=SOURCE_COUNT, message=message)
    found = client.ask(words)
    arrived = sink.count()
    children.end(client)
    sink.end()
    if arrived != SOURCE_COUNT:
        raise VoidError(f"{arrived} of {SOURCE_COUNT} arrived")
    return float(found["count"] / found["seconds"])
