"""The operator's routes on the metrics port: who may, and what is refused."""

import json
import socket
import time

import aiohttp
import pytest

from postroom.dev.merged import serve_merged
from tests.service.conftest import ADMIN_TOKEN
from tests.service.operators import ACT, PAUSE, UNKNOWN, accept, ask, events, lone_api
from tests.stack import TOKEN, free_port, sample


@pytest.fixture(scope="module")
def api():
    """An API of its own: these tests leave mail, pauses and warnings behind."""
    with lone_api() as running:
        yield running


ROUTES = [
    ("GET", "/admin/agents"),
    ("POST", "/admin/agents/orders/pause"),
    ("POST", "/admin/agents/orders/resume"),
    ("POST", "/admin/agents/orders/prefer"),
    ("POST", "/admin/messages/act"),
    ("POST", f"/admin/messages/{UNKNOWN}/retry"),
    ("POST", f"/admin/messages/{UNKNOWN}/cancel"),
    ("POST", f"/admin/messages/{UNKNOWN}/resolve"),
    ("GET", f"/admin/messages/{UNKNOWN}/why"),
    ("GET", "/admin/queue"),
    ("GET", "/admin/changes"),
    ("GET", "/admin/balance"),
    ("GET", "/admin/no-such"),
    ("GET", "/admin"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        (None, 401, "unauthenticated"),
        ("Bearer nobody", 401, "unauthenticated"),
        ("Basic eDp5", 401, "unauthenticated"),
        ("Bearer ", 401, "unauthenticated"),
        (f"Bearer {TOKEN}", 403, "scope_missing"),
    ],
)
def test_every_route_asks_for_an_admin_token(api, method, path, authorization, status, code):
    """No token and a caller's token are refused, with a problem, before anything is looked at."""
    got, document, fields = ask(api, method, path, b"{", authorization=authorization)
    assert (status, code) == (got, document["code"])
    assert "application/problem+json" == fields["content-type"].partition(";")[0]
    assert (status == 401) == ("www-authenticate" in fields)


def test_an_admin_token_cannot_send(api):
    """The scope admin is not the scope send, and the caller has no agents."""
    status, document, _ = api.post(sample("admin-sends"), authorization=f"Bearer {ADMIN_TOKEN}")
    assert (403, "scope_missing") == (status, document["code"])


GOOD_ACT = {"act": "0" * 32, "verb": "cancel", "filter": {"agent": "orders"}, "dry_run": True}


