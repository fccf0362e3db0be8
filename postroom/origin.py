"""Where a message came from: the request that brought it, and the trace it belongs to (W3C Trace Context)."""

import hashlib
import re
import time

from msgspec import Struct

_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}\Z")


class Origin(Struct, frozen=True):
    """The request that brought a message. `traceparent` is empty where the caller sent none, or a malformed one."""

    request_id: str = ""
    traceparent: str = ""
    started: float = 0.0  # by `time.perf_counter`

    @property
    def trace_id(self) -> str:
        """The caller's trace id, else one made from the request id: equal wherever it is asked for."""
        return trace_id_of(self.request_id, self.traceparent)

    def since(self) -> int:
        """Microseconds since the request began; 0 where that is not known."""
        return round((time.perf_counter() - self.started) * 1e6) if self.started else 0


def trace_id_of(request_id: str, traceparent: str) -> str:
    """Return the trace id of a message, 32 hex digits; empty where neither is known."""
    if traceparent:
        return traceparent[3:35]
    if not request_id or _TRACE_ID.match(request_id):
        return request_id
    return hashlib.md5(request_id.encode(), usedforsecurity=False).hexdigest()


def read_traceparent(value: bytes) -> str:
    """Return the header field's value, or nothing where it is malformed: then a new trace begins."""
    return value.decode() if _TRACEPARENT.match(value) else ""
