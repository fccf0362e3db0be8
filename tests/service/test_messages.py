"""Accepting and reading over HTTP: one ref, one message."""

import json
import re
from datetime import datetime

import pytest

from tests.service.conftest import Api
from tests.stack import OTHER_TOKEN, sample

OTHER = f"Bearer {OTHER_TOKEN}"


def test_the_same_again_is_the_same_message(api: Api):
    """A replay is a 200 with the same id and the live state; metadata may differ."""
    first = api.post(sample("m-1"))
    again = api.post(sample("m-1", metadata={"order": "1"}))
    assert (202, "false") == (first[0], first[1]["headers"]["idempotent-replayed"])
    assert (200, "true") == (again[0], again[1]["headers"]["idempotent-replayed"])
    assert first[1]["id"] == again[1]["id"]
    assert f"/v1/messages/{first[1]['id']}" == first[1]["headers"]["location"]
    assert ("queued", False) == (again[1]["state"], again[1]["finished"])


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("/to", {"to": [{"address": "grace@example.com"}]}),
        ("/template", {"template": {"name": "welcome", "variables": {"first_name": "Ada", "start_url": "https://a.example/"}}}),
        ("/priority", {"priority": "bulk"}),
        ("/headers", {"headers": {"X-A": "1"}}),
        ("/cc", {"cc": [{"address": "grace@example.com"}]}),
        ("/deliver_within", {"deliver_within": 60}),
        ("/from", {"from": {"address": "other@shop.example"}}),
    ],
)  # fmt: skip
def test_other_content_is_a_conflict_that_names_the_field(api: Api, field: str, changes: dict):
    """The same ref with other content is a 409 which names what differs, and never a value."""
    api.post(sample("m-2"))
    status, problem, _ = api.post(sample("m-2", **changes))
    assert (409, "client_ref_conflict") == (status, problem["code"])
    assert [field] == [error["pointer"] for error in problem["errors"]]
    assert problem["message_id"].startswith("orders-")


def test_the_order_of_keys_is_no_difference(api: Api):
    """Two texts of the same request are the same request."""
    body = sample("m-3")
    api.post(body)
    turned = json.dumps(dict(reversed(body.items())), indent=2).encode()
    assert 200 == api.post(turned)[0]


def test_the_same_ref_under_another_agent_or_caller_is_another_message(api: Api):
    """Refs belong to a caller and an agent."""
    body = sample("m-4", template={"name": "login_code", "variables": {"code": "1", "expires_in_minutes": 5}})
    ids = {
        api.post(sample("m-4"))[1]["id"],
        api.post({**body, "agent": "logins"})[1]["id"],
        api.post({**body, "agent": "logins"}, authorization=OTHER)[1]["id"],
    }
    assert 3 == len(ids)


def test_a_refused_request_does_not_use_its_ref(api: Api):
    """After a 422 the same ref may be used for the request as it was meant."""
    assert 422 == api.post(sample("m-5", to=[]))[0]
    assert 202 == api.post(sample("m-5"))[0]


def test_a_message_is_found_by_id_and_by_ref(api: Api):
    """Its caller finds a message; another caller does not, and learns nothing."""
    made = api.post(sample("m-6", metadata={"order": "6"}))[1]["id"]
    status, message, _ = api.post(b"", method="GET", path=f"/v1/messages/{made}")
    assert (200, "m-6", {"order": "6"}) == (status, message["client_ref"], message["metadata"])
    assert ["ada@example.com"] == [r["address"] for r in message["recipients"]]
    for query in ("client_ref=m-6", "client_ref=m-6&agent=orders"):
        _, found, _ = api.post(b"", method="GET", path=f"/v1/messages?{query}")
        assert [made] == [m["id"] for m in found["messages"]]
    assert 404 == api.post(b"", method="GET", path=f"/v1/messages/{made}", authorization=OTHER)[0]
    _, found, _ = api.post(b"", method="GET", path="/v1/messages?client_ref=m-6", authorization=OTHER)
    assert [] == found["messages"]


def test_looking_up_a_ref_costs_redis_little(api: Api):
    """Which agents there are besides the caller's is asked once in a while: by each look-up it was 16 scripts."""
    before = _scripts_run(api)
    for _ in range(20):
        assert 200 == api.post(b"", method="GET", path="/v1/messages?client_ref=nobody")[0]
    assert 160 > _scripts_run(api) - before


def _scripts_run(api: Api) -> int:
    """Return how many scripts were run by their text."""
    found = re.search(rb"cmdstat_eval:calls=(\d+)", api.redis.command("INFO", "commandstats"))
    return int(found[1]) if found else 0


def test_a_templates_wishes_hold_where_the_call_says_nothing(api: Api):
    """A login code is urgent and short-lived because its template says so; the call may say otherwise."""
    template = {"name": "login_code", "variables": {"code": "123456", "expires_in_minutes": 10}}
    wished = api.post(sample("m-7", agent="logins", template=template))[1]
    said = api.post(sample("m-8", agent="logins", template=template, deliver_within=60))[1]
    assert 600 == _lifetime(wished)
    assert 60 == _lifetime(said)


def test_probes_and_the_contract_are_open(api: Api):
    """Probes, contract and its page need no token."""
    for path in ("/livez", "/readyz", "/openapi.json", "/docs"):
        assert 200 == api.post(b"", method="GET", path=path, authorization=None)[0], path


def _lifetime(message: dict) -> int:
    ends, began = (datetime.fromisoformat(message[key]) for key in ("expires_at", "accepted_at"))
    return round((ends - began).total_seconds())
