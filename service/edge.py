"""The outermost layer: what every request meets before any route, and what is logged and counted of it.

Reads the whole body within a time and a size before anybody looks at it, so a slow or huge caller costs one
task and no parser. Answers are problem documents throughout.
"""

import asyncio
import re
import time
import uuid
from typing import Any

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from postroom.errors import Code, RefusedError
from postroom.ledger.keys import agent_of
from postroom.metrics import EdgeMetrics
from postroom.origin import Origin, read_traceparent
from postroom.tracing import AcceptSpan, Attributes, Tracing, known
from service.auth import Authenticator
from service.problem import problem_of

MAX_BODY = 24_000_000  # 15 MB of attachments in base64, and the rest of a request
BODY_SECONDS = 10.0
RATE_DETAIL = "The caller's rate is used up."
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_SLASHES = re.compile("/+")
_CHARSET = re.compile(rb'\s*charset\s*=\s*"?utf-8"?\s*\Z', re.IGNORECASE)

Scope = dict[str, Any]
METHODS = {"/v1/messages": b"GET, OPTIONS, POST"}
FILES = "/v1/files"  # the one path that takes other bodies than JSON
ROUTES = ("/v1/messages", "/v1/templates", FILES, "/livez", "/readyz", "/openapi.json", "/docs")


class Answer(Struct):
    """What was answered, for the log line, the metrics and the span."""

    status: int = 0
    length: int = 0
    code: str | None = None
    message_id: str | None = None


class Edge:
    """An ASGI application around another one."""

    def __init__(
        self,
        app: Any,
        authenticator: Authenticator,
        metrics: EdgeMetrics,
        log: FilteringBoundLogger,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._metrics = metrics
        self._log = log
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one connection's request, or pass the lifespan through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answer = Answer()
        origin, span = _origin(scope, started), None
        if self._tracing is not None and scope["path"] == "/v1/messages" and scope["method"] == "POST":
            span, origin = self._tracing.begin_accept(origin)
        request_id = origin.request_id
        scope.setdefault("state", {})["request_id"] = request_id
        scope["state"]["origin"] = origin
        scope["state"]["answer"] = answer
        send = _marking(send, answer, request_id)
        self._metrics.in_flight.inc()
        try:
            await self._serve(scope, receive, send, answer)
        except Exception:  # noqa: BLE001  the last line of defence: logged, counted, answered as a problem
            self._log.exception("request.crashed", request_id=request_id)
            if answer.status == 0:
                refused = RefusedError(Code.INTERNAL, "An unexpected error happened; it has been logged.")
                await _refuse(refused, request_id, send, answer)
        finally:
            self._metrics.in_flight.dec()
            self._account(scope, answer, time.perf_counter() - started)
            if span is not None:
                _end_span(span, scope, answer)

    async def _serve(self, scope: Scope, receive: Any, send: Any, answer: Answer) -> None:
        try:
            fields = _Fields(scope)
            fields.check()
            # The router folds slashes, so the token is asked for by the folded path too.
            if _SLASHES.sub("/", scope["path"]).startswith("/v1/"):
                self._identify(scope, fields)
            if scope["method"] in ("POST", "PUT", "PATCH"):
                body = await _read_body(receive, fields.length)
                if body and _SLASHES.sub("/", scope["path"]).rstrip("/") != FILES:
                    fields.check_media_type()
                receive = _replaying(body, receive)
        except RefusedError as refused:
            await _refuse(refused, scope["state"]["request_id"], send, answer)
            return
        if scope["method"] == "OPTIONS" and scope["path"] in METHODS:
            # The router's own answer knows only one of the path's handlers.
            headers = [(b"allow", METHODS[scope["path"]])]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope, fields: "_Fields") -> None:
        peer = scope["client"][0] if scope.get("client") else None
        try:
            identity = self._authenticator.authenticate(fields.all(b"authorization"), peer)
        except RefusedError as refused:
            self._metrics.auth_failures.labels(refused.code).inc()
            raise
        scope["state"]["identity"] = identity
        if identity.limit is not None and (wait := identity.limit.take()) is not None:
            raise RefusedError(Code.RATE_LIMITED, RATE_DETAIL, retry_after=wait)

    def _account(self, scope: Scope, answer: Answer, seconds: float) -> None:
        route, method = _route(scope["path"]), scope["method"]
        if method not in ("GET", "POST", "HEAD", "DELETE", "PUT", "PATCH", "OPTIONS"):
            method = "other"
        self._metrics.requests.labels(route, method, answer.status).inc()
        self._metrics.request_seconds.labels(route, method).observe(seconds)
        identity = scope["state"].get("identity")
        if answer.code and route == "/v1/messages" and method == "POST":
            self._metrics.rejected.labels(identity.name if identity else "", answer.code).inc()
        if route not in ("/livez", "/readyz"):
            self._log.info(
                "http.request",
                request_id=scope["state"]["request_id"],
                trace_id=scope["state"]["origin"].trace_id,
                caller=identity.name if identity else None,
                method=method,
                route=route,
                status=answer.status,
                code=answer.code,
                ms=round(seconds * 1000, 2),
                bytes=answer.length,
            )


