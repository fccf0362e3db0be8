"""What every call of an operator meets: a token with the scope `admin`, a bounded body, problems as documents."""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from postroom.decode import convert
from postroom.errors import Code, RefusedError
from postroom.ledger.errors import LedgerError, LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.refusals import UNANSWERED
from postroom.metrics import EdgeMetrics
from service.auth import Authenticator, Identity
from service.problem import problem_of

LARGEST_BODY = 16_384
BODY_SECONDS = 5.0
ANSWER_SECONDS = 8.0  # the longest: a read, then an act that has the time of the operators' pipe
SCOPE = "admin"
RETRY_SECONDS = 2
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_encode = msgspec.json.Encoder().encode

T = TypeVar("T")


class Call(Struct, frozen=True):
    """One call: who makes it, its path's parts, its query, and its body as it came."""

    identity: Identity
    request_id: str
    path: dict[str, str]
    query: dict[str, str]
    body: bytes

    def decode(self, kind: type[T]) -> T:
        """Return the body as `kind`, strictly.

        Raises:
            RefusedError: it is no JSON, or has faults; each is named with its place.
        """
        try:
            value = msgspec.json.decode(self.body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise RefusedError(Code.MALFORMED_JSON, "The body is not JSON in UTF-8.") from None
        decoded, faults = convert(value, kind)
        if decoded is None:
            raise RefusedError(Code.INVALID_REQUEST, "See errors.", faults=faults)
        return decoded


Handler = Callable[[Call], Awaitable[Any]]


class AdminEdge:
    """Turns handlers, which take a call and return a struct, into routes of the admin port."""

    def __init__(self, authenticator: Authenticator, metrics: EdgeMetrics, log: FilteringBoundLogger) -> None:
        self._authenticator = authenticator
        self._metrics = metrics
        self._log = log

    def route(self, method: str, path: str, handler: Handler, *, query: bool) -> web.RouteDef:
        """Return a route behind this edge; `query`: its handler takes query parameters."""

        async def answer(request: web.Request) -> web.Response:
            return await self._answer(request, handler, query=query)

        return web.route(method, path, answer)

    async def _answer(self, request: web.Request, handler: Handler, *, query: bool) -> web.Response:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        try:
            identity = self._identify(request)
            if handler is not not_found:
                _check_query(request, taken=query)
            body = await _read_body(request) if request.method == "POST" else b""
            call = Call(identity, request_id, dict(request.match_info), dict(request.query), body)
            async with asyncio.timeout(ANSWER_SECONDS):
                value = await handler(call)
        except RefusedError as error:
            return _refuse(error, request_id)
        except TimeoutError:
            return _refuse(_not_done(LedgerUnconfirmedError(UNANSWERED)), request_id)
        except (LedgerUnavailableError, LedgerUnconfirmedError) as error:
            return _refuse(_not_done(error), request_id)
        except Exception:  # noqa: BLE001  the last line of defence: logged and answered as a problem
            self._log.exception("request.crashed", request_id=request_id)
            text = "An unexpected error happened; it has been logged."
            return _refuse(RefusedError(Code.INTERNAL, text), request_id)
        headers = {"cache-control": "no-store", "x-request-id": request_id}
        return web.Response(body=_encode(value), content_type="application/json", headers=headers)

    def _identify(self, request: web.Request) -> Identity:
        fields = [
            text.encode("utf-8", "surrogateescape") for text in request.headers.getall("Authorization", [])
        ]
        try:
            identity = self._authenticator.authenticate(fields, request.remote)
        except RefusedError as refused:
            self._metrics.auth_failures.labels(refused.code).inc()
            raise
        if SCOPE not in identity.token.scopes:
            raise RefusedError(Code.SCOPE_MISSING, f"The token's scopes do not include {SCOPE}.")
        return identity


async def not_found(_: Call) -> None:
    """Answer for every path there is not."""
    raise RefusedError(Code.NOT_FOUND, "No such path, or not with this method.")


def _check_query(request: web.Request, *, taken: bool) -> None:
    if request.query and not taken:
        raise RefusedError(Code.BAD_REQUEST, "This path takes no query parameters.")


async def _read_body(request: web.Request) -> bytes:
    if (request.content_length or 0) > LARGEST_BODY:
        raise _too_large()
    chunks = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                chunks += chunk
                if len(chunks) > LARGEST_BODY:
                    raise _too_large()
    except TimeoutError:
        detail = f"The body must arrive within {BODY_SECONDS:.0f} seconds."
        raise RefusedError(Code.REQUEST_TIMEOUT, detail) from None
    except (web.PayloadAccessError, ConnectionError, ValueError):
        raise RefusedError(Code.BAD_REQUEST, "The body ended early or was not framed rightly.") from None
    return bytes(chunks)


def _not_done(error: LedgerError) -> RefusedError:
    """Return the refusal of what Redis did not do, or perhaps did; the error's own text says why."""
    surely = isinstance(error, LedgerUnavailableError)
    what = "Nothing was done; ask again." if surely else "Ask again: every act may be repeated."
    return RefusedError(Code.UNAVAILABLE, f"{_sentence(error)} {what}", retry_after=RETRY_SECONDS)


def _sentence(error: LedgerError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _too_large() -> RefusedError:
    return RefusedError(Code.TOO_LARGE, f"A body may have {LARGEST_BODY} bytes.")


def _refuse(refused: RefusedError, request_id: str) -> web.Response:
    status, headers, body = problem_of(refused, request_id)
    if refused.code in (Code.TOO_LARGE, Code.REQUEST_TIMEOUT):
        headers["connection"] = "close"  # what is left of the body is not read
    return web.Response(body=body, status=status, headers={**headers, "x-request-id": request_id})