@pytest.mark.parametrize(
    ("path", "body", "status", "places"),
    [
        (PAUSE, b"{", 400, None),
        (PAUSE, b"\xff\xfe", 400, None),
        (PAUSE, b"[" * 3000, 400, None),
        (PAUSE, b"[]", 422, [""]),
        (PAUSE, b"null", 422, [""]),
        (PAUSE, b"", 422, ["/reason"]),
        (PAUSE, {"reason": ""}, 422, ["/reason"]),
        (PAUSE, {"reason": "x" * 201}, 422, ["/reason"]),
        (PAUSE, {"reason": "a\nb"}, 422, ["/reason"]),
        (PAUSE, {"reason": "a\u202eb"}, 422, ["/reason"]),
        (PAUSE, {"reason": "x", "for": "soon"}, 422, ["/for"]),
        (PAUSE, {"reason": "x", "for": "0s"}, 422, ["/for"]),
        (PAUSE, {"reason": "x", "for": "999999999d"}, 422, ["/for"]),
        (PAUSE, {"reason": "x", "as": "ada@example.com"}, 422, ["/as"]),
        (PAUSE, {"reason": "x", "as": "a" * 65}, 422, ["/as"]),
        (PAUSE, {"reason": "x", "who": "ada"}, 422, ["/who"]),
        ("/admin/agents/nobody/pause", {"reason": "x"}, 404, None),
        ("/admin/agents/%00/pause", {"reason": "x"}, 404, None),
        ("/admin/agents/..%2F..%2Fx/pause", {"reason": "x"}, 404, None),
        ("/admin/agents/orders/prefer", {"channel": "no-such", "for": "1h"}, 422, ["/channel"]),
        ("/admin/agents/orders/prefer", {"channel": "relay"}, 422, ["/for"]),
        ("/admin/agents/orders/prefer", {"channel": 7}, 422, ["/channel"]),
        (ACT, {**GOOD_ACT, "filter": {}}, 422, ["/filter"]),
        (ACT, {**GOOD_ACT, "filter": {"agent": "Orders"}}, 422, ["/filter/agent"]),
        (ACT, {**GOOD_ACT, "filter": {"template": "a b"}}, 422, ["/filter/template"]),
        (ACT, {**GOOD_ACT, "filter": {"accepted_before": "noon"}}, 422, ["/filter/accepted_before"]),
        (ACT, {**GOOD_ACT, "filter": {"accepted_before": "0001-01-01T00:00:00+14:00"}}, 422, ["/filter/accepted_before"]),
        (ACT, {**GOOD_ACT, "filter": {"accepted_before": "999999999d"}}, 422, ["/filter/accepted_before"]),
        (ACT, {**GOOD_ACT, "filter": {"accepted_before": "9" * 100 + "d"}}, 422, ["/filter/accepted_before"]),
        (ACT, {**GOOD_ACT, "filter": {"accepted_before": "9999-12-31T23:59:59-14:00"}}, 422, ["/filter/accepted_before"]),
        (ACT, {**GOOD_ACT, "filter": {"accepted_before": ""}}, 422, ["/filter/accepted_before", "/filter"]),
        (
            ACT, {**GOOD_ACT, "filter": {"accepted_before": "2h"}, "at": {"agent": "orders"}},
            422, ["/filter/accepted_before"],
        ),
        (ACT, {**GOOD_ACT, "filter": {"recipient": "x"}}, 422, ["/filter/recipient"]),
        (ACT, {**GOOD_ACT, "verb": "delete"}, 422, ["/verb"]),
        (ACT, {**GOOD_ACT, "act": "x"}, 422, ["/act"]),
        (ACT, {**GOOD_ACT, "verb": "pause", "dry_run": False}, 422, ["/reason"]),
        (ACT, {**GOOD_ACT, "verb": "pause", "reason": "x" * 65}, 422, ["/reason"]),
        (ACT, {**GOOD_ACT, "verb": "pause", "reason": "\u20ac" * 22, "dry_run": False}, 422, ["/reason"]),
        (ACT, {**GOOD_ACT, "verb": "pause", "reason": "\ud800", "dry_run": False}, 400, None),
        (ACT, {**GOOD_ACT, "at": {"agent": "orders", "last": "x" * 65}}, 422, ["/at/last"]),
        (ACT, {**GOOD_ACT, "at": {"agent": "orders", "priority": "x"}}, 422, ["/at/priority"]),
        (ACT, {**GOOD_ACT, "filter": {"agent": "nobody"}}, 404, None),
        (f"/admin/messages/{UNKNOWN}/retry", {}, 404, None),
        (f"/admin/messages/{UNKNOWN}/cancel", {}, 404, None),
        (f"/admin/messages/{UNKNOWN}/resolve", {"outcome": "sent"}, 404, None),
        (f"/admin/messages/{UNKNOWN}/resolve", {"outcome": "retry"}, 404, None),
        (f"/admin/messages/{UNKNOWN}/resolve", {"outcome": "lost"}, 422, ["/outcome"]),
        ("/admin/messages/no-id/cancel", {}, 404, None),
        ("/admin/messages/%FF%FE/cancel", {}, 404, None),
        (PAUSE, b'{"reason": "' + b"x" * 20_000 + b'"}', 413, None),
    ],
)  # fmt: skip
def test_bad_input_is_a_clear_problem(api, path, body, status, places):
    """Nothing an operator sends is answered with a 5xx; faults are named by place, and no value comes back."""
    got, document, fields = ask(api, "POST", path, body)
    assert status == got, document
    assert "application/problem+json" == fields["content-type"].partition(";")[0]
    if places is not None:
        assert places == [error["pointer"] for error in document["errors"]]
    assert "ada@example.com" not in json.dumps(document)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/changes?since=yesterday", 422),
        ("/admin/changes?since=", 422),
        (f"/admin/changes?since={'9' * 100}d", 422),
        ("/admin/changes?until=3h", 400),
        ("/admin/changes?since=999999999d", 200),
        ("/admin/changes?since=2020-01-01T00:00:00Z", 200),
        ("/admin/changes?since=0001-01-01T00:00:00Z", 200),
        ("/admin/changes?since=0001-01-01T00:00:00%2B14:00", 200),
        ("/admin/changes?since=9999-12-31T23:59:59-14:00", 200),
        (f"/admin/messages/{UNKNOWN}/why", 404),
        ("/admin/messages/x/why", 404),
        ("/admin/", 404),
    ],
)
def test_what_is_asked_for_wrongly_is_a_clear_problem(api, path, status):
    """Queries and paths are checked like bodies."""
    assert status == ask(api, "GET", path)[0]


