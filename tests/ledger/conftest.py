"""A ledger over a real Redis: one server for all tests that leave it as they found it, emptied before each."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.ledger.harness import Ledger
from tests.redisd import RedisServer


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """A Redis for tests that do not kill, fill or pause it."""
    with tempfile.TemporaryDirectory(prefix="pr") as path:
        server = RedisServer(Path(path))
        server.start()
        yield server
        server.kill()


@pytest.fixture
async def ledger(shared_redis: RedisServer) -> AsyncIterator[Ledger]:
    """An empty ledger."""
    shared_redis.command("FLUSHALL")
    opened = Ledger(shared_redis.url)
    yield opened
    await opened.aclose()


@pytest.fixture
async def own_ledger(redis_server: RedisServer) -> AsyncIterator[Ledger]:
    """A ledger over a Redis of its own, `redis_server`, which may be killed, filled and paused."""
    opened = Ledger(redis_server.url, deadline=1.0)
    yield opened
    await opened.aclose()
