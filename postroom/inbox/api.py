"""The JSON API: list, wait, look, delete, and a stream of events."""

from contextlib import suppress
from typing import Any

import msgspec
from aiohttp import web

from postroom.inbox.content import detail, find
from postroom.inbox.keys import INFO, MAILBOX
from postroom.inbox.query import read_query

routes = web.RouteTableDef()


@routes.get("/api/messages")
async def list_messages(request: web.Request) -> web.Response:
    """List the newest mails that match, and with `wait` stay until there is one."""
    query, wait_seconds = read_query(request.query)
    page = await request.app[MAILBOX].find(query, wait_seconds=wait_seconds)
    return _json({"messages": page.messages, "total": page.total})


@routes.get("/api/messages/{id}")
async def get_message(request: web.Request) -> web.Response:
    """Show everything that can be read from one mail."""
    return _json(await detail(await find(request)))


@routes.delete("/api/messages")
async def clear(request: web.Request) -> web.Response:
    """Empty the inbox."""
    await request.app[MAILBOX].clear()
    return web.Response(status=204)


@routes.delete("/api/messages/{id}")
async def delete(request: web.Request) -> web.Response:
    """Delete one mail."""
    stored = await find(request)
    await request.app[MAILBOX].delete(stored.entry.id)
    return web.Response(status=204)


@routes.get("/api/events")
async def events(request: web.Request) -> web.StreamResponse:
    """Stream `message`, `deleted` and `cleared` as they happen, until the client leaves."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    with request.app[MAILBOX].feed.stream() as stream:
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")
        with suppress(ConnectionError):  # the reader left
            async for event in stream.events():
                await response.write(event)
    return response


@routes.get("/api/info")
async def info(request: web.Request) -> web.Response:
    """Say where mail is taken and where the API is expected; the page shows it."""
    return _json(request.app[INFO])


@routes.get("/livez")
async def livez(_request: web.Request) -> web.Response:
    """Answer, which is all there is to say."""
    return web.Response(text="ok\n")


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
