"""What the servers of the metrics port, the inbox and the preview say of requests that are none."""

import asyncio
import json
import logging

import pytest
from aiohttp import web

from postroom.log import configure_logging
from postroom.log_events import COMMON, EVENTS
from postroom.settings import read_settings

GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n",
    b"HELO mail.example\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
]


async def _crash(_: web.Request) -> web.Response:
    raise ValueError("ada@shop.example")


async def _take(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


@pytest.fixture
def logging_as_processes_do():
    """Log like a process, and like the tests again afterwards."""
    root, server = logging.getLogger(), logging.getLogger("aiohttp.server")
    before = root.handlers[:], root.level, server.filters[:]
    yield lambda: configure_logging(read_settings({"POSTROOM_LOG_FORMAT": "json"}), "api")
    root.handlers[:], server.filters[:] = before[0], before[2]
    root.setLevel(before[1])


async def test_garbage_is_not_told_and_a_defect_is(capsys, logging_as_processes_do):
    """One line, of the catalogue, for the defect; none holds an address or what came."""
    logging_as_processes_do()
    app = web.Application()
    app.router.add_get("/crash", _crash)
    app.router.add_post("/", _take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    for request in (*GARBAGE, b"GET /crash HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write_eof()
        await reader.read()
        writer.close()
    await runner.cleanup()
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    event = EVENTS["port.crashed"]
    assert ("port.crashed", event.level, "ValueError") == (line["event"], line["level"], line["error"])
    assert set(line) == {*COMMON, *event.fields}
    assert "shop.example" not in str(line)
