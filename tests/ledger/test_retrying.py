"""`retry`: a message is tried again now, because a person says so."""

import pytest

from postroom.ledger import keys
from postroom.states import State
from tests.ledger.harness import AGENT, DAY_MS
from tests.ledger.operator import do

HOUR_MS = 3_600_000


async def test_a_waiting_retry_is_due_at_once(ledger):
    """Its next attempt comes now, with a line in its timeline."""
    offer = await ledger.accept()
    await ledger.finish(await ledger.claim_one(), "d", delay_ms=HOUR_MS)
    await ledger.leave()
    retried = await ledger.operating.retry(offer.id)
    assert ("due", True) == (retried.answer, retried.ring)
    assert offer.id == (await ledger.claim_one()).id
    assert "message.retried" in [event.type for event in (await ledger.record(offer.id)).timeline]


async def test_one_held_message_is_released_by_its_id(ledger):
    """`retry` is also the way to let one message go."""
    offer = await ledger.accept()
    await do(ledger, "pause")
    assert "released" == (await ledger.operating.retry(offer.id)).answer
    assert offer.id == (await ledger.claim_one()).id


async def test_a_failed_message_begins_anew(ledger):
    """Refused recipients wait again with a fresh deadline; nothing of it expires by retention; the sent one stays."""
    offer = await ledger.accept(2)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "sf", replies=((1, "550|5.1.1|recipient"),))
    assert "again" == (await ledger.operating.retry(offer.id)).answer
    assert "sq" == await ledger.letters(offer.id)
    record = await ledger.record(offer.id)
    assert (State.QUEUED, None, None) == (record.state, record.finished_at, record.recipients[1].reply_code)
    assert DAY_MS == pytest.approx(record.deadline - await ledger.now(), abs=5000)
    names = [keys.record_key(offer.id), keys.payload_key(offer.id), keys.ref_key(AGENT, offer.ref)]
    assert [-1, -1, -1] == [await ledger.client.pttl(name) for name in names]
    assert (1,) == (await ledger.send()).waiting
    assert State.SENT == (await ledger.record(offer.id)).state


async def test_an_expired_message_may_be_tried_again(ledger):
    """The person knows better than the clock; blobs are kept with it."""
    offer = await ledger.accept(blobs=(b"pdf",), retry_profile="interactive", lifetime=900_000)
    await do(ledger, "expire")
    assert "again" == (await ledger.operating.retry(offer.id)).answer
    record = await ledger.record(offer.id)
    assert 900_000 == pytest.approx(record.deadline - await ledger.now(), abs=5000)
    assert -1 == await ledger.client.pttl(keys.blob_key(offer.id, 0))
    assert 1 == (await ledger.claim_one()).blobs


async def test_without_its_content_a_message_cannot_be_tried_again(ledger):
    """A dropped payload, or a dropped attachment, is said to be gone, and nothing changes."""
    for lost in (keys.payload_key, lambda message_id: keys.blob_key(message_id, 0)):
        offer = await ledger.accept(blobs=(b"pdf",))
        await do(ledger, "expire")
        await ledger.client.delete(lost(offer.id))
        assert "gone" == (await ledger.operating.retry(offer.id)).answer
        assert State.EXPIRED == (await ledger.record(offer.id)).state


async def test_what_cannot_be_tried_is_answered_as_what_it_is(ledger):
    """Sent, sending, cancelled, scheduled, unconfirmed and unknown are left alone."""
    scheduled = await ledger.accept(send_at=await ledger.now() + HOUR_MS)
    cancelled = await ledger.accept()
    await ledger.operating.cancel(cancelled.id)
    sent = await ledger.accept()
    await ledger.send()
    doubtful = await ledger.accept(on_ambiguous="hold")
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "a")
    sending = await ledger.accept()
    await ledger.claim_one()
    answers = {
        scheduled.id: "scheduled",
        cancelled.id: "cancelled",
        sent.id: "sent",
        doubtful.id: "unconfirmed",
        sending.id: "sending",
        "orders-01ARZ3NDEKTSV4RRFFQ69G5FAV": "unknown",
    }
    for message_id, answer in answers.items():
        before = await ledger.client.hgetall(keys.record_key(message_id))
        retried = await ledger.operating.retry(message_id)
        assert (answer, False, False) == (retried.answer, retried.done, retried.ring)
        state = await ledger.client.hget(keys.record_key(message_id), "s")
        assert (state or b"").decode() == retried.state
        assert before == await ledger.client.hgetall(keys.record_key(message_id))


