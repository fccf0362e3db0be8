"""A run of mails over one connection, each told of the next as a lane tells it, and what a server saw of it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import structs

from postroom.message import Address, Mail
from postroom.outcome import ChannelFault
from tests.channels.conformance import MAILS, Mark, order_for
from tests.smtpd import Smtpd
from workers.channels.seam import Order
from workers.channels.smtp_connection import SmtpConnection


def numbered(number: int) -> Mail:
    """A mail with a recipient and a text of its own."""
    mail = MAILS["plain"]
    content = structs.replace(mail.content, text=f"number {number}")
    return structs.replace(mail, to=(Address(f"m{number}@example.com"),), content=content)


def orders_of(count: int) -> list[Order]:
    return [order_for(numbered(number)) for number in range(count)]


class Coming:
    """What a lane would send next; remembers how often it was asked."""

    def __init__(self, order: Order | None) -> None:
        self.order, self.asked = order, 0

    async def __call__(self) -> Order | None:
        self.asked += 1
        return self.order


async def send_run(connection: SmtpConnection, orders: Sequence[Order], marks: Sequence[Mark] = ()) -> list:
    """Submit one after the other as a lane does; return what became of each."""
    ends = []
    for number, order in enumerate(orders):
        ahead = Coming(orders[number + 1]) if number + 1 < len(orders) else None
        ends.append(await connection.submit(order, marks[number] if marks else Mark(), ahead))
    return ends


def outcomes(ends: Sequence) -> list:
    """The outcome of each message's only recipient, or the cause of a fault."""
    return [e.cause if isinstance(e, ChannelFault) else e.answers[0].outcome for e in ends]


def arrived(server: Smtpd) -> list[tuple[str, str]]:
    """Whom each mail was for, and what it says, in the order of arrival."""
    return [(m.recipients[0], m.data.decode().rpartition("\r\n\r\n")[2].strip()) for m in server.mails]


def wanted(*numbers: int) -> list[tuple[str, str]]:
    return [(f"m{number}@example.com", f"number {number}") for number in numbers]


class Tap:
    """Stands before a server and keeps what comes, in the pieces it came in."""

    def __init__(self, server: Smtpd) -> None:
        self.server, self.port = server, 0
        self.pieces: list[bytes] = []
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until both sides have ended."""
        self.tasks.add(asyncio.current_task())
        below, above = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            await asyncio.gather(self._up(reader, above), self._down(below, writer))
        except (OSError, asyncio.CancelledError):
            pass  # one side reset it, or the test is over
        finally:
            above.transport.abort()
            writer.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, above: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.pieces.append(data)
            above.write(data)
        above.close()

    async def _down(self, below: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await below.read(65536):
            writer.write(data)
        writer.close()


@asynccontextmanager
async def tapped(script=None, **options) -> AsyncIterator[tuple[Smtpd, Tap]]:
    """A scripted server behind a tap; a relay to the tap is `relay_to(tap)`."""
    async with Smtpd(script, **options) as server:
        tap = Tap(server)
        listener = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
        tap.port = listener.sockets[0].getsockname()[1]
        try:
            yield server, tap
        finally:
            listener.close()
            for task in tap.tasks:
                task.cancel()
            await asyncio.gather(*tap.tasks)


async def a_moment() -> None:
    await asyncio.sleep(0.01)
