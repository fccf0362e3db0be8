"""One ref over HTTP: its header alias, races, hang-ups, and what a message looks like."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.service.conftest import Api
from tests.service.wire import ask, read_answers, request_bytes
from tests.stack import sample

NO_REF = {name: value for name, value in sample("").items() if name != "client_ref"}
# A time that ends a year too late for Python, and one that a worker would wait for, for ever.
FAR = ["9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z", "2100-01-01T00:00:00Z"]


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (NO_REF, "key-bare"),
        (NO_REF, '"key-quoted"'),
        (sample("key-same"), "key-same"),
        (sample("key-same-quoted"), '"key-same-quoted"'),
        ({**NO_REF, "client_ref": None}, "key-null"),
        ({**NO_REF, "from": {"address": "a@shop.example"}, "metadata": {"a": "b"}}, "key-more"),
    ],
)
def test_the_header_is_an_alias_of_the_ref(api: Api, body: dict, key: str):
    """`Idempotency-Key` may name the message instead of, or beside, `client_ref`, bare or in quotes."""
    ref = key.strip('"')
    found = ask(api, body, f"Idempotency-Key: {key}")
    assert (202, ref) == (found.status, found.document["client_ref"])
    again = ask(api, {**body, "client_ref": ref})
    assert (200, "true", found.document["id"]) == (
        again.status,
        again.fields["idempotent-replayed"],
        again.document["id"],
    )


@pytest.mark.parametrize("key", ["other", '"other"', '"', '"key', "KEY", "key ,other", "\xff", ""])
def test_two_names_for_one_message_are_a_400(api: Api, key: str):
    """Header and body that differ are refused, and nothing is recorded."""
    found = ask(api, sample("key"), f"Idempotency-Key: {key}")
    assert (400, "idempotency_key_mismatch") == (found.status, found.code)
    assert 0 == len(ask(api, method="GET", path="/v1/messages?client_ref=key").document["messages"])


@pytest.mark.parametrize("key", ["a b", "a@b", "x" * 129, "", '""', "\xe4", "a..b", "../a", '"a""b"'])
def test_a_wrong_name_in_the_header_is_a_fault_of_the_ref(api: Api, key: str):
    """The alias obeys the rules of what it stands for."""
    found = ask(api, NO_REF, f"Idempotency-Key: {key}")
    assert 422 == found.status
    assert ["/client_ref"] == [error["pointer"] for error in found.document["errors"]]


def test_a_repeated_header_is_refused(api: Api):
    """Two keys name two messages, so neither is sent."""
    found = ask(api, NO_REF, "Idempotency-Key: key-a", "Idempotency-Key: key-b")
    assert (400, "idempotency_key_mismatch") == (found.status, found.code)


def test_fifty_at_once_are_one_message(api: Api):
    """However many calls race, one is created, all learn of the same message, and none fails."""
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda _: ask(api, sample("race-1")), range(50)))
    assert [200] * 49 + [202] == sorted(answer.status for answer in found)
    assert 1 == len({answer.document["id"] for answer in found})
    assert {"true": 49, "false": 1} == {
        word: sum(answer.fields["idempotent-replayed"] == word for answer in found)
        for word in ("true", "false")
    }


def test_fifty_at_once_with_other_contents_are_one_message(api: Api):
    """A race of different contents has one winner; the others are told the conflict and its message."""
    bodies = [sample("race-2", to=[{"address": f"a{i}@example.com"}]) for i in range(50)]
    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(lambda body: ask(api, body), bodies))
    won = [answer for answer in found if answer.status == 202]
    lost = [answer for answer in found if answer.status == 409]
    assert (1, 49) == (len(won), len(lost))
    assert {won[0].document["id"]} == {answer.document["message_id"] for answer in lost}


def test_hanging_up_in_the_middle_harms_nobody(api: Api):
    """Fifty clients that leave in the middle of a POST, some of them after it, leave accepting unharmed."""
    for number in range(50):
        raw = request_bytes(sample(f"gone-{number}"))
        with socket.create_connection(("127.0.0.1", api.port)) as client:
            client.sendall(raw[: len(raw) if number % 5 == 0 else len(raw) - 1 - number * 7])
    found = ask(api, sample("after-gone"))
    assert 202 == found.status
    for number in range(0, 50, 5):  # these had said all: they may be recorded, and once
        assert ask(api, sample(f"gone-{number}")).status in (200, 202)


def test_what_a_message_looks_like(api: Api):
    """GET shows all of the contract's fields, and the 202 is a part of it."""
    body = sample("looks-1", cc=[{"address": "grace@example.com"}], bcc=[{"address": "kay@example.com"}])
    accepted = ask(api, body).document
    found = ask(api, method="GET", path=f"/v1/messages/{accepted['id']}").document
    assert {**accepted, "reason": None} == {
        name: None if name == "reason" else found[name] for name in accepted
    }
    assert {"recipients", "attempts", "events", "metadata"} == set(found) - set(accepted)
    assert [("to", "ada@example.com"), ("cc", "grace@example.com"), ("bcc", "kay@example.com")] == [
        (recipient["kind"], recipient["address"]) for recipient in found["recipients"]
    ]
    assert [0, 1, 2] == [recipient["index"] for recipient in found["recipients"]]
    assert ["message.accepted"] == [event["type"] for event in found["events"]]
    assert ("queued", False, []) == (found["state"], found["finished"], found["attempts"])
    assert found["accepted_at"].endswith("Z")
    assert "due" == found["reason"]["code"]