async def test_held_mail_that_is_scheduled_goes_on_waiting_for_its_time(ledger):
    """Let go, by whichever hold: it is no longer held, and still nothing goes out before its `send_at`."""
    later = await ledger.now() + HOUR_MS
    paused, braked = [await ledger.accept(send_at=later) for _ in range(2)]
    await do(ledger, "pause")
    await ledger.client.hset(keys.record_key(braked.id), "hd", "storm|1")
    for offer in (paused, braked):
        retried = await ledger.operating.retry(offer.id)
        assert ("released", True, False) == (retried.answer, retried.done, retried.ring)
        assert (later, None) == (await ledger.score(offer.id), (await ledger.record(offer.id)).hold)
        assert later >= await ledger.agenda()
        assert "scheduled" == (await ledger.operating.retry(offer.id)).answer
    assert () == (await ledger.claim()).messages


async def test_held_mail_that_waits_for_another_attempt_is_due(ledger):
    """A time set by an earlier attempt is no wish of its caller's."""
    offer = await ledger.accept()
    await ledger.finish(await ledger.claim_one(), "d", delay_ms=HOUR_MS)
    await do(ledger, "pause")
    assert "released" == (await ledger.operating.retry(offer.id)).answer
    assert offer.id == (await ledger.claim_one()).id


async def test_what_was_to_be_delivered_within_a_time_has_that_time_again(ledger):
    """Not the day of its profile: it is as short and as absolute as the first time."""
    offer = await ledger.accept(lifetime=2000, standing_clock=False)
    await ledger.end_deadline(offer.id)
    assert [offer.id] == [one.id for one in (await ledger.claim()).ended]
    retried = await ledger.operating.retry(offer.id)
    record = await ledger.record(offer.id)
    assert ("again", record.deadline, None) == (retried.answer, retried.deadline, record.halted)
    assert 2000 == pytest.approx(record.deadline - await ledger.now(), abs=1000)


async def test_the_time_of_its_profile_begins_anew_and_its_clock_stands(ledger):
    """Nobody named a limit, so the message has a day that stands still with its agent."""
    offer = await ledger.accept(lifetime=DAY_MS, standing_clock=True)
    await do(ledger, "expire")
    await ledger.operating.pause(AGENT, lasts_ms=50, who="ada", reason="x")
    await ledger.operating.resume(AGENT)
    assert "again" == (await ledger.operating.retry(offer.id)).answer
    record = await ledger.record(offer.id)
    assert DAY_MS == pytest.approx(record.deadline - await ledger.now(), abs=5000)
    assert record.halted == pytest.approx((await ledger.reading.standing(AGENT)).total, abs=50)


async def test_after_the_moment_it_was_wanted_by_nothing_is_sent(ledger):
    """Before it a message is tried again until then, and after it left alone, with its reason told."""
    before = await ledger.now() + HOUR_MS
    offer = await ledger.accept(deliver_before=before)
    await do(ledger, "expire")
    assert ("again", before) == ((retried := await ledger.operating.retry(offer.id)).answer, retried.deadline)
    assert before == (await ledger.record(offer.id)).deadline
    await do(ledger, "expire")
    await ledger.end_limit(offer.id)
    kept = await ledger.client.hgetall(keys.record_key(offer.id))
    retried = await ledger.operating.retry(offer.id)
    assert ("too_late", State.EXPIRED, False) == (retried.answer, retried.state, retried.done)
    assert kept == await ledger.client.hgetall(keys.record_key(offer.id))


async def test_what_waits_after_its_time_is_not_called_due(ledger):
    """Nobody has looked yet, and it will end at the first look: that is what a person is told."""
    offer = await ledger.accept()
    await ledger.end_deadline(offer.id)
    retried = await ledger.operating.retry(offer.id)
    assert ("too_late", State.QUEUED, False) == (retried.answer, retried.state, retried.done)


async def test_what_ended_before_its_time_keeps_its_time(ledger):
    """Expired by an operator and wanted after all: not before the `send_at` its caller gave."""
    later = await ledger.now() + HOUR_MS
    offer = await ledger.accept(send_at=later, lifetime=2000, standing_clock=False)
    await do(ledger, "expire")
    retried = await ledger.operating.retry(offer.id)
    assert ("again", False, later + 2000) == (retried.answer, retried.ring, retried.deadline)
    assert (later, later) == (await ledger.score(offer.id), (await ledger.record(offer.id)).next_at)


@pytest.mark.parametrize(("profile", "lifetime"), [("standard", DAY_MS), ("interactive", 900_000)])
async def test_a_message_of_an_older_version_has_its_profiles_time(ledger, profile, lifetime):
    """Its record does not tell what its caller named."""
    offer = await ledger.accept(lifetime=2000, retry_profile=profile)
    await ledger.client.hdel(keys.record_key(offer.id), "lm")
    await do(ledger, "expire")
    assert "again" == (await ledger.operating.retry(offer.id)).answer
    assert lifetime == pytest.approx((await ledger.record(offer.id)).deadline - await ledger.now(), abs=5000)
