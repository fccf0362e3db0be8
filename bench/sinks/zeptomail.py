"""A ZeptoMail that takes everything, as cheaply as Python can: `python -m bench.sinks.zeptomail`."""

import asyncio
import json
import re
from typing import cast

import uvloop

from bench.bodies import FIND_MARKER
from bench.sinks.control import Taken, serve

BODY = json.dumps(
    {
        "data": [{"code": "EM_104", "additional_info": [], "message": "Email request received"}],
        "message": "OK",
        "request_id": "2d6f.5f0c2b7d9a1e4c38.m1.9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d.18c5a1b2c3d",
        "object": "email",
    }
).encode()
ANSWER = (
    b"HTTP/1.1 201 Created\r\nServer: ZGS\r\nContent-Type: application/json;charset=UTF-8\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b" % (len(BODY), BODY)
)
REFUSAL = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
CALL = b"POST /v1.1/email "


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, taken: Taken) -> None:
        self._taken = taken
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        found = LENGTH.search(self._buffer, 0, head + 2)
        if found is None or not self._buffer.startswith(CALL):
            self._transport.write(REFUSAL)
            self._transport.close()
            return
        size = head + 4 + int(found[1])
        if len(self._buffer) < size:
            return
        message, self._buffer = self._buffer[head + 4 : size], self._buffer[size:]
        marker = FIND_MARKER(message)
        self._taken.take(message, marker and marker[0])
        self._transport.write(ANSWER)


def main() -> None:
    """Run until stdin ends."""
    taken = Taken()
    uvloop.run(serve(lambda: Sink(taken), taken))


if __name__ == "__main__":
    main()
