"""Case 24: a provider's HTTP API that throttles, storms, and answers what nobody can read."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakezepto import TOKEN, FakeZepto, Script, error
from tests.faults.mail import SECONDS, ambiguous
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
CHANNEL = """
[[agents.orders.channels]]
name = "api"
kind = "zeptomail"
base_url = "{url}"
token = {{ env = "TEST_ZEPTO_TOKEN" }}
"""
HTML = b"<html><h1>502 Bad Gateway</h1></html>"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the channel's configuration refers to."""
    monkeypatch.setenv("TEST_ZEPTO_TOKEN", TOKEN)


@asynccontextmanager
async def provided(folder: Path) -> AsyncIterator[tuple[Stack, FakeZepto]]:
    """A stack of two workers whose agent `orders` sends over the API."""
    async with FakeZepto() as fake:
        api = CHANNEL.format(url=fake.url)
        async with Stack(folder, 1, channels=api, agent='retry_profile = "interactive"') as stack:
            await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
            yield stack, fake
            assert ([], []) == (stack.exited(), stack.mishaps())


def copies(fake: FakeZepto) -> Counter[str]:
    """Return how often the provider took each message."""
    return Counter(mail.body["mime_headers"]["X-Postroom-Id"] for mail in fake.accepted)


async def fate_of(stack: Stack, fake: FakeZepto, policy: str, script: Script) -> tuple[str, int, int]:
    """Post a message whose first request ends like this; return its state, copies and ambiguous outcomes."""
    fake.play(script)
    message_id = await stack.accept(sample(f"{policy}-{fake.requests}", on_ambiguous=policy))
    message = await stack.until_finished(message_id)
    return message["state"], copies(fake)[message_id], ambiguous(message)


async def test_case_24_429_with_retry_after(folder: Path):
    """The channel pauses for all workers as long as asked; no attempt is counted; then all goes once."""
    async with provided(folder) as (stack, fake):
        fake.play(Script(status=429, headers={"Retry-After": "3"}, body=b"{}"))
        first = await stack.accept(sample("first"))
        await stack.until(lambda: _asked(fake, 1), "the provider was asked")
        throttled = time.monotonic()
        ids = [first, *[await stack.accept(sample(f"more-{number}")) for number in range(10)]]

        async def waits() -> bool:
            message = await stack.get(first)
            return (message["reason"] or {}).get("code") == "channel_throttle"

        await stack.until(waits, "it waits for the channel")
        while time.monotonic() - throttled < 2.8:
            assert 1 == fake.requests
            await asyncio.sleep(0.05)
        messages = await stack.until_all_finished(ids)
        assert {("sent", 1)} == {(m["state"], len(m["attempts"])) for m in messages.values()}
        assert dict.fromkeys(ids, 1) == copies(fake)


async def test_case_24_storm_of_5xx(folder: Path):
    """The provider's own errors are surely no yes: everything waits, and is sent once when the storm is over."""
    async with provided(folder) as (stack, fake):
        storm = Script(status=500, body=error("TM_9999", "ZZ_999"))
        fake.play(*[storm] * 12)
        ids = [await stack.accept(sample(f"storm-{number}")) for number in range(8)]
        messages = await stack.until_all_finished(ids)
        assert {"sent"} == {message["state"] for message in messages.values()}
        assert {"deferred", "sent"} == {a["outcome"] for m in messages.values() for a in m["attempts"]}
        assert dict.fromkeys(ids, 1) == copies(fake)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(Script(status=502, body=HTML, accept=True), id="html-502"),
        pytest.param(Script(status=200, body=b"OK, thanks", accept=True), id="garbage-200"),
        pytest.param(Script(accept=True, then="reset"), id="reset"),
    ],
)
async def test_case_24_answers_nobody_can_read(folder: Path, script: Script):
    """Ambiguous. `hold`: one copy, unconfirmed. `retry`: two copies, one ambiguous outcome."""
    async with provided(folder) as (stack, fake):
        assert ("unconfirmed", 1, 1) == await fate_of(stack, fake, "hold", script)
        assert ("sent", 2, 1) == await fate_of(stack, fake, "retry", script)


@pytest.mark.parametrize(("failpoint", "retried", "held"), [("after_mark", 1, 0), ("after_request", 2, 1)])
async def test_case_24_killed_around_the_request(folder: Path, failpoint: str, retried: int, held: int):
    """The mark stands before the request: killed before it or after it, the outcome is ambiguous, by policy."""
    async with FakeZepto() as fake:
        api = CHANNEL.format(url=fake.url)
        async with Stack(folder, 1, channels=api) as stack:
            armed = ["armed-1", "armed-2"]
            await asyncio.gather(stack.start_api(), stack.start_workers(*armed, failpoint=failpoint))
            ids: dict[str, Any] = {}
            for policy in ("retry", "hold"):
                ids[policy] = await stack.accept(sample(policy, on_ambiguous=policy))
                armed.remove(await stack.until_dead(*armed))
            await stack.start_worker("heir")
            messages = await stack.until_all_finished(ids.values())
            fates = {
                p: (messages[i]["state"], copies(fake)[i], ambiguous(messages[i])) for p, i in ids.items()
            }
            assert {"retry": ("sent", retried, 1), "hold": ("unconfirmed", held, 1)} == fates


async def _asked(fake: FakeZepto, times: int) -> bool:
    return fake.requests >= times
