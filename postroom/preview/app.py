"""The live page: what a folder of templates looks like, for the browser on this machine."""

import asyncio
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from postroom.errors import PostroomError
from postroom.inbox.guard import PAGE_POLICY, known_hosts, problems, strict_headers
from postroom.port_log import PortLog
from postroom.preview.folder import Seen, WatchedFolder
from postroom.templates import TemplatesError

HOST = "127.0.0.1"
LOOK_SECONDS = 0.25
WAIT_SECONDS = 20.0  # for news, before the page asks again
STATIC = Path(__file__).parent / "static"
TYPES = {
    "index.html": "text/html",
    "preview.css": "text/css",
    "preview.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
# A mail runs no script and sends no form, whoever wrote it; the page may measure it.
MAIL_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src http: https: data:; font-src http: https: data:;"
    " form-action 'none'; base-uri 'none'; frame-ancestors 'self'; sandbox allow-same-origin"
)


class Preview:
    """The page of one folder. `turn` counts its changes, for whoever waits for the next one."""

    def __init__(self, folder: WatchedFolder) -> None:
        self._folder = folder
        self._turn = 0
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Look at the folder, and wake everybody who waits where it has changed."""
        try:
            changed = self._folder.look()
        except TemplatesError:  # moved away for a moment, by an editor or a checkout: what was seen stays
            return
        if changed:
            self.wake()

    def wake(self) -> None:
        """Answer everybody who waits."""
        self._turn += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def keep_looking(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[problems, known_hosts(())])
        app.add_routes(
            [
                web.get("/", _page),
                web.get("/static/{name}", _page),
                web.get("/api/templates", self._templates),
                web.get("/mail/{name}/{number:[0-9]+}", self._mail),
            ]
        )
        app.on_response_prepare.append(strict_headers)
        return app

    async def _templates(self, request: web.Request) -> web.Response:
        """Tell all templates; with `seen=N`, once there is something newer than that, or after a while."""
        if request.query.get("seen") == str(self._turn):
            changed = self._changed
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await changed.wait()
            except TimeoutError:
                pass
        templates = [_view(seen) for seen in self._folder.seen.values()]
        body = {"turn": self._turn, "folder": str(self._folder.path), "templates": templates}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _mail(self, request: web.Request) -> web.Response:
        seen = self._folder.seen.get(request.match_info["name"])
        number = int(request.match_info["number"][:6])
        if seen is None or number >= len(seen.showings) or seen.showings[number].content.html is None:
            raise web.HTTPNotFound
        html = seen.showings[number].content.html
        headers = {"Content-Security-Policy": MAIL_POLICY}
        return web.Response(text=html, content_type="text/html", charset="utf-8", headers=headers)


async def serve_preview(folder: WatchedFolder, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM; `tell` gets its address once it answers. Port 0 is any free one.

    Raises:
        PostroomError: the port is taken.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    preview = Preview(folder)
    preview.look()
    runner = web.AppRunner(
        preview.app(), handle_signals=False, access_log=None, logger=PortLog(), shutdown_timeout=0.2
    )
    await runner.setup()
    listening = _listen(port)
    looking = asyncio.create_task(preview.keep_looking())
    try:
        await web.SockSite(runner, listening).start()
        tell(f"http://{HOST}:{listening.getsockname()[1]}/")
        stopping = asyncio.create_task(stop.wait())
        # Looking ends only by a defect, which is then raised.
        await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if looking.done():
            await looking
    finally:
        looking.cancel()
        preview.wake()
        await runner.cleanup()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError:
        raise PostroomError(f"port {port} is in use: choose another with --port, 0 for any") from None


async def _page(request: web.Request) -> web.Response:
    name = request.match_info.get("name", "index.html")
    if name not in TYPES:
        raise web.HTTPNotFound
    headers = {
        "Content-Type": f"{TYPES[name]}; charset=utf-8",
        "Content-Security-Policy": PAGE_POLICY,
        "Cache-Control": "no-cache",
    }
    return web.Response(body=(STATIC / name).read_bytes(), headers=headers)


def _view(seen: Seen) -> dict[str, Any]:
    template = seen.template
    return {
        "name": seen.name,
        "version": template.version if template else None,
        "owner": template.owner if template else "",
        "description": template.description if template else "",
        "faults": [{"file": f.file, "line": f.line, "message": f.message} for f in seen.faults],
        "showings": [
            {
                "locale": showing.locale,
                "example": showing.example,
                "subject": showing.content.subject,
                "text": showing.content.text,
                "html": showing.content.html is not None,
            }
            for showing in seen.showings
        ],
    }
