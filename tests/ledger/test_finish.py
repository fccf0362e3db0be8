"""Finishing: an outcome is written once, by the owner, and moves each recipient the way it may move."""

import pytest

from postroom.ledger import keys
from postroom.states import State
from tests.ledger.harness import CONTENT_MS, MESSAGE_MS


async def ttls(ledger, offer, blobs=0):
    """Return the remaining ms of record, ref, payload and blobs; -1 where there is no end."""
    names = [
        keys.record_key(offer.id),
        keys.ref_key(offer.agent, offer.ref),
        keys.payload_key(offer.id),
        *(keys.blob_key(offer.id, n) for n in range(blobs)),
    ]
    return [await ledger.client.pttl(name) for name in names]


def close(expected, found):
    return all(wanted - 5_000 < ms <= wanted for wanted, ms in zip(expected, found, strict=True))


async def marked(ledger, recipients=1, **changes):
    """Accept, claim and mark a message."""
    offer = await ledger.accept(recipients, **changes)
    held = await ledger.claim_one()
    assert offer.id == held.id
    assert 1 == await ledger.advance(held)
    return offer, held


@pytest.mark.parametrize(
    ("codes", "policy", "state", "letters"),
    [
        ("s", "retry", State.SENT, "s"),
        ("ss", "retry", State.SENT, "ss"),
        ("f", "retry", State.FAILED, "f"),
        ("ff", "retry", State.FAILED, "ff"),
        ("sf", "retry", State.PARTLY_SENT, "sf"),
        ("fs", "hold", State.PARTLY_SENT, "fs"),
        ("d", "retry", State.QUEUED, "q"),
        ("sd", "retry", State.QUEUED, "sq"),
        ("sfd", "retry", State.QUEUED, "sfq"),
        ("a", "retry", State.QUEUED, "r"),
        ("a", "hold", State.UNCONFIRMED, "u"),
        ("sa", "hold", State.UNCONFIRMED, "su"),
        ("fa", "retry", State.QUEUED, "fr"),
        ("da", "hold", State.QUEUED, "qu"),
        ("ad", "retry", State.QUEUED, "rq"),
    ],
)
async def test_outcomes_move_recipients(ledger, codes, policy, state, letters):
    """Each recipient has its own outcome, and the message's state follows from all of them."""
    offer, held = await marked(ledger, len(codes), on_ambiguous=policy)
    finished = await ledger.finish(held, codes, delay_ms=5_000)
    assert (state, False, "normal") == (finished.state, finished.again, finished.priority)
    assert (5_000 if state == State.QUEUED else None) == finished.next_in_ms
    assert letters == await ledger.letters(offer.id)
    record = await ledger.record(offer.id)
    assert (state, state != State.QUEUED) == (record.state, record.finished)
    assert 1 == len(record.attempts)
    score = await ledger.score(offer.id)
    if state == State.QUEUED:
        assert 0 < score - await ledger.now() <= 5_000
        assert (score, score) == (record.next_at, await ledger.agenda())
    else:
        assert score is None


async def test_a_retry_carries_only_the_deferred(ledger):
    """Recipients that were sent to or refused are not in the next attempt."""
    offer, held = await marked(ledger, 4)
    await ledger.finish(held, "sdfd")
    again = await ledger.claim_one()
    assert (1, 3) == again.waiting
    assert 1 == await ledger.advance(again)
    finished = await ledger.finish(again, "-s-f")
    assert State.PARTLY_SENT == finished.state
    assert "ssff" == await ledger.letters(offer.id)


async def test_replies_are_kept_by_recipient(ledger):
    """What ended or deferred a recipient is told beside it."""
    offer, held = await marked(ledger, 3)
    replies = ((0, "550|5.1.1"), (1, "451"))
    await ledger.finish(held, "fds", replies=replies)
    found = (await ledger.record(offer.id)).recipients
    assert [(550, "5.1.1"), (451, None), (None, None)] == [(r.reply_code, r.enhanced_code) for r in found]


async def test_finishing_twice_is_finishing_once(ledger):
    """An outcome whose reply got lost is written again with the same answer and no second attempt."""
    offer, held = await marked(ledger)
    first = await ledger.finish(held, "s")
    second = await ledger.finish(held, "s")
    assert (State.SENT, State.SENT, True) == (first.state, second.state, second.again)
    assert 1 == len((await ledger.record(offer.id)).attempts)


