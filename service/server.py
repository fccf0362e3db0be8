"""The HTTP server of the API: in this process, on its event loop, and under this process's own signals."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.errors import FatalError
from granian.log import LogLevels
from granian.server.embed import Server

from postroom.errors import PostroomError
from postroom.ledger.clients import end_tasks

# What is in hand when it is told to stop has 10 s for its body and 2 s for the ledger; idle connections end at once.
DRAIN_SECONDS = 30.0
START_SECONDS = 10.0  # how long one that is told to stop while it starts is waited for
LOOK_SECONDS, CONNECT_SECONDS = 0.01, 1.0
# Granian's records go through our own pipeline, by way of the root logger.
ONE_PIPELINE: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True}},
}


class ApiServer:
    """Serves one ASGI application until SIGTERM or SIGINT.

    A signal is never lost once this runs (`postroom.startup.run_process` has those before): one that comes while
    the application starts is obeyed as soon as the server listens. Where granian has a process for each server, one
    that comes before that process watches for it is, and the process stays until it is killed.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._stopping = asyncio.Event()
        self._bound = asyncio.Event()
        self._listening = False

    @property
    def ready(self) -> bool:
        """Whether a connection is taken, and the next one will be: it listens and has not been told to stop."""
        return self._listening and not self._stopping.is_set()

    async def run(self, build: Callable[[], Any]) -> None:
        """Serve the application that `build` makes.

        Raises:
            PostroomError: it could not start, or did not end in time.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        server = Server(
            build(),
            address=self._host,
            port=self._port,
            interface=Interfaces.ASGI,
            http=HTTPModes.http1,
            backlog=2048,
            log_dictconfig=ONE_PIPELINE,
            log_level=LogLevels.error,
            log_access=False,
            websockets=False,
        )
        server.on_startup(self._bound.set)
        serving = asyncio.create_task(server.serve())
        await self._until_told(serving)
        server.stop()  # type: ignore[no-untyped-call]
        await self._ended(serving)

    async def _until_told(self, serving: asyncio.Task[None]) -> None:
        """Wait until it is to stop, or has ended by itself; one that is told while it starts may first have started."""
        listening = asyncio.create_task(self._until_listening())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({serving, listening}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        await end_tasks(listening, stopping)

    async def _ended(self, serving: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait_for(serving, DRAIN_SECONDS)
        except FatalError as error:
            raise PostroomError(f"the API does not start: {error}") from None
        except RuntimeError as error:
            if self._bound.is_set():
                raise
            # Its text goes on with the server's own stack.
            reason = str(error).partition("\n")[0]
            raise PostroomError(f"cannot listen on {self._host}:{self._port}: {reason}") from None
        except TimeoutError:
            raise PostroomError(f"requests were still in hand {DRAIN_SECONDS:g} s after the end") from None

    async def _until_listening(self) -> None:
        """Wait until a connection is taken; the server itself does not tell when that is.

        Only once the port is ours: before, whoever else has it would answer.
        """
        await self._bound.wait()
        while not self._listening:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:  # or a TimeoutError, which is one
                await asyncio.sleep(LOOK_SECONDS)
            else:
                self._listening = True
                writer.close()
