"""Probes over HTTP: what an answer to an empty request says of the token, and of the provider."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from postroom.config.structs import PostmarkChannel
from postroom.outcome import Cause, ChannelFault
from postroom.secret import Secret
from tests.channels.zepto import PATIENT, channel_to
from tests.fakezepto import error
from workers.channels.postmark import PostmarkApi
from workers.channels.seam import Channel, Probe

TROUBLE = "answers, but is in trouble (status {}): wait, or look at the provider's status page"
TAKEN = "answers an empty request with status {}, not as {} does: check base_url"
YES = {"data": [{"code": "EM_104"}], "message": "OK", "request_id": "x", "object": "email"}
WAIT = {"Retry-After": "30"}


@asynccontextmanager
async def always(status: int, body: object, headers: dict[str, str]) -> AsyncIterator[str]:
    """A server that answers every request so."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response(status=status, body=raw, headers=headers)

    runner = web.ServerRunner(web.Server(answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def channel(provider: str, url: str) -> Channel:
    if provider == "ZeptoMail":
        return channel_to(url)
    return PostmarkApi(PostmarkChannel(name="pm", token=Secret("t"), base_url=url), timeouts=PATIENT)


async def probe(provider: str, status: int, body: object, headers: dict[str, str]) -> Probe:
    async with always(status, body, headers) as url:
        asked = channel(provider, url)
        found = await asked.probe()
        await asked.aclose()
    assert (found.fault is None) is found.checks[-1].ok
    assert (found.fault.text if found.fault else "accepted") == found.checks[-1].text
    return found


@pytest.mark.parametrize(
    ("provider", "status", "body", "text", "wait"),
    [
        ("ZeptoMail", 500, error("TM_9999", "XX_1"), TROUBLE, None),
        ("ZeptoMail", 500, error("TM_3201", "GE_102"), TROUBLE, None),
        ("ZeptoMail", 503, error("TM_5000"), TROUBLE, 30),
        ("ZeptoMail", 503, b"<html>", TROUBLE, None),
        ("ZeptoMail", 502, b"", TROUBLE, None),
        ("ZeptoMail", 408, error("TM_9999"), TROUBLE, None),
        ("ZeptoMail", 200, YES, TAKEN, None),
        ("ZeptoMail", 201, error("TM_3201", "GE_102"), TAKEN, None),
        ("ZeptoMail", 204, b"", TAKEN, None),
        ("ZeptoMail", 302, error("TM_3201", "GE_102"), TAKEN, None),
        ("Postmark", 500, {"ErrorCode": 100}, TROUBLE, None),
        ("Postmark", 503, {"ErrorCode": 777}, TROUBLE, 30),
        ("Postmark", 500, {"ErrorCode": 300}, TROUBLE, None),
        ("Postmark", 502, b"<html>", TROUBLE, None),
        ("Postmark", 422, {"ErrorCode": 100}, TROUBLE, None),
        ("Postmark", 408, {"ErrorCode": 0}, TROUBLE, None),
        ("Postmark", 200, {"ErrorCode": 0, "MessageID": "x"}, TAKEN, None),
        ("Postmark", 200, {"ErrorCode": 300}, TAKEN, None),
    ],
)
async def test_no_refusal_is_no_token_accepted(
    provider: str, status: int, body: object, text: str, wait: float | None
):
    """Who is in trouble, or says yes to nothing at all, has not looked at the token: no breaker is released by it."""
    found = await probe(provider, status, body, WAIT if wait else {})

    assert isinstance(found.fault, ChannelFault)
    assert (Cause.CONNECT, text.format(status, provider)) == (found.fault.cause, found.fault.text)
    assert (status, wait) == (found.fault.reply_code, found.fault.retry_after)


@pytest.mark.parametrize(
    ("provider", "status", "body", "cause"),
    [
        ("ZeptoMail", 400, error("TM_3201", "GE_102"), None),
        ("ZeptoMail", 401, error("TM_3301", "SM_113"), None),
        ("ZeptoMail", 500, error("TM_4001", "LE_102"), Cause.QUOTA),
        ("ZeptoMail", 403, error("TM_3601", "SERR_156"), Cause.POLICY),
        ("ZeptoMail", 404, b"<html>", Cause.POLICY),
        ("ZeptoMail", 413, b"", Cause.CONNECT),
        ("Postmark", 422, {"ErrorCode": 300}, None),
        ("Postmark", 422, {"ErrorCode": 406}, None),
        ("Postmark", 401, {"ErrorCode": 10}, Cause.AUTH),
        ("Postmark", 500, {"ErrorCode": 413}, Cause.POLICY),
        ("Postmark", 404, b"<html>", Cause.POLICY),
    ],
)
async def test_a_refusal_tells(provider: str, status: int, body: object, cause: Cause | None):
    """A 4xx about the message means that the token was taken; what a code tells of the account goes before the status."""
    found = await probe(provider, status, body, {})

    assert cause == (found.fault.cause if found.fault else None)
