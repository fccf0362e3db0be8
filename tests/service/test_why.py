"""Why a message is where it is, over HTTP; and what the storm brake and `collapse_key` do to it."""

import json
import time
import uuid
from itertools import pairwise
from typing import Any

import pytest

from postroom.ledger import keys
from postroom.ledger.operating import Act, Filter
from tests.service.conftest import Api, in_ledger
from tests.stack import OTHER_TOKEN, sample

OTHER = f"Bearer {OTHER_TOKEN}"
REASON = {"code", "fault", "text", "since", "until", "owner", "rule"}
HOUR_MS = 3_600_000


def alert(ref: str, to: str, **changes: Any) -> dict[str, Any]:
    """Return a message through the agent with a storm brake."""
    content = {"subject": "Disk full", "text": "It is."}
    return {"client_ref": ref, "agent": "alerts", "to": [{"address": to}], "content": content, **changes}


def code(ref: str, **changes: Any) -> dict[str, Any]:
    """Return a login code with a collapse key."""
    template = {"name": "login_code", "variables": {"code": "123456", "expires_in_minutes": 10}}
    given = {
        "agent": "logins",
        "template": template,
        "collapse_key": "login",
        "to": [{"address": "c@example.com"}],
    }
    return sample(ref, **given | changes)


def get(api: Api, message_id: str, what: str = "", **options: Any) -> tuple[int, dict[str, Any]]:
    """Read a message, or `/why` of it."""
    status, document, _ = api.post(b"", method="GET", path=f"/v1/messages/{message_id}{what}", **options)
    return status, document


