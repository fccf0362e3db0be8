"""The bench's own parts, once and small: filling, a worker, the load, the sink."""

import os

import pytest

from bench.bodies import marker
from bench.delivering import fill, rate_of_worker
from bench.latency import begin, waits
from bench.machine import choose_cores
from bench.processes import Child
from bench.product import Agents, Product, RedisServer
from bench.run import Run
from bench.sinks.client import OwnSink

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two cores",
)


def test_what_the_bench_fills_and_posts_arrives():
    """Mail put past the edge, and mail posted, reach the sink once; nothing that was started is left."""
    run, started = Run(choose_cores(), pairs=1), []
    with run.children() as children:
        sink = OwnSink(children, run.cores.second, "smtp")
        redis = RedisServer(children, run.place("r"), run.cores.second)
        product = Product(children, run.place("p"), redis, [Agents(("orders", "notes"), port=sink.port)])
        fill(children, run, product, 50)
        api, worker = product.start_api(run.cores.first), product.start_worker(run.cores.first)
        started += [api, worker, redis.child]
        assert rate_of_worker(run, product, worker, 100) > 0
        assert 100 == sink.count()
        sink.clear()
        words = {"each": 3, "interval": 0.05, "first": 70_000_000}
        found = waits(children, begin(children, run, product.port, ["orders", "notes"], **words), sink)
        assert 6 == len(found)
        assert all(0 < ms < 30_000 for ms in found)
        assert {marker(70_000_000 + n) for n in range(6)} == sink.times().keys()
    run.close()
    assert not any(is_running(child) for child in started)


def is_running(child: Child) -> bool:
    return child.process.poll() is None
