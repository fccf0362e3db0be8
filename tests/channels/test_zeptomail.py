"""ZeptoMail's API as a channel: the shared suite, the meaning of every known answer, the bytes that leave."""

import asyncio
import logging
import socket
import ssl
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import aiohttp
import msgspec
import pytest
import trustme

from postroom.config.structs import ZeptomailChannel
from postroom.message import Address, Attachment, Content, Mail
from postroom.outcome import Ambiguous, Cause, ChannelFault, Deferred, Phase, Refused, Sent, Submission
from postroom.secret import Secret
from tests.channels.conformance import (
    BAD_RECIPIENT,
    CANARY,
    MAILS,
    ChannelConformance,
    Expected,
    Mark,
    Seen,
    attempt,
    order_for,
    same,
)
from tests.fakezepto import TOKEN, FakeZepto, Script, error, success
from workers.channels.seam import Order
from workers.channels.zeptomail import Timeouts, ZeptomailApi, normalise_token, send_url
from workers.channels.zeptomail_body import MAX_ENCODED

PATIENT, QUICK = Timeouts(connect=5, total=10), Timeouts(connect=0.2, total=0.3)
PLAIN = order_for(MAILS["plain"])


def channel_to(
    url: str,
    *,
    token: str = TOKEN,
    ca_file: str | None = None,
    timeouts: Timeouts = PATIENT,
    bounce_address: str | None = None,
) -> ZeptomailApi:
    config = ZeptomailChannel(name="zepto-api", token=Secret(token), base_url=url, ca_file=ca_file)
    return ZeptomailApi(config, bounce_address=bounce_address, timeouts=timeouts)


async def send_to(url: str, order: Order = PLAIN, mark: Mark | None = None, **more) -> Submission:
    channel = channel_to(url, **more)
    try:
        return await attempt(channel, order, mark or Mark())
    finally:
        await channel.aclose()


async def send(fake: FakeZepto, order: Order = PLAIN, mark: Mark | None = None, **more) -> Submission:
    return await send_to(fake.url, order, mark, **more)


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


REFUSED = error("TM_3201", "GE_102", remark=CANARY, target="subject", target_value=CANARY)
SCRIPTS = {
    "refused": Script(400, REFUSED),
    "deferred": Script(500, error("TM_9000", "XX_900", remark=CANARY)),
    "throttled": Script(429, {"error": {"message": CANARY}}),
    "timeout_after_mark": Script(accept=True, then="hang"),
    "reset_after_mark": Script(accept=True, then="reset"),
    "drop_after_mark": Script(accept=True, then="drop"),
    "lost_after_mark": Script(then="reset"),
    "garbage_after_mark": Script(200, CANARY.encode(), accept=True),
    "empty_answer": Script(201, b"", accept=True),
    "huge_answer": Script(201, success("an-id", CANARY * 100_000), accept=True),
    "slow_answer": Script(accept=True, delay=0.1),
    "hang_in_request": Script(then="hang"),
    "hang_in_answer": Script(accept=True, then="stall"),
}


