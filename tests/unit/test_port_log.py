"""What the servers of the metrics port, the inbox and the preview say of requests that are none."""

import asyncio
import io
import json
import logging
import re
import sys

import pytest
import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from postroom.heart import Heart
from postroom.log import configure_logging
from postroom.log_events import COMMON, EVENTS
from postroom.port_log import PortLog
from postroom.settings import read_settings
from postroom.telemetry import Telemetry
from tests.stack import ROOT, free_port

SOURCES = sorted((ROOT / "postroom").rglob("*.py"))

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


async def _refresh() -> None:
    return


@pytest.fixture
def logged(monkeypatch):
    """Log like a process, and like the tests again afterwards; return what gives the lines."""
    root, out = logging.getLogger(), io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr(sys, "stdout", out)
    before = root.handlers[:], root.level
    configure_logging(read_settings({"POSTROOM_LOG_FORMAT": "json"}), "api")
    yield lambda: [json.loads(text) for text in out.buffer.getvalue().splitlines()]
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    structlog.reset_defaults()


async def test_garbage_is_not_told_and_a_defect_is(logged):
    """One line, of the catalogue, for the defect; none holds an address or what came."""
    port = free_port()
    telemetry = Telemetry(
        CollectorRegistry(),
        address=("127.0.0.1", port),
        refresh=_refresh,
        ready=lambda: True,
        heart=Heart(),
        routes=[web.get("/crash", _crash), web.post("/", _take)],
    )
    async with telemetry:
        await _send_all(port)
    (line,) = logged()
    event = EVENTS["port.crashed"]
    assert ("port.crashed", event.level, "ValueError") == (line["event"], line["level"], line["error"])
    assert set(line) == {*COMMON, *event.fields}
    assert "shop.example" not in str(line)


async def test_other_servers_are_silent_too(caplog):
    """Inbox, preview and the merged metrics have no catalogue: a defect is one line without who asked."""
    app = web.Application()
    app.add_routes([web.get("/crash", _crash), web.post("/", _take)])
    runner = web.AppRunner(app, access_log=None, logger=PortLog())
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await _send_all(port)
    await runner.cleanup()
    assert ["request.crashed"] == [record.getMessage() for record in caplog.records]


def test_every_server_of_the_product_has_that_log():
    """None is made without."""
    made = [
        line
        for path in SOURCES
        for line in re.findall(r"AppRunner\((?:[^()]|\([^()]*\))*\)", path.read_text())
    ]
    assert 4 <= len(made)
    assert [] == [one for one in made if "logger=PortLog(" not in one]


async def _send_all(port: int) -> None:
    for request in (*GARBAGE, b"GET /crash HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        writer.write_eof()
        await reader.read()
        writer.close()
