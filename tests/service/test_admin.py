"""The operator's routes on the metrics port: who may, what is refused, and that each does what it says."""

import http.client
import json
import re
import socket
import tempfile
import threading
import time
import urllib.request
import uuid
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import aiohttp
import pytest

from postroom.dev.merged import serve_merged
from postroom.ledger.operating import Act, Filter
from tests.nursery import NURSERY
from tests.service.conftest import ADMIN_TOKEN, Api, in_ledger
from tests.stack import TOKEN, free_port, sample

UNKNOWN = "orders-01ARZ3NDEKTSV4RRFFQ69G5FAV"
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


@pytest.fixture(scope="module")
def api():
    """An API of its own: these tests leave mail, pauses and warnings behind."""
    with tempfile.TemporaryDirectory(prefix="pr") as folder:
        running = Api(Path(folder))
        process = running.start()
        yield running
        process.terminate()
        process.wait(15)
        running.redis.kill()


def ask(api, method, path, body=None, *, authorization=f"Bearer {ADMIN_TOKEN}"):
    """Send one request to the metrics port; return status, document and header fields."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if authorization is not None:
        headers["Authorization"] = authorization
    connection = http.client.HTTPConnection("127.0.0.1", api.metrics_port, timeout=15)
    connection.request(method, path, data, headers)
    response = connection.getresponse()
    raw = response.read()
    connection.close()
    return response.status, json.loads(raw), {k.lower(): v for k, v in response.getheaders()}


def accept(api, agent="orders", **changes):
    """Accept a message and return its id."""
    status, answer, _ = api.post(sample(f"admin-{uuid.uuid4().hex}", agent=agent, **changes))
    assert 202 == status
    return answer["id"]


def get(api, message_id):
    return api.post(b"", method="GET", path=f"/v1/messages/{message_id}")[1]


def events(api, event):
    lines = [json.loads(line) for line in api.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def act(api, verb, wanted, **more):
    """Do an act to its end, as the command line does; return its sums."""
    body = {"act": uuid.uuid4().hex, "verb": verb, "filter": wanted, "reason": "wrong price", **more}
    while True:
        status, answer, _ = ask(api, "POST", "/admin/messages/act", body)
        assert 200 == status, answer
        if answer["next"] is None:
            return answer["done"], answer["too_late"]
        body["at"] = answer["next"]


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


PAUSE, ACT = "/admin/agents/orders/pause", "/admin/messages/act"
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
        (ACT, {**GOOD_ACT, "at": {"agent": "orders", "rank": -1}}, 422, ["/at/rank"]),
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


def test_an_agent_is_paused_and_goes_on(api):
    """It shows with reason, person and time; the act is in the log and among the changes."""
    body = {"reason": "wrong price 4711", "for": "1h", "as": "ada"}
    status, paused, _ = ask(api, "POST", PAUSE, body)
    assert (200, True) == (status, paused["paused"])
    row = next(r for r in ask(api, "GET", "/admin/agents")[1]["agents"] if r["agent"] == "orders")
    assert ("paused", "team-shop", "ada (operator)", "wrong price 4711", paused["since"], paused["until"]) == (
        row["state"], row["owner"], row["who"], row["reason"], row["since"], row["until"],
    )  # fmt: skip
    status, resumed, _ = ask(api, "POST", "/admin/agents/orders/resume", {"as": "ada"})
    assert (200, True) == (status, resumed["paused"])
    assert not ask(api, "POST", "/admin/agents/orders/resume", {})[1]["paused"]
    acted = [e for e in events(api, "operator.acted") if e.get("agent") == "orders"]
    assert ("pause", "operator", "t4", "ada", "wrong price 4711") == tuple(
        acted[0][name] for name in ("verb", "caller", "token_id", "as_user", "reason")
    )
    assert "resume" == acted[1]["verb"]
    changes = ask(api, "GET", "/admin/changes?since=1h")[1]["changes"]
    assert ["agent.paused", "agent.resumed"] == [
        c["kind"] for c in changes if c["data"].get("agent") == "orders"
    ][:2]
    assert "wrong price 4711" == next(c for c in changes if c["kind"] == "agent.paused")["data"]["reason"]


def test_a_channel_is_preferred_for_a_while(api):
    """It shows among the agents, and can be taken back."""
    path = "/admin/agents/logins/prefer"
    status, answer, _ = ask(api, "POST", path, {"channel": "relay", "for": "2h"})
    assert (200, "relay") == (status, answer["channel"])
    row = next(r for r in ask(api, "GET", "/admin/agents")[1]["agents"] if r["agent"] == "logins")
    assert ("relay", answer["until"], "working") == (row["preferred"], row["preferred_until"], row["state"])
    assert ask(api, "POST", path, {})[1]["channel"] is None
    row = next(r for r in ask(api, "GET", "/admin/agents")[1]["agents"] if r["agent"] == "logins")
    assert row["preferred"] is None


def test_wrong_mail_is_counted_held_released_and_cancelled(api):
    """Counts say what would be done; the callers' view, the log and the metric agree with what was."""
    wrong = [accept(api, "logins", priority=p) for p in ("high", "normal", "bulk")]
    kept = accept(api, "orders")
    wanted = {"agent": "logins", "template": "order_shipped", "caller": "shop"}
    assert (0, 0) == act(api, "cancel", {**wanted, "accepted_before": "2020-01-01T00:00:00Z"}, dry_run=True)
    assert (3, 0) == act(api, "cancel", wanted, dry_run=True)
    assert (3, 0) == act(api, "pause", wanted)
    assert (3, 0) == act(api, "release", wanted, dry_run=True)
    assert (3, 0) == act(api, "release", wanted)
    assert (0, 0) == act(api, "release", wanted)
    assert {"queued"} == {get(api, i)["state"] for i in wrong}
    assert (3, 0) == act(api, "cancel", wanted)
    assert {"cancelled"} == {get(api, i)["state"] for i in wrong}
    assert "queued" == get(api, kept)["state"]
    ended = [e["message_id"] for e in events(api, "message.cancelled") if e.get("operator")]
    assert sorted(wrong) == sorted(i for i in ended if i in wrong)
    text = urllib.request.urlopen(f"http://127.0.0.1:{api.metrics_port}/metrics").read().decode()
    line = 'postroom_messages_finished_total{agent="logins",priority="high",state="cancelled"}'
    assert any(row.startswith(line) for row in text.splitlines())
    unaccounted = [row for row in text.splitlines() if row.startswith("postroom_messages_unaccounted{")]
    assert unaccounted
    assert {"0.0"} == {row.split()[-1] for row in unaccounted}


