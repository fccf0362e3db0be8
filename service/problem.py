"""Refusals as RFC 9457 problem documents. The only module that knows HTTP statuses of refusals."""

import msgspec

from postroom.decode import Fault
from postroom.errors import Code, RefusedError

CONTENT_TYPE = "application/problem+json"

STATUS: dict[Code, tuple[int, str]] = {
    Code.MALFORMED_JSON: (400, "The body is not valid JSON"),
    Code.TOO_DEEP: (400, "The body is nested too deeply"),
    Code.BAD_REQUEST: (400, "The request is not well formed"),
    Code.IDEMPOTENCY_KEY_MISMATCH: (400, "Idempotency-Key and client_ref differ"),
    Code.UNAUTHENTICATED: (401, "A valid bearer token is required"),
    Code.AGENT_NOT_ALLOWED: (403, "This caller may not use the agent"),
    Code.PRIORITY_NOT_ALLOWED: (403, "This caller may not use the priority"),
    Code.SCOPE_MISSING: (403, "The token lacks the scope"),
    Code.NETWORK_NOT_ALLOWED: (403, "This caller may not call from here"),
    Code.FROM_NOT_ALLOWED: (403, "The agent may not write as this sender"),
    Code.NOT_FOUND: (404, "There is no such thing"),
    Code.METHOD_NOT_ALLOWED: (405, "The method is not allowed here"),
    Code.REQUEST_TIMEOUT: (408, "The body did not arrive in time"),
    Code.CONFLICT: (409, "The client_ref names another request"),
    Code.TOO_LATE: (409, "The message cannot be cancelled any more"),
    Code.TOO_LARGE: (413, "The request is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: (415, "The media type is not taken here"),
    Code.INVALID_REQUEST: (422, "The request has faults"),
    Code.UNKNOWN_TEMPLATE: (422, "There is no such template"),
    Code.INVALID_VARIABLES: (422, "The template's variables have faults"),
    Code.INVALID_TEMPLATE: (422, "The template has faults"),
    Code.RATE_LIMITED: (429, "Too many requests"),
    Code.INTERNAL: (500, "Postroom failed"),
    Code.UNAVAILABLE: (503, "Postroom cannot record messages now"),
    Code.STORAGE_FULL: (503, "Postroom's storage is full"),
    Code.ACCEPTANCE_UNCONFIRMED: (503, "It is unknown whether the message was accepted"),
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The document (RFC 9457). `code` is stable; `errors` name places by JSON pointer, never values."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[Fault] = []
    message_id: str | None = None


def problem_of(refused: RefusedError, request_id: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, header fields and body of a refusal."""
    status, title = STATUS[refused.code]
    headers = {"content-type": CONTENT_TYPE, "cache-control": "no-store"}
    if refused.retry_after is not None:
        headers["retry-after"] = str(refused.retry_after)
    if status == STATUS[Code.UNAUTHENTICATED][0]:
        headers["www-authenticate"] = 'Bearer realm="postroom"'
    document = Problem(
        type=f"urn:postroom:problem:{refused.code}",
        title=title,
        status=status,
        code=refused.code,
        detail=refused.detail,
        request_id=request_id,
        errors=refused.faults,
        message_id=refused.message_id,
    )
    return status, headers, msgspec.json.encode(document)
