"""The outermost layer, called without a server: who may come in, how long, how much, and what is told of it."""

import asyncio
import hashlib
import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

import service.edge
import service.routes
from postroom.config.files import Files
from postroom.config.live import LiveConfig
from postroom.config.structs import Agent, Caller, Config, From, SmtpChannel, Token
from postroom.log import get_logger
from postroom.metrics import EdgeMetrics
from postroom.settings import Settings
from postroom.templates import TemplateSet
from service.app import build_app
from service.arrival import Reply
from service.auth import Authenticator
from service.edge import MAX_BODY, Edge
from service.limit import RateLimit
from tests.service.wire import call
from tests.stack import ROOT

JSON = ("Content-Type", "application/json")
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
CANARY = "Kanarienvogel"


def token(name, **options):
    return Token(id="k1", sha256=hashlib.sha256(name.encode()).hexdigest(), **options)


def bearer(name):
    return ("Authorization", f"Bearer {name}")


CALLERS = {
    "full": Caller(agents=("orders",), tokens=(token("good"), token("second"))),
    "sender": Caller(agents=("orders",), tokens=(token("send", scopes=("send",)),)),
    "reader": Caller(agents=("orders",), tokens=(token("read", scopes=("read",)),)),
    "times": Caller(
        agents=("orders",),
        tokens=(
            token("expired", expires=(NOW - HOUR).isoformat()),
            token("later", not_before=(NOW + HOUR).isoformat()),
            token("now", not_before=(NOW - HOUR).isoformat(), expires=(NOW + HOUR).isoformat()),
        ),
    ),
    "inside": Caller(
        agents=("orders",), networks=("10.1.0.0/16", "2001:db8::/32"), tokens=(token("inside"),)
    ),
    "paced": Caller(agents=("orders",), rate="2/s", tokens=(token("paced"),)),
}
CONFIG = Config(
    agents={
        "orders": Agent(
            sender=From(address="orders@shop.example"),
            channels=(SmtpChannel(name="relay", host="127.0.0.1", port=1, tls="none"),),
        )
    },
    callers=CALLERS,
)


@pytest.fixture(scope="module")
def app():
    """The whole API, its desk not opened: there is no Redis behind it."""
    templates = TemplateSet.load_folder(str(ROOT / "templates"))
    live = LiveConfig(ROOT / "none.toml", {}, CONFIG, Files())
    return build_app(Settings(), live, templates)


def edge_around(inner, straight=None):
    """Return an edge around another application, and its registry."""
    registry = CollectorRegistry()
    return Edge(inner, Authenticator(CONFIG), EdgeMetrics(registry), get_logger(), straight), registry


async def echo(_scope, receive, send):
    """Answer with the body."""
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


async def get(app, *fields, **options):
    """Ask for a message that is not there: 404 for whoever may read, without a look into the ledger."""
    return await call(app, "GET", "/v1/messages/x", fields, **options)


@pytest.mark.parametrize("name", ["good", "second", "read", "now"])
async def test_any_current_token_of_a_caller_opens(app, name):
    """A caller may have several tokens, each with its own times and scopes."""
    assert 404 == (await get(app, bearer(name))).status


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (("Authorization", ""),),
        (("Authorization", "Bearer"),),
        (("Authorization", "Bearer "),),
        (("Authorization", "good"),),
        (("Authorization", "Basic Z29vZDpnb29k"),),
        (("Authorization", "Token good"),),
        (("Authorization", "Bearer\tgood"),),
        (("Authorization", "Bearer good good"),),
        (("Authorization", "Bearer good, Bearer good"),),
        (("Authorization", "Bearer GOOD"),),
        (("Authorization", "Bearer goo"),),
        (("Authorization", "Bearer gööd"),),
        (("Authorization", "Bearer " + "g" * 10_240),),
        (("Authorization", "Bearer " + hashlib.sha256(b"good").hexdigest()),),
        (bearer("good"), bearer("good")),
        (bearer("good"), bearer("other")),
        (bearer("expired"),),
        (bearer("later"),),
        (("Proxy-Authorization", "Bearer good"),),
        (("Cookie", "Authorization=Bearer good"),),
        (("X-Api-Key", "good"),),
    ],
)
async def test_every_reason_for_a_401_looks_alike(app, fields):
    """Nothing tells a wrong token from a missing, an expired or a doubled one."""
    expected = await get(app, ("X-Request-ID", "r"))
    found = await get(app, *fields, ("X-Request-ID", "r"))
    assert (401, "unauthenticated") == (found.status, found.code)
    assert expected == found
    assert found.fields["www-authenticate"].startswith("Bearer")


async def test_a_token_in_the_query_is_none(app):
    """A token belongs into the header field, where nobody logs it."""
    for query in ("token=good", "access_token=good", "Authorization=Bearer%20good"):
        with capture_logs() as logs:
            assert 401 == (await call(app, "GET", f"/v1/messages/x?{query}")).status
        assert "good" not in json.dumps(logs)


