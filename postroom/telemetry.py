"""The metrics port of a process: /metrics, /livez, /readyz and what is given it, apart from the traffic of callers."""

from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from postroom.errors import PostroomError
from postroom.heart import Heart
from postroom.log import get_logger
from postroom.port_log import PortLog


class PortTakenError(PostroomError):
    """The metrics port belongs to another process."""


class Telemetry:
    """Serves one process's metrics while its `async with` block runs."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        address: tuple[str, int],
        refresh: Callable[[], Awaitable[None]],
        ready: Callable[[], bool],
        heart: Heart,
        routes: Iterable[web.AbstractRouteDef] = (),
    ) -> None:
        """`routes` are further ones, which answer for themselves whom they let in."""
        self._registry = registry
        ProcessCollector(registry=registry)
        self._host, self._port = address
        self._refresh = refresh
        self._ready = ready
        self._heart = heart
        self._log = get_logger()
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.add_routes(routes)
        self._runner = web.AppRunner(app, access_log=None, logger=PortLog(self._tell_crash))

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise PortTakenError(
                f"metrics port {self._port} is taken: set POSTROOM_METRICS_PORT to a free one"
            ) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def _tell_crash(self, error: BaseException | None) -> None:
        self._log.error("port.crashed", exc_info=error)

    async def _metrics(self, _request: web.Request) -> web.Response:
        await self._refresh()
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _livez(self, _request: web.Request) -> web.Response:
        """The event loop turns, and the process's own loops come round. Redis has no say in it."""
        stalled = self._heart.stalled()
        text = f"stalled: {', '.join(stalled)}\n" if stalled else "ok\n"
        return web.Response(text=text, status=503 if stalled else 200)

    async def _readyz(self, _request: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ready\n" if ready else "draining\n", status=200 if ready else 503)