class ZeptoHarness:
    """The suite's other side: a fake ZeptoMail."""

    overrides = MappingProxyType(
        {
            # The one request comes after the mark, so whatever it meets does too.
            "throttled": Expected(Cause.THROTTLE, 1, 0),
            "unreachable": Expected(Cause.CONNECT, 1, 0),
            "bad_credentials": Expected(Cause.AUTH, 1, 0),
            "bad_certificate": Expected(Cause.CONNECT, 1, 0),
            # One bad address makes ZeptoMail refuse the request; the others go with the next attempt.
            "one_refused_of_three": Expected((Deferred, Refused, Deferred), 1, 0),
        }
    )
    impossible = MappingProxyType(
        dict.fromkeys(("timeout_before_mark", "reset_before_mark"), "HTTP says nothing before the mark")
    )
    cancel_points = MappingProxyType(
        {"hang_in_handshake": True, "hang_in_request": True, "hang_in_answer": True}
    )

    def __init__(self) -> None:
        self._fake: FakeZepto | None = None
        self._silent: RawServer | None = None

    async def start(self, scenario: str) -> ZeptomailApi:
        if scenario == "hang_in_handshake":
            self._silent = RawServer()
            return channel_to(f"https://{await self._silent.start()}")
        context = tls_server()[1] if scenario == "bad_certificate" else None
        bad = (BAD_RECIPIENT,) if scenario == "one_refused_of_three" else ()
        self._fake = FakeZepto(tls=context, bad_addresses=bad, remark=CANARY)
        await self._fake.start()
        if scenario in SCRIPTS:
            self._fake.play(SCRIPTS[scenario])
        url = f"http://127.0.0.1:{free_port()}" if scenario == "unreachable" else self._fake.url
        token = "wrong" if scenario == "bad_credentials" else TOKEN
        return channel_to(url, token=token, timeouts=QUICK if scenario == "timeout_after_mark" else PATIENT)

    async def reached(self) -> None:
        waited_for = self._silent.reached if self._silent else self._fake.hanging
        await waited_for.wait()

    async def settled(self) -> None:
        if self._fake:
            await self._fake.settled()

    async def stop(self) -> None:
        fake, silent, self._fake, self._silent = self._fake, self._silent, None, None
        if silent:
            await silent.stop()
        if fake:
            await fake.stop()
            same([], fake.broken)

    @property
    def accepted(self) -> int:
        return len(self._fake.accepted) if self._fake else 0

    def seen(self) -> Seen:
        body = self._fake.accepted[-1].body
        boxes = [
            one["email_address"]["address"] for kind in ("to", "cc", "bcc") for one in body.get(kind, ())
        ]
        files = [(one["name"], msgspec.convert(one["content"], bytes)) for one in body.get("attachments", ())]
        return Seen(boxes, body["subject"], body["textbody"], files)


class TestConformance(ChannelConformance):
    @pytest.fixture
    async def harness(self):
        harness = ZeptoHarness()
        yield harness
        await harness.stop()


def verdict(ended: Submission) -> object:
    return ended.cause if isinstance(ended, ChannelFault) else ended.answers[0].outcome


MESSAGE, RECIPIENT = Refused(Phase.REQUEST, "message"), Refused(Phase.REQUEST, "recipient")
UNKNOWN = Ambiguous(Phase.DONE)
HTML = f"<html>{CANARY}</html>".encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (202, {"request_id": "an-id", "object": "email"}, Sent("an-id")),
        (201, HTML, UNKNOWN),
        (302, HTML, Cause.POLICY),
        (401, error("TM_4001", "SERR_157"), Cause.AUTH),
        (401, error("TM_4001", "SM_113", target="to"), RECIPIENT),
        (401, error("TM_4001", "SM_113", target="from"), MESSAGE),
        (403, error("TM_3601", "SMI_115"), Cause.QUOTA),
        (422, error("TM_3501", "MTR_107"), MESSAGE),
        (429, error("TM_5001", "LE_102"), Cause.QUOTA),
        (429, b"", Cause.THROTTLE),
        (500, error("TM_9000"), Deferred(Phase.REQUEST)),
        (502, HTML, UNKNOWN),
    ],
)
async def test_answers_mean_the_same_over_the_wire(status, body, expected):
    """What the table says of an answer is what a lane gets for it."""
    async with FakeZepto() as fake:
        fake.play(Script(status, body))

        assert expected == verdict(await send(fake))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"no HTTP at all\r\n\r\n", UNKNOWN),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{", UNKNOWN),
        (b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", UNKNOWN),
        (b"HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", UNKNOWN),
        (b"HTTP/1.1 201 Created\r\nX: " + b"x" * 100_000, UNKNOWN),
        (b"HTTP/1.1 201 Created\r\n", UNKNOWN),
        (b"HTTP/1.1 429 Slow down\r\nContent-Length: 99\r\n\r\n{", Cause.THROTTLE),
    ],
)
async def test_broken_http_after_the_request_is_ambiguous(reply, expected):
    """An answer that cannot be read leaves open what became of the mail, unless its status has come."""
    server = RawServer(reply)
    try:
        same(expected, verdict(await send_to(f"http://{await server.start()}")))
    finally:
        await server.stop()


async def test_a_wait_the_provider_asks_for_is_passed_on():
    """Retry-After turns a bare 503 into a surely deferred message and sets a throttled channel's wait."""
    async with FakeZepto() as fake:
        headers = {"Retry-After": "7"}
        fake.play(Script(503, HTML, headers), Script(429, b"{}", headers))

        assert Deferred(Phase.REQUEST, 7.0) == verdict(await send(fake))
        same(7.0, (await send(fake)).retry_after)


