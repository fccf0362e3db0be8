"""Traces as a collector sees them: an accept in its caller's trace, attempts linked to it, and nothing personal."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiohttp import web

from postroom.errors import ConfigError
from postroom.settings import read_settings
from tests.desk import OPERATOR, postroom
from tests.faults.mail import until
from tests.smtpd import Smtpd
from tests.stack import ROOT, TOKEN, Stack, free_port, sample

pytest.importorskip("opentelemetry.sdk", reason="THE EXTRA otel IS NOT HERE, so traces are not tested")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PERSONAL = (b"ada@example.com", b"Ada", b"Lovelace", b"10023", b"orders@shop.example", TOKEN.encode())


class Collector:
    """An OTLP/HTTP receiver on loopback. Use `async with`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.raw = b""
        self.spans = []  # (service, span)

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _take(self, request):
        body = await request.read()
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.spans += [
                (names["service.name"], span) for part in resource.scope_spans for span in part.spans
            ]
        return web.Response(body=b"", content_type="application/x-protobuf")

    def named(self, name):
        return [(service, span) for service, span in self.spans if span.name == name]


def attributes(span):
    """Return a span's attributes as Python values."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


@pytest.fixture
def traced(monkeypatch):
    """Let processes send traces to a port."""

    def to(port):
        monkeypatch.setenv("POSTROOM_TRACES", "otlp")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")

    return to


async def test_attempts_are_linked_to_the_accept_in_its_callers_trace(folder: Path, smtpd: Smtpd, traced):
    """A deferred message has two attempts, each a trace of its own with a link; ids and codes are told, people are not."""
    smtpd.script = {"RCPT": ["451 4.3.0 later for ada@example.com", "250 ok"]}
    async with Collector() as collector, Stack(folder, smtpd.port, more=OPERATOR) as stack:
        traced(collector.port)
        await asyncio.gather(stack.start_api(), stack.start_worker())
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        async with stack.session.post(
            f"{stack.url}/v1/messages", json=sample("m-1"), headers=headers
        ) as response:
            message_id = (await response.json())["id"]
        assert 403 == (await stack.post(sample("m-2", agent="nobodys")))[0]
        await until(lambda: len(collector.named("attempt")) == 1, "the first attempt is there")
        await postroom(stack, "retry", message_id)
        await stack.until_finished(message_id)
        await until(lambda: len(collector.named("attempt")) == 2, "both attempts are there")
        await until(lambda: len(collector.named("accept")) == 2, "both accepts are there")
        (service, accept), (_, refused) = collector.named("accept")
        assert ("postroom-api", TRACE, SPAN) == (service, accept.trace_id.hex(), accept.parent_span_id.hex())
        told = attributes(accept)
        assert (message_id, "shop", 202) == (
            told["postroom.message_id"], told["postroom.caller"], told["http.response.status_code"],
        )  # fmt: skip
        assert ("agent_not_allowed", b"") == (attributes(refused)["postroom.code"], refused.parent_span_id)
        traces = {accept.trace_id, refused.trace_id}
        for n, (service, attempt) in enumerate(collector.named("attempt"), 1):
            (link,) = attempt.links
            assert ("postroom-worker", accept.trace_id, accept.span_id, b"") == (
                service, link.trace_id, link.span_id, attempt.parent_span_id,
            )  # fmt: skip
            told = attributes(attempt)
            assert (message_id, n, "relay", "smtp") == (
                told["postroom.message_id"], told["postroom.attempt"], told["postroom.channel"],
                told["postroom.channel_kind"],
            )  # fmt: skip
            assert ["deferred", "sent"][n - 1] == told["postroom.outcome"]
            assert 0 <= attempt.end_time_unix_nano - attempt.start_time_unix_nano < 10e9
            traces.add(attempt.trace_id)
        assert 4 == len(traces)
        line = next(line for line in stack.logs("worker") if line["event"] == "message.sent")
        assert TRACE == line["trace_id"]
        assert [] == [word for word in PERSONAL if word in collector.raw]
        assert [] == stack.mishaps()


async def test_a_collector_that_is_gone_holds_nothing_up(folder: Path, smtpd: Smtpd, traced):
    """Mail goes, and both processes end in time."""
    async with Stack(folder, smtpd.port) as stack:
        traced(free_port())
        await asyncio.gather(stack.start_api(), stack.start_worker())
        await stack.until_finished(await stack.accept(sample("m-1")))
        started = time.monotonic()
        assert [0, 0] == await asyncio.gather(stack.end("api"), stack.end("worker"))
        assert time.monotonic() - started < 20


def test_off_it_is_not_even_imported():
    """Neither process loads a module of it that the libraries it has anyway do not load."""
    code = (
        "import sys, service.app, workers.worker, postroom.tracing;"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', 'postroom.otlp'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


@pytest.mark.parametrize(
    ("given", "detail"), [("yes", "must be off or otlp"), ("otlp", "needs the extra otel")]
)
def test_what_cannot_be_is_told_at_the_start(monkeypatch, given, detail):
    """A word that is none, and the extra that is not installed."""
    monkeypatch.setattr("postroom.settings.OTEL", ("opentelemetry.not_there", "neither.this"))
    with pytest.raises(ConfigError) as caught:
        read_settings({"POSTROOM_TRACES": given})
    (fault,) = caught.value.faults
    assert ("POSTROOM_TRACES", True) == (fault.pointer, detail in fault.detail)
