"""Claiming: who gets which message when, and in whose name."""

import asyncio
import time

import pytest

from postroom.ledger import keys
from postroom.ledger.claimed import Lapsed
from postroom.ledger.delivery import CLAIM_BYTES
from postroom.ledger.ends import Ended
from postroom.ledger.limits import Limits, Pace
from postroom.message import Content
from postroom.states import State
from tests.ledger.harness import AGENT, agent_key, make_offer, queue_key, until


def ids(claim):
    return [message.id for message in claim.messages]


async def test_a_claim_takes_what_is_due_with_all_a_carrier_needs(ledger):
    """A claimed message comes with its fence, its payload and its waiting recipients in one round trip."""
    offer = await ledger.accept(3, client_ref="order-1", retry_profile="interactive", priority="high")
    claim = await ledger.claim()
    (held,) = claim.messages
    assert (offer.id, AGENT, 1, 0) == (held.id, held.agent, held.fence, held.attempts)
    assert ((0, 1, 2), 3, offer.payload) == (held.waiting, held.recipients, held.payload)
    assert ("checkout", "order-1", "high") == (held.caller, held.client_ref, held.priority)
    assert ("interactive", "", 0) == (held.retry_profile, held.template, held.blobs)
    assert ((), (), False) == (claim.ended, claim.lapsed, claim.more)
    record = await ledger.record(offer.id)
    assert (State.SENDING, record.accepted_at) == (record.state, held.accepted_at)
    score = await ledger.score(offer.id)
    assert 0 < score - await ledger.now() <= 60_000
    assert score == await ledger.agenda()


async def test_nothing_is_claimed_twice(ledger):
    """What one lane holds, no other lane gets."""
    sent = {(await ledger.accept()).id for _ in range(20)}
    claims = await asyncio.gather(*(ledger.claim(3, lane=f"lane{i}") for i in range(10)))
    taken = [message_id for claim in claims for message_id in ids(claim)]
    assert sorted(sent) == sorted(taken)


async def test_earlier_due_is_earlier_claimed(ledger):
    """Within a priority the order is that of the due times."""
    now = await ledger.now()
    order = [3_000, 1_000, 2_000]
    offers = {await_ms: await ledger.accept(send_at=now - await_ms) for await_ms in order}
    await asyncio.sleep(0)
    for age, offer in offers.items():
        queue = keys.place_of(AGENT).prefix + f"q:{AGENT}:n"
        await ledger.client.zadd(queue, {offer.id: now - age})
    claim = await ledger.claim(2)
    assert [offers[3_000].id, offers[2_000].id] == ids(claim)
    assert claim.more
    assert [offers[1_000].id] == ids(await ledger.claim(2))


async def test_what_is_not_due_is_not_claimed(ledger):
    """A scheduled message waits, and the claim says for how long."""
    await ledger.accept(send_at=await ledger.now() + 5_000)
    claim = await ledger.claim()
    assert ((), False) == (claim.messages, claim.more)
    assert 4_000 < claim.next_in_ms <= 5_000
    empty = await ledger.claim(agent="logins")
    assert (None, False) == (empty.next_in_ms, empty.more)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("hnb", ["high", "normal", "bulk"]), ("bhn", ["high", "normal", "bulk"]), ("hn", ["high", "normal"])],
)
async def test_priorities_are_claimed_in_the_order_asked_for(ledger, order, expected):
    """High goes first, also at bulk's turn while it has hardly waited, and a lane may leave bulk alone."""
    for priority in ("bulk", "normal", "high"):
        await ledger.accept(priority=priority)
    claim = await ledger.claim(order=order)
    assert expected == [message.priority for message in claim.messages]
    assert (len(expected) < 3) == claim.more


async def test_at_bulks_turn_a_flood_of_high_mail_shares(ledger):
    """Only high mail that has hardly waited goes first at bulk's turn: a flood of it does not starve bulk."""
    for priority in ("bulk", "high"):
        await ledger.accept(priority=priority)
    high = next(iter((await ledger.queues())["h"]))
    await ledger.client.zadd(queue_key(AGENT, "h"), {high: await ledger.now() - 2_000})
    claim = await ledger.claim(order="bhn")
    assert ["bulk", "high"] == [message.priority for message in claim.messages]


