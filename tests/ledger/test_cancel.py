"""Cancelling: before the commit mark a message ends, after it nobody can call it back."""

from postroom.states import State
from tests.ledger.harness import CONTENT_MS, MESSAGE_MS, Ledger
from tests.ledger.test_finish import close, ttls


async def cancel(ledger: Ledger, message_id: str) -> tuple[State, bool]:
    """Cancel as a caller; return the state, and whether that ended it."""
    found = await ledger.acceptance.cancel(message_id)
    return found.state, found.by_us


async def test_a_waiting_message_is_cancelled_once(ledger):
    """A queued message ends; asked again it is still cancelled, and not by that call."""
    offer = await ledger.accept(2)
    assert (State.CANCELLED, True) == await cancel(ledger, offer.id)
    assert (State.CANCELLED, False) == await cancel(ledger, offer.id)
    assert ("cc", None) == (await ledger.letters(offer.id), await ledger.score(offer.id))
    assert 0 == len((await ledger.claim()).messages)
    found = await ttls(ledger, offer)
    assert close([MESSAGE_MS, MESSAGE_MS, CONTENT_MS], found), found


async def test_a_claimed_message_is_taken_from_its_owner(ledger):
    """Before the mark the owner's fence is raised, so that it stops before anything is sent."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    assert (State.CANCELLED, True) == await cancel(ledger, offer.id)
    assert 0 == await ledger.advance(held)
    assert await ledger.finish(held, "d") is None
    assert [offer.id] == (await ledger.delivery.renew("orders", [], [(held.id, held.fence)]))[1]
    assert State.CANCELLED == (await ledger.record(offer.id)).state


async def test_past_the_mark_it_is_too_late(ledger):
    """From the mark on the channel may have the message, so nothing is changed."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.advance(held)
    assert (State.SENDING, False) == await cancel(ledger, offer.id)
    assert State.SENT == (await ledger.finish(held, "s")).state
    assert (State.SENT, False) == await cancel(ledger, offer.id)


async def test_what_was_sent_to_or_in_doubt_is_not_called_cancelled(ledger):
    """Only recipients that surely got nothing are cancelled."""
    offer = await ledger.accept(3)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "sad", delay_ms=60_000)
    assert (State.UNCONFIRMED, True) == await cancel(ledger, offer.id)
    assert "suc" == await ledger.letters(offer.id)


async def test_what_a_cancel_ended_is_told_with_priority_and_age(ledger):
    """They are what the end is counted by, as every other end of a message is."""
    offer = await ledger.accept(priority="bulk")
    before = await ledger.now()
    ended = (await ledger.acceptance.cancel(offer.id)).ended
    assert ("bulk", True) == (ended.priority, 0 <= ended.age_ms <= await ledger.now() - before + 60_000)


async def test_an_id_of_nobody_cannot_be_cancelled(ledger):
    """An unknown id is answered as unknown."""
    assert await ledger.acceptance.cancel("orders-NONE") is None
    assert await ledger.acceptance.cancel("") is None
