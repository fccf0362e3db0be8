"""Spans over OTLP/HTTP, by OpenTelemetry's SDK; where to is told by its own variables (`OTEL_EXPORTER_OTLP_…`).

The one module that knows OpenTelemetry. It is imported only where traces are asked for (`postroom.tracing`).
"""

import asyncio
import os
import time
from contextlib import suppress

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from postroom import __version__
from postroom.origin import Origin
from postroom.tracing import Attributes

CLOSE_SECONDS = 5.0


class OtlpAcceptSpan:
    """The span of one POST (`postroom.tracing.AcceptSpan`)."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, attributes: Attributes, *, failed: bool) -> None:
        """End it now."""
        self._span.set_attributes(attributes)
        if failed:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class OtlpTracing:
    """`postroom.tracing.Tracing`, over OTLP. Spans are sent in batches by a thread of the SDK; a full queue drops."""

    def __init__(self, service: str) -> None:
        attributes = {"service.namespace": "postroom", "service.version": __version__}
        if "OTEL_SERVICE_NAME" not in os.environ:
            attributes["service.name"] = f"postroom-{service}"
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("postroom", __version__)

    def begin_accept(self, origin: Origin) -> tuple[OtlpAcceptSpan, Origin]:
        """Begin the span of a POST within its caller's trace, or a new one."""
        within = Context()
        if origin.traceparent:
            within = set_span_in_context(NonRecordingSpan(_read(origin.traceparent)), within)
        started = time.time_ns() - round((time.perf_counter() - origin.started) * 1e9)
        span = self._tracer.start_span("accept", within, SpanKind.SERVER, start_time=started)
        return OtlpAcceptSpan(span), Origin(
            origin.request_id, _write(span.get_span_context()), origin.started
        )

    def attempt(self, origin: str, seconds: float, attributes: Attributes, *, failed: bool) -> None:
        """Tell of an attempt that ended now, in a trace of its own."""
        ended = time.time_ns()
        span = self._tracer.start_span(
            "attempt",
            Context(),
            SpanKind.CLIENT,
            attributes,
            links=[Link(_read(origin))] if origin else (),
            start_time=ended - round(seconds * 1e9),
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)

    async def aclose(self) -> None:
        """Send what has not been sent, within a few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.to_thread(self._provider.shutdown)


def _read(traceparent: str) -> SpanContext:
    """Read a traceparent that was found well formed when it came (`postroom.origin`)."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def _write(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