async def test_scopes(app):
    """A token without the scope is told so; one that only sends cannot read, and the other way round."""
    found = await get(app, bearer("send"))
    assert (403, "scope_missing") == (found.status, found.code)
    for path in ("/v1/messages", "/v1/messages/x/cancel"):
        found = await call(app, "POST", path, (bearer("read"), JSON), (b"{}",))
        assert (403, "scope_missing") == (found.status, found.code)
    assert 404 == (await get(app, bearer("read"))).status


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.1.2.3", None, 404),
        ("::ffff:10.1.2.3", None, 404),
        ("2001:db8::1", None, 404),
        ("10.2.0.1", None, 403),
        ("::ffff:10.2.0.1", None, 403),
        ("2001:db9::1", None, 403),
        ("127.0.0.1", None, 403),
        (None, None, 403),
        ("not an address", None, 403),
        ("10.2.0.1", "10.1.2.3", 403),
        ("10.2.0.1", "10.1.2.3, 10.2.0.1", 403),
        ("10.1.2.3", "10.2.0.1", 404),
    ],
)
async def test_networks(app, peer, forwarded, expected):
    """The address of the peer decides; what a header field claims does not."""
    more = (("X-Forwarded-For", forwarded), ("Forwarded", f"for={forwarded}")) if forwarded else ()
    found = await get(app, bearer("inside"), *more, peer=peer)
    assert expected == found.status
    if expected == 403:
        assert "network_not_allowed" == found.code


async def test_a_callers_rate(app):
    """Beyond its rate a caller is told when to come back, and the others notice nothing."""
    found = [await get(app, bearer("paced")) for _ in range(4)]
    assert [404, 404, 429, 429] == [answer.status for answer in found]
    assert ("rate_limited", "1") == (found[2].code, found[2].fields["retry-after"])
    assert 404 == (await get(app, bearer("good"))).status


@pytest.mark.parametrize(
    ("rate", "at_once", "wait"), [(50, 50, 1), (1, 1, 1), (0.5, 1, 2), (1 / 3600, 1, 3600), (1.5, 1, 1)]
)
def test_one_seconds_worth_may_come_at_once(rate, at_once, wait):
    """A second's worth, at least one, goes through at once; the next is told when."""
    limit = RateLimit(rate)
    assert [None] * at_once == [limit.take() for _ in range(at_once)]
    assert wait == limit.take()


