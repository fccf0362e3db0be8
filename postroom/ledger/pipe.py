"""Group commit: concurrent script calls travel as one pipeline, without a timer.

A call made while nothing is in flight goes out at once; calls made while a flush is in flight are collected
and go out together a pass of the event loop after it is back. One connection, one flush at a time, replies in order.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import NoScriptError, RedisError

from postroom.ledger.calls import Call, fail, in_time, settle
from postroom.ledger.connection import is_alive, read_replies
from postroom.ledger.errors import LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.refusals import UNANSWERED, unreachable
from postroom.ledger.scripts import Script, load_scripts

MAX_BATCH = 128
SLOW_SECONDS = 0.004  # what the script calls of a small batch never take by themselves
REPLICA_MS = 1000
SCRIPT_RELOADS = 5  # SCRIPT FLUSH may strike again while we reload

MakeConnection = Callable[[], AbstractConnection]
Observe = Callable[[int, float], None]


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
        batch: int = MAX_BATCH,
        observe: Observe | None = None,
        scripts: dict[str, Script] | None = None,
    ) -> None:
        """`deadline` is what a call takes at most, in seconds from when it was made: with waiting and connecting.

        With `replicas`, a flush counts only once so many replicas have it, within `REPLICA_MS`. With a small `batch`,
        Redis works on some calls while this process makes the next ones, and neither waits for the other; after a
        flush that was slow (a disk, a replica, a far network) all that waits goes with the next one nevertheless.
        `observe` is told the calls and the seconds of each flush that was answered.
        """
        self._make_connection = make_connection
        self._deadline = deadline
        self._replicas = replicas
        self._batch = batch
        self._took = 0.0  # seconds, of the last flush that was answered
        self._scripts = scripts or load_scripts()
        self._connection: AbstractConnection | None = None
        self._waiting: list[Call] = []
        self._flusher: asyncio.Task[None] | None = None
        self._observe = observe
        self._closing = False
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
        return self.begin_for(asyncio.get_running_loop().time(), name, key, *args)

    def begin_for(self, asked: float, name: str, key: str, *args: Any) -> asyncio.Future[Any]:
        """Do what `begin` does for a call whose time began already, at `asked` by the event loop's clock."""
        call = Call(self._scripts[name], key, args, asked, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._flusher is None:
            # The flusher is nobody's child: a caller that goes away takes only its own call along.
            self._flusher = asyncio.create_task(self._flush_all())
        return call.reply

    async def aclose(self) -> None:
        """Wait for what is in flight, then close the connection."""
        self._closing = True  # who asks again and again is not waited for
        if self._flusher is not None:
            await asyncio.wait({self._flusher})
        await self._disconnect()

    async def _flush_all(self) -> None:
        try:
            while self._waiting:
                most = self._batch if self._took < SLOW_SECONDS else MAX_BATCH
                taken, self._waiting = self._waiting[:most], self._waiting[most:]
                batch = [call for call in taken if not call.reply.done()]
                if batch:
                    await self._flush(batch)
                if len(self._waiting) < self._batch and not self._closing:
                    # Those whom it answered go on now, and what they ask next travels with the next one.
                    await asyncio.sleep(0)
        finally:
            # Reached with calls still waiting only when the process ends and cancels us.
            fail(self._waiting, LedgerUnavailableError("the process is ending"), None)
            self._waiting = []
            self._flusher = None

    async def _flush(self, batch: list[Call]) -> None:
        self.flushes += 1
        connection = self._connection
        if connection is None or not is_alive(connection):
            await self._disconnect()
            try:
                with in_time(batch, self._deadline, LedgerUnavailableError(UNANSWERED)):
                    connection = await self._connect()
            except (RedisError, OSError, TimeoutError) as error:
                await self._disconnect()
                fail(batch, unreachable(error), error)
                return
            batch = [call for call in batch if not call.reply.done()]  # some had no time left for it
            if not batch:
                return
        try:
            with in_time(batch, self._deadline, LedgerUnconfirmedError(UNANSWERED)):
                started = time.perf_counter()
                await self._exchange(connection, batch)
            self._took = time.perf_counter() - started
            if self._observe is not None:
                self._observe(len(batch), self._took)
        except (RedisError, OSError, TimeoutError) as error:
            await self._disconnect()
            fail(batch, LedgerUnconfirmedError(UNANSWERED), error)
        except Exception as error:  # noqa: BLE001  a defect of ours ends its group, not the calls behind it
            await self._disconnect()
            fail(batch, LedgerUnconfirmedError("the call was broken off"), error)

    async def _exchange(self, connection: AbstractConnection, batch: list[Call]) -> None:
        for _ in range(SCRIPT_RELOADS):
            replies = await self._round_trip(connection, [call.command() for call in batch])
            unknown = [c for c, reply in zip(batch, replies, strict=True) if isinstance(reply, NoScriptError)]
            known = [p for p in zip(batch, replies, strict=True) if not isinstance(p[1], NoScriptError)]
            acknowledged = await self._replicated(connection) if known and self._replicas else True
            for call, reply in known:
                settle(call, reply, acknowledged=acknowledged)
            if not unknown:
                return
            # Redis forgot scripts (restart, failover, SCRIPT FLUSH): load them, resend exactly those calls.
            batch = unknown
            needed = {call.script.name: call.script for call in batch}
            await self._round_trip(connection, [("SCRIPT", "LOAD", s.source) for s in needed.values()])
        fail(batch, LedgerUnavailableError("Redis keeps forgetting scripts"), None)

    async def _round_trip(self, connection: AbstractConnection, commands: list[tuple[Any, ...]]) -> list[Any]:
        # Packed in C: redis-py's own packer costs 30 µs a call.
        packed = b"".join(map(hiredis.pack_command, commands))
        await connection.send_packed_command(packed, check_health=False)
        return await read_replies(connection, len(commands))

    async def _replicated(self, connection: AbstractConnection) -> bool:
        (count,) = await self._round_trip(connection, [("WAIT", self._replicas, REPLICA_MS)])
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
