"""The composition root of the API: read from top to bottom."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from prometheus_client import CollectorRegistry

from postroom import __version__
from postroom.config.live import LiveConfig
from postroom.errors import Code, RefusedError
from postroom.exporter import Exporter
from postroom.ledger.clients import end_tasks
from postroom.log import get_logger
from postroom.metrics import EdgeMetrics
from postroom.settings import Settings
from postroom.startup import settle
from postroom.supervise import supervise
from postroom.telemetry import Telemetry
from postroom.templates import TemplateSet
from postroom.tracing import open_tracing
from service.admin import admin_routes
from service.arrival import arrival_of
from service.auth import Authenticator
from service.canary import CanarySender
from service.desk import Desk
from service.edge import Edge
from service.operator_desk import OperatorDesk
from service.problem import problem_of
from service.routes import ROUTES
from service.send import SendMessage
from service.template_routes import TEMPLATE_ROUTES
from service.templates import TemplateDesk

AnyRequest = Request[Any, Any, Any]


def build_app(
    settings: Settings, live: LiveConfig, templates: TemplateSet, taken: Callable[[], bool] = lambda: True
) -> Edge:
    """Build the API: the desk behind the routes, the routes behind the edge.

    `taken` tells whether the server takes connections: until then, and once it is told to stop, it is not ready.
    """
    log = get_logger().bind()  # once, and not with each line
    registry = CollectorRegistry()
    metrics = EdgeMetrics(registry)
    tracing = open_tracing(settings, "api")
    desk = Desk(live.current, templates, metrics, log)
    send_message = SendMessage(desk)
    authenticator = Authenticator(live.current)
    live.subscribe(authenticator.apply)
    operator = OperatorDesk(desk, live, metrics, log)
    live.subscribe(metrics.apply)
    live.subscribe(lambda _: desk.notes("config.reloaded", service="api", config_hash=live.digest))

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncIterator[None]:
        exporter = Exporter(desk.client, desk.watch, lambda: live.current.agents, metrics.shared)
        telemetry = Telemetry(
            registry,
            address=(settings.host, settings.metrics_port),
            refresh=exporter.refresh,
            ready=lambda: taken() and not desk.draining,
            heart=desk.heart,
            routes=admin_routes(operator, authenticator, metrics, log),
        )
        async with desk.opened(), operator.opened(), telemetry:
            watching = asyncio.create_task(
                supervise("reload", lambda: live.keep_watching(metrics.config), log)
            )
            exporting = asyncio.create_task(supervise("export", exporter.keep_asking, log))
            canaries = CanarySender(desk, lambda: live.current.agents, log)
            sending = asyncio.create_task(supervise("canary", canaries.keep_sending, log))
            log.info(
                "service.started",
                port=settings.port,
                metrics_port=settings.metrics_port,
                config_hash=live.digest,
                generation=live.generation,
            )
            desk.notes("process.started", service="api", version=__version__, config_hash=live.digest)
            settle()
            yield
            log.info("service.draining")
            await end_tasks(watching, exporting, sending)
            await exporter.give_up()
        if tracing is not None:
            await tracing.aclose()
        log.info("service.stopped")

    app = Litestar(
        [*ROUTES, *TEMPLATE_ROUTES],
        lifespan=[lifespan],
        state=State({"desk": desk, "send_message": send_message, "templates": TemplateDesk(desk)}),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # the edge has read and measured the body already
        exception_handlers={
            RefusedError: _answer_refusal,
            HTTPException: _answer_http,
            Exception: _answer_crash,
        },
    )
    return Edge(app, authenticator, metrics, log, {("POST", "/v1/messages"): send_message}, tracing)


def _answer_refusal(request: AnyRequest, refused: RefusedError) -> Response[bytes]:
    arrival = arrival_of(request.scope)
    arrival.code = refused.code
    status, headers, body = problem_of(refused, arrival.origin.request_id)
    media_type = headers.pop("content-type")
    return Response(body, status_code=status, headers=headers, media_type=media_type)


def _answer_crash(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Tell of a defect in a route in the log, and the caller only that it was one."""
    get_logger().error(
        "request.crashed", request_id=arrival_of(request.scope).origin.request_id, exc_info=error
    )
    refused = RefusedError(Code.INTERNAL, "An unexpected error happened; it has been logged.")
    return _answer_refusal(request, refused)


def _answer_http(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Turn the framework's own refusals into ours; one that we do not know is a defect and crashes."""
    match error.status_code:
        case 404:
            refused = RefusedError(Code.NOT_FOUND, "No such path.")
        case 405:
            refused = RefusedError(Code.METHOD_NOT_ALLOWED, "See Allow for the methods of this path.")
        case 400:
            refused = RefusedError(Code.BAD_REQUEST, "The request could not be read.")
        case _:
            raise error
    response = _answer_refusal(request, refused)
    if allow := (error.headers or {}).get("Allow") or (error.headers or {}).get("allow"):
        response.headers["allow"] = allow
    return response
