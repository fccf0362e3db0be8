"""Traces, for who asks for them (`POSTROOM_TRACES=otlp`): a span for each accept and each attempt.

Off, which is the default, a process has no `Tracing`, and OpenTelemetry is not even imported.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from postroom.origin import Origin
from postroom.settings import Settings

Attributes = Mapping[str, str | int | float | bool]


class AcceptSpan(Protocol):
    """The span of one POST, begun."""

    def end(self, attributes: Attributes, *, failed: bool) -> None:
        """End it now."""
        ...


class Tracing(Protocol):
    """Where spans go. What it is given holds no personal data: ids, names of the configuration, codes, times."""

    def begin_accept(self, origin: Origin) -> tuple[AcceptSpan, Origin]:
        """Begin the span of a POST within its caller's trace, or a new one.

        Returns the origin by which the message is recorded: its `traceparent` is the span's own, so that attempts,
        hours later perhaps, are linked to it.
        """
        ...

    def attempt(self, origin: str, seconds: float, attributes: Attributes, *, failed: bool) -> None:
        """Tell of an attempt that ended now: a trace of its own, linked to the accept by the `traceparent` kept."""
        ...

    async def aclose(self) -> None:
        """Send what has not been sent, within a few seconds."""
        ...


def open_tracing(settings: Settings, service: str) -> Tracing | None:
    """Return where spans go, or None where nobody asked for it. The settings were checked: the extra is installed."""
    if settings.traces == "off":
        return None
    from postroom.otlp import OtlpTracing  # noqa: PLC0415  costs a process nothing that does not want it

    return OtlpTracing(service)


def known(**attributes: Any) -> Attributes:
    """Return the attributes that are known, under our own prefix."""
    return {f"postroom.{name}": value for name, value in attributes.items() if value not in (None, "")}
