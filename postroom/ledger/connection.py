"""What a lost connection to Redis looks like, whatever event loop it was lost on."""

from typing import Any

from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError


def told_when_lost(pool: ConnectionPool) -> ConnectionPool:
    """Let the pool's connections say `redis.exceptions.ConnectionError` where they were lost before a command.

    uvloop raises RuntimeError for a write to a connection that was reset while nobody looked; asyncio's own
    loop does not. Nobody catches that as an outage: it would end a background task for good.
    """
    kind: Any = pool.connection_class

    class Connection(kind):  # type: ignore[misc]
        async def send_packed_command(self, *args: Any, **options: Any) -> None:
            try:
                await super().send_packed_command(*args, **options)
            except RuntimeError as error:
                raise RedisConnectionError("the connection was lost") from error

    pool.connection_class = Connection
    return pool