def test_mail_of_all_agents_and_of_one_nobody_configures_is_reached(api):
    """An agent that is gone from the configuration shows, and an act over all agents comes by."""

    async def leave_mail(ledger):
        return [(await ledger.accept(agent="oldshop", caller="gone")).id for _ in range(3)]

    in_ledger(api, leave_mail)
    row = next(r for r in ask(api, "GET", "/admin/agents")[1]["agents"] if r["agent"] == "oldshop")
    assert (False, 3) == (row["configured"], row["waiting"])
    assert 200 == ask(api, "POST", "/admin/agents/oldshop/pause", {"reason": "x"})[0]
    assert (3, 0) == act(api, "expire", {"caller": "gone"}, dry_run=True)
    assert (3, 0) == act(api, "expire", {"caller": "gone"})
    rows = {r["agent"]: r for r in ask(api, "GET", "/admin/balance")[1]["balance"]}
    assert (3, 3, 0, 0) == tuple(
        rows["oldshop"][name] for name in ("accepted", "expired", "waiting", "unaccounted")
    )


def test_a_repeated_call_of_an_act_tells_everything_it_did(api):
    """A client that lost an answer asks the same again and has an exact sum."""
    for _ in range(3):
        accept(api, "logins")
    body = {"act": uuid.uuid4().hex, "verb": "cancel", "filter": {"agent": "logins"}}
    assert 3 == ask(api, "POST", ACT, body)[1]["done"]
    assert 3 == ask(api, "POST", ACT, body)[1]["done"]


