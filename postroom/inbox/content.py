"""One mail in its several shapes: taken apart as JSON, its source, its HTML, its attachments."""

import asyncio
import re
from typing import Any
from urllib.parse import quote, unquote

from aiohttp import web

from postroom.inbox.guard import ProblemError
from postroom.inbox.keys import MAILBOX
from postroom.inbox.mail import Parsed, Stored
from postroom.inbox.parse import parse

# A mail may open a link in a new tab when clicked. It runs no script, sends no form, loads nothing.
SANDBOX = "sandbox allow-popups allow-popups-to-escape-sandbox"
CID = re.compile(r"\bcid:([^\s\"'<>)]+)", re.IGNORECASE)
HEAD = re.compile(r"<head(\s[^>]*)?>", re.IGNORECASE)
DOCTYPE = re.compile(r"\s*<!doctype[^>]*>", re.IGNORECASE)
NEW_TAB = '<base target="_blank">'
CONTENT_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+")

routes = web.RouteTableDef()


async def find(request: web.Request) -> Stored:
    """Return the mail the path names."""
    name = request.match_info["id"]
    stored = await request.app[MAILBOX].get(int(name)) if re.fullmatch(r"[0-9]{1,18}", name) else None
    if stored is None:
        raise ProblemError(404, "unknown_message", "There is no such mail; it may have been deleted")
    return stored


async def detail(stored: Stored) -> dict[str, Any]:
    """Return everything that can be read from a mail, ready to be encoded."""
    parsed = await asyncio.to_thread(parse, stored.raw)
    entry = stored.entry
    return {
        "id": entry.id,
        "at": entry.at,
        "envelope": {"sender": stored.sender, "recipients": entry.to},
        "from": parsed.author,
        "to": parsed.to,
        "cc": parsed.cc,
        "subject": parsed.subject,
        "postroom_id": entry.postroom_id,
        "client_ref": entry.client_ref,
        "size": entry.size,
        "headers": parsed.headers,
        "text": parsed.text,
        "html": parsed.html,
        "attachments": [
            {
                "name": part.name,
                "content_type": part.content_type,
                "size": len(part.data),
                "cid": part.cid,
                "url": f"{entry.url}/attachments/{index}",
            }
            for index, part in enumerate(parsed.parts)
        ],
        "url": entry.url,
        "raw_url": f"{entry.url}/raw",
        "html_url": None if parsed.html is None else f"{entry.url}/html",
    }


@routes.get("/api/messages/{id}/raw")
async def raw(request: web.Request) -> web.Response:
    """Give the bytes as they came."""
    stored = await find(request)
    return web.Response(
        body=stored.raw,
        headers={
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Disposition": f'attachment; filename="message-{stored.entry.id}.eml"',
        },
    )


@routes.get("/api/messages/{id}/html")
async def html(request: web.Request) -> web.Response:
    """Give the HTML for a frame: inline images point here, and nothing else loads unless `images=remote`."""
    stored = await find(request)
    parsed = await asyncio.to_thread(parse, stored.raw)
    if parsed.html is None:
        raise ProblemError(404, "no_html", "This mail has no HTML")
    images = f"data: {request.url.origin()}{stored.entry.url}/attachments/"
    if request.query.get("images") == "remote":
        images += " https: http:"
    policy = (
        f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; font-src data:;"
        f" form-action 'none'; base-uri 'none'; frame-ancestors 'self'; {SANDBOX}"
    )
    return web.Response(
        text=_framed(parsed.html, parsed, stored.entry.url),
        headers={"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy},
    )


@routes.get("/api/messages/{id}/attachments/{n}")
async def attachment(request: web.Request) -> web.Response:
    """Give one attachment, always as a download: an image shows in a mail, nothing shows as a page."""
    stored = await find(request)
    parts = (await asyncio.to_thread(parse, stored.raw)).parts
    number = request.match_info["n"]
    if not re.fullmatch(r"[0-9]{1,6}", number) or int(number) >= len(parts):
        raise ProblemError(404, "unknown_attachment", "This mail has no such attachment")
    part = parts[int(number)]
    kind = part.content_type if CONTENT_TYPE.fullmatch(part.content_type) else "application/octet-stream"
    name = quote(part.name, safe="")
    return web.Response(
        body=part.data,
        headers={"Content-Type": kind, "Content-Disposition": f"attachment; filename*=UTF-8''{name}"},
    )


def _framed(source: str, parsed: Parsed, url: str) -> str:
    numbers = {part.cid: index for index, part in enumerate(parsed.parts) if part.cid}

    def inline(match: re.Match[str]) -> str:
        index = numbers.get(unquote(match[1]))
        return match[0] if index is None else f"{url}/attachments/{index}"

    source = CID.sub(inline, source)
    # After the doctype, because a document without one in front is laid out by older rules.
    place = HEAD.search(source) or DOCTYPE.match(source)
    end = place.end() if place else 0
    return source[:end] + NEW_TAB + source[end:]
