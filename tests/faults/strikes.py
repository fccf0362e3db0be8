"""What a soak does to the system, drawn from a seed: the same seed is the same sequence of strikes."""

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.faults.mail import Receiver
from tests.proxy import Proxy
from tests.smtpd import Script
from tests.stack import Stack

# Waits between attempts, shortened: a soak of a minute has no half hour for a retry.
QUICK_RETRIES = "[0.3, 0.6, 1.0, 1.5, 2.0]"
LAUNCH = (
    "--set",
    f'workers.retry:PROFILES={{"standard": {QUICK_RETRIES}, "interactive": {QUICK_RETRIES}}}',
)
ALWAYS: Script = {"DOT": "slow 0.005", "RCPT:nobody@example.com": "550 5.1.1 nobody"}
LATER: tuple[Script, ...] = (
    {"CONNECT": "421 4.3.2 busy"},
    {"MAIL": "451 4.3.0 later"},
    {"RCPT": "450 4.2.1 later"},
    {"DOT": "451 4.3.0 later"},
)
NEVER: tuple[Script, ...] = ({"RCPT": "550 5.1.1 nobody"}, {"DOT": "554 5.6.0 no"})


class Strike(NamedTuple):
    """One thing done to the system. `where` picks a victim and `how_long` a time, both from 0 to 1."""

    name: str
    where: float
    how_long: float
    then: float  # seconds until the next one


def strikes(seed: int) -> Iterator[Strike]:
    """Yield strikes without end, every kind as often as any other."""
    draw = random.Random(seed)
    while True:
        names = sorted(name.removeprefix("do_") for name in vars(Striker) if name.startswith("do_"))
        draw.shuffle(names)
        for name in names:
            yield Strike(name, draw.random(), draw.random(), draw.uniform(0.1, 1.0))


class Striker:
    """Does it, and puts things right again, so that the next strike finds a system that could be well."""

    def __init__(self, stack: Stack, receiver: Receiver, redis: Proxy, smtp: Proxy) -> None:
        self._stack, self._receiver = stack, receiver
        self._redis, self._smtp = redis, smtp
        self._born = 2
        self.said: list[str] = []  # what no process may do, whatever is done to it

    async def strike(self, strike: Strike) -> None:
        """Do one thing and wait a little."""
        await getattr(self, f"do_{strike.name}")(strike)
        await asyncio.sleep(strike.then)

    async def do_kill_worker(self, strike: Strike) -> None:
        self._stack.kill(self._victim(strike))
        await self._replace()

    async def do_end_worker(self, strike: Strike) -> None:
        name = self._victim(strike)
        code = await self._stack.end(name)
        if code != 0:
            self.said.append(f"{name} ended with {code} on SIGTERM")
        await self._replace()

    async def do_freeze_worker(self, strike: Strike) -> None:
        await self._freeze(self._victim(strike), 0.3 + 4 * strike.how_long)

    async def do_kill_api(self, _: Strike) -> None:
        self._stack.kill("api")
        await self._stack.start_api()

    async def do_freeze_api(self, strike: Strike) -> None:
        await self._freeze("api", 0.2 + 2 * strike.how_long)

    async def do_kill_redis(self, strike: Strike) -> None:
        await asyncio.to_thread(self._stack.redis.kill)
        await asyncio.sleep(strike.how_long)
        await asyncio.to_thread(self._stack.redis.start)

    async def do_freeze_redis(self, strike: Strike) -> None:
        self._stack.redis.pause()
        await asyncio.sleep(0.2 + 3 * strike.how_long)
        self._stack.redis.resume()

    async def do_cut_redis(self, _: Strike) -> None:
        self._redis.cut()

    async def do_reset_redis(self, _: Strike) -> None:
        self._redis.reset()

    async def do_stall_redis(self, strike: Strike) -> None:
        await self._stall(self._redis, strike)

    async def do_cut_at_script(self, strike: Strike) -> None:
        self._redis.cut_at(b"EVALSHA", replied=strike.where < 0.5)

    async def do_cut_smtp(self, _: Strike) -> None:
        self._smtp.cut()

    async def do_reset_smtp(self, _: Strike) -> None:
        self._smtp.reset()

    async def do_stall_smtp(self, strike: Strike) -> None:
        await self._stall(self._smtp, strike)

    async def do_reset_after_dot(self, _: Strike) -> None:
        self._at_commit(self._smtp.reset)

    async def do_storm_of_4xx(self, strike: Strike) -> None:
        await self._storm(LATER[int(strike.where * len(LATER))], 0.5 + 1.5 * strike.how_long)

    async def do_storm_of_5xx(self, strike: Strike) -> None:
        await self._storm(NEVER[int(strike.where * len(NEVER))], 0.2 + 0.5 * strike.how_long)

    async def do_flush_scripts(self, _: Strike) -> None:
        await self._stack.ledger.script_flush()

    async def do_delete_arqs_keys(self, _: Strike) -> None:
        names = [name async for name in self._stack.ledger.scan_iter("arq:*", count=1000)]
        await self._stack.ledger.delete("pr:rounds", "pr:sweeper", *names)

    def _victim(self, strike: Strike) -> str:
        names = sorted(name for name in self._stack.processes if name != "api")
        return names[int(strike.where * len(names))]

    async def _replace(self) -> None:
        self._born += 1
        await self._stack.start_worker(f"w{self._born:04}", launch=LAUNCH)

    async def _freeze(self, name: str, seconds: float) -> None:
        self._stack.pause(name)
        await asyncio.sleep(seconds)
        self._stack.resume(name)

    async def _stall(self, proxy: Proxy, strike: Strike) -> None:
        proxy.stall((None, "up", "down")[int(strike.where * 3)])
        await asyncio.sleep(0.2 + 3 * strike.how_long)
        proxy.resume()

    async def _storm(self, script: Script, seconds: float) -> None:
        self._receiver.script = {**ALWAYS, **script}
        await asyncio.sleep(seconds)
        self._receiver.script = ALWAYS

    def _at_commit(self, act: Callable[[], None]) -> None:
        def once() -> None:
            self._receiver.arrivals.then = lambda: None
            act()

        self._receiver.arrivals.then = once