def test_a_scheduled_message_says_so(api: Api):
    """A message for later tells when, and why it waits."""
    soon = ask(api, sample("later-0")).document["accepted_at"]
    year, rest = soon[:4], soon[4:]
    assert 422 == ask(api, sample("later-1", send_at=f"{int(year) + 1}{rest}")).status
    found = ask(api, sample("later-2", send_at=soon, deliver_within=60)).document
    assert (soon, "queued") <= (found["accepted_at"], found["state"])


@pytest.mark.parametrize(
    "path",
    [
        "/v1/messages/nothing",
        "/v1/messages/orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C",
        "/v1/messages/nobody-01JD8X5V0QK3ZB9M2W4T6Y8R1C",
        "/v1/messages/orders-01jd8x5v0qk3zb9m2w4t6y8r1c",
        "/v1/messages/%00",
        "/v1/messages/%ff%fe",
        "/v1/messages/%ED%A0%80",
        "/v1/messages/" + "x" * 5000,
        "/v1/messages/{p00}",
        "/v1/messages/a%0d%0ab",
        "/v1/nothing",
        "/v2/messages",
        "/V1/messages",
        "/",
        "/metrics",
        "/admin",
        "/%",
        "/%zz",
        "/..%2f..%2fetc/passwd",
    ],
)
def test_what_is_not_there_is_a_404(api: Api, path: str):
    """An id or a path of nobody is a problem, whatever bytes it has; metrics are not among callers' paths."""
    found = ask(api, method="GET", path=path)
    assert (404, "not_found", "application/problem+json") == (
        found.status,
        found.code,
        found.fields["content-type"],
    )


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("client_ref=", 200),
        ("client_ref=%00", 200),
        ("client_ref=%ED%A0%80", 200),
        ("client_ref=%ff", 200),
        ("client_ref=" + "x" * 5000, 200),
        ("client_ref=a&client_ref=b", 400),
        ("client_ref=a&agent=orders&agent=logins", 400),
        ("client_ref=a&limit=1", 400),
        ("agent=orders", 400),
        ("client_ref=a&agent=nobody", 200),
        ("client_ref=a;agent=orders", 200),
    ],
)
def test_looking_for_what_is_not_there(api: Api, query: str, status: int):
    """A ref of nobody finds nothing; a question with other words than it may have is refused."""
    found = ask(api, method="GET", path=f"/v1/messages?{query}")
    assert status == found.status
    if status == 200:
        assert {"messages": [], "next": None} == found.document


@pytest.mark.parametrize("time", FAR)
def test_a_deadline_has_an_end(api: Api, time: str):
    """A deadline further ahead than any message may wait is refused."""
    found = ask(api, sample(f"far-{FAR.index(time)}", deliver_before=time))
    assert 422 == found.status
    assert ["/deliver_before"] == [error["pointer"] for error in found.document["errors"]]


@pytest.mark.parametrize(
    "body",
    [
        sample("look-alike-0", **{"from": {"address": "a@shop.example", "name": "ceo\uff20bank.example"}}),
        sample("look-alike-1", **{"from": {"address": "a@shop.example", "name": "ceo\ufe6bbank.example"}}),
        sample(
            "look-alike-2",
            attachments=[{"name": "a.e\u00adxe", "content_type": "application/pdf", "content": "eA=="}],
        ),
        sample(
            "look-alike-3",
            attachments=[{"name": "a.\uff45xe", "content_type": "application/pdf", "content": "eA=="}],
        ),
        sample(
            "look-alike-4",
            attachments=[{"name": "a.exe\u200b", "content_type": "application/pdf", "content": "eA=="}],
        ),
        sample("look-alike-5", template={**sample("")["template"], "locale": "en\r\nX: y"}),
    ],
)
def test_what_only_looks_different_is_refused_like_the_real_thing(api: Api, body: dict):
    """Full-width and invisible characters do not get past a rule, and a locale is a language tag."""
    assert 422 == ask(api, body).status


def test_a_pipelined_pair_is_answered_in_order(api: Api):
    """Two requests on one connection get two answers, in order."""
    first = request_bytes(sample("pipe-1"), "X-Request-ID: one", drop=("Connection",))
    second = request_bytes(method="GET", path="/livez")
    found = read_answers(api.exchange(first + second))
    assert [202, 200] == [answer.status for answer in found]
    assert "one" == found[0].fields["x-request-id"]


def test_the_order_and_spelling_of_json_make_no_difference(api: Api):
    """The same request in other bytes is the same request."""
    body = sample("same-1", cc=[], metadata={})
    assert 202 == ask(api, body).status
    text = json.dumps(sample("same-1", **{"from": None, "priority": None}), indent=3)
    escaped = text.replace("Ada", "\\u0041da").replace('"agent"', '"\\u0061gent"')
    assert 200 == ask(api, escaped.encode()).status
