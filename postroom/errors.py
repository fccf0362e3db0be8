"""Errors a person can act on.

PostroomError
├─ ConfigError     the configuration is wrong: nothing starts   (faults with their places)
└─ RefusedError    a caller's request is refused                (a stable code, and faults)
"""

from enum import StrEnum

from postroom.decode import Fault


class PostroomError(Exception):
    """Base of the errors Postroom raises on purpose."""


class UsageError(PostroomError):
    """A command line that makes no sense, whatever the state of things: it ends with status 2."""


class ConfigError(PostroomError):
    """The configuration cannot be used. Carries every fault that was found.

    The place of a fault is a JSON pointer into the source, or the name of an environment variable.
    """

    def __init__(self, source: str, faults: list[Fault]) -> None:
        super().__init__(f"{source}: {len(faults)} fault(s)")
        self.source = source
        self.faults = faults

    def lines(self) -> list[str]:
        """Return the faults for a terminal, one a line, each with its place."""
        return [
            f"{self._source_of(fault)}: {fault.pointer or '(whole file)'}: {fault.detail}"
            for fault in self.faults
        ]

    def _source_of(self, fault: Fault) -> str:
        return self.source if fault.pointer.startswith("/") or not fault.pointer else "environment"


class Code(StrEnum):
    """Why a request is refused: stable words, equal in problem documents, logs and metrics."""

    MALFORMED_JSON = "malformed_json"
    TOO_DEEP = "too_deep"
    BAD_REQUEST = "bad_request"
    IDEMPOTENCY_KEY_MISMATCH = "idempotency_key_mismatch"
    UNAUTHENTICATED = "unauthenticated"
    AGENT_NOT_ALLOWED = "agent_not_allowed"
    PRIORITY_NOT_ALLOWED = "priority_not_allowed"
    SCOPE_MISSING = "scope_missing"
    NETWORK_NOT_ALLOWED = "network_not_allowed"
    FROM_NOT_ALLOWED = "from_not_allowed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    CONFLICT = "client_ref_conflict"
    TOO_LATE = "too_late"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_TEMPLATE = "unknown_template"
    INVALID_VARIABLES = "invalid_variables"
    INVALID_TEMPLATE = "invalid_template"
    RATE_LIMITED = "rate_limited"
    REQUEST_TIMEOUT = "request_timeout"
    UNAVAILABLE = "unavailable"
    STORAGE_FULL = "storage_full"
    ACCEPTANCE_UNCONFIRMED = "acceptance_unconfirmed"
    INTERNAL = "internal_error"


class RefusedError(PostroomError):
    """A request is refused. `detail` and `faults` never repeat a value of the request."""

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        faults: list[Fault] | None = None,
        retry_after: int | None = None,
        message_id: str | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.faults = faults or []
        self.retry_after = retry_after
        self.message_id = message_id  # of the message a conflict is with