def _end_span(span: AcceptSpan, scope: Scope, answer: Answer) -> None:
    identity = scope["state"].get("identity")
    attributes = known(
        message_id=answer.message_id,
        agent=agent_of(answer.message_id) if answer.message_id else None,
        caller=identity.name if identity else None,
        code=answer.code,
        request_id=scope["state"]["request_id"],
    )
    http: Attributes = {
        "http.request.method": "POST",
        "http.route": "/v1/messages",
        "http.response.status_code": answer.status,
    }
    span.end({**http, **attributes}, failed=answer.status >= 500 or answer.status == 0)


class _Fields:
    """The header fields of a request, and what must hold for them."""

    def __init__(self, scope: Scope) -> None:
        self._fields: list[tuple[bytes, bytes]] = scope["headers"]
        self.length: int | None = None

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._fields if key == name]

    def check(self) -> None:
        hosts = self.all(b"host")
        if len(hosts) != 1 or not hosts[0]:
            raise RefusedError(Code.BAD_REQUEST, "Exactly one Host header field is required.")
        lengths, codings = self.all(b"content-length"), self.all(b"transfer-encoding")
        if lengths and codings:
            raise RefusedError(Code.BAD_REQUEST, "Content-Length and Transfer-Encoding exclude each other.")
        if codings and [coding.strip().lower() for coding in codings] != [b"chunked"]:
            raise RefusedError(Code.BAD_REQUEST, "The only Transfer-Encoding taken is chunked.")
        if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
            raise RefusedError(Code.BAD_REQUEST, "Content-Length must be one number.")
        if self.all(b"content-encoding"):
            raise RefusedError(Code.UNSUPPORTED_MEDIA_TYPE, "Compressed bodies are not taken.")
        self.length = int(lengths[0]) if lengths and len(lengths[0]) < 16 else None
        if lengths and self.length is None:
            raise too_large()

    def check_media_type(self) -> None:
        types = self.all(b"content-type")
        kind, *parameters = types[0].split(b";") if len(types) == 1 else (b"",)
        if kind.strip().lower() != b"application/json" or not all(_CHARSET.match(p) for p in parameters):
            detail = "Send Content-Type: application/json, in UTF-8."
            raise RefusedError(Code.UNSUPPORTED_MEDIA_TYPE, detail)


def too_large() -> RefusedError:
    """Return the refusal of a body beyond the limit."""
    return RefusedError(Code.TOO_LARGE, f"A request may have {MAX_BODY} bytes.")


async def _read_body(receive: Any, length: int | None) -> bytes:
    if length is not None and length > MAX_BODY:
        raise too_large()
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    # Hung up, or the framing was broken: the server tells both alike, so both are answered.
                    raise RefusedError(Code.BAD_REQUEST, "The body ended early or was not framed rightly.")
                chunks.append(message.get("body", b""))
                size += len(chunks[-1])
                if size > MAX_BODY:
                    raise too_large()
                if not message.get("more_body", False):
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


def _marking(send: Any, answer: Answer, request_id: str) -> Any:
    async def mark(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
        else:
            answer.length += len(message.get("body", b""))
        await send(message)

    return mark


async def _refuse(refused: RefusedError, request_id: str, send: Any, answer: Answer) -> None:
    status, fields, body = problem_of(refused, request_id)
    answer.code = refused.code
    if refused.code in (Code.TOO_LARGE, Code.REQUEST_TIMEOUT):
        fields["connection"] = "close"  # what is left of the body is not read
    headers = [(k.encode(), v.encode()) for k, v in fields.items()]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _origin(scope: Scope, started: float) -> Origin:
    """Take over the caller's ids where they are well formed, and make a request id where it gave none."""
    request_id = traceparent = ""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and not request_id and _REQUEST_ID.match(value):
            request_id = value.decode()
        elif name == b"traceparent" and not traceparent:
            traceparent = read_traceparent(value)
    return Origin(request_id or uuid.uuid4().hex, traceparent, started)


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
