"""The API channel's baseline: a bare loop of the same HTTP client, posting the same bodies to the same place.

`python -m bench.baselines.bare_http`, told on stdin: `{"port": 8080, "connections": 20, "count": 20000, "body": "…"}`
"""

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import msgspec
import uvloop

from bench.bodies import FIND_MARKER

HEADERS = {
    "Authorization": "Zoho-enczapikey wSsVR60-bench",
    "Content-Type": "application/json",
    "Accept": "application/json",
}


class Order(msgspec.Struct, kw_only=True):
    """What to post how often."""

    port: int
    connections: int
    count: int
    body: str


async def run(order: Order) -> dict[str, Any]:
    """Post all and return how long it took."""
    raw = order.body.encode("latin-1")
    found = FIND_MARKER(raw)
    pieces = raw.split(found[0]) if found else [raw]
    numbers = iter(range(order.count))
    url = f"http://127.0.0.1:{order.port}/v1.1/email"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def post() -> None:
            for number in numbers:
                body = (b"B%08d" % number).join(pieces)
                async with session.post(url, data=body, headers=HEADERS) as response:
                    await response.read()
                    if response.status != 201:
                        raise RuntimeError(f"answered {response.status}")

        began = time.monotonic()
        await asyncio.gather(*(post() for _ in range(order.connections)))
        took = time.monotonic() - began
    return {"count": order.count, "seconds": took}


def main() -> None:
    """Do what the first line of stdin says, as JSON; print what came of it."""
    print("{}", flush=True)  # ready
    order = msgspec.json.decode(sys.stdin.readline(), type=Order)
    print(json.dumps(uvloop.run(run(order))), flush=True)


if __name__ == "__main__":
    main()
