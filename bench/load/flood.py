"""POST as fast as the other side answers: `python -m bench.load.flood '{"port": 8080, …}'`.

Requests are bytes made beforehand but for their number, over raw connections that are kept; a response costs a
look at its status and its length, so one core of load is worth several of server.
"""

import asyncio
import json
import resource
import sys
import time
from typing import Any, cast

import msgspec
import uvloop

from bench.bodies import Template

LENGTH = b"content-length: "


class Order(msgspec.Struct, kw_only=True):
    """What to do. Either `count` requests, or as many as go in `seconds` after `warmup`."""

    port: int
    body: dict[str, Any]
    connections: int = 64
    first: int = 0  # the number of the first request
    count: int = 0
    seconds: float = 0.0
    warmup: float = 0.0


class Flood:
    """The shared state of all connections."""

    def __init__(self, order: Order) -> None:
        self.template = Template(order.port, order.body)
        self.next = order.first
        self.end = order.first + order.count if order.count else sys.maxsize
        self.answered = 0
        self.bad: list[str] = []
        self.over = False
        self.open = 0
        self.done = asyncio.get_running_loop().create_future()

    def draw(self) -> bytes | None:
        """Return the next request, or nothing when there is none."""
        if self.over or self.next >= self.end:
            return None
        request = self.template.write(self.next)
        self.next += 1
        return request

    def closed(self) -> None:
        """A connection has had its last answer."""
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)


class Caller(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, flood: Flood) -> None:
        self._flood = flood
        self._buffer = b""
        flood.open += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._post()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        fields = self._buffer[:head].lower()
        at = fields.find(LENGTH) + len(LENGTH)
        length = int(fields[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < head + 4 + length:
            return
        if not fields.startswith(b"http/1.1 20"):
            self._flood.bad.append(self._buffer[:200].decode("latin-1"))
        self._buffer = b""
        self._flood.answered += 1
        self._post()

    def connection_lost(self, error: Exception | None) -> None:
        if self._buffer is not None and not self._ended:
            self._flood.bad.append(f"connection lost: {error}")
            self._flood.closed()

    _ended = False

    def _post(self) -> None:
        request = self._flood.draw()
        if request is None:
            self._ended = True
            self._transport.close()
            self._flood.closed()
        else:
            self._transport.write(request)


async def run(order: Order) -> dict[str, Any]:
    """Post, and return how much was answered in which time."""
    flood, loop = Flood(order), asyncio.get_running_loop()
    began = time.monotonic()
    for _ in range(order.connections):
        await loop.create_connection(lambda: Caller(flood), "127.0.0.1", order.port)
    if order.seconds:
        await asyncio.sleep(order.warmup)
        answered, began, cpu = flood.answered, time.monotonic(), _cpu()
        await asyncio.sleep(order.seconds)
        answered = flood.answered - answered
        took, cpu = time.monotonic() - began, _cpu() - cpu
        flood.over = True
        await flood.done
    else:
        await flood.done
        answered, took, cpu = flood.answered, time.monotonic() - began, _cpu()
    return {
        "answered": answered,
        "seconds": took,
        "cpu": cpu / took,
        "next": flood.next,
        "began": began,
        "size": flood.template.size,
        "bad": flood.bad[:3],
        "bad_count": len(flood.bad),
    }


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Do what the first word says, as JSON; print what came of it, as JSON."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    print(json.dumps(uvloop.run(run(order))), flush=True)


if __name__ == "__main__":
    main()
