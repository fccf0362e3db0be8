"""A bare pipelined SMTP client: one message, many times, over a few connections, and nothing else.

`python -m bench.baselines.bare_smtp '{"port": 2525, "connections": 20, "count": 20000, "message": "…"}'`
"""

import asyncio
import json
import sys
import time
from typing import Any, cast

import msgspec
import uvloop

ENVELOPE = b"MAIL FROM:<orders@shop.example>\r\nRCPT TO:<ada.lovelace@customers.example>\r\nDATA\r\n"


class Order(msgspec.Struct, kw_only=True):
    """What to send how often."""

    port: int
    connections: int
    count: int
    message: str


class Sender(asyncio.Protocol):
    """One connection: greeting, EHLO, then MAIL, RCPT and DATA in one write, the body in another."""

    def __init__(self, left: list[int], body: bytes, done: asyncio.Future[None]) -> None:
        self._left = left
        self._body = body
        self._done = done
        self._lines = self._steps()
        next(self._lines)
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            if line[3:4] != b"-":
                self._lines.send(line[:3])

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(f"connection lost: {error}"))

    def _steps(self) -> Any:
        yield from self._expect(b"220")
        self._transport.write(b"EHLO bench.example\r\n")
        yield from self._expect(b"250")
        while self._left[0] > 0:
            self._left[0] -= 1
            self._transport.write(ENVELOPE)
            yield from self._expect(b"250", b"250", b"354")
            self._transport.write(self._body)
            yield from self._expect(b"250")
            self._left[1] -= 1
        if not self._left[1] and not self._done.done():
            self._done.set_result(None)
        yield

    def _expect(self, *codes: bytes) -> Any:
        for code in codes:
            got = yield
            if got != code and not self._done.done():
                self._done.set_exception(RuntimeError(f"{got!r} instead of {code!r}"))


async def run(order: Order) -> dict[str, Any]:
    """Send all and return how long it took."""
    loop = asyncio.get_running_loop()
    left, done = [order.count, order.count], loop.create_future()
    body = order.message.encode("latin-1") + b"\r\n.\r\n"
    began = time.monotonic()
    for _ in range(order.connections):
        await loop.create_connection(lambda: Sender(left, body, done), "127.0.0.1", order.port)
    await done
    return {"count": order.count, "seconds": time.monotonic() - began}


def main() -> None:
    """Do what the first word, or else the first line of stdin, says as JSON; print what came of it."""
    print("{}", flush=True)  # ready
    order = msgspec.json.decode(sys.stdin.readline(), type=Order)
    print(json.dumps(uvloop.run(run(order))), flush=True)


if __name__ == "__main__":
    main()