@pytest.mark.parametrize("given", ["abc", "A.b_c-1", "x" * 64])
async def test_a_request_id_is_kept(app, given):
    """A caller's X-Request-ID is answered and stands in problems and logs."""
    with capture_logs() as logs:
        found = await get(app, ("X-Request-ID", given))
    assert (given, given) == (found.fields["x-request-id"], found.document["request_id"])
    assert given == logs[-1]["request_id"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ä", "a@b.example", "a\x01", None])
async def test_a_request_id_of_another_shape_is_replaced(app, given):
    """What is no plain id is replaced by one of ours, and logged nowhere."""
    fields = () if given is None else (("X-Request-ID", given),)
    found = await get(app, *fields)
    assert 32 == len(found.fields["x-request-id"])
    assert found.fields["x-request-id"] == found.document["request_id"]


@pytest.mark.parametrize("path", ["//v1/messages", "///v1/messages", "//v1//messages", "//v1/messages/x"])
async def test_no_spelling_of_a_path_passes_by_the_token(app, path):
    """Whatever the router makes of a path, without a token it is refused, and never a 5xx."""
    for method in ("GET", "POST"):
        found = await call(app, method, path, (JSON,), (b"{}",))
        assert found.status in (401, 404, 405)


async def test_a_crash_around_the_routes_is_a_problem():
    """A defect is answered as a problem document and logged with its class and frames, without its text."""

    async def crash(_scope, _receive, _send):
        raise RuntimeError(CANARY)

    edge, registry = edge_around(crash)
    with capture_logs() as logs:
        found = await call(edge)
    assert (500, "internal_error") == (found.status, found.code)
    assert CANARY not in found.body.decode()
    assert "request.crashed" == logs[0]["event"]
    assert 1 == registry.get_sample_value(
        "postroom_http_requests_total", {"route": "/livez", "method": "GET", "status": "500"}
    )


async def test_a_crash_in_a_route_is_a_problem(app, monkeypatch):
    """The same for a defect in a handler: nothing crashes silently."""

    def crash():
        raise RuntimeError(CANARY)

    monkeypatch.setattr(service.routes, "docs_page", crash)
    with capture_logs() as logs:
        found = await call(app, "GET", "/docs")
    assert (500, "application/problem+json") == (found.status, found.fields["content-type"])
    assert "internal_error" == found.code
    assert ["request.crashed", "http.request"] == [line["event"] for line in logs]


@pytest.mark.parametrize("crashes", [False, True])
async def test_what_a_route_tells_itself_is_not_told_twice(crashes):
    """A route's own line is the request's; where it broke after that, the answer's line is there as well."""
    told = []

    async def route(arrival):
        arrival.tell = lambda *given: told.append(given)
        if crashes:
            raise RuntimeError(CANARY)
        return Reply(202, (), b"{}")

    edge, _ = edge_around(echo, {("POST", "/v1/messages"): route})
    with capture_logs() as logs:
        found = await call(edge, "POST", "/v1/messages", (bearer("good"), JSON), (b"{}",))
    ((ms, length),) = told
    assert (len(found.body), True) == (length, 0 < ms < 60_000)
    assert (["request.crashed", "http.request"] if crashes else []) == [line["event"] for line in logs]


async def test_an_accepted_request_that_was_never_answered_is_told_as_such():
    """Its own line says that it was recorded; the request's line has status 0."""
    told = []

    async def route(arrival):
        arrival.tell = lambda *given: told.append(given)
        raise asyncio.CancelledError

    edge, _ = edge_around(echo, {("POST", "/v1/messages"): route})
    with capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await call(edge, "POST", "/v1/messages", (bearer("good"), JSON), (b"{}",))
    assert [("http.request", 0)] == [(line["event"], line["status"]) for line in logs]
    assert 1 == len(told)


async def test_a_slow_body_is_cut_off_and_hurts_nobody(monkeypatch):
    """Two hundred trickling bodies end in 408 after the same short time, and others are served meanwhile."""
    monkeypatch.setattr(service.edge, "BODY_SECONDS", 0.2)
    edge, _ = edge_around(echo)
    trickle = tuple(part for _ in range(500) for part in (b"x", 0.01))
    fields = (bearer("good"), JSON)
    began = time.monotonic()
    slow = [asyncio.create_task(call(edge, "POST", "/v1/messages", fields, trickle)) for _ in range(200)]
    quick = []
    while not all(task.done() for task in slow):
        at = time.monotonic()
        assert 200 == (await call(edge, "POST", "/v1/messages", fields, (b"hello",))).status
        quick.append(time.monotonic() - at)
        await asyncio.sleep(0.01)
    assert time.monotonic() - began < 2
    found = {(a.status, a.code, a.fields["connection"]) for a in await asyncio.gather(*slow)}
    assert {(408, "request_timeout", "close")} == found
    assert sorted(quick)[len(quick) // 2] < 0.05


async def test_a_body_of_known_length_ends_with_it():
    """Nobody is asked for more: what would come next here is that the caller hung up."""
    edge, _ = edge_around(echo)
    fields = (bearer("good"), JSON, ("Content-Length", "7"))
    found = await call(edge, "POST", "/v1/messages", fields, (b'{"a":', b"1}", None))
    assert (200, b'{"a":1}') == (found.status, found.body)
    fields = (bearer("good"), JSON, ("Content-Length", "8"))
    assert 400 == (await call(edge, "POST", "/v1/messages", fields, (b'{"a":', b"1}", None))).status


@pytest.mark.parametrize(
    ("fields", "chunks"),
    [
        ((("Content-Length", str(MAX_BODY + 1)),), ()),
        ((("Content-Length", "9" * 30),), ()),
        ((("Transfer-Encoding", "chunked"),), (b"x" * 1_000_000,) * 25),
        ((), (b"x" * (MAX_BODY + 1),)),
    ],
)
async def test_a_body_beyond_the_limit_is_not_read_on(fields, chunks):
    """By its own word or by its bytes, a body too large is refused, and the connection is closed."""
    edge, _ = edge_around(echo)
    found = await call(edge, "POST", "/v1/messages", (bearer("good"), JSON, *fields), chunks)
    assert (413, "too_large", "close") == (found.status, found.code, found.fields["connection"])


async def test_a_body_at_the_limit_is_read():
    """The limit itself is allowed."""
    edge, _ = edge_around(echo)
    chunks = (b"x" * (MAX_BODY - 5), b"", b"12345")
    found = await call(edge, "POST", "/v1/messages", (bearer("good"), JSON), chunks)
    assert (200, MAX_BODY) == (found.status, len(found.body))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((("Content-Length", "2"), ("Transfer-Encoding", "chunked")), 400),
        ((("Content-Length", "2"), ("Content-Length", "2")), 400),
        ((("Content-Length", "+2"),), 400),
        ((("Content-Length", "-2"),), 400),
        ((("Content-Length", "0x2"),), 400),
        ((("Content-Length", ""),), 400),
        ((("Content-Length", "2,2"),), 400),
        ((("Host", "x"),), 400),
        ((("Host", "y"),), 400),
        ((("Content-Encoding", "gzip"),), 415),
        ((("Content-Encoding", "identity"),), 415),
        ((("Content-Type", "text/plain"),), 415),
    ],
)
async def test_what_must_hold_for_the_header_fields(fields, status):
    """Lengths, codings, hosts and types that could be read in two ways are refused."""
    edge, _ = edge_around(echo)
    given = (bearer("good"), *fields)
    given = given if any(name == "Content-Type" for name, _ in fields) else (*given, JSON)
    assert status == (await call(edge, "POST", "/v1/messages", given, (b"{}",))).status


