"""Cancelling: before the commit mark a message ends, after it nobody can call it back."""

from postroom.states import State
from tests.ledger.harness import CONTENT_MS, MESSAGE_MS
from tests.ledger.test_finish import close, ttls


async def test_a_waiting_message_is_cancelled_once(ledger):
    """A queued message ends; asked again it is still cancelled, and not by that call."""
    offer = await ledger.accept(2)
    assert (State.CANCELLED, True) == await ledger.acceptance.cancel(offer.id)
    assert (State.CANCELLED, False) == await ledger.acceptance.cancel(offer.id)
    assert ("cc", None) == (await ledger.letters(offer.id), await ledger.score(offer.id))
    assert 0 == len((await ledger.claim()).messages)
    found = await ttls(ledger, offer)
    assert close([MESSAGE_MS, MESSAGE_MS, CONTENT_MS], found), found


async def test_a_claimed_message_is_taken_from_its_owner(ledger):
    """Before the mark the owner's fence is raised, so that it stops before anything is sent."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    assert (State.CANCELLED, True) == await ledger.acceptance.cancel(offer.id)
    assert 0 == await ledger.advance(held)
    assert await ledger.finish(held, "d") is None
    assert [offer.id] == await ledger.delivery.renew("orders", [], [(held.id, held.fence)])
    assert State.CANCELLED == (await ledger.record(offer.id)).state


async def test_past_the_mark_it_is_too_late(ledger):
    """From the mark on the channel may have the message, so nothing is changed."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.advance(held)
    assert (State.SENDING, False) == await ledger.acceptance.cancel(offer.id)
    assert State.SENT == (await ledger.finish(held, "s")).state
    assert (State.SENT, False) == await ledger.acceptance.cancel(offer.id)


async def test_what_was_sent_to_or_in_doubt_is_not_called_cancelled(ledger):
    """Only recipients that surely got nothing are cancelled."""
    offer = await ledger.accept(3)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "sad", delay_ms=60_000)
    assert (State.UNCONFIRMED, True) == await ledger.acceptance.cancel(offer.id)
    assert "suc" == await ledger.letters(offer.id)


async def test_an_id_of_nobody_cannot_be_cancelled(ledger):
    """An unknown id is answered as unknown."""
    assert await ledger.acceptance.cancel("orders-NONE") is None
    assert await ledger.acceptance.cancel("") is None
