"""Memory: what a waiting and a finished message take of Redis, and whether the processes grow."""

import time

from bench.arithmetic import Row, VoidError, alone, compare, figure_at_most, ratio_at_most
from bench.bodies import basket, note
from bench.processes import Child, Children, until
from bench.product import Agents, Product, RedisServer, failures
from bench.run import Run, as_json
from bench.sinks.client import OwnSink
from bench.stacks import CONNECTIONS

WAITING = 5_000
FIRST = 5_000
ALL = 200_000
STEP = 15_000


def measure(run: Run) -> list[Row]:
    """Bytes are counted, not timed, so one run says it."""
    with run.children() as children:
        waiting, size = waiting_bytes(children, run)
    with run.children() as children:
        resident, finished = lifetime(children, run)
    first, last = resident[0], resident[-1]
    run.series["memory"] = {"resident": resident, "waiting": waiting, "request": size, "finished": finished}
    rows = [
        compare(
            Row(scenario="memory, waiting", unit="bytes", against="request", stretch="0.5×"),
            [(waiting, size)],
            ratio_at_most(0.7),
        ),
        alone(
            Row(scenario="memory, finished", unit="bytes", stretch="400 B"),
            [finished],
            figure_at_most(600, " B"),
        ),
    ]
    for at, name in ((1, "API"), (2, "worker")):
        row = Row(scenario=f"memory, {name}", unit="MB", against=f"after {FIRST:,}")
        row.note = f"resident after {last[0]:,} messages"
        rows.append(compare(row, [(last[at], first[at])], ratio_at_most(1.1)))
    return rows


def waiting_bytes(children: Children, run: Run) -> tuple[float, float]:
    """Return the bytes that Redis takes for each message of a full basket that waits, and those of its request."""
    redis = RedisServer(children, run.place("r"), run.cores.second)
    product = Product(children, run.place("p"), redis, [Agents(("orders",), port=9)])
    product.start_api(run.cores.first)
    post(children, run, product, basket(), 0, 500)
    before = redis.told("used_memory")
    size = post(children, run, product, basket(), 500, WAITING)
    took = redis.told("used_memory") - before
    run.say(f"a waiting message: {took / WAITING:,.0f} bytes of a request's {size:,}")
    return took / WAITING, size


def lifetime(children: Children, run: Run) -> tuple[list[tuple[int, float, float]], float]:
    """Send many messages; return (count, MB of the API, MB of the worker) on the way, and bytes for each finished one.

    Raises:
        VoidError: a message ended otherwise than sent.
    """
    sink = OwnSink(children, run.cores.both, "smtp")
    redis = RedisServer(children, run.place("r"), run.cores.both)
    agents = Agents(("orders",), port=sink.port, connections=CONNECTIONS)
    product = Product(children, run.place("p"), redis, [agents], content="1s")
    api, worker = product.start_api(run.cores.both), product.start_worker(run.cores.both)
    send(children, run, product, worker, 0, 500)
    before, resident, sent = settled(redis), [], 500
    while sent < ALL:
        count = FIRST - sent if sent < FIRST else min(STEP, ALL - sent)
        send(children, run, product, worker, sent, count)
        sent += count
        resident.append((sent, api.memory() / 1e6, worker.memory() / 1e6))
        run.say(f"{sent:,} sent: API {resident[-1][1]:.0f} MB, worker {resident[-1][2]:.0f} MB")
    if bad := failures(product.ended()):
        raise VoidError(f"not all were sent: {bad}")
    return resident, (settled(redis) - before) / (ALL - 500)


def send(children: Children, run: Run, product: Product, worker: Child, first: int, count: int) -> None:
    """Post so many and wait until they are sent."""
    post(children, run, product, note(), first, count)
    until(lambda: product.sent() >= first + count, "all are sent", child=worker, seconds=120)


def post(
    children: Children, run: Run, product: Product, body: dict[str, object], first: int, count: int
) -> int:
    """Post so many and return the bytes of one request.

    Raises:
        VoidError: an answer was not 2xx.
    """
    words = as_json(port=product.port, body=body, first=first, count=count)
    load = children.module("flood", "bench.load.flood", run.cores.both, words, talks=True)
    found = load.read()
    children.end(load)
    if found["bad_count"]:
        raise VoidError(f"{found['bad_count']} answers were not 2xx, the first: {found['bad'][0]}")
    return int(found["size"])


def settled(redis: RedisServer) -> int:
    """Return the bytes in use once what was to expire has: when they have not fallen for a second."""
    least, since = redis.told("used_memory"), time.monotonic()
    while time.monotonic() - since < 1.5:
        time.sleep(0.1)
        redis.drop_expired()
        now = redis.told("used_memory")
        if now < least * 0.9995:
            least, since = now, time.monotonic()
    return least