async def test_a_caller_that_hangs_up_is_told_to_nobody_but_the_log():
    """A request that ends early never reaches a route."""
    edge, _ = edge_around(echo)
    with capture_logs() as logs:
        found = await call(edge, "POST", "/v1/messages", (bearer("good"), JSON), (b"{", None))
    assert 400 == found.status
    assert ["http.request"] == [line["event"] for line in logs]


async def test_the_log_line_holds_ids_and_numbers(app):
    """A request is one line of route template, codes and numbers: no path, no query, no field, no body."""
    fields = (bearer("good"), ("User-Agent", CANARY), JSON)
    with capture_logs() as logs:
        await call(app, "GET", f"/v1/messages/{CANARY}?client_ref={CANARY}", fields)
        await call(app, "GET", f"/{CANARY}", fields)
        await call(app, CANARY.upper(), f"/v1/messages?{CANARY}", fields)
        await call(app, "POST", "/v1/messages", fields, (json.dumps({CANARY: CANARY}).encode(),))
    assert ["http.request"] * 4 == [line["event"] for line in logs]
    assert ["/v1/messages/{id}", "other", "/v1/messages", "/v1/messages"] == [line["route"] for line in logs]
    assert ["GET", "GET", "other", "POST"] == [line["method"] for line in logs]
    assert CANARY.lower() not in json.dumps(logs).lower()
    expected = {
        "request_id",
        "trace_id",
        "caller",
        "method",
        "route",
        "status",
        "code",
        "ms",
        "bytes",
        "event",
        "log_level",
    }
    assert expected == set(logs[0])


async def test_probes_are_not_logged(app):
    """Probes come every second and tell nothing."""
    with capture_logs() as logs:
        assert 200 == (await call(app, "GET", "/livez")).status
        assert 200 == (await call(app, "GET", "/readyz")).status
    assert [] == logs


async def test_without_redis_the_answers_are_clean(app):
    """What needs the ledger is a 503 with Retry-After; life, readiness and contract need none."""
    ready = await call(app, "GET", "/readyz")
    assert (200, {"ready": True, "redis": "unavailable"}) == (ready.status, ready.document)
    for path in ("/livez", "/docs", "/openapi.json"):
        assert 200 == (await call(app, "GET", path)).status
    found = await call(app, "POST", "/v1/messages", (bearer("good"), JSON), (b"{}",))
    assert (503, "unavailable", True) == (found.status, found.code, int(found.fields["retry-after"]) > 0)
    found = await call(app, "GET", "/v1/messages?client_ref=a", (bearer("good"),))
    assert (503, "unavailable") == (found.status, found.code)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/messages", {"GET", "POST", "OPTIONS"}),
        ("/v1/messages/x", {"GET", "OPTIONS"}),
        ("/v1/messages/x/cancel", {"POST", "OPTIONS"}),
        ("/livez", {"GET", "OPTIONS"}),
        ("/docs", {"GET", "OPTIONS"}),
    ],
)
@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "HEAD", "TRACE", "BREW", "get"])
async def test_a_method_that_is_not_there_is_a_405_with_allow(app, method, path, allowed):
    """Allow names every method the path has."""
    found = await call(app, method, path, (bearer("good"),))
    assert 405 == found.status
    assert allowed == set(found.fields["allow"].split(", "))
    assert "application/problem+json" == found.fields["content-type"]


async def test_options_names_every_method(app):
    """OPTIONS tells the same as the Allow of a 405."""
    found = await call(app, "OPTIONS", "/v1/messages", (bearer("good"),))
    assert {"GET", "POST", "OPTIONS"} == set(found.fields["allow"].split(", "))


async def test_the_docs_page_runs_nothing(app):
    """The contract as a page needs nothing from anywhere and may run nothing."""
    found = await call(app, "GET", "/docs")
    assert found.fields["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.fields["content-security-policy"]
    page = found.body.decode()
    assert "<script" not in page
    assert "https://" not in page.replace("https://shop.example", "")


async def test_the_contract_is_served_as_json(app):
    """/openapi.json is OpenAPI 3.1."""
    found = await call(app, "GET", "/openapi.json")
    assert ("application/json", "3.1.0") == (found.fields["content-type"], found.document["openapi"])