def test_a_holds_reason_is_kept_whole_or_refused(api):
    """64 bytes of UTF-8 come back as they are; callers never see one that was cut."""
    message_id, reason = accept(api, "logins"), "\u20ac" * 21 + "x"
    assert (1, 0) == act(api, "pause", {"agent": "logins"}, reason=reason)
    assert reason in get(api, message_id)["reason"]["text"]
    assert (1, 0) == act(api, "cancel", {"agent": "logins"}, reason="x" * 200)


def test_a_hold_by_filter_may_have_an_end(api):
    """One moment for all its calls and messages, shown to callers and on the command line; only a pause has one."""
    message_id = accept(api, "logins")
    words = ("pause", "--agent", "logins", "--reason", "x", "--for", "1h", "--yes")
    status, shown, _ = run_cli(api, *words)
    told = re.fullmatch(r"1 message\(s\) held until (\S+Z), 0 too late\.\n", shown)
    assert (0, True) == (status, told is not None), shown
    waiting = get(api, message_id)
    assert ("held", told[1], told[1]) == (
        waiting["reason"]["code"], waiting["reason"]["until"], waiting["next_attempt_at"],
    )  # fmt: skip
    assert told[1] in [e["until"] for e in events(api, "operator.acted") if e["verb"] == "pause"]
    for_ever = {"act": "0" * 32, "verb": "pause", "reason": "x", "for": "31d", "filter": {"agent": "logins"}}
    status, problem, _ = ask(api, "POST", ACT, for_ever)
    assert (422, ["/for"]) == (status, [fault["pointer"] for fault in problem["errors"]])
    status, problem, _ = ask(api, "POST", ACT, {**for_ever, "verb": "cancel", "for": "1h"})
    assert (422, ["/for"]) == (status, [fault["pointer"] for fault in problem["errors"]])
    assert (1, 0) == act(api, "cancel", {"agent": "logins"})


def test_a_duration_is_one_moment_over_all_calls_of_an_act(api):
    """The first call says by Redis's clock which moment it is and does nothing; the others are held to that."""
    now = in_ledger(api, lambda ledger: ledger.now())
    message_id = accept(api, "logins")
    body = {"act": uuid.uuid4().hex, "verb": "cancel", "filter": {"agent": "logins", "accepted_before": "0s"}}
    status, first, _ = ask(api, "POST", ACT, body)
    assert (200, 0, "logins") == (status, first["done"], first["next"]["agent"])
    assert 0 <= datetime.fromisoformat(first["accepted_before"]).timestamp() - now / 1000 < 10
    assert "queued" == get(api, message_id)["state"]
    later = accept(api, "logins")
    fixed = body["filter"] | {"accepted_before": first["accepted_before"]}
    answer = ask(api, "POST", ACT, {**body, "at": first["next"], "filter": fixed})[1]
    assert (1, None, first["accepted_before"]) == tuple(
        answer[n] for n in ("done", "next", "accepted_before")
    )
    assert ("cancelled", "queued") == (get(api, message_id)["state"], get(api, later)["state"])
    assert (1, 0) == act(api, "cancel", {"agent": "logins"})
    told = [e["accepted_before"] for e in events(api, "operator.acted") if e.get("act") == body["act"]]
    assert [first["accepted_before"]] * 2 == told


def test_a_callers_cancel_is_an_end_like_any_other(api):
    """What was accepted is what ended and what waits, in the metrics too."""

    def count():
        text = urllib.request.urlopen(f"http://127.0.0.1:{api.metrics_port}/metrics").read().decode()
        line = 'postroom_messages_finished_total{agent="alerts",priority="bulk",state="cancelled"}'
        return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(line))

    message_id = accept(api, "alerts", priority="bulk")
    assert 0 == count()
    for _ in range(2):
        assert 200 == api.post(b"", path=f"/v1/messages/{message_id}/cancel")[0]
    assert 1 == count()


