"""The page: three files served as they are."""

from pathlib import Path

from aiohttp import web

STATIC = Path(__file__).parent / "static"
TYPES = {
    "index.html": "text/html",
    "inbox.css": "text/css",
    "inbox.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

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
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-cache",
        },
    )
