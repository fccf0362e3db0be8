"""Which node of a Redis Cluster serves which slot, as the cluster last said."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.refusals import refusal_of

REFRESH_PAUSE = 0.1  # seconds between two looks: what failed in between was by the same old map
NODE_SECONDS = 1.0
Node = tuple[str, int]


class Topology:
    """Shared by everything of one client. Learns anew when it is told that something was wrong."""

    def __init__(self, seeds: list[Node], make_pool: Callable[..., ConnectionPool]) -> None:
        """`make_pool` is given host and port, and further options of its connections."""
        self._seeds = seeds
        self._make_pool = make_pool
        self._ranges: list[tuple[int, int, Node]] = []
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def pool(self, node: Node, **options: Any) -> ConnectionPool:
        """Return a pool of connections to one node."""
        return self._make_pool(*node, **options)

    async def node_of(self, key: str | bytes) -> Node:
        """Return the primary that serves a key.

        Raises:
            LedgerUnavailableError: no node says so.
        """
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        for _ in range(2):
            for first, last, node in self._ranges:
                if first <= slot <= last:
                    return node
            await self.refresh()
        raise LedgerUnavailableError("no node of the cluster serves this slot")

    async def primaries(self) -> list[Node]:
        """Return all primaries that serve slots, in a fixed order."""
        if not self._ranges:
            await self.refresh()
        return sorted({node for _, _, node in self._ranges})

    async def refresh(self) -> None:
        """Wait until a node has said how it is now.

        Raises:
            LedgerUnavailableError: none does.
        """
        if not self._is_fresh():
            await asyncio.shield(self._look())

    def look_again(self) -> None:
        """Begin to learn anew, without waiting: who was told nothing by a node has no time left, the next one has."""
        if not self._is_fresh():
            self._look()

    def _is_fresh(self) -> bool:
        return bool(self._ranges) and time.monotonic() - self._asked_at < REFRESH_PAUSE

    def _look(self) -> asyncio.Task[None]:
        # Nobody's child: it goes on although all who wait for it run out of time, or nobody learned of a failover.
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._asking

    async def _ask_all(self) -> None:
        """Ask the nodes, one after the other, until one answers."""
        known = [node for _, _, node in self._ranges]
        told = "no node of the cluster answers"
        for node in dict.fromkeys([*known, *self._seeds]):
            try:
                found = await self._ask(node)
            except (RedisError, OSError) as error:
                told = str(refusal_of(error) or told)
                continue
            if found:
                self._ranges, self._asked_at = found, time.monotonic()
                return
        raise LedgerUnavailableError(told)

    async def _ask(self, node: Node) -> list[tuple[int, int, Node]]:
        client = Redis.from_pool(
            self.pool(node, socket_timeout=NODE_SECONDS, socket_connect_timeout=NODE_SECONDS)
        )
        try:
            rows = await client.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()
        if isinstance(rows, dict):  # redis-py shapes it: (first, last) → primary and replicas
            return [(a, b, _address(found["primary"], node)) for (a, b), found in rows.items()]
        return [(row[0], row[1], _address(row[2], node)) for row in rows]


def _address(told: Any, asked: Node) -> Node:
    """Return an address; a node that does not know its own is the one that was asked."""
    host, port = told[0], told[1]
    host = host.decode() if isinstance(host, bytes) else host
    return host or asked[0], int(port)
