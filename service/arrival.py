"""One request as the edge has taken it in, and what a route that the edge serves itself answers."""

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct

from postroom.errors import Code, RefusedError
from postroom.origin import Origin, read_traceparent
from service.auth import Identity
from service.fields import Fields

Scope = dict[str, Any]
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")


class Arrival(Struct):
    """A request: where it came from, its header fields, who makes it, its body, and what was answered.

    `identity` is known and `body` is whole before any route sees it; `status`, `length`, `code` and `message_id` are
    for the log line, the metrics and the span. A route that has a line of its own for the log leaves it as `tell`,
    which takes the milliseconds and the answer's length.
    """

    origin: Origin
    fields: Fields
    query: bytes = b""
    identity: Identity | None = None
    body: bytes = b""
    status: int = 0
    length: int = 0
    code: str | None = None
    message_id: str | None = None
    tell: Callable[[float, int], None] | None = None

    @property
    def failed(self) -> bool:
        """True where the answer was an error of ours, or there was none."""
        return self.status >= 500 or self.status == 0

    def identified(self, scope: str) -> Identity:
        """Return who makes it, of whose token this scope is asked."""
        assert self.identity is not None
        if scope not in self.identity.token.scopes:
            raise RefusedError(Code.SCOPE_MISSING, f"The token's scopes do not include {scope}.")
        return self.identity


class Reply(Struct, frozen=True):
    """An answer in JSON."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


Straight = Callable[[Arrival], Awaitable[Reply]]


def arrival_of(scope: Mapping[str, Any]) -> Arrival:
    """Return the request that a route behind the router serves; the edge has left it in the scope."""
    arrival: Arrival = scope["state"]["arrival"]
    return arrival


def take_in(scope: Scope, started: float) -> Arrival:
    """Take over the caller's ids where they are well formed, and make a request id where it gave none."""
    fields = Fields(scope["headers"])
    request_id = traceparent = ""
    for value in fields.all(b"x-request-id"):
        if _REQUEST_ID.match(value):
            request_id = value.decode()
            break
    for value in fields.all(b"traceparent"):
        if traceparent := read_traceparent(value):
            break
    origin = Origin(request_id or os.urandom(16).hex(), traceparent, started)
    return Arrival(origin, fields, scope["query_string"])