async def test_deferring_twice_is_deferring_once(ledger):
    """The same holds for an outcome that leaves the message waiting."""
    offer, held = await marked(ledger)
    await ledger.finish(held, "d", delay_ms=60_000)
    score = await ledger.score(offer.id)
    second = await ledger.finish(held, "d", delay_ms=60_000)
    assert (State.QUEUED, True) == (second.state, second.again)
    assert score == await ledger.score(offer.id)
    assert 1 == len((await ledger.record(offer.id)).attempts)


@pytest.mark.parametrize("codes", ["d", "f", "a"])
async def test_a_stale_fence_has_no_say(ledger, codes):
    """After somebody else took the message, only a late "sent" of the old owner is still the truth."""
    offer = await ledger.accept()
    old = await ledger.claim_one()
    await ledger.lapse(offer.id)
    new = await ledger.claim_one()
    assert 0 == await ledger.advance(old)
    assert await ledger.finish(old, codes) is None
    assert 1 == await ledger.advance(new)
    assert State.SENT == (await ledger.finish(new, "s")).state


async def test_a_late_sent_counts_until_a_newer_mark(ledger):
    """A mail that was taken is not sent again because its owner was late to say so."""
    offer, old = await marked(ledger)
    for _ in range(2):
        await ledger.lapse(offer.id)
        claim = await ledger.claim()
    (new,) = claim.messages
    assert State.SENT == (await ledger.finish(old, "s")).state
    assert 0 == await ledger.advance(new)
    assert await ledger.finish(new, "d") is None
    assert "s" == await ledger.letters(offer.id)
    assert 2 == len((await ledger.record(offer.id)).attempts)


async def test_a_late_sent_counts_for_a_message_that_waits(ledger):
    """The same while the newer attempt was deferred: what is sent is not tried a third time."""
    offer = await ledger.accept()
    old = await ledger.claim_one()
    await ledger.lapse(offer.id)
    new = await ledger.claim_one()
    await ledger.finish(new, "d", delay_ms=60_000)
    assert State.SENT == (await ledger.finish(old, "s")).state
    assert await ledger.score(offer.id) is None


async def test_a_late_sent_is_too_late_after_a_newer_mark(ledger):
    """Once the newer attempt stands at its own mark, it alone decides."""
    offer = await ledger.accept()
    old = await ledger.claim_one()
    await ledger.lapse(offer.id)
    new = await ledger.claim_one()
    assert 1 == await ledger.advance(new)
    assert await ledger.finish(old, "s") is None
    assert State.SENT == (await ledger.finish(new, "s")).state


async def test_a_late_sent_resolves_an_unconfirmed_message(ledger):
    """The owner that was given up comes back and knows."""
    offer, held = await marked(ledger, on_ambiguous="hold")
    for _ in range(2):
        await ledger.lapse(offer.id)
        await ledger.claim()
    assert State.UNCONFIRMED == (await ledger.record(offer.id)).state
    assert State.SENT == (await ledger.finish(held, "s")).state
    assert State.SENT == (await ledger.record(offer.id)).state


@pytest.mark.parametrize("policy", ["hold", "retry"])
async def test_a_late_doubt_leaves_an_unconfirmed_message_unconfirmed(ledger, policy):
    """The owner that was given up comes back and does not know either: nothing is tried again."""
    offer, held = await marked(ledger, on_ambiguous=policy)
    for _ in range(2):
        await ledger.lapse(offer.id)
        claim = await ledger.claim()
    if policy == "retry":  # the budget's one retry ends in doubt as well
        (held,) = claim.messages
        await ledger.advance(held)
        for _ in range(2):
            await ledger.lapse(offer.id)
            await ledger.claim()
    assert State.UNCONFIRMED == (await ledger.record(offer.id)).state
    await ledger.finish(held, "a")
    assert State.UNCONFIRMED == (await ledger.record(offer.id)).state
    assert await ledger.score(offer.id) is None


