"""The page: three files served as they are."""

from pathlib import Path

from aiohttp import web

from postroom.inbox.guard import PAGE_POLICY

STATIC = Path(__file__).parent / "static"
TYPES = {
    "index.html": "text/html",
    "inbox.css": "text/css",
    "inbox.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

routes = web.RouteTableDef()


@routes.get("/")
async def index(_request: web.Request) -> web.Response:
    """Serve the page itself."""
    return _file("index.html")


@routes.get("/static/{name}")
async def static(request: web.Request) -> web.Response:
    """Serve one of its files."""
    name = request.match_info["name"]
    if name not in TYPES:
        raise web.HTTPNotFound
    return _file(name)


def _file(name: str) -> web.Response:
    return web.Response(
        body=(STATIC / name).read_bytes(),
        headers={
            "Content-Type": f"{TYPES[name]}; charset=utf-8",
            "Content-Security-Policy": PAGE_POLICY,
            "Cache-Control": "no-cache",
        },
    )
