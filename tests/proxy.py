"""A TCP proxy that a test can spoil at will: cut, reset, stall, drop replies, point elsewhere.

    async with Proxy(target) as proxy:            # target: ("127.0.0.1", port), or the path of a socket
        proxy.stall()                             # bytes stop, connections stay open
        proxy.resume()

"up" is towards the target, "down" is towards whoever connected.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

Target = tuple[str, int] | Path
Direction = Literal["up", "down"]
PIECE = 65536


class Proxy:
    """Listens on an ephemeral port of 127.0.0.1 and passes bytes on."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.port = 0
        self.passed = {"up": 0, "down": 0}  # bytes, of all connections
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = {"up": asyncio.Event(), "down": asyncio.Event()}
        self._until = {"up": -1, "down": -1}
        self._awaited = b""
        self._replied = True
        self.resume()

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        # Small, and so fixed: or the kernel would take megabytes for a proxy that passes nothing.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        self._server = await asyncio.start_server(self._serve, sock=listener)
        self.port = listener.getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def redis_url(self) -> str:
        """The proxy as the URL of a Redis."""
        return f"redis://127.0.0.1:{self.port}/0"

    def stall(self, direction: Direction | None = None, *, after: int = 0) -> None:
        """Pass nothing more, or nothing beyond so many more bytes; connections stay open, new ones are taken."""
        for way in ("up", "down") if direction is None else (direction,):
            if after:
                self._until[way] = self.passed[way] + after
            else:
                self._flows[way].clear()

    def resume(self) -> None:
        """Pass everything again, what was held back first."""
        for way in ("up", "down"):
            self._until[way] = -1
            self._flows[way].set()

    def cut(self) -> None:
        """End every connection."""
        for link in list(self._links):
            link.end(hard=False)

    def reset(self) -> None:
        """End every connection with a TCP reset."""
        for link in list(self._links):
            link.end(hard=True)

    def cut_at(self, words: bytes, *, replied: bool) -> None:
        """Cut the connection on which a request with these words comes by, once.

        `replied`: the request passes, and its reply is held back; else only half of the request passes.
        """
        self._awaited, self._replied = words, replied

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if isinstance(self.target, Path):
                there = await asyncio.open_unix_connection(str(self.target))
            else:
                there = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        link = _Link(writer, there[1])
        self._links.add(link)
        ways = (self._pass(link, reader, there[1], "up"), self._pass(link, there[0], writer, "down"))
        halves = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(halves, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            for half in halves:
                half.cancel()
            await asyncio.gather(*halves, return_exceptions=True)
            link.end(hard=False)
            self._links.discard(link)
            self._tasks.discard(task)

    async def _pass(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction
    ) -> None:
        while data := await reader.read(PIECE):
            if way == "down" and link.doomed:
                break
            if way == "up" and self._awaited and self._awaited in data:
                self._awaited, link.doomed = b"", True
                if not self._replied:
                    writer.write(data[: len(data) // 2])
                    break
            await self._flows[way].wait()
            rest = await self._held_back(data, writer, way)
            self.passed[way] += len(rest)
            writer.write(rest)
            await writer.drain()
        link.end(hard=False)

    async def _held_back(self, data: bytes, writer: asyncio.StreamWriter, way: Direction) -> bytes:
        """Pass what may still go before a stall, wait for its end, and return the rest."""
        room = self._until[way] - self.passed[way]
        if self._until[way] < 0 or room >= len(data):
            return data
        self._flows[way].clear()
        writer.write(data[:room])
        self.passed[way] += room
        await self._flows[way].wait()
        return data[room:]


class _Link:
    """One connection and its other half."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.doomed = False  # its next reply is not passed, the connection ends instead

    def end(self, *, hard: bool) -> None:
        for writer in self._writers:
            if hard:
                linger = struct.pack("ii", 1, 0)
                with suppress(OSError, ValueError):  # it is closed already
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            elif not writer.is_closing():
                # What was written still goes out, so that a cut is no reset.
                writer.close()
