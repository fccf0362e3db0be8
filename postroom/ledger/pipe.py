"""Group commit: concurrent script calls travel as one pipeline, without a timer.

A call made while nothing is in flight goes out at once; calls made while a flush is in flight are collected
and go out together as soon as it is back. One connection, one flush at a time, replies in order.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import hiredis
from msgspec import Struct
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)

from postroom.ledger.connection import read_replies
from postroom.ledger.errors import (
    LedgerError,
    LedgerFullError,
    LedgerMovedError,
    LedgerUnavailableError,
    LedgerUnconfirmedError,
)
from postroom.ledger.scripts import Script, load_scripts

MAX_BATCH = 128
SCRIPT_RELOADS = 5  # SCRIPT FLUSH may strike again while we reload

# Replies by which Redis says that it did nothing.
NOTHING_DONE = (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    TryAgainError,
)
NOTHING_DONE_WORDS = (
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "UNKILLABLE",
    "READONLY",
    "LOADING",
    "CLUSTERDOWN",
    "TRYAGAIN",
)

MOVED_WORDS = ("MOVED ", "ASK ")
NOT_HERE = "attempted to access a non local key"  # said of the guard, the first thing a script does

MakeConnection = Callable[[], AbstractConnection]
Observe = Callable[[int, float], None]


class _Call(Struct, eq=False):
    script: Script
    key: str
    args: tuple[Any, ...]
    reply: asyncio.Future[Any]

    def command(self) -> tuple[Any, ...]:
        return ("EVALSHA", self.script.sha, 1, self.key, *self.args)


class Pipe(Protocol):
    """A way to the ledger's scripts."""

    async def call(self, name: str, key: str, *args: Any) -> Any:
        """See `ScriptPipe.call`."""
        ...

    def begin(self, name: str, key: str, *args: Any) -> asyncio.Future[Any]:
        """See `ScriptPipe.begin`."""
        ...

    async def aclose(self) -> None:
        """See `ScriptPipe.aclose`."""
        ...


