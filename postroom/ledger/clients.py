"""Redis clients, built in one place: every connection is bounded in time, and none retries an accept."""

from collections.abc import Callable
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

CONNECT_SECONDS = 2.0


def connection_options(url: str) -> dict[str, Any]:
    """Return what every connection has: a bound on connecting and, where there is a network, keepalive."""
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return {"socket_connect_timeout": CONNECT_SECONDS, **keepalive}


def connection_maker(url: str) -> Callable[[], AbstractConnection]:
    """Return a maker of single connections without retries, for a `ScriptPipe`.

    A retry by the client would turn a request that was created into its own replay.
    """
    pool = ConnectionPool.from_url(url, retry=Retry(ExponentialBackoff(), 0), **connection_options(url))
    return pool.make_connection


def reading_client(url: str, *, timeout: float | None = 2.0) -> Redis:
    """Return a pooled client for reads: one quick retry, since a stale pooled connection is no outage."""
    client: Redis = Redis.from_url(
        url,
        socket_timeout=timeout,
        retry=Retry(ExponentialBackoff(cap=0.1, base=0.01), 1),
        retry_on_error=[RedisConnectionError],
        max_connections=64,
        **connection_options(url),
    )
    return client
