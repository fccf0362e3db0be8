"""Calling the ledger's scripts on a Redis Cluster: each goes to the node of its partition.

Nobody follows an ASK. While a slot is being moved its partition stands still, on purpose: a script that touches many
keys must not run where half of them have left. It asks for a key that nobody has before it does anything
(`GUARD`), which a node that is giving the slot away refuses; so it changed nothing, and is tried again later.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio.connection import AbstractConnection

from postroom.ledger.connection import told_when_lost
from postroom.ledger.errors import LedgerMovedError, LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.pipe import MAX_BATCH, MakeConnection, Observe, ScriptPipe
from postroom.ledger.refusals import UNANSWERED
from postroom.ledger.scripts import load_scripts
from postroom.ledger.topology import Node, Topology

TRIES, PAUSE = 6, 0.05

T = TypeVar("T")


class ClusterPipe:
    """A `ScriptPipe` to each node, and calls that go to the one that serves their key."""

    def __init__(
        self,
        topology: Topology,
        make_connection: Callable[[Node], MakeConnection],
        *,
        deadline: float,
        replicas: int = 0,
        batch: int = MAX_BATCH,
        observe: Observe | None = None,
    ) -> None:
        """The options are those of a `ScriptPipe`; `make_connection` is given a node."""
        self._topology = topology
        self._make_connection = make_connection
        self._deadline = deadline
        self._replicas = replicas
        self._batch = batch
        self._observe = observe
        self._pipes: dict[Node, ScriptPipe] = {}

    @property
    def flushes(self) -> int:
        """How many round trips were made."""
        return sum(pipe.flushes for pipe in self._pipes.values())

    async def call(self, name: str, key: str, *args: Any) -> Any:
        """Run a script on the node of its key; see `ScriptPipe.call`. One that surely did not run is sent on."""
        asked = asyncio.get_running_loop().time()
        for _ in range(TRIES):
            pipe = await self._in_time(asked, self._pipe_of(key))
            try:
                return await pipe.begin_for(asked, name, key, *args)
            except LedgerMovedError as error:
                moved = error
                await self._in_time(asked, self._topology.refresh())
                await asyncio.sleep(PAUSE)
            except (LedgerUnavailableError, LedgerUnconfirmedError):
                # For the next call: this one's owner knows if it may be repeated.
                self._topology.look_again()
                raise
        raise moved

    def begin(self, name: str, key: str, *args: Any) -> asyncio.Future[Any]:
        """Have a script run without waiting; the future brings what `call` returns or raises."""
        return asyncio.ensure_future(self.call(name, key, *args))

    async def aclose(self) -> None:
        """Wait for what is in flight, then close all connections."""
        for pipe in self._pipes.values():
            await pipe.aclose()

    async def _in_time(self, asked: float, finding: Awaitable[T]) -> T:
        """Return where to; whoever has no time left for it has surely sent nothing."""
        try:
            async with asyncio.timeout_at(asked + self._deadline):
                return await finding
        except TimeoutError as error:
            raise LedgerUnavailableError(UNANSWERED) from error

    async def _pipe_of(self, key: str) -> ScriptPipe:
        return self._pipe(await self._topology.node_of(key))

    def _pipe(self, node: Node) -> ScriptPipe:
        if node not in self._pipes:
            self._pipes[node] = ScriptPipe(
                self._make_connection(node),
                deadline=self._deadline,
                replicas=self._replicas,
                batch=self._batch,
                observe=self._observe,
                scripts=load_scripts(guarded=True),
            )
        return self._pipes[node]


def connection_of(topology: Topology, **options: Any) -> Callable[[Node], Callable[[], AbstractConnection]]:
    """Return what makes single connections to a node, for a `ScriptPipe`."""

    def of(node: Node) -> Callable[[], AbstractConnection]:
        return told_when_lost(topology.pool(node, **options)).make_connection

    return of