class ScriptPipe:
    """One process's way to the ledger's scripts. Never retries a call: only its owner knows if it may."""

    def __init__(
        self,
        make_connection: MakeConnection,
        *,
        deadline: float,
        replicas: int = 0,
        replica_ms: int = 1000,
        observe: Observe | None = None,
        scripts: dict[str, Script] | None = None,
    ) -> None:
        """`deadline` bounds connecting and each flush, in seconds.

        With `replicas`, a flush counts only once so many replicas have it, within `replica_ms`. `observe` is told
        the calls and the seconds of each flush that was answered.
        """
        self._make_connection = make_connection
        self._deadline = deadline
        self._replicas = replicas
        self._replica_ms = replica_ms
        self._scripts = scripts or load_scripts()
        self._connection: AbstractConnection | None = None
        self._waiting: list[_Call] = []
        self._flusher: asyncio.Task[None] | None = None
        self._observe = observe
        self.flushes = 0

    async def call(self, name: str, key: str, *args: Any) -> Any:
        """Run a script and return its reply.

        Raises:
            LedgerUnavailableError: it surely did not run (or changed nothing).
            LedgerUnconfirmedError: it may have run.
        """
        return await self.begin(name, key, *args)

    def begin(self, name: str, key: str, *args: Any) -> asyncio.Future[Any]:
        """Have a script run without waiting; the future brings what `call` returns or raises."""
        call = _Call(self._scripts[name], key, args, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._flusher is None:
            # The flusher is nobody's child: a caller that goes away takes only its own call along.
            self._flusher = asyncio.create_task(self._flush_all())
        return call.reply

    async def aclose(self) -> None:
        """Wait for what is in flight, then close the connection."""
        if self._flusher is not None:
            await asyncio.wait({self._flusher})
        await self._disconnect()

    async def _flush_all(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                batch = [call for call in taken if not call.reply.done()]
                if batch:
                    await self._flush(batch)
        finally:
            # Reached with calls still waiting only when the process ends and cancels us.
            _fail(self._waiting, LedgerUnavailableError("the process is ending"), None)
            self._waiting = []
            self._flusher = None

    async def _flush(self, batch: list[_Call]) -> None:
        self.flushes += 1
        connection = self._connection
        if connection is None or not connection.is_connected:
            try:
                async with asyncio.timeout(self._deadline):
                    connection = await self._connect()
            except (RedisError, OSError, TimeoutError) as error:
                await self._disconnect()
                _fail(batch, LedgerUnavailableError("cannot reach Redis"), error)
                return
        try:
            async with asyncio.timeout(self._deadline):
                started = time.perf_counter()
                await self._exchange(connection, batch)
            if self._observe is not None:
                self._observe(len(batch), time.perf_counter() - started)
        except (RedisError, OSError, TimeoutError) as error:
            await self._disconnect()
            _fail(batch, LedgerUnconfirmedError("Redis did not answer in time"), error)
        except Exception as error:  # noqa: BLE001  a defect of ours ends its group, not the calls behind it
            await self._disconnect()
            _fail(batch, LedgerUnconfirmedError("the call was broken off"), error)

    async def _exchange(self, connection: AbstractConnection, batch: list[_Call]) -> None:
        for _ in range(SCRIPT_RELOADS):
            replies = await self._round_trip(connection, [call.command() for call in batch])
            unknown = [c for c, reply in zip(batch, replies, strict=True) if isinstance(reply, NoScriptError)]
            known = [p for p in zip(batch, replies, strict=True) if not isinstance(p[1], NoScriptError)]
            acknowledged = await self._replicated(connection) if known and self._replicas else True
            for call, reply in known:
                _settle(call, reply, acknowledged=acknowledged)
            if not unknown:
                return
            # Redis forgot scripts (restart, failover, SCRIPT FLUSH): load them, resend exactly those calls.
            batch = unknown
            needed = {call.script.name: call.script for call in batch}
            await self._round_trip(connection, [("SCRIPT", "LOAD", s.source) for s in needed.values()])
        _fail(batch, LedgerUnavailableError("Redis keeps forgetting scripts"), None)

    async def _round_trip(self, connection: AbstractConnection, commands: list[tuple[Any, ...]]) -> list[Any]:
        # Packed in C: redis-py's own packer costs 30 µs a call.
        packed = b"".join(map(hiredis.pack_command, commands))
        await connection.send_packed_command(packed, check_health=False)
        return await read_replies(connection, len(commands))

    async def _replicated(self, connection: AbstractConnection) -> bool:
        (count,) = await self._round_trip(connection, [("WAIT", self._replicas, self._replica_ms)])
        return isinstance(count, int) and count >= self._replicas

    async def _connect(self) -> AbstractConnection:
        if self._connection is None:
            self._connection = self._make_connection()
        await self._connection.connect()  # type: ignore[no-untyped-call]
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


def _settle(call: _Call, reply: Any, *, acknowledged: bool) -> None:
    if call.reply.done():
        return
    if not isinstance(reply, RedisError):
        if acknowledged:
            call.reply.set_result(reply)
        else:
            call.reply.set_exception(LedgerUnconfirmedError("not enough replicas acknowledged in time"))
        return
    text = str(reply)
    if isinstance(reply, OutOfMemoryError) or "OOM " in text:
        call.reply.set_exception(LedgerFullError("Redis is out of memory"))
    elif text.startswith(MOVED_WORDS) or NOT_HERE in text or isinstance(reply, MovedError):
        call.reply.set_exception(LedgerMovedError("another node of the cluster serves this"))
    elif isinstance(reply, NOTHING_DONE) or text.startswith(NOTHING_DONE_WORDS) or _was_refused_inside(text):
        call.reply.set_exception(LedgerUnavailableError("Redis refuses writes at the moment"))
    else:
        # A defect of ours in a script: the text names its line, and no value of a message.
        call.reply.set_exception(LedgerError(f"script {call.script.name}: {text[:300]}"))


def _was_refused_inside(text: str) -> bool:
    """Redis 6.2 reports what it refused inside a script in the middle of its text."""
    return "Error running script" in text and any(f"-{word}" in text for word in NOTHING_DONE_WORDS)


def _fail(batch: list[_Call], error: LedgerError, cause: BaseException | None) -> None:
    for call in batch:
        if not call.reply.done():
            own = type(error)(str(error))
            own.__cause__ = cause
            call.reply.set_exception(own)