async def test_a_date_to_wait_for_is_held_against_the_providers_clock():
    """The local clock may be wrong by years: what counts is how long after its own answer the provider means."""
    async with FakeZepto() as fake:
        wait = {"Retry-After": "Tue, 14 Nov 2023 22:15:20 GMT", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
        fake.play(Script(429, b"{}", wait), Script(429, b"{}", wait | {"Date": "soon"}))

        same(120.0, (await send(fake)).retry_after)
        same(0.0, (await send(fake)).retry_after)


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
FULL_BODY = {
    "from": {"address": "orders@shop.example", "name": "Shop"},
    "to": [
        {"email_address": {"address": "ada@example.com", "name": "Ada"}},
        {"email_address": {"address": "eve@example.com"}},
    ],
    "cc": [{"email_address": {"address": "cy@example.com"}}],
    "bcc": [{"email_address": {"address": "bo@example.com", "name": "Bo"}}],
    "reply_to": [{"address": "help@shop.example", "name": "Help"}],
    "subject": "Your order",
    "htmlbody": "<p>Hello</p>",
    "textbody": "Hello",
    "attachments": [
        {"name": "a.pdf", "mime_type": "application/pdf", "content": b64encode(b"%PDF").decode()}
    ],
    "inline_images": [
        {"cid": "logo", "mime_type": "image/png", "content": b64encode(b"\x89PNG").decode()}
    ],
    "track_clicks": False,
    "track_opens": True,
    "client_reference": "orders-01JD8X0000000000000000009",
    "mime_headers": {"List-Id": "<orders.shop.example>", "X-Postroom-Id": "orders-01JD8X0000000000000000009"},
    "bounce_address": "bounce@bounce.shop.example",
}  # fmt: skip


async def test_the_body_is_exactly_what_the_api_describes():
    """Every field has its documented name and nesting, and no structural header goes along."""
    async with FakeZepto() as fake:
        ended = await send(fake, order_for(FULL), bounce_address="bounce@bounce.shop.example")

        same([FULL_BODY], [one.body for one in fake.accepted])
        assert fake.accepted[0].request_id == verdict(ended).provider_id
        assert {"application/json"} == {fake.accepted[0].headers[name] for name in ("Content-Type", "Accept")}


async def test_empty_members_are_left_out_and_a_retry_of_cc_goes_without_to():
    """A retry carries only its recipients; what is empty is not sent, except for tracking switched off."""
    mail = msgspec.structs.replace(MAILS["three"], track_opens=True)  # no HTML to track in
    async with FakeZepto() as fake:
        order = Order(mail=mail, recipients=(1,), bounce_address="b@bounce.shop.example")
        await send(fake, order, bounce_address="other@bounce.shop.example")

        expected = {
            "from": {"address": "orders@shop.example", "name": "Shop"},
            "cc": [{"email_address": {"address": BAD_RECIPIENT}}],
            "subject": "Your order",
            "textbody": "Hello",
            "track_clicks": False,
            "track_opens": False,
            "client_reference": mail.id,
            "mime_headers": {"X-Postroom-Id": mail.id},
            "bounce_address": "b@bounce.shop.example",
        }
        assert [expected] == [one.body for one in fake.accepted]


def with_file(name: str = "a.pdf", data: bytes = b"x", times: int = 1) -> dict:
    return {"attachments": (Attachment(name, "application/pdf", data),) * times}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"content": Content("s" * 501, "x")}, "SM_129"),
        ({"to": (Address("ada@example.com", "n" * 251),)}, "SM_129"),
        ({"reply_to": (Address("ada@example.com", "n" * 251),)}, "SM_129"),
        (with_file("f" * 147 + ".pdf"), "SM_129"),
        (with_file(data=b"x" * (MAX_ENCODED * 3 // 4 + 2)), "SM_129"),
        ({"content": Content("s", "\n" * (MAX_ENCODED // 2))}, "SM_129"),  # two bytes each when encoded
        (with_file(times=61), "SM_127"),
        (with_file("report.pdf.EXE"), "TM_3501"),
        (with_file("setup.exe. "), "TM_3501"),
    ],
)
async def test_what_is_over_a_limit_never_leaves(changes, code):
    """A breach of the provider's limits is the message's, and costs neither a mark nor a request."""
    mark, mail = Mark(), msgspec.structs.replace(MAILS["plain"], **changes)
    async with FakeZepto() as fake:
        ended = await send(fake, order_for(mail), mark)

        assert (MESSAGE, None, code) == (
            verdict(ended),
            ended.answers[0].reply_code,
            ended.answers[0].enhanced_code,
        )
        same(([], 0), (mark.told, fake.requests))


async def test_a_message_just_below_the_limits_leaves():
    """The limits are the provider's, not tighter: what stands exactly at them is sent."""
    changes = {
        "content": Content("s" * 500, "x"),
        "to": (Address("ada@example.com", "n" * 250),),
        "attachments": (Attachment("exe" + "f" * 147, "application/pdf", b"x" * 2_000_000),),
    }
    async with FakeZepto() as fake:
        ended = await send(fake, order_for(msgspec.structs.replace(MAILS["plain"], **changes)))

        assert Sent(fake.accepted[0].request_id) == verdict(ended)


@pytest.mark.parametrize(
    "written",
    [
        "abc.DEF=",
        " abc.DEF=\n",
        '"abc.DEF="',
        "Zoho-enczapikey abc.DEF=",
        "zoho-ENCZAPIKEY   abc.DEF=",
        "'Zoho-enczapikey abc.DEF='\r\n",
        'Zoho-enczapikey "abc.DEF="',
        "Zoho-enczapikey Zoho-enczapikey abc.DEF=",
    ],
)
def test_a_token_is_the_same_however_it_was_pasted(written):
    """Blanks, quotes and the scheme's name around a token are not part of it."""
    assert Secret("abc.DEF=") == normalise_token(Secret(written))


async def test_the_scheme_is_said_once():
    """The provider gets the scheme and the token, whatever the configuration holds."""
    async with FakeZepto() as fake:
        await send(fake, token=f'"zoho-enczapikey {TOKEN}"\n')

        assert [f"Zoho-enczapikey {TOKEN}"] == [one.headers["Authorization"] for one in fake.accepted]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://api.zeptomail.com", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/v1.1", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/v1.1/", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/v1.1/email", "https://api.zeptomail.com/v1.1/email"),
        ("https://proxy.example/zepto", "https://proxy.example/zepto/v1.1/email"),
        ("https://proxy.example/zepto/v1.1//", "https://proxy.example/zepto/v1.1/email"),
        ("http://127.0.0.1:8099", "http://127.0.0.1:8099/v1.1/email"),
    ],
)
def test_a_base_url_may_be_written_in_any_way(base, expected):
    """One joiner knows the path, so slashes, prefixes and the version may be there or not."""
    assert expected == send_url(base)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"token": ""}, Cause.AUTH),
        ({"token": "Zoho-enczapikey"}, Cause.AUTH),
        ({"token": "two\nlines"}, Cause.AUTH),
        ({"url": "http://api.zeptomail.example"}, Cause.AUTH),
        ({"url": "https://"}, Cause.CONNECT),
        ({"url": "https://host:port"}, Cause.CONNECT),
        ({"url": "ftp://127.0.0.1"}, Cause.CONNECT),
        ({"ca_file": "/nowhere/ca.pem"}, Cause.CONNECT),
        ({"ca_file": __file__}, Cause.CONNECT),
    ],
)
async def test_a_bad_configuration_is_a_fault_of_the_channel(changes, cause):
    """A token, URL or ca_file that cannot work is found when connecting, before any message is touched."""
    fault = await channel_to(**{"url": "https://api.zeptomail.example", **changes}).connect()

    assert (cause, Phase.CONNECT) == (fault.cause, fault.phase)


