"""A node of a cluster that hangs, and the map of the nodes after it: the time of a call is over before it can be asked."""

import asyncio
import socket
import time
from pathlib import Path

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from postroom.ledger.cluster import ClusterClient
from postroom.ledger.cluster_pipe import ClusterPipe, connection_of
from postroom.ledger.errors import LedgerError
from postroom.ledger.redis_url import open_topology
from tests.redises import Servers

SECONDS = 0.4
SWEEP = ("sweep", "pr:{p00}:agenda", "pr:{p00}:", "", 0, 0, 1)


@pytest.fixture
async def topology(tmp_path: Path, monkeypatch):
    """A map by which one that hangs serves all; asked anew, it takes longer than a call, and then another one does."""
    with Servers(tmp_path) as servers, socket.create_server(("127.0.0.1", 0), backlog=128) as hung:
        dead, alive = hung.getsockname(), ("127.0.0.1", servers.start().port)
        topology = open_topology("redis+cluster://127.0.0.1:1")
        topology._ranges = [(0, 16383, dead)]

        async def ask(_):
            await asyncio.sleep(2 * SECONDS)
            return [(0, 16383, alive)]

        monkeypatch.setattr(topology, "_ask", ask)
        yield topology


async def until_answered(call):
    """Repeat a call as its owner does, for a while."""
    failed, until = 0, time.monotonic() + 15
    while time.monotonic() < until:
        try:
            await call()
        except (LedgerError, RedisTimeoutError):
            failed += 1
        else:
            return failed
    pytest.fail("the cluster's other node is never found")


async def test_calls_go_on_at_the_node_that_took_over(topology):
    """Each call has no time left to ask where to; what one began, the next ones profit by."""
    pipe = ClusterPipe(topology, connection_of(topology), deadline=SECONDS)
    assert 1 <= await until_answered(lambda: pipe.call(*SWEEP))
    await pipe.aclose()


@pytest.mark.parametrize("together", [False, True])
async def test_reads_go_on_at_the_node_that_took_over(topology, together):
    """One by one, and many at once."""
    client = ClusterClient(topology, seconds=SECONDS, socket_timeout=SECONDS)

    async def read():
        if not together:
            return await client.get("pr:{p00}:x")
        pipe = client.pipeline(transaction=False)
        pipe.get("pr:{p00}:x")
        return await pipe.execute()

    assert 1 <= await until_answered(read)
    await client.aclose()