async def test_a_claim_is_bounded_in_bytes(ledger):
    """Many large messages do not come in one reply."""
    text = "".join(chr(33 + (i * i) % 90) + chr(33 + (i * 7919) % 89) for i in range(300_000))
    for _ in range(6):
        offer = make_offer()
        payload = offer.payload
        large = type(payload)(
            message_id=payload.message_id, sender=payload.sender, to=payload.to, content=Content("s", text)
        )
        await ledger.accept(payload=large)
    stored = await ledger.client.strlen(keys.payload_key(ids(await ledger.claim(1))[0]))
    claim = await ledger.claim(10)
    most = CLAIM_BYTES // stored + 1
    assert len(claim.messages) == min(5, most)


async def test_connections_are_a_limit_over_all_workers(ledger):
    """A lane beyond the limit is told to close, whoever asks, and a live one stays admitted."""
    await ledger.accept()

    async def ask(lane, connections):
        return await ledger.delivery.claim(AGENT, lane, most=1, limits=Limits(connections=connections))

    assert await ask("a", 2) is not None
    assert await ask("b", 2) is not None
    assert await ask("c", 2) is None
    assert await ask("a", 2) is not None
    assert await ask("b", 1) is None
    assert await ask("a", 1) is not None
    assert await ask("b", 1) is None
    await ledger.leave("a")
    assert await ask("b", 1) is not None
    assert [b"b"] == await ledger.client.zrange(agent_key("lanes"), 0, -1)


async def test_a_lane_whose_lease_is_over_makes_room(ledger):
    """A dead worker's lane counts no longer than its lease."""
    await ledger.claim(lane="dead")
    await ledger.client.zadd(agent_key("lanes"), {"dead": await ledger.now() - 1})
    assert await ledger.claim(lane="new", connections=1)
    assert [b"new"] == await ledger.client.zrange(agent_key("lanes"), 0, -1)


async def test_a_lane_leaves_only_when_nothing_is_due(ledger):
    """Told to leave, a lane goes in the very script that finds nothing due, and not before."""
    await ledger.accept()
    assert 1 == len((await ledger.claim(leave=True)).messages)
    assert 1 == await ledger.client.zcard(agent_key("lanes"))
    assert 0 == len((await ledger.claim(leave=True)).messages)
    assert 0 == await ledger.client.zcard(agent_key("lanes"))
    assert (await ledger.acceptance.accept(make_offer())).ring
    assert 0 < await ledger.client.pttl(agent_key("rung"))


@pytest.mark.parametrize(("interval_us", "stays"), [(800_000, 1), (10_000_000, 0)])
async def test_a_lane_held_back_by_the_rate_for_long_leaves(ledger, interval_us, stays):
    """A wait of a second keeps its lane; for a longer one it leaves, and the agenda says when to look again."""
    await ledger.accept()
    await ledger.accept()
    pace = Pace(interval_us=interval_us, burst=1)
    assert 1 == len((await ledger.claim(pace=pace)).messages)
    claim = await ledger.claim(pace=pace, leave=True)
    assert ((), False) == (claim.messages, claim.more)
    assert interval_us / 1000 - 500 < claim.next_in_ms <= interval_us / 1000
    assert stays == await ledger.client.zcard(agent_key("lanes"))
    agenda = await ledger.agenda() - await ledger.now()
    assert interval_us / 1000 - 500 < agenda <= interval_us / 1000


async def test_the_last_lane_takes_the_ring_marker_along(ledger):
    """After the last lane has left, the next accept rings at once, even within the same second."""
    assert (await ledger.acceptance.accept(make_offer())).ring
    assert 1 == len((await ledger.claim(lane="a")).messages)
    await ledger.claim(lane="b")
    await ledger.claim(lane="a", leave=True)
    assert not (await ledger.acceptance.accept(make_offer())).ring
    await ledger.claim(lane="b")
    await ledger.claim(lane="b", leave=True)
    assert (await ledger.acceptance.accept(make_offer())).ring