def events(api: Api, name: str) -> list[dict[str, Any]]:
    """Return the log lines of one event."""
    lines = [json.loads(line) for line in api.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


@pytest.fixture
def pause(api: Api):
    """Pause an agent as an operator would: until when (0: without end), by whom and why. Ended afterwards."""
    paused = []

    def write(agent: str, till: int, who: str = "grace", why: str = "provider incident") -> None:
        now = round(time.time() * 1000)
        values = ("pu", till, "ps", now, "pw", who, "pr", why, "since", now)
        api.redis.command("HSET", keys.halt_key(agent), *map(str, values))
        paused.append(agent)

    yield write
    for agent in paused:
        api.redis.command("DEL", keys.halt_key(agent))


def test_why_says_it_in_a_sentence_and_as_data(api: Api):
    """The sentence names message, state, since when and why; the data are those of GET."""
    made = api.post(sample("why-1"))[1]
    status, why = get(api, made["id"], "/why")
    assert 200 == status
    assert REASON == set(why["reason"])
    assert ("queued", False, "due", 0) == (
        why["state"],
        why["finished"],
        why["reason"]["code"],
        why["attempts"],
    )
    assert why["sentence"].startswith(f"{made['id']} is queued since {made['accepted_at']} (due): ")
    _, message = get(api, made["id"])
    shared = set(why) & set(message) - {"attempts", "headers", "content_type"}
    assert {name: message[name] for name in shared} == {name: why[name] for name in shared}


def test_why_is_its_callers_only(api: Api):
    """Another caller's message and one that never was are both not found, and the route's label is bounded."""
    made = api.post(sample("why-2"))[1]["id"]
    assert 404 == get(api, made, "/why", authorization=OTHER)[0]
    assert 404 == get(api, "orders-NONE", "/why")[0]
    assert 401 == get(api, made, "/why", authorization=None)[0]
    assert {"/v1/messages/{id}/why"} == {
        r["route"] for r in events(api, "http.request") if "why" in r["route"]
    }


def test_a_paused_agent_tells_reason_and_owner_but_not_who(api: Api, pause):
    """Callers hear until when, why and whom to ask; the operator's name is not for them."""
    made = api.post(sample("why-3"))[1]["id"]
    till = 2_000_000_000_000
    pause("orders", till)
    _, message = get(api, made)
    reason = message["reason"]
    assert ("paused", "agent", "team-shop", "2033-05-18T03:33:20.000Z") == (
        reason["code"],
        reason["fault"],
        reason["owner"],
        reason["until"],
    )
    assert (
        "Its agent is paused until 2033-05-18T03:33:20.000Z: provider incident. Ask team-shop."
        == reason["text"]
    )
    assert reason["until"] == message["next_attempt_at"]
    pause("orders", 0)
    status, why = get(api, made, "/why")
    assert (200, None, None) == (status, why["reason"]["until"], why["next_attempt_at"])
    assert "grace" not in json.dumps([message, why])


def test_a_message_past_its_time_is_never_shown_as_waiting(api: Api, pause):
    """Though its agent stands still and no worker looks, reading it ends it, once and on record."""
    pause("orders", 0)
    made = api.post(sample("why-4", deliver_within=1))[1]["id"]
    _, replay, _ = api.post(sample("why-4", deliver_within=1))
    assert "queued" == replay["state"]
    deadline = time.monotonic() + 10
    while get(api, made)[1]["state"] == "queued":
        assert time.monotonic() < deadline
    _, message = get(api, made)
    assert ("expired", True, "expired") == (message["state"], message["finished"], message["reason"]["code"])
    assert "expired" in get(api, made, "/why")[1]["sentence"]
    assert 1 == len([line for line in events(api, "message.expired") if line["message_id"] == made])


def test_the_storm_brake_holds_what_is_too_much(api: Api):
    """Beyond the limit it is a 202 that says `storm`; one warning a window, without the address."""
    answers = [api.post(alert(f"storm-{n}", "loud@example.com"))[1] for n in range(5)]
    assert [None, None, "storm", "storm", "storm"] == [(a["reason"] or {}).get("code") for a in answers]
    assert ("queued", None, "team-ops") == (
        answers[2]["state"],
        answers[2]["next_attempt_at"],
        answers[2]["reason"]["owner"],
    )
    _, message = get(api, answers[2]["id"])
    assert answers[2]["reason"] == message["reason"]
    assert "/agents/alerts/storm" == message["reason"]["rule"]
    assert ["message.accepted", "message.braked"] == [event["type"] for event in message["events"]]
    (line,) = [line for line in events(api, "storm.braked") if line["agent"] == "alerts"]
    assert ("warning", answers[2]["id"], None) == (line["level"], line["message_id"], line["template"])
    assert "loud@example.com" not in api.log.read_text()
    assert ("200", "storm") == (
        str(api.post(alert("storm-4", "loud@example.com"))[0]),
        message["reason"]["code"],
    )


def test_a_newer_version_of_what_a_person_holds_says_so_at_once(api: Api):
    """The 202 tells the hold it has taken over, as GET does, and names no time of an attempt."""

    async def pause(ledger):
        act = Act(id=uuid.uuid4().hex, verb="pause", wanted=Filter(), who="ada", reason="wrong price")
        return [found async for found in ledger.operating.act(act, "alerts")]

    ask = {"collapse_key": "disk"}
    assert 202 == api.post(alert("held-0", "held@example.com", **ask))[0]
    in_ledger(api, pause)
    status, answer, _ = api.post(alert("held-1", "held@example.com", **ask))
    assert (202, "held", None) == (status, answer["reason"]["code"], answer["next_attempt_at"])
    assert "wrong price" in answer["reason"]["text"]
    assert answer["reason"] == get(api, answer["id"])[1]["reason"]


def test_exempt_addresses_are_never_held_up(api: Api):
    """An exempt address is compared as it is stored, so that the case of its domain does not matter."""
    for number in range(4):
        answer = api.post(alert(f"exempt-{number}", "Watch@example.com"))[1]
        assert answer["reason"] is None
    for number in range(4):
        api.post(alert(f"spelt-{number}", "spelt@EXAMPLE.com" if number % 2 else "spelt@example.com"))
    assert "storm" == get(api, api.post(alert("spelt-3", "spelt@EXAMPLE.com"))[1]["id"])[1]["reason"]["code"]


def test_only_the_newest_of_a_collapse_key_waits(api: Api, pause):
    """Three login codes behind a paused agent: the older two are superseded, and say so."""
    pause("logins", 0)
    made = [api.post(code(f"code-{n}"))[1]["id"] for n in range(3)]
    messages = [get(api, message_id)[1] for message_id in made]
    assert ["cancelled", "cancelled", "queued"] == [message["state"] for message in messages]
    assert ["superseded", "superseded", "paused"] == [message["reason"]["code"] for message in messages]
    assert "superseded" == messages[0]["recipients"][0]["reason"]["code"]
    lines = [line for line in events(api, "message.cancelled") if line["message_id"] in made]
    assert list(pairwise(made)) == [(line["message_id"], line["superseded_by"]) for line in lines]


def test_a_collapse_key_is_the_callers_agents_and_recipients(api: Api):
    """Another recipient, key, agent or caller supersedes nothing."""
    made = api.post(code("scope-1"))[1]["id"]
    api.post(code("scope-2", to=[{"address": "d@example.com"}]))
    api.post(code("scope-3", collapse_key="other"))
    api.post(sample("scope-4", collapse_key="login", to=[{"address": "c@example.com"}]))
    assert 202 == api.post(code("scope-5"), authorization=OTHER)[0]
    assert "queued" == get(api, made)[1]["state"]


def test_a_collapse_key_is_part_of_the_request(api: Api):
    """A replay supersedes nothing, another key under the same ref is a conflict, and its form is bounded."""
    first = api.post(code("ref-1", collapse_key="k1"))[1]["id"]
    newest = api.post(code("ref-2", collapse_key="k1"))[1]["id"]
    status, replay, _ = api.post(code("ref-1", collapse_key="k1"))
    assert (200, first) == (status, replay["id"])
    assert "queued" == get(api, newest)[1]["state"]
    status, problem, _ = api.post(code("ref-2", collapse_key="k2"))
    assert (409, ["/collapse_key"]) == (status, [error["pointer"] for error in problem["errors"]])
    for wrong in ("", "a" * 65, "a b", "ada@example.com", 5):
        status, problem, raw = api.post(code("ref-3", collapse_key=wrong))
        assert (422, ["/collapse_key"]) == (status, [error["pointer"] for error in problem["errors"]])
        assert b"ada@example.com" not in raw


def test_more_recipients_than_a_day_has_are_refused(api: Api):
    """Such a message could never be sent, so its caller hears of it at once."""
    people = [{"address": f"p{n}@example.com"} for n in range(4)]
    status, problem, _ = api.post(alert("day-1", "p0@example.com", cc=people[1:3], bcc=people[3:]))
    assert (422, ["/to"]) == (status, [error["pointer"] for error in problem["errors"]])
    assert "3 recipients a day" in problem["errors"][0]["detail"]
    assert 202 == api.post(alert("day-2", "p0@example.com", cc=people[1:3]))[0]


def test_the_command_line_says_the_same_and_who_did_it(api: Api, pause):
    """`postroom why` prints the sentence callers get, the data, and the operator's name."""
    made = api.post(sample("why-5"))[1]["id"]
    pause("orders", 0)
    first, *data = api.command("why", made).splitlines()
    assert get(api, made, "/why")[1]["sentence"] == first
    assert {"  owner team-shop", "  agent paused by grace"} <= set(data)
    assert not any(line.startswith("  next attempt") for line in data)
