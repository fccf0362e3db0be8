"""Everything at once, at random: what no single fault shows."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.faults.mail import BRISK, SECONDS, Receiver, assert_at_rest, assert_delivered, scaled
from tests.stack import Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
AGENTS = ("orders", "logins")


class Moody(Receiver):
    """A server that now and then drops the connection before or after it took the mail."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        script = {"DOT": _Moods(draw, ("accept drop", "drop", "accept reset", "slow 0.2")), "MAIL": "ok"}
        script["RCPT"] = _Moods(draw, ("drop", "slow 0.1"))
        script["CONNECT"] = _Moods(draw, ("421 4.3.2 busy", "drop"))
        super().__init__(script)


class _Moods(list[str]):
    """A script's list whose every item is drawn anew; nineteen of twenty times it is `ok`."""

    def __init__(self, draw: random.Random, moods: tuple[str, ...]) -> None:
        super().__init__(["ok"])
        self._draw, self._moods = draw, moods

    def __getitem__(self, _: object) -> str:
        return self._draw.choice(self._moods) if self._draw.random() < 0.05 else "ok"


class Trouble:
    """What may happen to the processes, one thing after the other."""

    def __init__(self, stack: Stack, draw: random.Random) -> None:
        self._stack, self._draw = stack, draw
        self._born = 2
        self.done: list[str] = []

    async def strike(self) -> None:
        """Do one thing."""
        name = self._draw.choice(
            ("kill_worker", "end_worker", "pause_worker", "kill_redis", "pause_redis", "forget")
        )
        self.done.append(name)
        await getattr(self, name)()
        await asyncio.sleep(self._draw.uniform(0.1, 1.5))

    async def kill_worker(self) -> None:
        self._stack.kill(self._victim())
        await self._replace()

    async def end_worker(self) -> None:
        assert 0 == await self._stack.end(self._victim())
        await self._replace()

    async def pause_worker(self) -> None:
        victim = self._victim()
        self._stack.pause(victim)
        await asyncio.sleep(self._draw.choice((0.5, 2.5, 4.5)))
        self._stack.resume(victim)

    async def kill_redis(self) -> None:
        await asyncio.to_thread(self._stack.redis.kill)
        await asyncio.sleep(self._draw.uniform(0, 1))
        await asyncio.to_thread(self._stack.redis.start)

    async def pause_redis(self) -> None:
        self._stack.redis.pause()
        await asyncio.sleep(self._draw.uniform(0.2, 4))
        self._stack.redis.resume()

    async def forget(self) -> None:
        await self._stack.ledger.script_flush()
        names = [name async for name in self._stack.ledger.scan_iter("arq:*", count=1000)]
        await self._stack.ledger.delete("pr:rounds", "pr:sweeper", *names)

    def _victim(self) -> str:
        return self._draw.choice([name for name in self._stack.processes if name != "api"])

    async def _replace(self) -> None:
        self._born += 1
        await self._stack.start_worker(f"w{self._born}")


@pytest.mark.skipif(not scaled(False, True), reason="takes minutes: POSTROOM_LONG=1")
@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_nothing_is_lost_or_sent_twice_unaccounted(folder: Path, seed: int):
    """Processes killed, frozen and replaced, Redis too, servers in a mood: all accepted ends, copies accounted for."""
    draw = random.Random(seed)
    async with Moody(draw) as receiver:
        agent = 'retry_profile = "interactive"'
        async with Stack(folder, receiver.port, worker=BRISK, agent=agent) as stack:
            await asyncio.gather(stack.start_api(), stack.start_workers("w1", "w2"))
            accepted: dict[str, float] = {}
            over = time.monotonic() + 60

            async def call(caller: int) -> None:
                number = 0
                while time.monotonic() < over:
                    number += 1
                    body = sample(f"s-{caller}-{number}", agent="orders")
                    accepted[await stack.accept(body)] = time.time()
                    await asyncio.sleep(0.02)

            calls = asyncio.gather(*(call(n) for n in range(4)))
            trouble = Trouble(stack, draw)
            while time.monotonic() < over:
                await trouble.strike()
            await calls
            print(len(trouble.done), "strikes:", *sorted(set(trouble.done)))  # noqa: T201
            receiver.script = {}
            await assert_delivered(stack, receiver, accepted, 300)
            await assert_at_rest(stack, receiver, killed=True, renewing=0.7)
