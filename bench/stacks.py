"""The three stacks that take a POST and send a mail: Postroom, and the two that a team would build instead.

All start alike: a Redis of their own with the same settings, an API process, a worker, and the same sink.
"""

import sys
from collections.abc import Callable

from bench.processes import Child, Children, answers, free_port, until
from bench.product import Agents, Product, RedisServer
from bench.run import Run

CONNECTIONS = 20
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
CELERY = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")


class Stack:
    """A running stack: where to POST, the Redis below, and what to end."""

    def __init__(self, port: int, redis: RedisServer, processes: list[Child]) -> None:
        self.port = port
        self.redis = redis
        self.processes = processes

    def end(self, children: Children) -> None:
        """End its processes, then its Redis."""
        children.end(*self.processes)
        self.redis.end()


Start = Callable[[Children, Run, int], Stack]


def start_postroom(children: Children, run: Run, sink_port: int) -> Stack:
    """Start one API and one worker process."""
    redis = RedisServer(children, run.place("r"), run.cores.both)
    agents = Agents(("orders",), port=sink_port, connections=CONNECTIONS)
    product = Product(children, run.place("p"), redis, [agents])
    return Stack(
        product.port, redis, [product.start_api(run.cores.both), product.start_worker(run.cores.both)]
    )


def start_celery(children: Children, run: Run, sink_port: int) -> Stack:
    """Start FastAPI under uvicorn, and Celery with a child for each core."""
    redis = RedisServer(children, run.place("r"), run.cores.both)
    environ = {"BENCH_BROKER": f"redis+socket://{redis.path}", "BENCH_SMTP_PORT": str(sink_port)}
    api, port = start_uvicorn(children, run, "celery_api", environ)
    words = ("-A", "bench.baselines.celery_tasks", "worker", "--pool", "prefork", "--concurrency", "2")
    command = [sys.executable, "-m", "celery", *words, *CELERY]
    worker = children.start(f"celery-{port}", command, run.cores.both, environ=environ)
    return Stack(port, redis, [api, worker])


def start_arq(children: Children, run: Run, sink_port: int) -> Stack:
    """Start FastAPI under uvicorn, and one arq worker."""
    redis = RedisServer(children, run.place("r"), run.cores.both)
    environ = {"BENCH_REDIS_SOCKET": redis.path, "BENCH_SMTP_PORT": str(sink_port)}
    api, port = start_uvicorn(children, run, "arq_api", environ)
    worker = children.module(f"arq-{port}", "bench.baselines.arq_worker", run.cores.both, environ=environ)
    return Stack(port, redis, [api, worker])


def start_uvicorn(children: Children, run: Run, name: str, environ: dict[str, str]) -> tuple[Child, int]:
    """Start one of the baselines' APIs and wait until it is ready."""
    port = free_port()
    words = (f"bench.baselines.{name}:app", "--host", "127.0.0.1", "--port", str(port), *UVICORN)
    child = children.module(f"{name}-{port}", "uvicorn", run.cores.both, *words, environ=environ)
    until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), f"{name} is ready", child=child)
    return child, port


STACKS: dict[str, Start] = {"postroom": start_postroom, "celery": start_celery, "arq": start_arq}