def test_one_message_is_cancelled_and_tried_again_by_its_id(api):
    """Each answer says whether something was done, and what the message is now."""
    message_id = accept(api)
    path = f"/admin/messages/{message_id}"
    assert (True, "queued") == tuple(ask(api, "POST", f"{path}/retry")[1][n] for n in ("done", "state"))
    why = ask(api, "GET", f"{path}/why")[1]
    assert ("queued", "shop", message_id) == (why["state"], why["caller"], why["id"])
    assert (False, "queued") == tuple(
        ask(api, "POST", f"{path}/resolve", {"outcome": "sent"})[1][n] for n in ("done", "state")
    )
    assert (True, "cancelled") == tuple(ask(api, "POST", f"{path}/cancel")[1][n] for n in ("done", "state"))
    assert (False, "cancelled") == tuple(ask(api, "POST", f"{path}/cancel")[1][n] for n in ("done", "state"))
    assert (False, "cancelled") == tuple(ask(api, "POST", f"{path}/retry")[1][n] for n in ("done", "state"))
    assert "message.cancelled" in [kind for _at, kind in ask(api, "GET", f"{path}/why")[1]["events"]]


def test_an_unconfirmed_message_is_resolved(api):
    """As sent, or tried again: a person says which."""

    async def doubt(ledger):
        offer = await ledger.accept(agent="doubts", on_ambiguous="hold")
        held = await ledger.claim_one(agent="doubts")
        await ledger.advance(held)
        await ledger.finish(held, "a")
        return offer.id

    first, second = in_ledger(api, doubt), in_ledger(api, doubt)
    answer = ask(api, "POST", f"/admin/messages/{first}/resolve", {"outcome": "sent"})[1]
    assert (True, "sent") == (answer["done"], answer["state"])
    answer = ask(api, "POST", f"/admin/messages/{second}/retry")[1]
    assert (False, "unconfirmed") == (answer["done"], answer["state"])
    answer = ask(api, "POST", f"/admin/messages/{second}/resolve", {"outcome": "retry"})[1]
    assert (True, "queued") == (answer["done"], answer["state"])
    assert first in [e["message_id"] for e in events(api, "message.resolved")]


async def wait_in_doubt(ledger, codes="a"):
    """Accept a message whose first answer gets lost; it waits for another attempt."""
    offer = await ledger.accept(len(codes), agent="waiters", caller="shop")
    held = await ledger.claim_one(agent="waiters")
    await ledger.advance(held)
    await ledger.finish(held, codes, delay_ms=60_000)
    return offer.id


