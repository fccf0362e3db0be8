"""The SMTP side: takes every mail, for any recipient, and answers 250 when it is on file."""

import asyncio
import logging
import socket
import sqlite3
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from postroom.inbox.mail import Arrival
from postroom.inbox.mailbox import Mailbox
from postroom.inbox.parse import clean

MAX_MAIL_BYTES = 36_700_160  # 35 MiB
NULL_SENDER = "<>"  # how aiosmtpd hands over the empty sender of a bounce

log = logging.getLogger(__name__)


class Catcher:
    """Serves SMTP on one socket."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._handler = _Handler(mailbox)
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Begin to answer."""
        self._server = await asyncio.get_running_loop().create_server(self._connect, sock=listening)

    def _connect(self) -> "_Connection":
        return _Connection(self._handler, self._connections)

    async def stop(self) -> None:
        """Stop answering. A mail whose 250 was not sent may have been stored, as with any server."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.hang_up()


class _Connection(SMTP):
    # Long lines are against RFC 5321 4.5.3.1.6, but what a sender really sent is what this is here to show.
    line_length_limit = 1_048_576

    def __init__(self, handler: "_Handler", connections: set["_Connection"]) -> None:
        super().__init__(
            handler,
            data_size_limit=MAX_MAIL_BYTES,
            enable_SMTPUTF8=True,
            hostname="inbox.localhost",
            ident="Postroom inbox",
            loop=asyncio.get_running_loop(),
        )
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connections.add(self)
        # asyncio does this only for sockets that know their protocol number, which those of a listening socket
        # made beforehand do not; without it the replies to pipelined commands wait 40 ms for an acknowledgement.
        accepted: socket.socket = transport.get_extra_info("socket")
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(error)

    def hang_up(self) -> None:
        """Close without a word; the sender sees a lost connection."""
        if self.transport is not None:
            self.transport.close()


class _Handler:
    """What happens at the two moments of a session that matter here."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def handle_EHLO(  # noqa: N802 -- aiosmtpd finds its hooks by these names
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [responses[0], "250-PIPELINING", *responses[1:]]

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        sender = envelope.mail_from or ""
        arrival = Arrival(
            "" if sender == NULL_SENDER else clean(sender),
            tuple(map(clean, envelope.rcpt_tos)),
            _as_bytes(envelope.content),
        )
        try:
            await self._mailbox.put(arrival)
        except sqlite3.Error as error:
            log.error("inbox.not_stored", extra={"error": str(error)})  # noqa: TRY400 -- no trace needed
            return "451 4.3.0 The inbox could not store this mail; its log says why"
        return "250 2.0.0 Kept in the inbox, delivered to nobody"


def _as_bytes(content: Any) -> bytes:
    assert isinstance(content, bytes)  # decode_data is off
    return content
