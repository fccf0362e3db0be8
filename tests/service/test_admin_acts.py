"""What an operator does over the metrics port: each act does what it says, and tells it."""

import re
import urllib.request
import uuid
from datetime import datetime

import pytest

from postroom.ledger.operating import Act, Filter
from tests.service.conftest import in_ledger
from tests.service.operators import ACT, PAUSE, accept, act, ask, events, finished, get, lone_api, run_cli


@pytest.fixture(scope="module")
def api():
    """An API of its own: these tests leave mail, pauses and warnings behind."""
    with lone_api() as running:
        yield running


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
    assert (3, 0) == act(api, "pause", {**wanted, "skip_scheduled": True})
    assert (3, 0) == act(api, "release", wanted, dry_run=True)
    assert (3, 0) == act(api, "release", wanted)
    assert (0, 0) == act(api, "release", wanted)
    assert {"queued"} == {get(api, i)["state"] for i in wrong}
    assert (3, 0) == act(api, "cancel", wanted)
    assert {"cancelled"} == {get(api, i)["state"] for i in wrong}
    assert "queued" == get(api, kept)["state"]
    ended = [e["message_id"] for e in events(api, "message.cancelled") if e.get("operator")]
    assert sorted(wrong) == sorted(i for i in ended if i in wrong)
    assert [True] == [e["skip_scheduled"] for e in events(api, "operator.acted") if e.get("skip_scheduled")]
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
    assert (False, 3, "unknown") == (row["configured"], row["waiting"], row["state"])
    assert 200 == ask(api, "POST", "/admin/agents/oldshop/pause", {"reason": "x"})[0]
    resumed = ask(api, "POST", "/admin/agents/oldshop/resume", {"reason": "y"})[1]
    assert (True, False) == (resumed["paused"], resumed["configured"])
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
    in_ledger(api, lambda ledger: ledger.next_ms())
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


def test_no_act_crashed_and_nothing_personal_was_logged(api):
    """After all that, the API's log has no crash and no address of a recipient."""
    assert [] == events(api, "request.crashed")
    assert "ada@example.com" not in api.log.read_text()
