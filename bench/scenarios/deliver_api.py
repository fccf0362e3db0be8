"""Deliver over an HTTP API: messages/s of one worker, against a bare loop of the same client with the same bodies."""

from bench.arithmetic import Row, VoidError, compare, ratio_at_least
from bench.delivering import CONNECTIONS, COUNT, fill, rate_of_worker
from bench.processes import Children
from bench.product import API, Agents, Product, RedisServer
from bench.run import MORE_PAIRS, Run, as_json
from bench.sinks.client import OwnSink

MUST = ratio_at_least(0.45)


def measure(run: Run) -> list[Row]:
    """Each sender has the first core to itself; the provider, and the worker's Redis, are on the second."""
    with run.children() as children:
        sink = OwnSink(children, run.cores.second, "zeptomail")
        worker_rate(children, run, sink, 200)
        body = sink.sample()
        rates = run.take_turns(
            MORE_PAIRS,
            postroom=lambda: worker_rate(children, run, sink, COUNT),
            bare_aiohttp=lambda: bare_rate(children, run, sink, body),
        )
    run.series["deliver_api"] = rates
    row = Row(
        scenario="deliver, API",
        unit="messages/s",
        against="a bare aiohttp loop",
        stretch="0.7",
        note=f"{len(body)} bytes a body; {run.spent_words()}",
    )
    return [compare(row, list(zip(rates["postroom"], rates["bare_aiohttp"], strict=True)), MUST)]


def worker_rate(children: Children, run: Run, sink: OwnSink, count: int) -> float:
    """Return the rate of one worker from a full queue."""
    redis = RedisServer(children, run.place("r"), run.cores.second)
    agents = Agents(("orders",), port=sink.port, channel=API, connections=CONNECTIONS)
    product = Product(children, run.place("p"), redis, [agents])
    fill(children, run, product, count)
    sink.clear()
    worker = product.start_worker(run.cores.first)
    rate = rate_of_worker(run, product, worker, count)
    arrived = sink.count()
    children.end(worker)
    redis.end()
    if arrived != count:
        raise VoidError(f"{count} were sent and {arrived} arrived")
    return rate


def bare_rate(children: Children, run: Run, sink: OwnSink, body: str) -> float:
    """Return the rate of the bare loop."""
    sink.clear()
    client = children.module("bare", "bench.baselines.bare_http", run.cores.first, talks=True)
    client.read()
    before = client.cpu()
    found = client.ask(as_json(port=sink.port, connections=CONNECTIONS, count=COUNT, body=body))
    run.spent("bare_aiohttp", client.cpu() - before, COUNT)
    arrived = sink.count()
    children.end(client)
    if arrived != COUNT:
        raise VoidError(f"{arrived} of {COUNT} arrived")
    return float(found["count"] / found["seconds"])
