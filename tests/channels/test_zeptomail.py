"""ZeptoMail's API over the wire: answers, broken answers, TLS, connections."""

import asyncio
import email.policy
import logging
from email.parser import BytesParser
from pathlib import Path

import aiohttp
import pytest
from msgspec import structs

from postroom.message import Address
from postroom.outcome import Cause, Deferred, Phase, Sent
from tests.channels.conformance import (
    CANARY,
    MAILS,
    Mark,
    order_for,
    same,
)
from tests.channels.zepto import (
    FULL,
    HTML,
    MESSAGE,
    PLAIN,
    QUICK,
    RECIPIENT,
    UNKNOWN,
    RawServer,
    channel_to,
    free_port,
    send,
    send_to,
    tls_server,
    verdict,
)
from tests.fakezepto import TOKEN, FakeZepto, Script, deliver_to, error
from tests.smtpd import Smtpd


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (202, {"request_id": "an-id", "object": "email"}, Sent("an-id")),
        (201, b'\xef\xbb\xbf{"request_id": "an-id", "object": "email"}', Sent("an-id")),
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


async def test_a_sender_is_left_to_another_channel():
    """The API has no place for it: the message waits, and nothing is said of it."""
    order = order_for(structs.replace(MAILS["plain"], submitter=Address("post@shop.example")))
    async with FakeZepto() as fake:
        mark = Mark()
        same(
            (Deferred(Phase.RENDER), [], 0),
            (verdict(await send(fake, order, mark)), mark.told, fake.requests),
        )


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
        fake.play(
            Script(then="reset"),
            Script(200, CANARY.encode()),
            Script(400, error("TM_3201", "GE_102", remark=CANARY, target_value=CANARY)),
            Script(then="hang"),
        )
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


async def test_the_fake_passes_on_what_it_takes():
    """Beside an inbox it is the whole way of a mail: what it accepted arrives over SMTP, files and all."""
    async with Smtpd() as inbox, FakeZepto(deliver=deliver_to(f"127.0.0.1:{inbox.port}")) as fake:
        await send(fake, order_for(FULL), bounce_address="b@bounce.shop.example")
        await inbox.until("DOT")

        mail = BytesParser(policy=email.policy.default).parsebytes(inbox.mails[0].data)
        assert ("Your order", FULL.id) == (mail["Subject"], mail["X-Postroom-Id"])
        assert 4 == len(inbox.mails[0].recipients)
        assert [b"%PDF", b"\x89PNG"] == [part.get_content() for part in mail.iter_attachments()]
