"""Lapsing: whoever looks at a waiting message whose time is up may end it, and nothing else."""

import pytest

from postroom.ledger import keys
from postroom.states import State
from tests.ledger.harness import CONTENT_MS, MESSAGE_MS, agent_key
from tests.ledger.test_finish import close, ttls

HOUR_MS = 3_600_000


async def test_a_message_past_its_time_ends_once(ledger):
    """It expires with its retention, is off the queue, and cannot be ended twice."""
    offer = await ledger.accept(2, priority="high")
    assert not (await ledger.stored(offer.id)).overdue
    assert await ledger.acceptance.lapse(offer.id) is None
    await ledger.end_deadline(offer.id)
    assert (await ledger.stored(offer.id)).overdue
    ended = await ledger.acceptance.lapse(offer.id)
    assert (offer.id, State.EXPIRED, "high") == (ended.id, ended.state, ended.priority)
    assert await ledger.acceptance.lapse(offer.id) is None
    assert ("xx", None) == (await ledger.letters(offer.id), await ledger.score(offer.id))
    found = await ttls(ledger, offer)
    assert close([MESSAGE_MS, MESSAGE_MS, CONTENT_MS], found), found


@pytest.mark.parametrize("committing", [False, True])
async def test_a_claimed_message_is_left_to_its_owner(ledger, committing):
    """While an attempt is under way it does not wait."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    if committing:
        await ledger.advance(held)
    await ledger.end_deadline(offer.id)
    assert not (await ledger.stored(offer.id)).overdue
    assert await ledger.acceptance.lapse(offer.id) is None


async def test_a_standing_clock_stands_for_lapsing_too(ledger):
    """The time an agent stood still since acceptance does not count; Python and the script agree."""
    offer = await ledger.accept(standing_clock=True)
    now = await ledger.now()
    await ledger.client.hset(keys.record_key(offer.id), "dl", now - HOUR_MS)
    await ledger.client.hset(agent_key("halt"), mapping={"total": 2 * HOUR_MS})
    stored = await ledger.stored(offer.id)
    assert (now + HOUR_MS, False) == (stored.deadline, stored.overdue)
    assert await ledger.acceptance.lapse(offer.id) is None
    await ledger.client.hset(agent_key("halt"), mapping={"total": HOUR_MS // 2})
    assert (await ledger.stored(offer.id)).overdue
    assert State.EXPIRED == (await ledger.acceptance.lapse(offer.id)).state


async def test_a_recipient_in_doubt_is_unconfirmed(ledger):
    """What an earlier attempt may have sent does not become expired."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "a", delay_ms=60_000)
    await ledger.end_deadline(offer.id)
    assert State.UNCONFIRMED == (await ledger.acceptance.lapse(offer.id)).state


async def test_an_id_of_nobody_cannot_lapse(ledger):
    """An unknown id changes nothing."""
    assert await ledger.acceptance.lapse("orders-NONE") is None
    assert await ledger.acceptance.lapse("") is None