async def test_a_late_refusal_leaves_an_unconfirmed_message_unconfirmed(ledger):
    """A "no" that came after the message was given up does not undo that it may have been taken before."""
    offer, held = await marked(ledger, on_ambiguous="hold")
    for _ in range(2):
        await ledger.lapse(offer.id)
        await ledger.claim()
    await ledger.finish(held, "f")
    assert "u" == await ledger.letters(offer.id)


async def test_doubt_twice_is_unconfirmed(ledger):
    """The budget of ambiguous retries is one, for outcomes as for lapsed leases."""
    offer, held = await marked(ledger)
    assert State.QUEUED == (await ledger.finish(held, "a")).state
    again = await ledger.claim_one()
    await ledger.advance(again)
    assert State.UNCONFIRMED == (await ledger.finish(again, "a")).state
    assert "u" == await ledger.letters(offer.id)


@pytest.mark.parametrize(("codes", "letters"), [("f", "u"), ("s", "s"), ("d", "r")])
async def test_a_recipient_once_in_doubt_is_never_just_failed(ledger, codes, letters):
    """An earlier attempt may have reached it, so a later "no" leaves it unconfirmed."""
    offer, held = await marked(ledger)
    await ledger.finish(held, "a")
    again = await ledger.claim_one()
    await ledger.advance(again)
    await ledger.finish(again, codes)
    assert letters == await ledger.letters(offer.id)


@pytest.mark.parametrize(("lifetime", "left"), [(8_000, 4_000), (60_000, 10_000)])
async def test_a_last_attempt_is_made_before_the_deadline(ledger, lifetime, left):
    """Where the next one would come too late: once, while there is time; after that the time runs out."""
    offer, held = await marked(ledger, 2, lifetime=lifetime)
    finished = await ledger.finish(held, "ds", delay_ms=61_000)
    ends = (await ledger.record(offer.id)).accepted_at + lifetime
    assert (State.QUEUED, "qs") == (finished.state, await ledger.letters(offer.id))
    assert 0 <= await ledger.score(offer.id) - (ends - left) < 1_000
    assert (await ledger.operating.retry(offer.id)).done  # now, instead of waiting for it
    last = await ledger.claim_one()
    await ledger.advance(last)
    assert State.QUEUED == (await ledger.finish(last, "d-", delay_ms=61_000)).state
    assert ends == await ledger.score(offer.id)


async def test_a_doubtful_recipient_expires_as_unconfirmed(ledger):
    """At the deadline, what may have been sent is told as that."""
    offer, held = await marked(ledger, 2)
    await ledger.finish(held, "ad")
    await ledger.end_deadline(offer.id)
    (ended,) = (await ledger.claim()).ended
    assert (State.UNCONFIRMED, "ux") == (ended.state, await ledger.letters(offer.id))


async def test_the_mark_is_refused_past_the_deadline(ledger):
    """Nothing is sent after its deadline, however far the attempt has come."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.end_deadline(offer.id)
    assert -1 == await ledger.advance(held)


async def test_the_mark_needs_a_message_under_way(ledger):
    """No mark is written for a message that ended, that waits, or that is not there."""
    await ledger.accept()
    held = await ledger.send()
    assert 0 == await ledger.advance(held)
    assert 0 == await ledger.delivery.advance("orders-NONE", 1, "a", "relay")


async def test_finishing_what_is_gone_is_nobodys(ledger):
    """An outcome for a message that is kept no longer is answered as somebody else's."""
    _, held = await marked(ledger)
    await ledger.client.delete(keys.record_key(held.id))
    assert await ledger.finish(held, "s") is None


async def test_retention_begins_at_the_end_and_not_before(ledger):
    """Record, ref, payload and blobs have no end of life until the message's, whatever happens to it."""
    offer = await ledger.accept(blobs=(b"a", b"b"))
    assert [-1] * 5 == await ttls(ledger, offer, 2)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "d")
    assert [-1] * 5 == await ttls(ledger, offer, 2)
    await ledger.send()
    found = await ttls(ledger, offer, 2)
    assert close([MESSAGE_MS, MESSAGE_MS, CONTENT_MS, CONTENT_MS, CONTENT_MS], found), found


