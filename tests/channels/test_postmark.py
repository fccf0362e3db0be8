"""Postmark's API under the suite that all channels pass, and its own table."""

import asyncio
import json
from base64 import b64decode, b64encode
from types import MappingProxyType

import pytest
from aiohttp import web
from msgspec import structs

from postroom.config.structs import PostmarkChannel
from postroom.message import Address, Attachment
from postroom.outcome import Ambiguous, Cause, ChannelFault, Deferred, Phase, Refused, Sent
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
)
from tests.channels.zepto import PATIENT, QUICK, RawServer, free_port, tls_server
from tests.fakezepto import Script, _cut
from workers.channels.http_pool import HttpAnswer
from workers.channels.postmark import CODES, PostmarkApi, classify
from workers.channels.postmark_body import build

TOKEN = "server-token"
FIELDS = {
    "From",
    "To",
    "Cc",
    "Bcc",
    "ReplyTo",
    "Subject",
    "HtmlBody",
    "TextBody",
    "TrackOpens",
    "TrackLinks",
    "MessageStream",
    "Headers",
    "Attachments",
}


def said(code: int, **more: object) -> dict[str, object]:
    return {"ErrorCode": code, "Message": CANARY, **more}


class FakePostmark:
    """Takes mail at its own commit point, and answers by script."""

    def __init__(self, script: Script | None = None, tls=None) -> None:
        self.script, self.tls = script, tls
        self.accepted: list[dict] = []
        self.hanging = asyncio.Event()

    async def start(self) -> None:
        self.server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self.runner = web.ServerRunner(self.server, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls).start()
        host, port = self.runner.addresses[0][:2]
        self.url = f"http{'s' if self.tls else ''}://{host}:{port}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = json.loads(await request.read())
        status, answer = self._judge(request, body)
        script = self.script or Script(accept=True)
        if status == 200 and script.accept:
            self.accepted.append(body)
        await asyncio.sleep(script.delay)
        if script.then in ("reset", "drop"):
            _cut(request, hard=script.then == "reset")
            return web.Response()
        if script.then == "hang":
            self.hanging.set()
            await asyncio.Event().wait()
        if script.status is not None and status == 200:
            raw = script.body if isinstance(script.body, bytes) else json.dumps(script.body).encode()
            return web.Response(status=script.status, body=raw, headers=script.headers)
        return web.json_response(answer, status=status)

    def _judge(self, request: web.BaseRequest, body: dict) -> tuple[int, dict[str, object]]:
        if request.headers.get("X-Postmark-Server-Token") != TOKEN:
            return 401, said(10)
        people = ", ".join(body.get(kind, "") for kind in ("To", "Cc", "Bcc"))
        if (
            request.path != "/email"
            or set(body) - FIELDS
            or not body.get("From")
            or (BAD_RECIPIENT in people and self.script is None)
        ):
            return 422, said(300)
        return 200, said(0, MessageID="an-id", To=people)


SCRIPTS = {
    "accepted_three": Script(accept=True),
    "refused": Script(422, said(300)),
    "deferred": Script(503, said(100)),
    "throttled": Script(429, said(429)),
    "throttled_for_7s": Script(429, b"", {"Retry-After": "7"}),
    "quota": Script(422, said(405)),
    "blocked": Script(422, said(413)),
    "timeout_after_mark": Script(accept=True, then="hang"),
    "reset_after_mark": Script(accept=True, then="reset"),
    "drop_after_mark": Script(accept=True, then="drop"),
    "lost_after_mark": Script(then="reset"),
    "garbage_after_mark": Script(200, CANARY.encode(), accept=True),
    "html_answer": Script(200, f"<html>{CANARY}</html>".encode(), accept=True),
    "empty_answer": Script(200, b"", accept=True),
    "huge_answer": Script(200, said(0, Message=CANARY * 100_000), accept=True),
    "slow_answer": Script(accept=True, delay=0.1),
    "hang_in_request": Script(then="hang"),
}


class PostmarkHarness:
    """The suite's other side."""

    overrides = MappingProxyType(
        {
            "throttled": Expected(Cause.THROTTLE, 1, 0),
            "unreachable": Expected(Cause.CONNECT, 1, 0),
            "bad_credentials": Expected(Cause.AUTH, 1, 0),
            "bad_certificate": Expected(Cause.CONNECT, 1, 0),
            # It refuses the request and does not say for whose sake.
            "one_refused_of_three": Expected((Refused, Refused, Refused), 1, 0),
        }
    )
    impossible = MappingProxyType(
        dict.fromkeys(
            ("timeout_before_mark", "reset_before_mark", "garbage_before_mark"),
            "HTTP says nothing before the mark",
        )
    )
    cancel_points = MappingProxyType({"hang_in_handshake": True, "hang_in_request": True})

    def __init__(self) -> None:
        self.fake: FakePostmark | None = None
        self.silent: RawServer | None = None

    async def start(self, scenario: str) -> PostmarkApi:
        timeouts = QUICK if scenario == "timeout_after_mark" else PATIENT
        if scenario == "hang_in_handshake":
            self.silent = RawServer()
            return channel_to(f"https://{await self.silent.start()}")
        self.fake = FakePostmark(
            SCRIPTS.get(scenario), tls_server()[1] if scenario == "bad_certificate" else None
        )
        await self.fake.start()
        url = f"http://127.0.0.1:{free_port()}" if scenario == "unreachable" else self.fake.url
        return channel_to(url, "wrong" if scenario == "bad_credentials" else TOKEN, timeouts)

    async def reached(self) -> None:
        await (self.silent.reached if self.silent else self.fake.hanging).wait()

    async def settled(self) -> None:
        while self.fake and self.fake.server.connections:  # noqa: ASYNC110  the server has no event for it
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        fake, silent, self.fake, self.silent = self.fake, self.silent, None, None
        if silent:
            await silent.stop()
        if fake:
            await fake.runner.cleanup()

    @property
    def accepted(self) -> int:
        return len(self.fake.accepted) if self.fake else 0

    def seen(self) -> Seen:
        body = self.fake.accepted[-1]
        people = [
            one.rpartition("<")[2].rstrip(">")
            for kind in ("To", "Cc", "Bcc")
            for one in body.get(kind, "").split(", ")
            if one
        ]
        files = [(one["Name"], b64decode(one["Content"])) for one in body.get("Attachments", ())]
        return Seen(people, body["Subject"], body["TextBody"], files)


