"""A Redis client whose calls are bounded as wholes: the wait for a connection, making it, and a second try included."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import TimeoutError as RedisTimeoutError


@asynccontextmanager
async def bounded(seconds: float | None) -> AsyncIterator[None]:
    """Bound a call, or do not; a call that is too slow looks as redis-py has it.

    Raises:
        RedisTimeoutError: the time is up.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RedisTimeoutError("no answer in time") from error


class BoundedRedis(Redis):
    """redis-py's client, whose own time limits are for one read, one write, one try to connect each."""

    seconds: float | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command."""
        async with bounded(self.seconds):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "BoundedPipeline":
        """Return a pipeline that takes as long as one command at most."""
        pipe = BoundedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.seconds = self.seconds
        return pipe


class BoundedPipeline(Pipeline):
    """Many commands that are one call."""

    seconds: float | None = None

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send all and return the replies."""
        async with bounded(self.seconds):
            return await super().execute(raise_on_error)
