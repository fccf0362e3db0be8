"""Real neighbours for every test that wants them."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.redisd import RedisServer
from tests.smtpd import Smtpd
from tests.stack import Stack


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as the path of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="pr") as path:
        yield Path(path)


@pytest.fixture
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running Redis of its own."""
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def smtpd() -> AsyncIterator[Smtpd]:
    """A scripted SMTP server that takes everything."""
    async with Smtpd() as server:
        yield server


@pytest.fixture
async def stack(folder: Path, smtpd: Smtpd) -> AsyncIterator[Stack]:
    """Redis, one API and one worker, delivering into `smtpd`."""
    async with Stack(folder, smtpd.port) as running:
        await running.start_api()
        await running.start_worker()
        yield running
