"""One TCP connection of an SMTP client: commands out, replies in, a bound on every wait.

Works on asyncio's and uvloop's transports. One timer per connection serves all its waits and is moved only
when it has to ring earlier, because a timer for every reply costs more than the reply.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import cast

from workers.channels.smtp_reply import GarbageError, Reply, ReplyParser

LOOK_SECONDS = 0.02
MAX_UNREAD_REPLIES = 256  # more than a pipelined group has commands, so nobody asked for them


class Loss(StrEnum):
    """How a connection was lost."""

    CLOSED = "closed"  # the other side ended it, or the network did
    TIMEOUT = "timeout"
    GARBAGE = "garbage"  # no reply, or one out of step
    ABORTED = "aborted"  # by us


class LostError(Exception):
    """The connection is gone, and the reply that was waited for will not come."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss)
        self.loss = loss


class InjectedError(Exception):
    """Bytes in the clear followed the reply to STARTTLS: they pretend to belong to the encrypted session."""


class SmtpStream(asyncio.Protocol):
    """A stream of commands and replies. Replies that arrived before the end can still be read after it."""

    def __init__(self) -> None:
        self.loss: Loss | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._below: asyncio.Transport | None = None  # what carries the encrypted bytes
        self._parser = ReplyParser()
        self._replies: deque[Reply] = deque()
        self._expected = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ready: Callable[[], bool] = self._has_reply
        self._patience = self._deadline = 0.0
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._ended: asyncio.Future[None] = self._loop.create_future()

    @property
    def quiet(self) -> bool:
        """True while the connection lives and the other side has said nothing that it was not asked.

        Where replies were expected, those that came before its end may still be read.
        """
        if self.loss is None:
            return len(self._replies) + self._parser.pending <= self._expected
        return self.loss is Loss.CLOSED and 0 < len(self._replies) <= self._expected

    def write(self, data: bytes) -> None:
        """Send the bytes; sending on a lost connection does nothing, the next read tells."""
        if self.loss is None and self._transport is not None:
            self._transport.write(data)

    def expect(self, count: int) -> None:
        """Note that so many replies were asked for that may come before anybody reads them."""
        self._expected = count

    async def read(self, seconds: float) -> Reply:
        """Return the next reply.

        Raises:
            LostError: there will be none: end of connection, nothing within `seconds`, or nonsense.
        """
        if not self._replies:
            await self._wait(seconds, self._has_reply)
        if self._expected:
            self._expected -= 1
        return self._replies.popleft()

    async def drain(self, seconds: float) -> None:
        """Wait until the kernel has all that was written, or the other side says something instead.

        Some of it must move every `seconds`: a long body on a slow line is not a timeout.

        Raises:
            LostError: the connection ended or stood still.
        """
        if self._has_room_or_reply():
            return
        if self._below is not None:
            self._loop.call_later(LOOK_SECONDS, self._look_below)
        await self._wait(seconds, self._has_room_or_reply)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Encrypt from here on. When this raises, the stream is lost.

        Raises:
            InjectedError: the server, or somebody in between, sent more than the reply to STARTTLS.
            OSError: the handshake failed (`ssl.SSLError` is one).
        """
        # Nothing runs between this check and the moment the transport changes hands, so no byte that
        # arrived in the clear can be read as a reply of the encrypted session.
        if self.loss is not None or self._transport is None:
            raise ConnectionResetError
        if not self.quiet:
            self.abort()
            raise InjectedError
        below = self._transport
        try:
            encrypted = await self._loop.start_tls(below, self, context, server_hostname=host)
        except BaseException:
            self.abort()
            self.connection_lost(None)  # the transport changed hands and would not tell any more
            raise
        if encrypted is None:
            raise ConnectionResetError
        self._adopt(encrypted)
        self._below = below

    def encrypted(self) -> ssl.SSLObject | None:
        """Return the TLS session, where there is one."""
        found = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return cast("ssl.SSLObject | None", found)

    def local_address(self) -> str:
        """Return our own address on this connection, empty when the connection is gone."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return str(name[0]) if name else ""

    def abort(self) -> None:
        """Close hard: nothing written later leaves, nothing more is read."""
        self._lose(Loss.ABORTED)

    async def wait_closed(self, seconds: float) -> None:
        """Wait until the transport has let go of the socket."""
        await asyncio.wait({self._ended}, timeout=seconds)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport of a new connection."""
        self._adopt(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Cut replies out of the bytes; nonsense ends the connection, since nothing after it is in step."""
        if self.loss is not None:
            return
        try:
            self._parser.feed(data, self._replies)
        except GarbageError:
            self._wake()  # whoever waits gets the reply that came before the nonsense
            self._lose(Loss.GARBAGE)
        else:
            self._wake()
        if len(self._replies) > MAX_UNREAD_REPLIES:
            self._lose(Loss.GARBAGE)

    def eof_received(self) -> None:
        """Note that the other side has ended the connection; returning None closes our side too."""
        self._lose(Loss.CLOSED)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # why it was lost changes nothing
        """Note that the transport is closed."""
        self._transport = self._below = None
        self._lose(Loss.CLOSED)
        if not self._ended.done():
            self._ended.set_result(None)

    def pause_writing(self) -> None:
        """Note that the kernel takes no more for now."""
        self._full = True

    def resume_writing(self) -> None:
        """Note that everything written is with the kernel."""
        self._full = False
        self._wake()

    # Inside.

    def _adopt(self, transport: asyncio.Transport) -> None:
        # With these limits "not paused" means that the kernel has everything; under TLS, that the transport below has.
        # Zero is no use for `high`: the TLS transports pause at it with nothing to wait for.
        transport.set_write_buffer_limits(high=1, low=0)
        self._transport = transport

    def _has_reply(self) -> bool:
        return bool(self._replies)

    def _has_room_or_reply(self) -> bool:
        return bool(self._replies) or not (self._full or (self._below is not None and self._unsent()))

    def _unsent(self) -> int:
        both = (self._transport, self._below)
        return sum(transport.get_write_buffer_size() for transport in both if transport is not None)

    def _look_below(self) -> None:
        """Look again and again whether the kernel has it all: TLS takes any amount at once, and does not tell."""
        self._wake()
        if self._waiter is not None and not self._waiter.done():
            self._loop.call_later(LOOK_SECONDS, self._look_below)

    async def _wait(self, seconds: float, ready: Callable[[], bool]) -> None:
        if self.loss is not None:
            raise LostError(self.loss)
        self._ready = ready
        self._patience = seconds
        self._left = self._unsent()
        self._waiter = self._loop.create_future()
        self._arm()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done() and self._ready():
            waiter.set_result(None)

    def _arm(self) -> None:
        self._deadline = self._loop.time() + self._patience
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        left = self._unsent()
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._ring)
        elif left < self._left:
            self._left = left
            self._arm()
        else:
            self._lose(Loss.TIMEOUT)

    def _lose(self, loss: Loss) -> None:
        if self.loss is None:
            self.loss = loss
            waiter = self._waiter
            if waiter is not None and not waiter.done():
                waiter.set_exception(LostError(loss))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