async def test_an_expired_message_ends_at_the_claim(ledger):
    """What is past its deadline is ended by the claim that meets it, and the next one is taken instead."""
    late, other = await ledger.accept(2), await ledger.accept_later()
    await ledger.lapse(late.id)  # the first in the queue
    await ledger.end_deadline(late.id)
    claim = await ledger.claim(1)
    assert [other.id] == ids(claim)
    assert [(late.id, State.EXPIRED, "normal")] == [(e.id, e.state, e.priority) for e in claim.ended]
    record = await ledger.record(late.id)
    assert [State.EXPIRED] * 2 == [recipient.state for recipient in record.recipients]
    assert await ledger.score(late.id) is None


async def test_an_expired_message_tells_so_once(ledger):
    """The timeline has one event for one end."""
    late = await ledger.accept()
    await ledger.end_deadline(late.id)
    await ledger.claim()
    events = [event.type for event in (await ledger.record(late.id)).timeline]
    assert ["message.accepted", "message.expired"] == events


async def test_a_claim_passes_many_expired_ones(ledger):
    """Messages ended without being claimed leave room: they do not use up the claim."""
    late = [await ledger.accept_later() for _ in range(6)]
    for offer in late:
        await ledger.end_deadline(offer.id)
        await ledger.lapse(offer.id)
    fresh = await ledger.accept()
    claim = await ledger.claim(2)
    assert [fresh.id] == ids(claim)
    assert 6 == len(claim.ended)


async def test_a_message_without_its_payload_ends(ledger):
    """What cannot be sent any more is failed and told, and holds up nobody."""
    broken, fresh = await ledger.accept(), await ledger.accept_later()
    await ledger.client.delete(keys.payload_key(broken.id))
    claim = await ledger.claim()
    assert [fresh.id] == ids(claim)
    assert [(broken.id, State.FAILED)] == [(ended.id, ended.state) for ended in claim.ended]
    assert "message.payload_missing" in [e.type for e in (await ledger.record(broken.id)).timeline]


async def test_a_payload_that_cannot_be_read_is_handed_over_as_none(ledger):
    """Bytes that are none of ours end a message, not a claim."""
    broken, fresh = await ledger.accept(), await ledger.accept_later()
    await ledger.client.set(keys.payload_key(broken.id), b"\x01garbage")
    claim = await ledger.claim()
    assert {broken.id: True, fresh.id: False} == {m.id: m.payload is None for m in claim.messages}


async def test_a_payload_that_cannot_be_read_can_still_be_looked_at(ledger):
    """The record of such a message is shown without its content."""
    broken = await ledger.accept()
    await ledger.client.set(keys.payload_key(broken.id), b"\x01garbage")
    assert (await ledger.stored(broken.id)).payload is None


async def test_an_id_without_a_record_falls_out_of_the_queue(ledger):
    """A leftover in a queue is cleared away by the claim that meets it."""
    queue = f"{keys.place_of(AGENT).prefix}q:{AGENT}:n"
    await ledger.client.zadd(queue, {f"{AGENT}-GONE": 1})
    claim = await ledger.claim()
    assert ((), (), None) == (claim.messages, claim.ended, claim.next_in_ms)
    assert 0 == await ledger.client.exists(queue)


async def test_a_lapsed_claim_is_claimed_again_with_a_higher_fence(ledger):
    """A message whose owner did not come back is somebody else's after one lease."""
    offer = await ledger.accept()
    first = await ledger.claim_one()
    assert 0 == len((await ledger.claim()).messages)
    await ledger.lapse(offer.id)
    claim = await ledger.claim()
    (second,) = claim.messages
    assert first.fence < second.fence
    assert 0 == second.attempts
    assert (Lapsed(offer.id, "claimed", ""),) == claim.lapsed
    assert 0 == await ledger.advance(first)
    assert 1 == await ledger.advance(second)


