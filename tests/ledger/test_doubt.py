"""What is in doubt: settled by a person, or tried again, and never forgotten on the way."""

import pytest

from postroom.ledger.limits import Pace
from postroom.states import State
from tests.ledger.harness import AGENT, DAY_MS
from tests.ledger.operator import do, make_unconfirmed

HOUR_MS = 3_600_000


async def wait_in_doubt(ledger, codes="a", **changes):
    """Accept a message whose answer gets lost, and which is to be tried once more in an hour."""
    offer = await ledger.accept(len(codes), **changes)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, codes, delay_ms=HOUR_MS)
    await ledger.leave()
    return offer


async def test_an_unconfirmed_message_is_settled_as_sent(ledger):
    """A person, or a report, resolves it once; refused recipients stay refused."""
    offer = await make_unconfirmed(ledger, "af")
    resolved = await ledger.operating.resolve(offer.id)
    assert (State.PARTLY_SENT, True, "normal") == (resolved.state, resolved.by_us, resolved.ended.priority)
    assert "sf" == await ledger.letters(offer.id)
    resolved = await ledger.operating.resolve(offer.id)
    assert (State.PARTLY_SENT, False) == (resolved.state, resolved.by_us)
    assert "message.resolved" in [event.type for event in (await ledger.record(offer.id)).timeline]
    assert await ledger.operating.resolve("orders-01ARZ3NDEKTSV4RRFFQ69G5FAV") is None


async def test_an_unconfirmed_message_is_sent_again_when_a_person_says_so(ledger):
    """Only what was in doubt is tried again."""
    offer = await make_unconfirmed(ledger, "af")
    assert "again" == (await ledger.operating.retry(offer.id, unconfirmed=True)).answer
    assert "rf" == await ledger.letters(offer.id)
    await ledger.send()
    assert State.PARTLY_SENT == (await ledger.record(offer.id)).state


async def test_what_is_due_already_keeps_its_place(ledger):
    """Asking for a retry never sends a message to the back of its queue."""
    first, _second = await ledger.accept(), await ledger.accept_later()
    due = await ledger.score(first.id)
    assert "due" == (await ledger.operating.retry(first.id)).answer
    assert due == await ledger.score(first.id)
    assert first.id == (await ledger.claim_one()).id


async def test_recipients_in_doubt_join_those_that_wait(ledger):
    """Of a message that still waits for others, only what was in doubt is settled or tried again."""
    for settle, letters in (("sent", "sq"), ("retry", "rq")):
        offer = await ledger.accept(2, on_ambiguous="hold")
        held = await ledger.claim_one()
        await ledger.advance(held)
        await ledger.finish(held, "ad", delay_ms=HOUR_MS)
        assert "uq" == await ledger.letters(offer.id)
        if settle == "sent":
            resolved = await ledger.operating.resolve(offer.id)
            assert (State.QUEUED, True) == (resolved.state, resolved.by_us)
        else:
            assert (await ledger.operating.retry(offer.id, unconfirmed=True)).done
        assert letters == await ledger.letters(offer.id)
        await ledger.operating.cancel(offer.id)


async def test_what_waits_in_doubt_is_settled_and_not_tried_again(ledger):
    """Sent after all: the attempt that would have made a second copy falls away, on hold or not."""
    for held in (False, True):
        offer = await wait_in_doubt(ledger)
        if held:
            await do(ledger, "pause")
        resolved = await ledger.operating.resolve(offer.id)
        assert (State.SENT, True) == (resolved.state, resolved.by_us)
        assert None is await ledger.score(offer.id)
        assert not (await ledger.operating.resolve(offer.id)).by_us


async def test_others_go_on_when_one_that_waits_in_doubt_is_settled(ledger):
    """Only recipients that an attempt may have reached are settled; the next one is for the rest."""
    offer = await wait_in_doubt(ledger, "ad")
    due = await ledger.score(offer.id)
    resolved = await ledger.operating.resolve(offer.id)
    assert (State.QUEUED, True, "sq") == (resolved.state, resolved.by_us, await ledger.letters(offer.id))
    assert due == await ledger.score(offer.id)
    await ledger.lapse(offer.id)
    assert (1,) == (await ledger.claim_one()).waiting


