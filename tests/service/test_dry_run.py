"""A dry run answers what would be sent, and how, and leaves nothing behind."""

import asyncio

import pytest
from redis.asyncio import Redis

from tests.stack import sample


def dry(api, body, query="dry_run=true"):
    return api.post(body, path=f"/v1/messages?{query}")


def test_a_dry_run_shows_the_mail_and_the_plan(api):
    """Subject, text, html, the composed size, and every option with where it comes from."""
    status, found, _ = dry(api, sample("dry-1", priority="bulk", track_opens=True, deliver_within=600))
    assert (200, True, "Your order 10023 is on its way") == (status, found["dry_run"], found["subject"])
    assert "https://shop.example/track/10023" in found["text"]
    assert found["html"].startswith("<!DOCTYPE html>")
    assert len(found["html"]) < found["size"] < 2 * len(found["html"])
    plan = found["plan"]
    assert ("orders", "relay", ["relay"]) == (plan["agent"], plan["channel"], plan["channels"])
    assert ("order_shipped", "en") == (plan["template"]["name"], plan["template"]["locale"])
    assert plan["send_at"] < plan["expires_at"]
    assert {
        "from": {"value": "orders@shop.example", "origin": "agent"},
        "sender": {"value": None, "origin": "default"},
        "priority": {"value": "bulk", "origin": "message"},
        "retry_profile": {"value": "standard", "origin": "agent"},
        "on_ambiguous": {"value": "retry", "origin": "agent"},
        "track_opens": {"value": True, "origin": "message"},
        "track_clicks": {"value": False, "origin": "agent"},
        "send_at": {"value": None, "origin": "default"},
        "deliver_within": {"value": 600, "origin": "message"},
    } == plan["options"]


def test_the_template_comes_before_the_agent_and_the_message_before_both(api):
    """What a template says of delivery wins over the agent, and the message over the template."""
    template = {
        "name": "login_code",
        "variables": {"code": "482913", "expires_in_minutes": 10},
        "locale": "de-AT",
    }
    plan = dry(api, sample("dry-2", template=template))[1]["plan"]
    assert "de-AT" == plan["template"]["locale"]
    assert {"value": "high", "origin": "template"} == plan["options"]["priority"]
    assert {"value": "interactive", "origin": "template"} == plan["options"]["retry_profile"]
    assert {"value": 600, "origin": "template"} == plan["options"]["deliver_within"]
    assert {"value": False, "origin": "template"} == plan["options"]["track_opens"]
    assert {"value": "retry", "origin": "agent"} == plan["options"]["on_ambiguous"]
    changed = dry(api, sample("dry-3", template=template, priority="normal", track_opens=True))[1]["plan"][
        "options"
    ]
    assert [("normal", "message"), (True, "message")] == [
        (changed[name]["value"], changed[name]["origin"]) for name in ("priority", "track_opens")
    ]


def test_a_sender_goes_where_it_can_be_carried(api):
    """It is named in the plan; the author is no Sender, and an agent whose mail goes over an API has none."""
    post, author = {"address": "post@shop.example", "name": "Post"}, {"address": "Orders@shop.example"}
    found = dry(api, sample("dry-s1", sender=post))[1]["plan"]["options"]["sender"]
    assert {"value": "post@shop.example", "origin": "message"} == found
    found = dry(api, sample("dry-s2", sender=author))[1]["plan"]["options"]["sender"]
    assert {"value": None, "origin": "message"} == found
    template = {"content": {"subject": "s", "text": "t"}, "template": None, "agent": "newsletters"}
    status, problem, _ = dry(api, sample("dry-s3", sender=post, **template))
    assert (422, ["/sender"]) == (status, [fault["pointer"] for fault in problem["errors"]])
    status, problem, _ = dry(api, sample("dry-s4", sender={"address": "xyz", "name": "a@b.example"}))
    assert ["/sender/name", "/sender/address"] == [fault["pointer"] for fault in problem["errors"]]
    assert 200 == dry(api, sample("dry-s5", **template))[0]


async def test_a_dry_run_leaves_nothing(api):
    """No ref is needed or used, no message is kept: the same ref is free afterwards, for other content too."""
    async with Redis.from_url(api.redis.url) as client:
        before = await client.dbsize()
        body = sample("dry-free")
        assert 200 == dry(api, body)[0]
        assert 200 == dry(api, {k: v for k, v in body.items() if k != "client_ref"})[0]
        await asyncio.sleep(0)
        assert before == await client.dbsize()
    assert 202 == api.post(sample("dry-free", priority="high"))[0]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"template": {"name": "order_shipped", "variables": {}}}, "invalid_variables"),
        ({"to": [{"address": "nobody"}]}, "invalid_request"),
        ({"from": {"address": "a@other.example"}}, "from_not_allowed"),
        ({"agent": "nobody"}, "agent_not_allowed"),
        ({"send_at": "2001-01-01T00:00:00Z"}, "invalid_request"),
        ({"deliver_before": "2001-01-01T00:00:00Z"}, "invalid_request"),
    ],
)
def test_a_dry_run_refuses_what_an_accept_refuses(api, changes, code):
    """The refusal is the same, with the same faults."""
    dried, real = dry(api, sample("dry-bad", **changes)), api.post(sample("dry-bad", **changes))
    assert code == dried[1]["code"]
    assert (real[0], real[1]["code"], real[1].get("errors")) == (
        dried[0],
        dried[1]["code"],
        dried[1].get("errors"),
    )


@pytest.mark.parametrize(
    "query", ["dry_run=1", "dry_run", "dry_run=true&x=1", "dry_run=true&dry_run=true", "dryrun=true"]
)
def test_what_is_no_dry_run_is_not_sent(api, query):
    """A query that is not understood is refused."""
    assert 400 == dry(api, sample("dry-query"), query)[0]


def test_the_size_is_that_of_the_encoded_message(api):
    """Attachments count as they would travel, in base64."""
    plain = dry(api, sample("dry-4"))[1]["size"]
    file = {"name": "a.pdf", "content_type": "application/pdf", "content": "QUJD" * 10_000}
    assert 30_000 * 4 / 3 < dry(api, sample("dry-4", attachments=[file]))[1]["size"] - plain < 30_000 * 1.5