async def test_a_real_lease_ends_by_itself(ledger):
    """No reaper is needed: the end of the lease is the message's score."""
    ledger.delivery.lease_ms = 40
    await ledger.accept()
    first = await ledger.claim_one()
    second = None

    async def claimed_again():
        nonlocal second
        second = next(iter((await ledger.claim(1)).messages), None)
        return second

    await until(claimed_again, "the lease is over")
    assert (first.id, True) == (second.id, second.fence > first.fence)


async def test_a_lapsed_mark_is_decided_at_second_sight(ledger):
    """The first claim that meets a lapsed commit mark only waits on; the next one decides."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    assert 1 == await ledger.advance(held)
    await ledger.lapse(offer.id)
    first = await ledger.claim()
    assert ((), (), ()) == (first.messages, first.ended, first.lapsed)
    assert 0 < first.next_in_ms <= 36_000
    await ledger.lapse(offer.id)
    second = await ledger.claim()
    assert (Lapsed(offer.id, "committing", "relay"),) == second.lapsed
    (again,) = second.messages
    assert (1, (0,)) == (again.attempts, again.waiting)
    assert again.fence > held.fence
    assert "r" == await ledger.letters(offer.id)
    (attempt,) = (await ledger.record(offer.id)).attempts
    assert ("relay", "ambiguous", "done") == (attempt.channel, attempt.outcome, attempt.phase)


async def lapse_at_mark(ledger, message_id):
    """Let the owner of a message in `committing` be gone for good."""
    await ledger.lapse(message_id)
    await ledger.claim()
    await ledger.lapse(message_id)
    return await ledger.claim()


async def test_with_hold_a_lapsed_mark_is_unconfirmed(ledger):
    """Where copies are not wanted, a message whose fate is unknown waits for a person."""
    offer = await ledger.accept(on_ambiguous="hold")
    await ledger.advance(await ledger.claim_one())
    claim = await lapse_at_mark(ledger, offer.id)
    assert ((), 1) == (claim.messages, len(claim.ended))
    assert (State.UNCONFIRMED, True) == (claim.ended[0].state, isinstance(claim.ended[0], Ended))
    record = await ledger.record(offer.id)
    assert (State.UNCONFIRMED, True) == (record.state, record.finished)
    assert await ledger.score(offer.id) is None


async def test_the_budget_of_ambiguous_retries_is_one(ledger):
    """A second unknown fate is not tried a third time."""
    offer = await ledger.accept()
    await ledger.advance(await ledger.claim_one())
    (again,) = (await lapse_at_mark(ledger, offer.id)).messages
    await ledger.advance(again)
    claim = await lapse_at_mark(ledger, offer.id)
    assert ((), [State.UNCONFIRMED]) == (claim.messages, [ended.state for ended in claim.ended])
    assert 2 == len((await ledger.record(offer.id)).attempts)


async def test_only_recipients_the_server_took_become_ambiguous(ledger):
    """At a lapsed mark the refused are failed, the deferred wait, and only the taken are in doubt."""
    offer = await ledger.accept(3, on_ambiguous="hold")
    await ledger.advance(await ledger.claim_one(), "afd")
    (again,) = (await lapse_at_mark(ledger, offer.id)).messages
    assert "ufq" == await ledger.letters(offer.id)
    assert (2,) == again.waiting


async def test_an_owner_that_renews_keeps_its_mark(ledger):
    """A renewed commit mark is not decided over."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.lapse(offer.id)
    await ledger.claim()
    assert (False, []) == await ledger.delivery.renew(AGENT, ["lane"], [(held.id, held.fence)])
    assert await ledger.score(offer.id) > await ledger.now() + 50_000
    assert 0 == len((await ledger.claim()).messages)


