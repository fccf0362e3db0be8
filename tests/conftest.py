"""Real neighbours for every test that wants them."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

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
async def own_stack(folder: Path, smtpd: Smtpd) -> AsyncIterator[Stack]:
    """Redis, one API and one worker, delivering into `smtpd`."""
    async with Stack(folder, smtpd.port) as running:
        await asyncio.gather(running.start_api(), running.start_worker())
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_stack() -> AsyncIterator[tuple[Stack, Smtpd]]:
    """The same, once for all tests that leave it as they found it."""
    with tempfile.TemporaryDirectory(prefix="pr") as path:
        async with Smtpd() as server, Stack(Path(path), server.port) as running:
            await asyncio.gather(running.start_api(), running.start_worker())
            yield running, server


@pytest.fixture
def relay(shared_stack: tuple[Stack, Smtpd]) -> Smtpd:
    """What the shared stack delivers into: it takes everything, and has taken nothing yet."""
    server = shared_stack[1]
    server.script = {}
    server.mails.clear()
    server.times.clear()
    return server


@pytest.fixture
def stack(shared_stack: tuple[Stack, Smtpd], relay: Smtpd) -> Stack:
    """The shared stack, with nothing in its logs. Tests are marked with its loop, `asyncio(loop_scope="session")`."""
    assert relay.script == {}
    running = shared_stack[0]
    running.forget_logs()
    return running