async def test_an_unconfirmed_message_keeps_its_content(ledger):
    """Whoever resolves it may want to send it again."""
    offer, held = await marked(ledger, on_ambiguous="hold", blobs=(b"a",))
    await ledger.finish(held, "a")
    found = await ttls(ledger, offer, 1)
    assert close([MESSAGE_MS] * 4, found), found


async def test_retention_begins_at_an_expiry_too(ledger):
    """A message that a claim ends is kept as long as one that was sent."""
    offer = await ledger.accept()
    await ledger.end_deadline(offer.id)
    await ledger.claim()
    found = await ttls(ledger, offer)
    assert close([MESSAGE_MS, MESSAGE_MS, CONTENT_MS], found), found


async def test_the_timeline_is_capped(ledger):
    """A message that is tried a hundred times keeps its first events and its newest, 32 in all."""
    offer = await ledger.accept()
    for _ in range(100):
        held = await ledger.claim_one()
        await ledger.finish(held, "d")
    record = await ledger.record(offer.id)
    numbers = [attempt.n for attempt in record.attempts]
    assert (32, 33) == (len(numbers), len(record.timeline))
    assert [*range(1, 9), *range(77, 101)] == sorted(numbers)
    assert 100 == (await ledger.claim_one()).attempts


@pytest.mark.parametrize("recipients", [1, 3])
async def test_a_finished_message_is_small(ledger, recipients):
    """Record and ref of a finished message cost at most 600 bytes, and the record keeps Redis's small form."""
    offer, held = await marked(ledger, recipients, client_ref="order-10023-shipped")
    event = "zepto-smtp|sent|done|250|2.0.0|131"
    await ledger.finish(held, "s" * recipients, event=event)
    encoding = await ledger.client.object("ENCODING", keys.record_key(offer.id))
    assert encoding in (b"listpack", b"ziplist")
    names = (keys.record_key(offer.id), keys.ref_key(offer.agent, offer.ref))
    used = [await ledger.client.memory_usage(name, samples=0) for name in names]
    assert sum(used) <= 600, used


async def test_a_long_life_keeps_the_small_form(ledger):
    """Fifty recipients, a long ref and a full timeline do not spoil the encoding."""
    offer = await ledger.accept(50, client_ref="r" * 128)
    for _ in range(40):
        held = await ledger.claim_one()
        await ledger.advance(held)
        replies = tuple((i, "451|4.7.1") for i in range(50))
        await ledger.finish(
            held, "d" * 50, replies=replies, event="zepto-smtp|deferred|rcpt|451|4.7.1|120000"
        )
    encoding = await ledger.client.object("ENCODING", keys.record_key(offer.id))
    assert encoding in (b"listpack", b"ziplist")


async def test_the_longest_channel_name_keeps_the_small_form(ledger):
    """A channel's name may have 32 characters, and that is no reason to spend three times the memory."""
    offer, held = await marked(ledger)
    event = f"{'c' * 32}|ambiguous|request|451|4.7.1|120000"
    await ledger.finish(held, "d", event=event)
    assert b"listpack" == await ledger.client.object("ENCODING", keys.record_key(offer.id))


async def test_the_timeline_is_in_order(ledger):
    """Attempts are told in the order they were made, even those of the same millisecond."""
    offer = await ledger.accept()
    for _ in range(100):
        held = await ledger.claim_one()
        await ledger.finish(held, "d")
    await ledger.client.hset(keys.record_key(offer.id), mapping=await same_millisecond(ledger, offer.id))
    numbers = [attempt.n for attempt in (await ledger.record(offer.id)).attempts]
    assert sorted(numbers) == numbers


async def same_millisecond(ledger, message_id):
    """Return the events of a record as if all had happened at once."""
    fields = await ledger.client.hgetall(keys.record_key(message_id))
    events = {name: text for name, text in fields.items() if name[:1] == b"e" and name[1:].isdigit()}
    return {name: b"5|" + text.partition(b"|")[2] for name, text in events.items()}


async def test_a_queue_and_the_agenda_are_empty_after_the_last(ledger):
    """Nothing of a finished agent is left for the sweep to look at but one entry it clears."""
    await ledger.accept()
    await ledger.send()
    assert {"h": {}, "n": {}, "b": {}} == await ledger.queues()
    await ledger.claim()
    assert await ledger.agenda() is None
