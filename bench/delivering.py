"""What both scenarios of delivery share: a full queue, one worker on the first core, everything else on the second."""

import time

from bench.arithmetic import VoidError
from bench.bodies import order
from bench.processes import Child, Children, until
from bench.product import Product, failures
from bench.run import Run, as_json

CONNECTIONS = 20
COUNT = 20_000
BEGIN = 0.15  # shares of the count between which the rate is taken: warm, and with all lanes at work
END = 0.95


def fill(
    children: Children, run: Run, product: Product, count: int, *, agents: list[str] | None = None
) -> None:
    """Put mail into queues, as a child on the second core."""
    words = as_json(
        config=str(product.config),
        redis_url=product.redis.url,
        body=order(),
        agents=agents or product.names,
        count=count,
        first=0,
    )
    environ = product.environ()
    child = children.module("fill", "bench.load.fill", run.cores.second, words, environ=environ, talks=True)
    child.read()
    children.end(child)


def rate_of_worker(product: Product, worker: Child, count: int) -> float:
    """Return the messages a second that are sent, without the beginning and the end; wait until all are.

    Raises:
        VoidError: a message ended otherwise.
    """
    began, first = wait_for(product, worker, int(count * BEGIN))
    ended, last = wait_for(product, worker, int(count * END))
    until(lambda: product.sent() >= count, "all are sent", child=worker)
    if bad := failures(product.ended()):
        raise VoidError(f"not all were sent: {bad}")
    return (last - first) / (ended - began)


def wait_for(product: Product, worker: Child, count: int) -> tuple[float, int]:
    """Wait until so many are sent; return when that was seen, and how many they were."""
    sent = 0

    def reached() -> bool:
        nonlocal sent
        sent = product.sent()
        return sent >= count

    until(reached, f"{count} are sent", child=worker, seconds=120)
    return time.monotonic(), sent
