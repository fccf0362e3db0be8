"""Reading the ledger on a Redis Cluster: each read goes to its key's node. Scripts: `postroom.ledger.cluster_pipe`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from postroom.ledger.bounded import bounded
from postroom.ledger.connection import told_when_lost
from postroom.ledger.topology import Node, Topology

TRIES, PAUSE = 6, 0.05
ELSEWHERE = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
NODE_BITS = 8  # of a scan's cursor: which node it is at

T = TypeVar("T")


class ClusterClient:
    """What reading the ledger asks of a client, over all nodes. Not a Redis client, but what is used of one."""

    def __init__(self, topology: Topology, *, seconds: float | None, **options: Any) -> None:
        """A call, or a pipeline of them, takes so many `seconds` at most; `options` are those of the connections."""
        self._topology = topology
        self.seconds = seconds
        self._options = options
        self._clients: dict[Node, Redis] = {}

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Bound a call; after one whose time is up the map is learned anew, for the next call."""
        try:
            async with bounded(self.seconds):
                yield
        except RedisTimeoutError:
            self._topology.look_again()
            raise

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Return a command whose first argument is its key."""

        async def command(key: str, *args: Any, **options: Any) -> Any:
            return await self._at(key, lambda client: getattr(client, name)(key, *args, **options))

        return command

    async def mget(self, names: list[str]) -> list[Any]:
        """All of one slot."""
        return list(await self._at(names[0], lambda client: client.mget(names)))

    async def eval(self, source: str, numkeys: int, key: str, *args: Any) -> Any:
        """Run a script that only reads."""
        return await self._at(key, lambda client: client.eval(source, numkeys, key, *args))  # type: ignore[arg-type, return-value]

    async def time(self) -> tuple[int, int]:
        """Return the clock of the first node."""
        return await self._at("pr:digest-key", lambda client: client.time())  # type: ignore[no-any-return]

    async def info(self, section: str) -> dict[str, Any]:
        """Return the worst of what the primaries say: the fullest, any that evicts, any without a file."""
        async with self.in_time():
            nodes = await self._topology.primaries()
            found = [await self._on(node, lambda c: c.info(section)) for node in nodes]
        worst = max(found, key=lambda i: int(i.get("used_memory", 0)) / (int(i.get("maxmemory", 0)) or 1e18))
        policies = [
            i["maxmemory_policy"] for i in found if i.get("maxmemory_policy", "noeviction") != "noeviction"
        ]
        files = [int(i["aof_enabled"]) for i in found if "aof_enabled" in i]
        evicts = {"maxmemory_policy": policies[0]} if policies else {}
        told: dict[str, Any] = worst | evicts | ({"aof_enabled": min(files)} if files else {})
        return told

    async def infos(self) -> dict[Node, dict[str, Any]]:
        """Return what each primary says."""
        nodes = await self._topology.primaries()
        return {node: await self._on(node, lambda client: client.info()) for node in nodes}

    async def scan(self, cursor: int, *, match: str, count: int) -> tuple[int, list[bytes]]:
        """Look through the keys of one node after the other; the cursor says which."""
        async with self.in_time():
            return await self._scan(cursor, match, count)

    async def _scan(self, cursor: int, match: str, count: int) -> tuple[int, list[bytes]]:
        nodes = await self._topology.primaries()
        at, inner = cursor & ((1 << NODE_BITS) - 1), cursor >> NODE_BITS
        if at >= len(nodes):
            return 0, []
        inner, names = await self._on(nodes[at], lambda c: c.scan(inner, match=match, count=count))
        if inner == 0:
            at += 1
        return (0 if at >= len(nodes) else (int(inner) << NODE_BITS) | at), names

    async def scan_iter(self, *, match: str, count: int) -> AsyncIterator[bytes]:
        """Yield all keys of all nodes."""
        cursor = 0
        while True:
            cursor, names = await self.scan(cursor, match=match, count=count)
            for name in names:
                yield name
            if cursor == 0:
                return

    async def zscan_iter(self, name: bytes, *, count: int) -> AsyncIterator[tuple[bytes, float]]:
        """Yield members and scores of a sorted set."""
        cursor = 0
        while True:
            cursor, pairs = await self.zscan(name, cursor, count=count)
            for pair in pairs:
                yield pair
            if cursor == 0:
                return

    def pipeline(self, *, transaction: bool) -> "ClusterPipeline":
        """Return a pipeline; it is none of transactions."""
        assert not transaction
        return ClusterPipeline(self)

    def pubsub(self, **options: Any) -> PubSub:
        """Listen at some node, and at another one when that is lost: a cluster passes on what is published."""
        topology = self._topology
        pool = told_when_lost(topology.pool(("", 0), **self._options))
        kind: Any = pool.connection_class

        class AtAnyNode(kind):  # type: ignore[misc]
            async def connect(self) -> None:
                if not self.is_connected:
                    await topology.refresh()
                    self.host, self.port = (await topology.primaries())[0]
                await super().connect()

        pool.connection_class = AtAnyNode
        return Redis.from_pool(pool).pubsub(**options)

    async def _at(self, key: str | bytes, call: Callable[[Redis], Awaitable[Any]]) -> Any:
        async with self.in_time():
            return await self._follow(key, call)

    async def _follow(self, key: str | bytes, call: Callable[[Redis], Awaitable[Any]]) -> Any:
        for tries in range(TRIES):
            try:
                return await self._on(await self._topology.node_of(key), call)
            except (RedisConnectionError, RedisTimeoutError) as error:
                last: Exception = error
            except ResponseError as error:
                if not (str(error).startswith(ELSEWHERE) or isinstance(error, MovedError)):
                    raise
                last = error
            await asyncio.sleep(PAUSE * tries)
            await self._topology.refresh()
        raise RedisConnectionError("the cluster does not answer") from last

    async def _on(self, node: Node, call: Callable[[Redis], Awaitable[T]]) -> T:
        if node not in self._clients:
            self._clients[node] = Redis.from_pool(told_when_lost(self._topology.pool(node, **self._options)))
        return await call(self._clients[node])


class ClusterPipeline:
    """Commands that are sent together, to each node its own; the replies come in the order of the commands."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client
        self._commands: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return a command that is put with the others."""

        def put(*args: Any, **options: Any) -> None:
            self._commands.append((name, args, options))

        return put

    async def execute(self) -> list[Any]:
        """Send all and return the replies. `time` is asked of the node of the first key."""
        async with self._client.in_time():
            return await self._execute()

    async def _execute(self) -> list[Any]:
        slots: dict[bytes | str, list[int]] = {}
        keys = [_key_of(name, args) for name, args, _ in self._commands]
        first = next((key for key in keys if key is not None), "pr:digest-key")
        for index, key in enumerate(keys):
            slots.setdefault(_tag_of(key if key is not None else first), []).append(index)
        replies: list[Any] = [None] * len(keys)
        for indexes in slots.values():
            key = next((key for key in (keys[i] for i in indexes) if key is not None), first)
            for index, reply in zip(indexes, await self._client._at(key, self._sender(indexes)), strict=True):  # noqa: SLF001
                replies[index] = reply
        return replies

    def _sender(self, indexes: list[int]) -> Callable[[Redis], Awaitable[list[Any]]]:
        async def send(client: Redis) -> list[Any]:
            pipe = client.pipeline(transaction=False)
            for name, args, options in (self._commands[i] for i in indexes):
                getattr(pipe, name)(*args, **options)
            replies = await pipe.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(
                    reply, RedisError
                ):  # as Redis said it: a pipeline would put other words in front
                    raise reply
            return list(replies)

        return send


def _key_of(name: str, args: tuple[Any, ...]) -> str | bytes | None:
    if name == "time":
        return None
    key: str | bytes = args[2] if name == "eval" else args[0]
    return key


def _tag_of(key: str | bytes) -> str:
    """Return the hash tag of a partition, so that what lies together is asked for together."""
    text = key.decode() if isinstance(key, bytes) else key
    return text[: text.index("}")] if text.startswith("pr:{") else text
