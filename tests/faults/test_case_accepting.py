"""Cases 1 to 4: what a caller is told while the API or Redis dies under its request."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.faults.mail import (
    SECONDS,
    Load,
    Receiver,
    assert_at_rest,
    assert_delivered,
    assert_unavailable,
    scaled,
)
from tests.proxy import Proxy
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)


async def die_while_accepting(stack: Stack, failpoint: str, body: dict[str, Any]) -> None:
    """Start an API that dies at a point of the request, and make it."""
    await stack.start_api(failpoint=failpoint)
    with pytest.raises((aiohttp.ClientError, TimeoutError)):
        await stack.post(body, timeout=aiohttp.ClientTimeout(total=10))
    stack.kill("api")
    (stack.folder / "api.log").unlink()  # its server's parent may have told of the death


async def test_case_01_api_killed_after_the_script(folder: Path):
    """The caller has no answer: the message is sent once, and the same ref is a 200 replay of the same id."""
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        body = sample("case-1")
        worker = asyncio.create_task(stack.start_worker())
        await die_while_accepting(stack, "accept.after_script", body)
        await worker
        await receiver.until_mails(1)
        await stack.start_api()
        status, answer, headers = await stack.post(body)
        assert (200, "true") == (status, headers["idempotent-replayed"])
        await assert_delivered(stack, receiver, [answer["id"]])
        assert {answer["id"]: 1} == receiver.copies()


async def test_case_02_api_killed_before_the_script(folder: Path):
    """The caller has no answer: nothing is recorded, and the same ref is a 202."""
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        body = sample("case-2")
        worker = asyncio.create_task(stack.start_worker())
        await die_while_accepting(stack, "accept.before_script", body)
        await worker
        assert [] == [name async for name in stack.ledger.scan_iter("pr:{*}:[mpr]:*")]
        await stack.start_api()
        status, answer, headers = await stack.post(body)
        assert (202, "false") == (status, headers["idempotent-replayed"])
        await assert_delivered(stack, receiver, [answer["id"]])
        assert {answer["id"]: 1} == receiver.copies()


async def test_case_03_redis_down_at_post(folder: Path):
    """Frozen, then stopped: 503 with Retry-After and no record, liveness 200, nobody exits, all accepted arrives."""
    async with Receiver({"DOT": "slow 0.005"}) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        for begin, end in (
            (stack.redis.pause, stack.redis.resume),
            (stack.redis.stop, stack.redis.start),
        ):
            load = Load(stack, 0.02, begin.__name__)
            await receiver.until_mails(len(receiver.mails) + 20)
            await asyncio.to_thread(begin)
            await assert_unavailable(stack, begin.__name__, scaled(1.0, 30.0))
            await asyncio.to_thread(end)
            ids = await load.stop()
            await assert_delivered(stack, receiver, ids)
        # What was told surely not to be accepted is not there: only `stop` says that for sure.
        async with stack.session.get(f"{stack.url}/v1/messages?client_ref=stop-away-1&agent=orders") as found:
            assert [] == (await found.json())["messages"]
        await assert_at_rest(stack, receiver, killed=True)


async def test_case_04_the_scripts_reply_is_lost(folder: Path):
    """Cut in the request, cut before the reply, or stalled: 503, and the same ref makes exactly one message."""
    async with (
        Receiver() as receiver,
        Stack(folder, receiver.port) as stack,
        Proxy(stack.redis.path) as proxy,
    ):
        await stack.start_worker()
        stack.redis_url = proxy.redis_url
        await stack.start_api()
        ids = [await stack.accept(sample("case-4-first"))]  # Redis knows the scripts from here on
        for name, spoil, then in (
            ("request", lambda: proxy.cut_at(b"EVALSHA", replied=False), 202),
            ("reply", lambda: proxy.cut_at(b"EVALSHA", replied=True), 200),
            ("stall", lambda: proxy.stall("down"), 200),
        ):
            spoil()
            body = sample(f"case-4-{name}")
            status, problem, headers = await stack.post(body)
            assert (503, "acceptance_unconfirmed") == (status, problem["code"]), name
            assert ("application/problem+json", True) == (
                headers["content-type"],
                int(headers["retry-after"]) > 0,
            )
            proxy.resume()
            status, answer, _ = await stack.post(body)
            assert then == status, name
            ids.append(answer["id"])
        await assert_delivered(stack, receiver, ids)
        assert dict.fromkeys(ids, 1) == receiver.copies()
        records = [name async for name in stack.ledger.scan_iter("pr:{*}:m:*")]
        assert len(ids) == len(records) == 4
