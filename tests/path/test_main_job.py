"""The main job, through real processes: POST, delivered, GET says sent."""

import asyncio

import pytest

from tests.smtpd import Smtpd
from tests.stack import Stack, sample

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_posted_message_arrives_and_says_so(stack: Stack, relay: Smtpd):
    """A message that was answered 202 arrives once, and its timeline tells how."""
    status, accepted, headers = await stack.post(sample("order-1"))
    assert 202 == status
    assert f"/v1/messages/{accepted['id']}" == headers["location"]
    assert "false" == headers["idempotent-replayed"]
    message = await stack.until_finished(accepted["id"])
    assert "sent" == message["state"]
    assert ["message.accepted", "attempt.sent", "message.sent"] == [e["type"] for e in message["events"]]
    assert [("orders@shop.example", ["ada@example.com"])] == [
        (m.sender, list(m.recipients)) for m in relay.mails
    ]


async def test_fifty_at_once_are_one_message_and_one_mail(stack: Stack, relay: Smtpd):
    """One ref is one message, however many calls race."""
    answers = await asyncio.gather(*(stack.post(sample("order-2")) for _ in range(50)))
    assert 1 == sum(status == 202 for status, _, _ in answers)
    assert 1 == len({answer["id"] for _, answer, _ in answers})
    await stack.until_finished(answers[0][1]["id"])
    assert 1 == len(relay.mails)
