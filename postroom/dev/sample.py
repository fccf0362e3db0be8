"""The sample message of a start, and how long it took: accepted, then sent, then in the inbox."""

import asyncio
import time
import uuid
from typing import Any

import aiohttp
from msgspec import Struct

from postroom.errors import PostroomError

READY_SECONDS = 20.0
SAMPLE_SECONDS = 15.0
POLL_SECONDS = 0.03

SAMPLE: dict[str, Any] = {
    "agent": "orders",
    "to": [{"address": "ada@example.com", "name": "Ada Lovelace"}],
    "template": {
        "name": "order_shipped",
        "variables": {
            "first_name": "Ada",
            "order_number": "10023",
            "tracking_url": "https://shop.example/track/10023",
        },
    },
}


class Sample(Struct, frozen=True):
    """The sample mail's two times, in milliseconds, and where to see it."""

    message_id: str
    accepted_ms: float
    sent_ms: float
    link: str


async def wait_until_ready(urls: dict[str, str]) -> None:
    """Wait until every URL answers 200.

    Raises:
        PostroomError: names what did not.
    """
    deadline = time.monotonic() + READY_SECONDS
    async with aiohttp.ClientSession() as session:
        for name, url in urls.items():
            while not await _answers(session, url):
                if time.monotonic() > deadline:
                    raise PostroomError(f"{name} did not start: see its log")
                await asyncio.sleep(POLL_SECONDS)


async def send_sample(api: str, inbox: str, token: str) -> Sample:
    """Send one message and wait until it lies in the inbox.

    Raises:
        PostroomError: it was not accepted, or did not arrive.
    """
    body = {**SAMPLE, "client_ref": f"sample-{uuid.uuid4().hex[:12]}"}
    headers = {"Authorization": f"Bearer {token}"}
    started = time.perf_counter()
    async with aiohttp.ClientSession(headers=headers) as session:
        message = await _post(session, f"{api}/v1/messages", body)
        accepted_ms = (time.perf_counter() - started) * 1000
        try:
            async with asyncio.timeout(SAMPLE_SECONDS):
                await _until_sent(session, f"{api}/v1/messages/{message['id']}")
                sent_ms = (time.perf_counter() - started) * 1000
                link = await _find_in_inbox(session, inbox, message["client_ref"])
        except TimeoutError:
            raise PostroomError("the sample message did not arrive: see the logs") from None
    return Sample(message["id"], accepted_ms, sent_ms, link)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as response:
            body = await response.read()
            return response.status == 200 and b"unavailable" not in body
    except aiohttp.ClientError:
        return False


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> dict[str, Any]:
    for _ in range(50):
        async with session.post(url, json=body) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status in (200, 202):
                return answer
            if response.status != 503:
                raise PostroomError(f"the sample message was refused: {answer.get('code')}")
        await asyncio.sleep(0.1)
    raise PostroomError("the sample message was not accepted: the API has no Redis")


async def _until_sent(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        async with session.get(url) as response:
            if (await response.json())["state"] == "sent":
                return
        await asyncio.sleep(POLL_SECONDS / 3)


async def _find_in_inbox(session: aiohttp.ClientSession, inbox: str, client_ref: str) -> str:
    params = {"client_ref": client_ref, "wait": "10s"}
    async with session.get(f"{inbox}/api/messages", params=params) as response:
        found = (await response.json())["messages"]
    if not found:
        raise PostroomError("the sample message is not in the inbox: see the logs")
    return f"{inbox}/#/messages/{found[0]['id']}"
