"""What the tests of the ZeptoMail channel share: a channel to a URL, servers that speak no HTTP, one full mail."""

import asyncio
import socket
import ssl
from contextlib import suppress

import trustme

from postroom.config.structs import ZeptomailChannel
from postroom.ledger.files import NO_UPLOAD
from postroom.message import Address, Attachment, Content, Mail
from postroom.outcome import Ambiguous, ChannelFault, Phase, Refused, Submission
from postroom.secret import Secret
from tests.channels.conformance import (
    CANARY,
    MAILS,
    Mark,
    attempt,
    order_for,
)
from tests.fakezepto import TOKEN, FakeZepto
from workers.channels.http_pool import Timeouts
from workers.channels.seam import Order
from workers.channels.zeptomail import ZeptomailApi

PATIENT, QUICK = Timeouts(connect=5, total=10), Timeouts(connect=0.2, total=0.3)
PLAIN = order_for(MAILS["plain"])
MESSAGE, RECIPIENT = Refused(Phase.REQUEST, "message"), Refused(Phase.REQUEST, "recipient")
UNKNOWN = Ambiguous(Phase.DONE)
HTML = f"<html>{CANARY}</html>".encode()
FULL = Mail(
    id="orders-01JD8X0000000000000000009",
    message_id="<01JD8X@shop.example>",
    date=1_700_000_000.0,
    sender=Address("orders@shop.example", "Shop"),
    to=(Address("ada@example.com", "Ada"), Address("eve@example.com")),
    cc=(Address("cy@example.com"),),
    bcc=(Address("bo@example.com", "Bo"),),
    reply_to=(Address("help@shop.example", "Help"),),
    content=Content(subject="Your order", text="Hello", html="<p>Hello</p>"),
    headers=(
        ("List-Id", "<orders.shop.example>"),
        ("Message-ID", "<another@shop.example>"),
        ("X-TM-CLIENT-REF", "forged"),
        ("x-postroom-id", "forged"),
    ),
    attachments=(
        Attachment("a.pdf", "application/pdf", b"%PDF"),
        Attachment("logo.png", "image/png", b"\x89PNG", cid="logo"),
    ),
    track_opens=True,
)


def channel_to(
    url: str,
    *,
    token: str = TOKEN,
    ca_file: str | None = None,
    timeouts: Timeouts = PATIENT,
    **more,
) -> ZeptomailApi:
    second = more.pop("second_token", None)
    config = ZeptomailChannel(
        name="zepto-api",
        token=Secret(token),
        second_token=second and Secret(second),
        base_url=url,
        ca_file=ca_file,
    )
    return ZeptomailApi(config, agent="orders", timeouts=timeouts, **more)


async def send_to(url: str, order: Order = PLAIN, mark: Mark | None = None, **more) -> Submission:
    channel = channel_to(url, **more)
    try:
        return await attempt(channel, order, mark or Mark())
    finally:
        await channel.aclose()


async def send(fake: FakeZepto, order: Order = PLAIN, mark: Mark | None = None, **more) -> Submission:
    return await send_to(fake.url, order, mark, **more)


class Keys:
    """What Redis remembers of a provider's files, in a dictionary: the real one has its own tests."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.resting: set[str | None] = set()

    async def get(self, file: str) -> str | None:
        key = self.known.get(file)
        return NO_UPLOAD if not key and self.resting & {file, None} else key

    async def begin(self, file: str) -> bool:
        if file in self.known:
            return False
        self.known[file] = ""
        return True

    async def end(self, file: str, key: str | None) -> None:
        if key is None:
            self.known.pop(file, None)
        else:
            self.known[file] = key

    async def rest(self, file: str | None) -> None:
        self.resting.add(file)

    async def forget(self, file: str, key: str) -> None:
        if self.known.get(file) == key:
            del self.known[file]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def tls_server() -> tuple[trustme.CA, ssl.SSLContext]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return authority, context


class RawServer:
    """Takes connections, says its greeting, and its reply to a request; without a reply it stays silent."""

    def __init__(self, reply: bytes = b"", *, greeting: bytes = b"") -> None:
        self.reached = asyncio.Event()
        self._reply = reply
        self._greeting = greeting
        self._taken: list[asyncio.Task] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def stop(self) -> None:
        self._server.close()
        await asyncio.gather(*self._taken)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._taken.append(asyncio.current_task())
        self.reached.set()
        with suppress(ConnectionError):
            writer.write(self._greeting)
            if self._reply:
                await reader.readuntil(b"}}")
                writer.write(self._reply)
            else:
                await reader.read()
            writer.close()
            await writer.wait_closed()


def verdict(ended: Submission) -> object:
    return ended.cause if isinstance(ended, ChannelFault) else ended.answers[0].outcome
