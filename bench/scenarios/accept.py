"""Accept: POST/s of `/v1/messages`, against an empty typed handler on the same server."""

from bench.arithmetic import Row, VoidError, compare, ratio_at_least
from bench.bodies import order
from bench.machine import Busy
from bench.processes import Child, Children, free_port, listens, until
from bench.product import Agents, Product, RedisServer
from bench.run import MORE_PAIRS, Run, as_json

SECONDS = 4.0
WARMUP = 1.0
CONNECTIONS = 64
MUST = ratio_at_least(0.65)


def measure(run: Run) -> list[Row]:
    """Both servers stand on the first core by turns; load and Redis are on the second."""
    with run.children() as children:
        redis = RedisServer(children, run.place("r"), run.cores.second)
        product = Product(children, run.place("p"), redis, [Agents(("orders",), port=9)])
        api = product.start_api(run.cores.first)
        empty, empty_port = start_empty(children, run)
        numbers = iter(range(0, 90_000_000, 1_000_000))
        loads: list[float] = []

        def flood(leg: str, server: Child, port: int) -> float:
            busy, before = Busy(run.cores.second), server.cpu()
            rate, count = post(children, run, port, next(numbers))
            loads.append(busy.share())
            run.spent(leg, server.cpu() - before, count)
            return rate

        rates = run.take_turns(
            MORE_PAIRS,
            postroom=lambda: flood("postroom", api, product.port),
            empty_handler=lambda: flood("empty_handler", empty, empty_port),
        )
    row = Row(
        scenario="accept",
        unit="POST/s",
        against="empty Litestar handler",
        stretch="1.0",
        note=f"the load's core was busy {max(loads):.0%} at most; {run.spent_words()}",
    )
    run.series["accept"] = rates
    return [compare(row, list(zip(rates["postroom"], rates["empty_handler"], strict=True)), MUST)]


def start_empty(children: Children, run: Run) -> tuple[Child, int]:
    """Start the baseline and return it with its port."""
    port = free_port()
    child = children.module("empty", "bench.baselines.empty_handler", run.cores.first, str(port))
    until(lambda: listens(port), "the empty handler listens", child=child)
    return child, port


def post(children: Children, run: Run, port: int, first: int) -> tuple[float, int]:
    """Let the load go for a while and return the requests a second, and how many there were with the warm-up.

    Raises:
        VoidError: an answer was not 2xx.
    """
    words = as_json(
        port=port, body=order(), connections=CONNECTIONS, first=first, seconds=SECONDS, warmup=WARMUP
    )
    child = children.module("flood", "bench.load.flood", run.cores.second, words, talks=True)
    found = child.read()
    children.end(child)
    if found["bad_count"]:
        raise VoidError(f"{found['bad_count']} answers were not 2xx, the first: {found['bad'][0]}")
    return found["answered"] / found["seconds"], found["next"] - first