async def test_second_sight_begins_anew_after_a_renewal(ledger):
    """An owner that was late once and came back is waited for again."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.lapse(offer.id)
    await ledger.claim()
    await ledger.delivery.renew(AGENT, [], [(held.id, held.fence)])
    await ledger.lapse(offer.id)
    assert 0 == len((await ledger.claim()).messages)


async def test_renew_tells_what_is_lost(ledger):
    """Renewing extends what is held by its current fence, and names what belongs to somebody else."""
    kept, lost, sent = [await ledger.accept_later() for _ in range(3)]
    held = {message.id: message for message in (await ledger.claim()).messages}
    await ledger.advance(held[sent.id])
    await ledger.finish(held[sent.id], "s")
    await ledger.lapse(lost.id)
    await ledger.claim(lane="other")
    pairs = [(message.id, message.fence) for message in held.values()]
    before = await ledger.score(lost.id)
    assert {lost.id, sent.id} == set((await ledger.delivery.renew(AGENT, ["lane", "gone"], pairs))[1])
    assert before == await ledger.score(lost.id)
    assert await ledger.score(sent.id) is None
    assert await ledger.score(kept.id) > await ledger.now() + 50_000
    assert {b"lane", b"other"} == set(await ledger.client.zrange(agent_key("lanes"), 0, -1))


async def test_release_gives_back_untouched(ledger):
    """A released message is due at once for anybody, no attempt spent, and its old owner has no say."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    given, ring = await ledger.delivery.release(AGENT, [(held.id, held.fence)], pace=Pace(), lane="lane")
    assert (1, True) == (given, ring)
    record = await ledger.record(offer.id)
    assert (State.QUEUED, ()) == (record.state, record.attempts)
    assert "q" == await ledger.letters(offer.id)
    assert 0 == await ledger.advance(held)
    again = await ledger.claim_one(lane="other")
    assert (held.id, 2, 0) == (again.id, again.fence, again.attempts)


async def test_release_gives_back_only_what_is_held(ledger):
    """With an old fence, or after the end, nothing is given back; a lane goes all the same."""
    offer = await ledger.accept()
    first = await ledger.claim_one()
    await ledger.lapse(offer.id)
    second = await ledger.claim_one(lane="other")
    given, ring = await ledger.delivery.release(AGENT, [(first.id, first.fence)], pace=Pace(), lane="lane")
    assert (0, False) == (given, ring)
    await ledger.advance(second)
    await ledger.finish(second, "s")
    assert (0, False) == await ledger.delivery.release(AGENT, [(second.id, second.fence)], pace=Pace())
    assert [b"other"] == await ledger.client.zrange(agent_key("lanes"), 0, -1)


async def test_release_gives_the_tokens_back(ledger):
    """What was not sent does not count against the rate."""
    for _ in range(5):
        await ledger.accept()
    pace = Pace(interval_us=3_600_000, burst=2)
    # At most one of these per claim, for a claim takes no more than 50 ms' worth.
    held = [(await ledger.claim(5, pace=pace)).messages[0] for _ in range(2)]
    assert 0 == len((await ledger.claim(5, pace=pace)).messages)
    await ledger.delivery.release(AGENT, [(m.id, m.fence) for m in held], pace=pace)
    assert [1, 1, 0] == [len((await ledger.claim(5, pace=pace)).messages) for _ in range(3)]


async def test_the_rate_is_never_exceeded(ledger):
    """Over any time, many lanes together claim no more than the burst and the rate allow."""
    for _ in range(60):
        await ledger.accept()
    pace, rate, burst = Pace(interval_us=20_000, burst=5), 50, 5
    claimed, began = 0, time.monotonic()
    while time.monotonic() - began < 0.3:
        claims = await asyncio.gather(*(ledger.claim(64, lane=f"l{i}", pace=pace) for i in range(4)))
        claimed += sum(len(claim.messages) for claim in claims)
        elapsed = time.monotonic() - began
        assert claimed <= burst + rate * elapsed + 1
        waits = [claim.next_in_ms for claim in claims if not claim.messages]
        assert all(0 < wait <= 21 for wait in waits)
    assert claimed >= burst + rate * 0.3 * 0.5


