"""The outermost layer: what every request meets before any route, and what is logged and counted of it.

Reads the whole body within a time and a size before anybody looks at it, so a slow or huge caller costs one
task and no parser. Answers are problem documents throughout.
"""

import re
import time
from collections.abc import Mapping
from typing import Any

from structlog.typing import FilteringBoundLogger

from postroom.errors import Code, RefusedError
from postroom.ledger.keys import agent_of
from postroom.metrics import EdgeMetrics
from postroom.patience import Patience
from postroom.tracing import AcceptSpan, Attributes, Tracing, known
from service.arrival import Arrival, Scope, Straight, take_in
from service.auth import Authenticator
from service.fields import MAX_BODY, too_large
from service.problem import problem_of

BODY_SECONDS = 10.0
RATE_DETAIL = "The caller's rate is used up."
JSON = (b"content-type", b"application/json")
_SLASHES = re.compile("/+")

COUNTED = frozenset({"GET", "POST", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"})
METHODS = {"/v1/messages": b"GET, OPTIONS, POST"}
FILES = "/v1/files"  # the one path that takes other bodies than JSON
ROUTES = ("/v1/messages", "/v1/templates", FILES, "/livez", "/readyz", "/openapi.json", "/docs")


class Edge:
    """An ASGI application around another one.

    `straight` names the routes, by method and path as they are spelt, that the edge serves itself: the way through
    the router costs more than all that `POST /v1/messages` does besides (decision 15). The router knows them too,
    for other spellings of their paths.
    """

    def __init__(
        self,
        app: Any,
        authenticator: Authenticator,
        metrics: EdgeMetrics,
        log: FilteringBoundLogger,
        straight: Mapping[tuple[str, str], Straight] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._metrics = metrics
        self._log = log
        self._straight = straight or {}
        self._tracing = tracing
        self._open = 0
        metrics.in_flight.set_function(lambda: self._open)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one connection's request, or pass the lifespan through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        arrival, span = take_in(scope, started), None
        if self._tracing is not None and scope["path"] == "/v1/messages" and scope["method"] == "POST":
            span, arrival.origin = self._tracing.begin_accept(arrival.origin)
        self._open += 1
        try:
            await self._serve(scope, arrival, receive, send)
        except RefusedError as refused:
            await _refuse(refused, arrival, send)
        except Exception:  # noqa: BLE001  the last line of defence: logged, counted, answered as a problem
            self._log.exception("request.crashed", request_id=arrival.origin.request_id)
            if arrival.status == 0:
                defect = RefusedError(Code.INTERNAL, "An unexpected error happened; it has been logged.")
                await _refuse(defect, arrival, send)
        finally:
            self._open -= 1
            self._account(scope, arrival, time.perf_counter() - started)
            if span is not None:
                _end_span(span, arrival)

    async def _serve(self, scope: Scope, arrival: Arrival, receive: Any, send: Any) -> None:
        path, method = scope["path"], scope["method"]
        fields = arrival.fields
        fields.check()
        # The router folds slashes, so the token is asked for by the folded path.
        folded = _SLASHES.sub("/", path) if "//" in path else path
        if folded.startswith("/v1/"):
            self._identify(scope, arrival)
        if method in ("POST", "PUT", "PATCH"):
            arrival.body = await _read_body(receive, fields.length)
            if arrival.body and folded.rstrip("/") != FILES:
                fields.check_media_type()
            receive = _replaying(arrival.body, receive)
        if (route := self._straight.get((method, path))) is not None:
            reply = await route(arrival)
            await _answer(arrival, send, reply.status, [JSON, *reply.headers], reply.body)
        elif method == "OPTIONS" and path in METHODS:
            # The router's own answer knows only one of the path's handlers.
            await _answer(arrival, send, 204, [(b"allow", METHODS[path])], b"")
        else:
            scope.setdefault("state", {})["arrival"] = arrival
            await self._app(scope, receive, _marking(send, arrival))

    def _identify(self, scope: Scope, arrival: Arrival) -> None:
        peer = scope["client"][0] if scope.get("client") else None
        try:
            identity = self._authenticator.authenticate(arrival.fields.all(b"authorization"), peer)
        except RefusedError as refused:
            self._metrics.auth_failures.labels(refused.code).inc()
            raise
        arrival.identity = identity
        if identity.limit is not None and (wait := identity.limit.take()) is not None:
            raise RefusedError(Code.RATE_LIMITED, RATE_DETAIL, retry_after=wait)

    def _account(self, scope: Scope, arrival: Arrival, seconds: float) -> None:
        route, method = _route(scope["path"]), scope["method"]
        if method not in COUNTED:
            method = "other"
        caller = arrival.identity.name if arrival.identity else None
        self._metrics.requests.by[route, method, str(arrival.status)] += 1
        self._metrics.request_seconds.observe((route, method), seconds)
        if arrival.code and route == "/v1/messages" and method == "POST":
            self._metrics.rejected.labels(caller or "", arrival.code).inc()
        ms = round(seconds * 1000, 2)
        if arrival.tell is not None:
            arrival.tell(ms, arrival.length)
        # What was accepted has its line; what failed after that has both.
        if route not in ("/livez", "/readyz") and (arrival.tell is None or arrival.failed):
            self._log.info(
                "http.request",
                request_id=arrival.origin.request_id,
                trace_id=arrival.origin.trace_id,
                caller=caller,
                method=method,
                route=route,
                status=arrival.status,
                code=arrival.code,
                ms=ms,
                bytes=arrival.length,
            )


def _end_span(span: AcceptSpan, arrival: Arrival) -> None:
    attributes = known(
        message_id=arrival.message_id,
        agent=agent_of(arrival.message_id) if arrival.message_id else None,
        caller=arrival.identity.name if arrival.identity else None,
        code=arrival.code,
        request_id=arrival.origin.request_id,
    )
    http: Attributes = {
        "http.request.method": "POST",
        "http.route": "/v1/messages",
        "http.response.status_code": arrival.status,
    }
    span.end({**http, **attributes}, failed=arrival.failed)


async def _read_body(receive: Any, length: int | None) -> bytes:
    if length is not None and length > MAX_BODY:
        raise too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        with Patience(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    # Hung up, or the framing was broken: the server tells both alike, so both are answered.
                    raise RefusedError(Code.BAD_REQUEST, "The body ended early or was not framed rightly.")
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > MAX_BODY:
                    raise too_large()
                # A body of known length has ended with it; granian's word for that takes another turn of two threads.
                if size == length or not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    except TimeoutError:
        detail = f"The body must arrive within {BODY_SECONDS:.0f} seconds."
        raise RefusedError(Code.REQUEST_TIMEOUT, detail) from None


def _replaying(body: bytes, receive: Any) -> Any:
    given = False

    async def replay() -> dict[str, Any]:
        nonlocal given
        if given:
            gone: dict[str, Any] = await receive()
            return gone
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _marking(send: Any, arrival: Arrival) -> Any:
    request_id = (b"x-request-id", arrival.origin.request_id.encode())

    async def mark(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            arrival.status = message["status"]
            message["headers"] = [*message.get("headers", []), request_id]
        else:
            arrival.length += len(message.get("body", b""))
        await send(message)

    return mark


async def _answer(
    arrival: Arrival, send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Answer at once and whole."""
    arrival.status, arrival.length = status, len(body)
    headers.append((b"x-request-id", arrival.origin.request_id.encode()))
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(refused: RefusedError, arrival: Arrival, send: Any) -> None:
    status, fields, body = problem_of(refused, arrival.origin.request_id)
    arrival.code = refused.code
    if refused.code in (Code.TOO_LARGE, Code.REQUEST_TIMEOUT):
        fields["connection"] = "close"  # what is left of the body is not read
    await _answer(arrival, send, status, [(k.encode(), v.encode()) for k, v in fields.items()], body)


def _route(path: str) -> str:
    if path in ROUTES:
        return path
    for verb in ("cancel", "why"):
        if path.startswith("/v1/messages/") and path.endswith(f"/{verb}"):
            return f"/v1/messages/{{id}}/{verb}"
    if path.startswith("/v1/templates/"):
        _, _, rest = path.removeprefix("/v1/templates/").partition("/")
        deeper = {"": "", "versions": "/versions"}.get(rest, "/versions/{version}")
        return f"/v1/templates/{{name}}{deeper}"
    return "/v1/messages/{id}" if path.startswith("/v1/messages/") else "other"
