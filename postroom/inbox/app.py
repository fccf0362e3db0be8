"""The inbox put together: two sockets, one mailbox."""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from postroom.inbox import api, content, page
from postroom.inbox.catcher import Catcher
from postroom.inbox.guard import known_hosts, problems, strict_headers
from postroom.inbox.keys import INFO, MAILBOX, Info
from postroom.inbox.mailbox import Mailbox
from postroom.inbox.refs import Resolve
from postroom.port_log import PortLog

SHUTDOWN_SECONDS = 1.0


class Settings(Struct, frozen=True, kw_only=True):
    """Where the inbox listens and keeps its mails. Port 0 takes any free one."""

    host: str = "127.0.0.1"
    http_port: int = 8081
    smtp_port: int = 8082
    data: Path = Path(".postroom/inbox.sqlite")
    api_url: str = "http://127.0.0.1:8080"
    allowed_hosts: tuple[str, ...] = ()


class Running(Struct, frozen=True):
    """Where a running inbox can be reached."""

    host: str
    http_port: int
    smtp_port: int

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{_shown(self.host)}:{self.http_port}"


class ListenError(Exception):
    """A port could not be had; the text says which and why."""


@asynccontextmanager
async def serve(settings: Settings, resolve: Resolve | None = None) -> AsyncIterator[Running]:
    """Run an inbox as long as the context lasts.

    `resolve` finds the client_ref of a message; without it the mails have none.
    """
    async with AsyncExitStack() as stack:
        http = stack.enter_context(_listen(settings.host, settings.http_port, "--http-port"))
        smtp = stack.enter_context(_listen(settings.host, settings.smtp_port, "--smtp-port"))
        running = Running(settings.host, http.getsockname()[1], smtp.getsockname()[1])
        mailbox = await Mailbox.open(settings.data, resolve)
        stack.push_async_callback(mailbox.close)

        info = Info(f"{_shown(settings.host)}:{running.smtp_port}", settings.api_url)
        app = create_app(mailbox, info, (settings.host, *settings.allowed_hosts))
        runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            logger=PortLog(),
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.SockSite(runner, http).start()

        catcher = Catcher(mailbox)
        stack.push_async_callback(catcher.stop)
        await catcher.start(smtp)
        yield running


def create_app(mailbox: Mailbox, info: Info, hosts: tuple[str, ...] = ()) -> web.Application:
    """Return the HTTP side: the page, the JSON API and the mails' contents."""
    app = web.Application(middlewares=[problems, known_hosts(hosts)])
    app[MAILBOX], app[INFO] = mailbox, info
    for routes in (page.routes, api.routes, content.routes):
        app.add_routes(routes)
    app.on_response_prepare.append(strict_headers)
    app.on_shutdown.append(_end_streams)
    return app


async def _end_streams(app: web.Application) -> None:
    app[MAILBOX].feed.close()


def _listen(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = str(error.strerror).split(" (")[0]  # Python adds the address once more
        raise ListenError(
            f"cannot listen on {_shown(host)}:{port} ({reason}):"
            f" stop what uses the port, or choose another with {option}"
        ) from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