def test_a_body_that_does_not_come_is_not_waited_for(api):
    """A body is bounded in time, so that nobody holds the port."""
    with socket.create_connection(("127.0.0.1", api.metrics_port)) as connection:
        connection.settimeout(15)
        head = f"POST {PAUSE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nContent-Length: 20\r\n\r\n{{"
        began = time.monotonic()
        connection.sendall(head.encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert 0.5 < time.monotonic() - began < 8


@pytest.mark.parametrize(
    ("method", "path"), [r for r in ROUTES if r[1] not in ("/admin", "/admin/no-such", "/admin/changes")]
)
def test_an_unknown_query_parameter_is_refused(api, method, path):
    """Nothing is ignored: an act without the filter that was meant is another act."""
    status, document, _ = ask(api, method, f"{path}?agent=orders", {} if method == "POST" else None)
    assert (400, "bad_request") == (status, document["code"])


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/no/such?x=1"])
def test_what_is_not_there_is_a_problem(api, path):
    """Any path below /admin, and itself, answers with a document."""
    status, document, fields = ask(api, "GET", path)
    assert (404, "not_found", "application/problem+json") == (
        status,
        document["code"],
        fields["content-type"].partition(";")[0],
    )


@pytest.mark.parametrize(
    ("body", "pointer", "told"),
    [
        ({"reason": "x", "for": "soon"}, "/for", "must be a duration such as 90s, 10min, 2h or 1.5d"),
        ({"reason": "x", "for": 5}, "/for", "expected `str | null`, got `int`"),
    ],
)
def test_what_is_expected_is_said_in_words(api, body, pointer, told):
    """A pattern is for machines."""
    document = ask(api, "POST", "/admin/agents/orders/pause", body)[1]
    assert [{"pointer": pointer, "detail": told}] == document["errors"]


def test_the_queue_shows_what_waits(api):
    """As `postroom queue`."""
    accept(api)
    rows = ask(api, "GET", "/admin/queue")[1]["queues"]
    assert any(("orders", "normal") == (row["agent"], row["priority"]) and row["waiting"] for row in rows)


async def test_the_development_run_passes_the_admin_routes_on(api):
    """On the port of the merged metrics an operator reaches the API, token and body included."""
    port = free_port()
    runner = await serve_merged(port, {"api": api.metrics_port})
    url, headers = f"http://127.0.0.1:{port}/admin", {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    try:
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.get(f"{url}/changes?since=1h") as response:
                assert (200, ["changes"]) == (response.status, list(await response.json()))
            async with session.post(f"{url}/agents/orders/pause", json={}) as response:
                document = await response.json(content_type=None)
                assert (422, "/reason") == (response.status, document["errors"][0]["pointer"])
        async with aiohttp.ClientSession() as session, session.get(f"{url}/agents") as response:
            assert 401 == response.status
    finally:
        await runner.cleanup()


def test_without_redis_an_operator_is_told(api):
    """503 as a problem, for looks and for acts, and afterwards all goes on."""
    api.redis.pause()
    try:
        for method, path, body in (("GET", "/admin/agents", None), ("POST", PAUSE, {"reason": "x"})):
            status, document, fields = ask(api, method, path, body)
            assert (503, "unavailable", "2") == (status, document["code"], fields["retry-after"])
            assert document["detail"].startswith("Redis did not answer in time.")
    finally:
        api.redis.resume()
    deadline = time.monotonic() + 15
    while ask(api, "POST", "/admin/agents/orders/resume", {})[0] != 200:
        assert time.monotonic() < deadline


def test_a_redis_that_refuses_an_act_is_told_from_one_that_hangs(api):
    """Nothing was done, and the reason is not that it was slow."""
    api.redis.command("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        status, document, _ = ask(api, "POST", PAUSE, {"reason": "x"})
    finally:
        api.redis.command("CONFIG", "SET", "min-replicas-to-write", "0")
    told = "Redis refuses writes at the moment. Nothing was done; ask again."
    assert (503, "unavailable", told) == (status, document["code"], document["detail"])


@pytest.mark.parametrize("value", ["Bearer \xe9\xff", "Bearer " + "x" * 600, "bearer\t" + ADMIN_TOKEN])
def test_an_odd_authorization_is_no_defect(api, value):
    """Whatever stands in the field, it is a token that holds or it is refused."""
    assert 401 == ask(api, "GET", "/admin/agents", authorization=value)[0]


def test_no_act_crashed_and_nothing_personal_was_logged(api):
    """After all that, the API's log has no crash and no address of a recipient."""
    assert [] == events(api, "request.crashed")
    assert "ada@example.com" not in api.log.read_text()
