"""Connections to Redis: how a lost one looks, whatever event loop it was lost on, and reading many replies at once."""

from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, AuthorizationError, BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError

READ_BYTES = 64 * 1024
# By their classes they are lost connections; here they are replies like others.
REPLIES = (AuthenticationError, AuthorizationError, BusyLoadingError)


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


def is_alive(connection: AbstractConnection) -> bool:
    """False where the connection is not made, or the other side has ended it: what is sent then surely goes nowhere."""
    if not connection.is_connected:
        return False
    reader: Any = connection._reader  # noqa: SLF001  redis-py has no public way to it
    return not reader.at_eof() and reader.exception() is None


async def read_replies(connection: AbstractConnection, count: int) -> list[Any]:
    """Return the next replies of a connection without deadlines of its own; refused calls are errors among them.

    They are taken from hiredis itself: `read_response` costs more for each than taking a dozen that are there.

    Raises:
        RedisConnectionError, OSError: the connection was lost, so that some replies are not known.
    """
    parser: Any = connection._parser  # noqa: SLF001  redis-py has no public way to it
    stream, reader = parser._stream, parser._reader  # noqa: SLF001
    replies: list[Any] = []
    while len(replies) < count:
        reply = reader.gets()
        if reply is NOT_ENOUGH_DATA:
            data = await stream.read(READ_BYTES)
            if not data:
                raise RedisConnectionError("the connection was closed")
            reader.feed(data)
        elif isinstance(reply, RedisConnectionError) and not isinstance(reply, REPLIES):
            raise reply
        else:
            replies.append(reply)
    return replies