def finished(api, state):
    """Read how many messages of the agent have ended so."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{api.metrics_port}/metrics").read().decode()
    line = f'postroom_messages_finished_total{{agent="waiters",priority="normal",state="{state}"}}'
    return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(line))


@pytest.mark.parametrize("by", ["caller", "operator"])
def test_what_may_have_been_sent_is_not_called_cancelled(api, by):
    """Called back while it waits in doubt: state, words, log line and count say that nobody knows."""
    message_id, before = (
        in_ledger(api, wait_in_doubt),
        [finished(api, s) for s in ("unconfirmed", "cancelled")],
    )
    if by == "caller":
        status, answer, _ = api.post(b"", path=f"/v1/messages/{message_id}/cancel")
        assert (200, "unconfirmed", "ambiguous") == (status, answer["state"], answer["reason"]["code"])
    else:
        answer = ask(api, "POST", f"/admin/messages/{message_id}/cancel")[1]
        assert (True, "unconfirmed") == (answer["done"], answer["state"])
        assert "the provider may have it" in answer["text"]
        assert "called back in time" not in answer["text"]
    assert [before[0] + 1, before[1]] == [finished(api, s) for s in ("unconfirmed", "cancelled")]
    assert message_id in [line["message_id"] for line in events(api, "message.unconfirmed")]
    assert message_id not in [line["message_id"] for line in events(api, "message.cancelled")]


def test_what_waits_in_doubt_is_resolved(api):
    """Sent after all, in whole or for the recipient that was in doubt: only an end counts as one."""
    message_id, partly, before = (
        in_ledger(api, wait_in_doubt),
        in_ledger(api, both_in_doubt),
        finished(api, "sent"),
    )
    answer = ask(api, "POST", f"/admin/messages/{message_id}/resolve", {"outcome": "sent"})[1]
    assert (True, "sent") == (answer["done"], answer["state"])
    answer = ask(api, "POST", f"/admin/messages/{partly}/resolve", {"outcome": "sent"})[1]
    assert (True, "queued") == (answer["done"], answer["state"])
    assert "its other recipients go on" in answer["text"]
    assert (before + 1, 0) == (finished(api, "sent"), finished(api, "queued"))


async def both_in_doubt(ledger):
    """Accept one of which the second recipient was put off as well."""
    return await wait_in_doubt(ledger, "ad")


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


def test_what_a_person_has_to_release_is_counted(api):
    """`agents` and `queue` tell held mail, so that nobody forgets it."""

    async def hold(ledger):
        for _ in range(3):
            await ledger.accept(agent="held")
        act = Act(id=uuid.uuid4().hex, verb="pause", wanted=Filter(), who="ada", reason="x")
        return [found async for found in ledger.operating.act(act, "held")]

    in_ledger(api, hold)
    (row,) = [row for row in ask(api, "GET", "/admin/agents")[1]["agents"] if row["agent"] == "held"]
    assert (3, 0, 3, False) == (row["waiting"], row["due"], row["held"], row["held_is_least"])
    (row,) = [row for row in ask(api, "GET", "/admin/queue")[1]["queues"] if row["agent"] == "held"]
    assert 3 == row["held"]
    for words in (("agents",), ("queue",)):
        shown = run_cli(api, *words)[1].splitlines()
        column = shown[0].index("HELD")
        (line,) = [line for line in shown if line.startswith("held ")]
        assert "3" == line[column : column + 4].strip()
    act(api, "cancel", {"agent": "held"})


def test_the_queue_shows_what_waits(api):
    """As `postroom queue`."""
    accept(api)
    rows = ask(api, "GET", "/admin/queue")[1]["queues"]
    assert any(("orders", "normal") == (row["agent"], row["priority"]) and row["waiting"] for row in rows)


def run_cli(api, *words, token=ADMIN_TOKEN):
    """Run the command line against the API; return its exit status, output and error."""
    import os

    environ = {
        **os.environ,
        "POSTROOM_CONFIG": str(api.config),
        "POSTROOM_REDIS_URL": api.redis.url,
        "POSTROOM_ADMIN_URL": f"http://127.0.0.1:{api.metrics_port}",
        "POSTROOM_ADMIN_TOKEN": token,
    }
    return NURSERY.run("postroom", *words, environ=environ, seconds=50)


def test_another_port_is_told_for_what_it_is(api):
    """The API's own port has no such paths: what is missing is the right port, and not the thing that was asked for."""
    for words in (("agents",), ("why", UNKNOWN), ("cancel", UNKNOWN)):
        status, _, error = run_cli(api, *words, "--admin-url", f"http://127.0.0.1:{api.port}")
        assert (1, True) == (status, "is it the metrics port" in error), error
    status, _, error = run_cli(api, "cancel", UNKNOWN)
    assert (1, True) == (status, "No message with this id is kept" in error), error


def test_a_token_goes_to_no_other_address(api):
    """An answer that points elsewhere is not followed: whoever is there would get the token."""
    asked = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/stolen")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        status, _, error = run_cli(api, "agents", "--admin-url", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert (1, ["/admin/agents"], True) == (status, asked, "status 302" in error), error