def channel_to(url: str, token: str = TOKEN, timeouts=PATIENT) -> PostmarkApi:
    return PostmarkApi(PostmarkChannel(name="postmark", token=Secret(token), base_url=url), timeouts=timeouts)


class TestPostmark(ChannelConformance):
    @pytest.fixture
    async def harness(self):
        harness = PostmarkHarness()
        yield harness
        await harness.stop()


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_its_end(code: int):
    """The table decides, whatever the status of a no; a yes needs a 2xx."""
    status = 200 if code == 0 else 422
    ended = classify(order_for(MAILS["plain"]), HttpAnswer(status, json.dumps(said(code)).encode()))
    wrong = classify(
        order_for(MAILS["plain"]), HttpAnswer(500 if code == 0 else 200, json.dumps(said(code)).encode())
    )

    meaning = CODES[code]
    kinds = {"sent": Sent, "message": Refused, "recipient": Refused, "later": Deferred}
    kind = ended.cause if isinstance(ended, ChannelFault) else type(ended.answers[0].outcome)
    assert (meaning[0] if isinstance(meaning, tuple) else kinds[meaning]) == kind
    assert Ambiguous(Phase.DONE) == wrong.answers[0].outcome
    assert CANARY not in repr(ended)


def test_the_body_is_what_the_api_describes():
    """Names are quoted, kinds are kept apart, an image has its cid, and what is empty is left out."""
    image = Attachment("logo.png", "image/png", b"\x89PNG", cid="logo")
    mail = structs.replace(
        MAILS["three"],
        to=(Address("ada@example.com", 'A "B" \\ C'),),
        attachments=(image,),
        track_clicks=True,
    )

    assert {
        "From": '"Shop" <orders@shop.example>',
        "To": '"A \\"B\\" \\\\ C" <ada@example.com>',
        "Bcc": "bob@example.com",
        "Subject": "Your order",
        "TextBody": "Hello",
        "TrackOpens": False,
        "TrackLinks": "HtmlAndText",
        "MessageStream": "outbound",
        "Headers": [{"Name": "X-Postroom-Id", "Value": mail.id}],
        "Attachments": [
            {"Name": "logo.png", "ContentType": "image/png", "Content": b"\x89PNG", "ContentID": "cid:logo"}
        ],
    } == build(structs.replace(order_for(mail), recipients=(0, 2)), "outbound")
    assert b64encode(b"\x89PNG")


async def test_what_is_over_a_limit_never_leaves():
    """More recipients than it takes, or more bytes, cost neither a mark nor a request."""
    many = structs.replace(MAILS["plain"], to=tuple(Address(f"a{n}@example.com") for n in range(51)))
    large = structs.replace(
        MAILS["plain"], attachments=(Attachment("a.pdf", "application/pdf", bytes(8_000_000)),)
    )
    fake = FakePostmark()
    await fake.start()
    for mail in (many, large):
        mark, channel = Mark(), channel_to(fake.url)
        ended = await attempt(channel, order_for(mail), mark)
        await channel.aclose()
        assert ({Refused}, []) == ({type(a.outcome) for a in ended.answers}, mark.told)
    await fake.runner.cleanup()


async def test_a_sender_is_left_to_another_channel():
    """The API has no place for it: the message waits, and nothing is said of it."""
    mail = structs.replace(MAILS["plain"], submitter=Address("post@shop.example"))
    fake, mark = FakePostmark(), Mark()
    await fake.start()
    channel = channel_to(fake.url)
    ended = await attempt(channel, order_for(mail), mark)
    await channel.aclose()
    await fake.runner.cleanup()
    assert (Deferred(Phase.RENDER), [], []) == (ended.answers[0].outcome, mark.told, fake.accepted)


@pytest.mark.parametrize(("token", "accepted"), [(TOKEN, True), ("wrong", False)])
async def test_a_probe_tells_whether_the_token_is_taken(token: str, accepted: bool):
    """An empty request is refused for what it lacks where the token is good, and nothing is sent."""
    fake = FakePostmark()
    await fake.start()
    channel = channel_to(fake.url, token)
    probe = await channel.probe()
    await channel.aclose()
    await fake.runner.cleanup()

    assert (accepted, ("token", accepted), []) == (
        probe.fault is None,
        (probe.checks[-1].name, probe.checks[-1].ok),
        fake.accepted,
    )