async def test_a_server_is_trusted_by_the_given_ca_file_only(tmp_path: Path):
    """With ca_file the provider's certificate is checked against it; without, an unknown one is named so."""
    authority, context = tls_server()
    trusted = str(tmp_path / "ca.pem")
    authority.cert_pem.write_to_path(trusted)
    async with FakeZepto(tls=context) as fake:
        by_name = fake.url.replace("127.0.0.1", "localhost")

        assert isinstance(verdict(await send(fake, ca_file=trusted)), Sent)
        assert "authority that is not trusted" in (await send(fake)).text
        assert "another host name" in (await send_to(by_name, ca_file=trusted)).text
        same(1, fake.requests)


@pytest.mark.parametrize(
    ("greeting", "text"),
    [(b"", "did not answer in time"), (b"220 smtp.example ESMTP\r\n", "does not speak TLS")],
)
async def test_a_failed_handshake_is_the_channels_fault(greeting, text):
    """Where TLS does not come about nothing was said, so the channel is at fault and no message is."""
    server = RawServer(greeting=greeting)
    try:
        fault = await send_to(f"https://{await server.start()}", timeouts=QUICK)
    finally:
        await server.stop()

    same((Cause.CONNECT, Phase.CONNECT), (fault.cause, fault.phase))
    assert text in fault.text


