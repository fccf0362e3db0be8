"""Calling a message back, through real processes."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.smtpd import Smtpd
from tests.stack import Stack, sample

pytestmark = pytest.mark.asyncio(loop_scope="session")


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


async def cancel(stack: Stack, message_id: str) -> tuple[int, dict]:
    async with stack.session.post(f"{stack.url}/v1/messages/{message_id}/cancel") as response:
        return response.status, await response.json(content_type=None)


async def test_a_waiting_message_can_be_called_back(stack: Stack, relay: Smtpd):
    """A scheduled message that is cancelled never arrives, and saying it twice changes nothing."""
    _, accepted, _ = await stack.post(sample("cancel-later", send_at=in_an_hour()))
    status, message = await cancel(stack, accepted["id"])
    assert (200, "cancelled", True) == (status, message["state"], message["finished"])
    assert ["cancelled"] == [recipient["state"] for recipient in message["recipients"]]
    assert 200 == (await cancel(stack, accepted["id"]))[0]
    assert [] == relay.mails


async def test_what_was_sent_cannot_be_called_back(stack: Stack):
    """Once a message is sent, the honest answer is that it is too late."""
    _, accepted, _ = await stack.post(sample("cancel-now"))
    await stack.until_finished(accepted["id"])
    status, problem = await cancel(stack, accepted["id"])
    assert (409, "too_late") == (status, problem["code"])


async def test_another_callers_message_is_not_found(stack: Stack):
    """Nobody can cancel, or find out about, another caller's message."""
    assert 404 == (await cancel(stack, "orders-01M7ZYT8A5SC35PPV2NMF2XSA7"))[0]
