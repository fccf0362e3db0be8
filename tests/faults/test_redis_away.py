"""Redis killed, stopped and frozen under load."""

import asyncio
import random
import time
from pathlib import Path

import aiohttp
import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, moment, scaled
from tests.stack import PATIENCE, Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)


class Load:
    """Callers that go on posting until told to stop, as good callers do: the same again on 503."""

    def __init__(self, stack: Stack, pause: float, name: str = "c") -> None:
        self.accepted: dict[str, float] = {}
        self._stack, self._pause, self._name = stack, pause, name
        self._over = False
        self._tasks = [asyncio.create_task(self._call(n)) for n in range(8)]

    async def stop(self) -> list[str]:
        """Stop, after what is being posted; return the ids."""
        self._over = True
        await asyncio.gather(*self._tasks)
        return list(self.accepted)

    async def _call(self, caller: int) -> None:
        number = 0
        while not self._over:
            number += 1
            message_id = await self._stack.accept(sample(f"{self._name}-{caller}-{number}"))
            self.accepted[message_id] = time.time()
            await asyncio.sleep(self._pause)


async def test_redis_killed_again_and_again_loses_nothing(folder: Path):
    """Redis killed and started under load: no process exits, and everything accepted arrives."""
    draw = random.Random(2)
    async with Receiver({"DOT": "slow 0.005"}) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        load = Load(stack, 0.03)
        for _ in range(scaled(4, 20)):
            await asyncio.sleep(draw.uniform(0.3, scaled(0.8, 2.0)))  # so long it is well
            await asyncio.to_thread(stack.redis.kill)
            await asyncio.sleep(draw.uniform(0.0, 0.4))  # and so long away
            await asyncio.to_thread(stack.redis.start)
        ids = await load.stop()
        await assert_delivered(stack, receiver, ids, PATIENCE)
        await assert_at_rest(stack, receiver, killed=True)
        assert [(b"pr:bell:", 2)] == await stack.ledger.pubsub_numsub("pr:bell:"), "a worker is deaf"


async def test_redis_away_is_503_and_a_pause_not_an_end(folder: Path):
    """Redis frozen, then stopped: 503 with Retry-After, liveness 200, nobody exits, all accepted arrives."""
    async with Receiver({"DOT": "slow 0.005"}) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        away = scaled(1.5, 30.0)
        pid = stack.processes["worker"].pid
        for begin, end in (
            (stack.redis.pause, stack.redis.resume),
            (stack.redis.stop, stack.redis.start),
        ):
            load = Load(stack, 0.02, begin.__name__)
            await receiver.until_mails(len(receiver.mails) + 20)
            await asyncio.to_thread(begin)
            await assert_unavailable(stack, away)
            await asyncio.to_thread(end)
            back = time.time()
            ids = await load.stop()
            messages = await assert_delivered(stack, receiver, ids, PATIENCE)
            last = max(moment(message["events"][-1]["at"]) for message in messages.values())
            print(f"the last message {last - back:.1f} s after Redis was back")  # noqa: T201
        assert (pid, None) == (stack.processes["worker"].pid, stack.processes["worker"].poll())
        await assert_at_rest(stack, receiver, killed=True)


async def test_an_outcome_on_its_way_is_never_given_back(folder: Path):
    """Redis dies between the server's yes and its being written, and the channel fails too: still one copy."""
    script = {
        "CONNECT": ["421 4.3.2 busy", "ok", "421 4.3.2 busy", "421 4.3.2 busy", "ok"],
        "DOT": ["accept raw 250 2.0.0 ok\r\n421 4.3.2 bye\r\n", "ok"],
    }
    async with Receiver(script) as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        receiver.arrivals.then = stack.redis.kill
        message_id = await stack.accept(sample("once"))
        await receiver.until_mails(1)
        await asyncio.sleep(0.3)  # Redis is away for so long
        await asyncio.to_thread(stack.redis.start)
        messages = await assert_delivered(stack, receiver, [message_id])
        assert (1, 1) == (receiver.copies()[message_id], len(messages[message_id]["attempts"]))
        await assert_at_rest(stack, receiver, killed=True)


async def assert_unavailable(stack: Stack, seconds: float) -> None:
    """Ask again and again for so long."""
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline:
        number += 1
        began = time.monotonic()
        async with stack.session.get(f"{stack.url}/livez") as response:
            assert 200 == response.status
        assert time.monotonic() - began < 1
        status, problem, headers = await stack.post(
            sample(f"away-{number}"), timeout=aiohttp.ClientTimeout(total=10)
        )
        assert (503, True) == (status, int(headers["retry-after"]) > 0)
        assert problem["code"] in ("unavailable", "acceptance_unconfirmed")
        await asyncio.sleep(0.1)