def test_the_command_line_acts_on_agents_and_messages(api):
    """Each command does its act and prints it; what cannot be done ends with status 1."""
    assert (0, "") == run_cli(api, "pause", "logins", "--reason", "wrong price", "--for", "1h")[::2]
    status, shown, _ = run_cli(api, "agents")
    assert 0 == status
    assert "paused" in next(line for line in shown.splitlines() if line.startswith("logins "))
    assert "logins goes on" in run_cli(api, "resume", "logins")[1]
    assert (
        "prefers relay until"
        in run_cli(api, "agents", "prefer", "logins", "--channel", "relay", "--for", "2h")[1]
    )
    assert "usual order" in run_cli(api, "agents", "prefer", "logins", "--clear")[1]
    message_id = accept(api)
    assert 0 == run_cli(api, "retry", message_id)[0]
    assert 0 == run_cli(api, "cancel", message_id)[0]
    status, shown, _ = run_cli(api, "resolve", message_id, "--sent")
    assert (1, True) == (status, "nothing of it is in doubt" in shown)
    assert "agent.paused" in run_cli(api, "changes", "--since", "1h")[1]


def test_the_command_line_counts_first_and_prints_what_it_did(api):
    """Without --yes nothing is done, and it says how to go on."""
    accept(api, "logins")
    accept(api, "logins")
    words = ("cancel", "--agent", "logins", "--template", "order_shipped", "--accepted-before", "0s")
    status, shown, _ = run_cli(api, *words)
    assert 0 == status
    counted = re.fullmatch(
        r"2 waiting message\(s\) accepted before (\S+Z) would be cancelled\.\n"
        r"Nothing is done yet: give the same command with --accepted-before (\S+) --yes\.\n",
        shown,
    )
    assert counted, shown
    assert counted[1] == counted[2]
    later = accept(api, "logins")
    status, shown, _ = run_cli(api, *words[:-1], counted[1], "--yes")
    assert (0, f"2 message(s) accepted before {counted[1]} cancelled, 0 too late.\n") == (status, shown)
    assert "queued" == get(api, later)["state"]
    _, shown, _ = run_cli(api, *words[:-2])
    assert (
        "1 waiting message(s) would be cancelled.\nNothing is done yet: give the same command with --yes.\n"
        == shown
    )
    assert "1 message(s) accepted before" in run_cli(api, *words, "--yes")[1]
    assert "0 waiting message(s)" in run_cli(api, *words)[1]


def test_looks_are_the_same_over_the_port_and_into_redis(api):
    """`queue` and `why` print the same either way, to the codes of each attempt and who did what."""

    async def leave_mail(ledger):
        offer = await ledger.accept(agent="logins", caller="shop")
        held = await ledger.claim_one(agent="logins")
        await ledger.advance(held)
        await ledger.finish(held, "d", delay_ms=3_600_000, event="relay|deferred|rcpt|451|4.7.1|5")
        return offer.id

    message_id = in_ledger(api, leave_mail)
    assert (1, 0) == act(api, "pause", {"agent": "logins"}, **{"as": "ada"})
    ask(api, "POST", "/admin/agents/logins/pause", {"reason": "x", "as": "bob"})
    for words in (("why", message_id), ("queue",)):
        status, shown, error = run_cli(api, *words)
        assert (0, "") == (status, error)
        aged = re.compile(r"[0-9.]+ s$", re.MULTILINE)
        assert aged.sub("AGE", api.command(*words)) == aged.sub("AGE", shown)
    shown = run_cli(api, "why", message_id)[1]
    tried = "  attempt 1 over relay: deferred at rcpt 451 4.7.1"
    for line in ("  held by ada (operator)", "  agent paused by bob (operator)", tried):
        assert line in shown, shown
    ask(api, "POST", "/admin/agents/logins/resume", {})
    assert (1, 0) == act(api, "cancel", {"agent": "logins"})


def test_looks_over_the_port_need_no_configuration(api, tmp_path):
    """A person at a desk has an address and a token, and neither the file nor its secrets."""
    nowhere = ("--config", str(tmp_path / "none.toml"))
    assert 0 == run_cli(api, "queue", *nowhere)[0]
    status, _, error = run_cli(api, "why", UNKNOWN, *nowhere)
    assert (1, True) == (status, "No message with this id is kept" in error), error