async def test_a_connection_is_kept_but_no_cookie_is():
    """Messages follow each other over one connection, and the provider's cookies are not sent back."""
    async with FakeZepto() as fake:
        channel = channel_to(fake.url)
        first, second = await channel.connect(), await channel.connect()
        for connection in (first, second, first):
            assert isinstance(verdict(await connection.submit(PLAIN, Mark())), Sent)

        same((3, 1, []), (fake.requests, len(fake._server.connections), fake.broken))
        await channel.aclose()
        assert not first.usable
        same(Cause.CONNECT, verdict(await first.submit(PLAIN, Mark())))


async def test_a_cancelled_submission_ends_its_own_connection_only():
    """Cancelling one lane closes its request's connection; the channel's others go on."""
    async with FakeZepto() as fake:
        fake.play(Script(then="hang"))
        channel = channel_to(fake.url)
        cancelled, other = await channel.connect(), await channel.connect()
        task = asyncio.create_task(cancelled.submit(PLAIN, Mark()))
        await fake.hanging.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await fake.settled()

        same((False, True), (cancelled.usable, other.usable))
        assert isinstance(verdict(await other.submit(PLAIN, Mark())), Sent)
        await channel.aclose()


async def test_no_redirect_is_followed():
    """A redirect could carry the token and the mail to another host, so it is the channel's fault."""
    async with FakeZepto() as fake, FakeZepto() as other:
        fake.play(Script(307, b"", {"Location": f"{other.url}/v1.1/email"}))

        same(Cause.POLICY, verdict(await send(fake)))
        same(0, other.requests)


async def test_nothing_secret_or_personal_is_logged_or_printed(caplog):
    """Neither the token nor anything of a mail or an answer shows in a log record or a repr."""
    caplog.set_level(logging.DEBUG)
    async with FakeZepto(remark=CANARY) as fake:
        fake.play(Script(then="reset"), Script(200, CANARY.encode()), SCRIPTS["refused"], Script(then="hang"))
        shown = [repr(await send(fake, order_for(FULL), timeouts=QUICK)) for _ in range(5)]
        channel = channel_to(fake.url)
        connection = await channel.connect()
        shown += [repr(channel), repr(vars(channel)), repr(connection), repr(vars(connection))]
        await channel.aclose()
    shown += [repr(await send_to(f"http://127.0.0.1:{free_port()}")), caplog.text]

    told = (TOKEN, "@", "Hello", "Your order", CANARY)
    same([], [(word, text) for word in told for text in shown if word in text])


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"headers": {}}, 400, "GE_121"),
        ({"to": [{"address": "ada@example.com"}]}, 400, "GE_121"),
        ({"reply_to": [{"email_address": {"address": "ada@example.com"}}]}, 400, "GE_121"),
        ({"to": "ada@example.com"}, 400, "SM_101"),
        ({"subject": ""}, 400, "GE_102"),
        ({"to": [], "cc": []}, 400, "GE_102"),
        ({"from": {"address": "not an address"}}, 401, "SM_113"),
        ({"attachments": [{"name": "a.pdf", "mime_type": "application/pdf", "content": "?"}]}, 400, "SM_120"),
    ],
)
async def test_the_fake_refuses_what_the_provider_would(changes, status, code):
    """The other side of these tests is strict, so a body it takes is one the API describes."""
    body = {"from": {"address": "a@shop.example"}, "subject": "s", "textbody": "t", **changes}
    body.setdefault("to", [{"email_address": {"address": "ada@example.com"}}])
    headers = {"Authorization": f"Zoho-enczapikey {TOKEN}"}
    async with FakeZepto() as fake, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        async with session.post(f"{fake.url}/v1.1/email", json=body, headers=headers) as response:
            said = await response.json()

        assert (status, code, 0) == (response.status, said["error"]["details"][0]["code"], len(fake.accepted))
