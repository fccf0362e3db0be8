"""What the scenarios of delivery share: a full queue, workers, and the rate between two moments."""

import time
from collections.abc import Mapping, Sequence

from bench.arithmetic import VoidError
from bench.bodies import order
from bench.processes import Child, Children, until
from bench.product import Agents, Product, RedisServer, failures
from bench.run import Run, as_json
from bench.sinks.client import OwnSink

CONNECTIONS = 20
COUNT = 10_000
STANDING_PAIRS = 5  # their legs are short for what the machine's speed does meanwhile
BEGIN = 0.15  # shares of the count between which the rate is taken: warm, and with all lanes at work
END = 0.95
ROOM = 2_000_000  # numbers for each use of a load, so that no ref comes twice


class Standing:
    """An installation whose queues are full, with everything but its workers on the second core.

    `level` messages wait for each agent. During a leg what is sent is put in again, so that every leg sees the same.
    """

    def __init__(self, children: Children, run: Run, agents: Agents, *, level: int, lanes: int = 200) -> None:
        self._children = children
        self._run = run
        self._level = level
        self._numbers = iter(range(0, 90_000_000, ROOM))
        self.redis = RedisServer(children, run.place("r"), run.cores.both)
        self.product = Product(children, run.place("p"), self.redis, [agents], lanes=lanes)
        self._filling: Child | None = None

    def begin_filling(self) -> None:
        """Begin to fill the queues."""
        self._filling = self._start_fill(self._level, level=0)
        self._filling.pin(self._run.cores.both)

    def filled(self) -> None:
        """Wait until they are full."""
        assert self._filling is not None
        self._filling.read()
        self._children.end(self._filling)
        self.redis.child.pin(self._run.cores.second)

    def rate(self, cores: Sequence[frozenset[int]], *, warmup: float, seconds: float) -> float:
        """Return the messages a second that a worker on each of these cores sends together.

        Raises:
            VoidError: a message ended otherwise than sent, or the queues ran dry.
        """
        keeper = self._start_fill(0, level=self._level)
        keeper.read()
        workers = [self.product.start_worker(some, f"w{n}") for n, some in enumerate(cores)]
        before = self.product.sent()
        until(lambda: self.product.sent() > before, "the first is sent", child=workers[0])
        time.sleep(warmup)
        began, first = time.monotonic(), self.product.sent()
        time.sleep(seconds)
        ended, last = time.monotonic(), self.product.sent()
        waiting = self.product.waiting()
        self._children.end(*workers, keeper)
        if waiting < self._level * len(self.product.names) / 2:
            raise VoidError(f"the queues ran dry: {waiting} waited at the end")
        if bad := failures(self.product.ended()):
            raise VoidError(f"not all were sent: {bad}")
        return (last - first) / (ended - began)

    def _start_fill(self, count: int, *, level: int) -> Child:
        return start_fill(
            self._children, self._run, self.product, count, level=level, first=next(self._numbers)
        )


def standing_rates(
    run: Run, queues: Mapping[str, tuple[Sequence[str], int]], *, warmup: float
) -> dict[str, list[float]]:
    """Return the rates of one worker over installations with full queues, in turns.

    `queues` has, by the name of each, its agents and how many messages wait for each of them. The worker has the
    first core to itself; sink, Redis and what refills the queues are on the second.
    """
    with run.children() as children:
        sink = OwnSink(children, run.cores.second, "smtp")
        standing = {}
        for name, (agents, level) in queues.items():
            owned = Agents(tuple(agents), port=sink.port, connections=CONNECTIONS)
            standing[name] = Standing(children, run, owned, level=level)
            standing[name].begin_filling()
        for one in standing.values():
            one.filled()
        run.say("queues are full")
        return run.take_turns(
            STANDING_PAIRS,
            **{
                name: lambda one=one: one.rate([run.cores.first], warmup=warmup, seconds=3.0)
                for name, one in standing.items()
            },
        )


def start_fill(  # noqa: PLR0913  what a load is told, and where it runs
    children: Children,
    run: Run,
    product: Product,
    count: int,
    *,
    level: int = 0,
    first: int = 0,
    agents: Sequence[str] = (),
) -> Child:
    """Begin to put mail into all queues, or into some; see `bench.load.fill`."""
    words = as_json(
        config=str(product.config),
        redis_url=product.redis.url,
        body=order(),
        agents=agents or product.names,
        count=count,
        first=first,
        level=level,
    )
    environ = product.environ()
    return children.module("fill", "bench.load.fill", run.cores.second, words, environ=environ, talks=True)


def fill(children: Children, run: Run, product: Product, count: int) -> None:
    """Put mail into all queues, as a child on the second core."""
    child = start_fill(children, run, product, count)
    child.read()
    children.end(child)


def rate_of_worker(run: Run, product: Product, worker: Child, count: int) -> float:
    """Return the messages a second that are sent, without the beginning and the end; wait until all are.

    Raises:
        VoidError: a message ended otherwise.
    """
    began, first = wait_for(product, worker, int(count * BEGIN))
    before = worker.cpu()
    ended, last = wait_for(product, worker, int(count * END))
    if count >= COUNT:
        run.spent("postroom", worker.cpu() - before, last - first)
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