def test_the_command_line_proves_conservation(api):
    """Status 0 where all fits; 1 with the id where not, until it is mended."""
    status, shown, _ = run_cli(api, "ledger", "check", "--quick")
    assert (0, True, False) == (status, "The sums agree" in shown, "accounted for." in shown)

    async def damage(ledger):
        offer = await ledger.accept(agent="damaged")
        await ledger.client.zrem(f"{_prefix('damaged')}q:damaged:n", offer.id)
        return offer.id

    async def mend(ledger):
        await ledger.client.zadd(f"{_prefix('damaged')}q:damaged:n", {message_id: 1})

    message_id = in_ledger(api, damage)
    status, shown, _ = run_cli(api, "ledger", "check")
    in_ledger(api, mend)
    assert (1, True, True) == (status, f"{message_id}: waits_in_no_queue" in shown, "damaged +1" in shown)
    status, shown, _ = run_cli(api, "ledger", "check")
    assert (0, True) == (status, "0 misfits" in shown), shown


def _prefix(agent):
    from postroom.ledger.keys import place_of

    return place_of(agent).prefix


@pytest.mark.parametrize(
    ("words", "token", "told"),
    [
        (("agents",), "nobody", "the token is not valid there"),
        (("agents",), TOKEN, "lacks the scope admin"),
        (("agents", "--admin-url", "http://127.0.0.1:1"), ADMIN_TOKEN, "nothing answers at"),
        (("agents", "--admin-url", "ftp://x"), ADMIN_TOKEN, "must be an address"),
        (("pause", "nobody", "--reason", "x"), ADMIN_TOKEN, "No agent has this name"),
        (("pause", "orders", "--reason", "x", "--for", "soon"), ADMIN_TOKEN, "/for must be a duration such as 90s"),
        (("changes", "--since", "noon"), ADMIN_TOKEN, "/since"),
        (("queue",), TOKEN, "lacks the scope admin"),
        (("queue", "--admin-url", "http://127.0.0.1:1"), ADMIN_TOKEN, "nothing answers at"),
        (("cancel", "--all", "--accepted-before", "999999999d"), ADMIN_TOKEN, "/filter/accepted_before"),
        (("pause", "--all", "--reason", "x" * 65), ADMIN_TOKEN, "64 bytes of UTF-8"),
    ],
)  # fmt: skip
def test_the_command_line_says_what_is_wrong(api, words, token, told):
    """Status 1 and one clear line, never a traceback."""
    status, _, error = run_cli(api, *words, token=token)
    assert (1, True) == (status, told in error), error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("pause", "orders"), "--reason"),
        (("pause", "orders", "--template", "x", "--reason", "x"), "either a name or a filter"),
        (("cancel",), "say which messages"),
        (("cancel", "--accepted-before", "noon"), "--accepted-before takes"),
        (("cancel", "what"), "not the id of a message"),
        (("agents", "prefer", "orders"), "either --channel NAME"),
        (("why", "what"), "not the id of a message"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_apart(api, words, told):
    """Status 2, as for an unknown option: nobody was asked, and nothing was done."""
    waiting = accept(api)
    status, _, error = run_cli(api, *words)
    assert (2, True) == (status, told in error), error
    assert get(api, waiting)["reason"]["code"] != "held"


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
    finally:
        api.redis.resume()
    deadline = time.monotonic() + 15
    while ask(api, "POST", "/admin/agents/orders/resume", {})[0] != 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("value", ["Bearer \xe9\xff", "Bearer " + "x" * 600, "bearer\t" + ADMIN_TOKEN])
def test_an_odd_authorization_is_no_defect(api, value):
    """Whatever stands in the field, it is a token that holds or it is refused."""
    assert 401 == ask(api, "GET", "/admin/agents", authorization=value)[0]


def test_no_act_crashed_and_nothing_personal_was_logged(api):
    """After all that, the API's log has no crash and no address of a recipient."""
    assert [] == events(api, "request.crashed")
    assert "ada@example.com" not in api.log.read_text()
