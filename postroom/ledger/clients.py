"""Redis clients, built in one place: every connection is bounded in time, and none retries an accept."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from postroom.ledger.bounded import BoundedRedis
from postroom.ledger.cluster import ClusterClient
from postroom.ledger.cluster_pipe import ClusterPipe, connection_of
from postroom.ledger.connection import told_when_lost
from postroom.ledger.pipe import MAX_BATCH, Observe, ScriptPipe
from postroom.ledger.redis_url import is_cluster, open_pool, open_topology

CONNECT_SECONDS = 2.0
CANCEL_AGAIN_SECONDS = 0.1


def connection_options(url: str) -> dict[str, Any]:
    """Return what every connection has: a bound on connecting and, where there is a network, keepalive."""
    keepalive = {} if url.startswith("unix:") else {"socket_keepalive": True}
    return {"socket_connect_timeout": CONNECT_SECONDS, **keepalive}


def open_pipe(
    url: str, *, deadline: float, replicas: int = 0, batch: int = MAX_BATCH, observe: Observe | None = None
) -> ScriptPipe | ClusterPipe:
    """Return the way to the ledger's scripts; the options are those of a `ScriptPipe`."""
    if is_cluster(url):
        topology = open_topology(url)
        make = connection_of(topology, retry=Retry(ExponentialBackoff(), 0), **connection_options(url))
        return ClusterPipe(topology, make, deadline=deadline, replicas=replicas, batch=batch, observe=observe)
    return ScriptPipe(
        connection_maker(url), deadline=deadline, replicas=replicas, batch=batch, observe=observe
    )


def connection_maker(url: str) -> Callable[[], AbstractConnection]:
    """Return a maker of single connections without retries, for a `ScriptPipe`.

    A retry by the client would turn a request that was created into its own replay.
    """
    pool = open_pool(url, retry=Retry(ExponentialBackoff(), 0), **connection_options(url))
    return told_when_lost(pool).make_connection


def reading_client(url: str, *, timeout: float | None = 2.0) -> Redis:
    """Return a pooled client for reads: one quick retry, since a stale pooled connection is no outage.

    A call, or a pipeline of them, takes `timeout` seconds at most, with connecting and the retry.
    For a cluster it is none of redis-py's, but has what the ledger uses of one.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout,
        "retry": Retry(ExponentialBackoff(cap=0.1, base=0.01), 1),
        "retry_on_error": [RedisConnectionError],
        "max_connections": 64,
        **connection_options(url),
    }
    if is_cluster(url):
        return cast(Redis, ClusterClient(open_topology(url), seconds=timeout, **options))
    client = cast(BoundedRedis, BoundedRedis.from_pool(told_when_lost(open_pool(url, **options))))
    client.seconds = timeout
    return client


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks that speak to Redis and wait until they have ended; what they raised is of no use any more.

    Once is not enough: redis-py sends inside `asyncio.wait_for`, which on Python 3.11 swallows a cancellation
    that comes while what it waits for is done. Every second one was lost in an experiment.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
