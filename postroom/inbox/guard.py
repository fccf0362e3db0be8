"""What holds for every request: who may ask, how errors look, and the headers that keep a browser strict."""

import logging
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)

log = logging.getLogger(__name__)


class ProblemError(Exception):
    """Ends a request with a problem document (RFC 9457)."""

    def __init__(
        self, status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.errors = status, code, detail, errors

    def response(self) -> web.Response:
        """Return the document."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = self.errors
        return web.Response(
            status=self.status, body=msgspec.json.encode(body), content_type="application/problem+json"
        )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a problem document."""
    try:
        return await handler(request)
    except ProblemError as problem:
        return problem.response()
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return _problem_of(error, request)
    except Exception:
        log.exception("inbox.failed", extra={"path": request.path})
        return ProblemError(500, "internal", "It failed; the log says why").response()


def _problem_of(error: web.HTTPException, request: web.Request) -> web.Response:
    code = HTTPStatus(error.status).name.lower()
    response = ProblemError(error.status, code, f"{request.method} {request.path}: {error.reason}").response()
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


def known_hosts(names: Iterable[str]) -> Middleware:
    """Refuse requests for other host names: a web page elsewhere may point its own name at this machine."""
    known = LOCAL_NAMES | {name.strip("[]").lower() for name in names}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if _host(request.headers.get("Host", "")) not in known:
            raise ProblemError(403, "host_refused", "Only its own host names are answered to")
        return await handler(request)

    return check


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


async def strict_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Set what every answer carries; a handler may have set a stricter policy already."""
    response.headers.setdefault(
        "Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'"
    )
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
