"""A role that one process of all has: a lease in Redis, kept by asking again."""

import asyncio
import uuid

from redis.asyncio import Redis
from redis.exceptions import RedisError

HOLD_MS = 15_000
REDIS_SECONDS = 2.0


class Role:
    """One process's part in it. Nothing of it raises: without Redis nobody can take the role meanwhile."""

    def __init__(self, client: Redis, key: str, *, hold_ms: int = HOLD_MS) -> None:
        self._client = client
        self._key = key
        self._hold_ms = hold_ms
        self._me = uuid.uuid4().hex
        self.ours = False

    async def ask(self) -> bool:
        """Take the role if nobody has it, keep it if it is ours; returns whether it is."""
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                self.ours = await self._ask()
        except (RedisError, OSError, TimeoutError):
            pass  # what was so stays so
        return self.ours

    async def give_up(self) -> None:
        """Leave the role to the next who asks, as well as Redis lets us."""
        if not self.ours:
            return
        self.ours = False
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                await self._client.delete(self._key)
        except (RedisError, OSError, TimeoutError):
            return  # it runs out

    async def _ask(self) -> bool:
        if await self._client.set(self._key, self._me, nx=True, px=self._hold_ms):
            return True
        holder = await self._client.get(self._key)
        if holder is None or holder.decode() != self._me:
            return False
        await self._client.pexpire(self._key, self._hold_ms)
        return True