@pytest.mark.parametrize(("codes", "expected"), [("a", State.SENT), ("ad", State.QUEUED)])
async def test_a_worker_that_holds_it_before_its_mark_is_stopped(ledger, codes, expected):
    """Settled while it is being tried again: nobody sends to the settled one, and the others wait again."""
    offer = await wait_in_doubt(ledger, codes)
    await ledger.lapse(offer.id)
    held = await ledger.claim_one()
    resolved = await ledger.operating.resolve(offer.id)
    assert (expected, True) == (resolved.state, resolved.by_us)
    assert 0 == await ledger.advance(held)
    if expected == State.QUEUED:
        again = await ledger.claim_one()
        assert (offer.id, (1,)) == (again.id, again.waiting)


async def test_past_its_mark_it_is_under_way(ledger):
    """The second copy may be out: nothing is settled until that attempt has ended."""
    offer = await wait_in_doubt(ledger)
    await ledger.lapse(offer.id)
    held = await ledger.claim_one()
    await ledger.advance(held)
    resolved = await ledger.operating.resolve(offer.id)
    assert (State.SENDING, False) == (resolved.state, resolved.by_us)
    assert State.SENT == (await ledger.finish(held, "s")).state


@pytest.mark.parametrize(("held", "answer"), [(False, "due"), (True, "released")])
async def test_what_waits_in_doubt_is_tried_again_at_once(ledger, held, answer):
    """It was not sent: nobody has to wait for the time of the next attempt, nor for a release."""
    offer = await wait_in_doubt(ledger)
    if held:
        await do(ledger, "pause")
    assert answer == (await ledger.operating.retry(offer.id, unconfirmed=True)).answer
    assert (offer.id, "r") == ((await ledger.claim_one()).id, await ledger.letters(offer.id))


async def test_of_a_message_without_doubt_nothing_is_tried_for_it(ledger):
    """One that simply waits is left alone."""
    offer = await ledger.accept()
    retried = await ledger.operating.retry(offer.id, unconfirmed=True)
    assert ("queued", "queued", False) == (retried.answer, retried.state, retried.done)


async def test_a_copy_that_may_be_out_is_remembered(ledger):
    """Tried again on a person's word and never sent: what the receiver may have is unconfirmed, not called off."""
    for end in ("cancel", "expire"):
        offer = await make_unconfirmed(ledger)
        assert (await ledger.operating.retry(offer.id, unconfirmed=True)).done
        assert 1 == (await do(ledger, end)).done
        assert State.UNCONFIRMED == (await ledger.record(offer.id)).state
    await make_unconfirmed(ledger)
    assert (await ledger.operating.retry(offer.id, unconfirmed=True)).done
    held = await ledger.claim_one()
    await ledger.advance(held)
    assert State.UNCONFIRMED == (await ledger.finish(held, "f")).state


async def test_what_is_in_doubt_is_not_sent_after_the_moment_it_was_wanted_by(ledger):
    """The receiver may have it; a second copy after `deliver_before` is nobody's wish."""
    offer = await make_unconfirmed(ledger, deliver_before=await ledger.now() + DAY_MS)
    await ledger.end_limit(offer.id)
    retried = await ledger.operating.retry(offer.id, unconfirmed=True)
    assert ("too_late", State.UNCONFIRMED, False) == (retried.answer, retried.state, retried.done)


async def test_a_claim_tells_which_channel_may_have_taken_it(ledger):
    """Only where a recipient is in doubt, and through being given back to wait for that channel."""
    await ledger.accept()
    assert "" == (await ledger.claim_one()).maybe_taken_by
    doubtful = await wait_in_doubt(ledger, "ad")
    await ledger.operating.retry(doubtful.id)
    held = next(m for m in (await ledger.claim()).messages if m.id == doubtful.id)
    assert "relay" == held.maybe_taken_by
    await ledger.delivery.release(AGENT, [(held.id, held.fence)], pace=Pace(), wait_ms=40_000)
    record = await ledger.record(doubtful.id)
    assert ("own_channel", State.QUEUED, 1) == (record.reason[0], record.state, record.attempted)
    assert record.next_at == await ledger.score(doubtful.id)
    assert 39_000 < record.next_at - record.reason[1] <= 40_000
