"""How a sink is asked what it took: words on stdin, lines of JSON on stdout."""

import asyncio
import json
import sys
import time
from typing import Any


class Taken:
    """What a sink took, counted at the moment it has the last byte."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.count = 0
        self.first = self.last = 0.0  # seconds of the machine's monotonic clock, which all processes share
        self.sample = b""
        self.times: dict[str, float] = {}

    def take(self, data: bytes, marker: bytes | None) -> None:
        """Count a message whose last byte has come; of the first one `data` is kept."""
        self.last = time.monotonic()
        if not self.count:
            self.first, self.sample = self.last, data
        self.count += 1
        if marker is not None:
            self.times.setdefault(marker.decode(), self.last)

    def answer(self, word: str) -> dict[str, Any]:
        """Answer one word of the bench."""
        match word:
            case "clear":
                self.clear()
                return {}
            case "sample":
                return {"sample": self.sample.decode("latin-1")}
            case "times":
                return {"times": self.times}
            case _:
                return {"count": self.count, "first": self.first, "last": self.last}


async def serve(factory: Any, taken: Taken) -> None:
    """Listen at a free port, print it, and answer until stdin ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, backlog=2048)
    _say({"port": server.sockets[0].getsockname()[1]})
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        _say(taken.answer(line.decode().strip()))


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