async def test_how_long_the_rate_has_held_mail_up_is_told_whoever_looks(ledger):
    """Over rounds and workers: from the first look that it let nothing through at, until nothing due is left."""
    pace = Pace(interval_us=300_000, burst=1)
    await ledger.accept(send_at=await ledger.now() + 3_600_000)
    assert (False, 0) == _paced(await ledger.claim(pace=pace))  # what is not due is not held up by the rate
    await ledger.accept()
    await ledger.accept()
    assert (False, 0) == _paced(await ledger.claim(pace=pace, lane="one"))
    assert (True, 0) == _paced(await ledger.claim(pace=pace, lane="two", leave=True))
    since, claims, asked = await ledger.now(), [], []

    async def is_let_through() -> bool:
        asked.append(await ledger.now())
        claims.append(await ledger.claim(pace=pace, lane=f"lane-{len(claims) % 50}"))
        return bool(claims[-1].messages)

    await until(is_let_through, "the rate lets the second one through")
    assert claims[-1].paced_ms >= asked[-1] - since
    assert await ledger.client.hget(agent_key("halt"), "pg") is None


@pytest.mark.parametrize("paced_before", [False, True])
async def test_a_pause_is_no_pacing(ledger, paced_before):
    """What waited because a person said so did not wait for the rate, and what was before the pause does not go on."""
    pace = Pace(interval_us=1_000, burst=1)
    if paced_before:
        await ledger.client.set(agent_key("bucket"), str(1000 * await ledger.now() + 3_600_000_000))
        await ledger.accept()
        assert (True, 0) == _paced(await ledger.claim(pace=Pace(interval_us=60_000_000, burst=1)))
        await ledger.client.delete(agent_key("bucket"))
    await ledger.operating.pause(AGENT, lasts_ms=300, who="ada", reason="")
    await ledger.accept()
    claims = []

    async def goes_on() -> bool:
        claims.append(await ledger.delivery.claim(AGENT, "lane", most=1, limits=Limits(pace=pace)))
        return claims[-1] is not None

    await until(goes_on, "the pause is over")
    assert 0 == claims[-1].paced_ms


def _paced(claim):
    return claim.paced, claim.paced_ms


@pytest.mark.parametrize(
    ("interval_us", "burst", "expected"),
    [(0, 1, 64), (100, 10_000, 64), (1_000, 1_000, 50), (10_000, 100, 5), (1_000_000, 10, 1)],
)
async def test_a_claim_takes_at_most_fifty_milliseconds_worth(ledger, interval_us, burst, expected):
    """A lane takes no more at a time than the rate sends in 50 ms, at least one."""
    await asyncio.gather(*(ledger.accept() for _ in range(70)))
    claim = await ledger.claim(64, pace=Pace(interval_us=interval_us, burst=burst))
    assert expected == len(claim.messages)


async def test_a_bucket_from_the_future_is_clamped(ledger):
    """After a failover to a clock that is behind, an agent waits for its burst at most."""
    await ledger.accept()
    bucket, pace = agent_key("bucket"), Pace(interval_us=1_000, burst=50)
    await ledger.client.set(bucket, str(1000 * await ledger.now() + 3_600_000_000))
    await until(lambda: _claims_one(ledger, pace), "the burst is over", seconds=0.5)


async def _claims_one(ledger, pace):
    return (await ledger.claim(1, pace=pace)).messages


@pytest.mark.parametrize("interval_us", [720_000_000, 3_600_000_000])
async def test_a_slow_rate_is_remembered_as_long_as_it_counts(ledger, interval_us):
    """The bucket lives until its arrival time, however slow the rate is."""
    await ledger.accept()
    await ledger.claim_one(pace=Pace(interval_us=interval_us, burst=1))
    assert interval_us / 1000 - 5_000 <= await ledger.client.pttl(agent_key("bucket"))


async def test_a_message_that_waits_for_nobody_ends(ledger):
    """A record that was meddled with holds up no lane: the message ends as its recipients say, and the others go."""
    broken, other = await ledger.accept(), await ledger.accept_later()
    await ledger.client.hset(keys.record_key(broken.id), "rr", "s")
    claim = await ledger.claim()
    assert [(broken.id, State.SENT)] == [(ended.id, ended.state) for ended in claim.ended]
    assert [other.id] == [message.id for message in claim.messages]
    assert 0 == (await ledger.balance.rows())[0].unaccounted
