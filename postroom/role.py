"""A role that one process of all has: a lease in Redis, kept by asking again."""

import asyncio
import time
import uuid

from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger.scripts import read_source

HOLD_MS = 15_000
REDIS_SECONDS = 2.0


class Role:
    """One process's part in it. Nothing of it raises: without Redis nobody can take the role meanwhile."""

    def __init__(self, client: Redis, key: str, *, hold_ms: int = HOLD_MS) -> None:
        self._client = client
        self._key = key
        self._hold_ms = hold_ms
        self._me = uuid.uuid4().hex
        self._asked_at = 0.0  # when the lease that we know of was asked for, by the monotonic clock
        self.ours = False

    async def ask(self) -> bool:
        """Take the role if nobody has it, keep it if it is ours; returns whether it is.

        Without an answer what was so stays so until the lease is over: another process may have the role then.
        """
        now = time.monotonic()
        try:
            self.ours = await self._run(self._hold_ms)
            self._asked_at = now
        except (RedisError, OSError, TimeoutError):
            self.ours = self.ours and time.monotonic() - self._asked_at < self._hold_ms / 1000
        return self.ours

    async def give_up(self) -> None:
        """Leave the role to the next who asks, as well as Redis lets us."""
        if not self.ours:
            return
        self.ours = False
        try:
            await self._run(0)
        except (RedisError, OSError, TimeoutError):
            return  # it runs out

    async def _run(self, hold_ms: int) -> bool:
        async with asyncio.timeout(REDIS_SECONDS):
            source = read_source("role").decode()
            return bool(await self._client.eval(source, 1, self._key, self._me, str(hold_ms)))  # type: ignore[misc]
