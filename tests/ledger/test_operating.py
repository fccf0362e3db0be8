"""The operator's hand: pauses, preferences, acts by filter, and messages tried or settled again."""

import pytest

from postroom.ledger import keys
from postroom.ledger.limits import UNLIMITED, Limits
from postroom.ledger.operating import CHANGED, LOOKED_AT, Position
from postroom.states import State
from tests.ledger.harness import AGENT, agent_key, until
from tests.ledger.operator import accept_of, do, make_act, make_unconfirmed

HOUR_MS = 3_600_000


async def may_claim(ledger, agent=AGENT):
    """Ask for a lane as a worker does, and leave it again."""
    claim = await ledger.delivery.claim(agent, "asks", most=0, limits=Limits())
    await ledger.leave("asks", agent)
    return claim is not None


async def listen(ledger, agent=AGENT):
    """Return a confirmed listener of the agent's bell."""
    bell = ledger.client.pubsub(ignore_subscribe_messages=False)
    await bell.subscribe(keys.bell_channel(agent))
    assert "subscribe" == (await bell.get_message(timeout=5))["type"]
    return bell


async def hold_fields(ledger, message_id):
    hd, hw = await ledger.client.hmget(keys.record_key(message_id), "hd", "hw")
    return (hd or b"").decode(), (hw or b"").decode()


async def test_nothing_of_a_paused_agent_is_claimed(ledger):
    """Whoever wants to claim is told, lanes hear the bell, and resuming asks for a round."""
    offer = await ledger.accept()
    bell = await listen(ledger)
    since, till = await ledger.operating.pause(AGENT, lasts_ms=0, who="ada", reason="wrong price")
    assert b"x" == (await bell.get_message(timeout=5))["data"]
    await bell.aclose()
    assert not await may_claim(ledger)
    standing = await ledger.reading.standing(AGENT)
    assert (True, since, 0, "ada", "wrong price") == (
        standing.paused, standing.pause.since, till, standing.pause.who, standing.pause.reason,
    )  # fmt: skip
    await ledger.client.delete(agent_key("rung"))
    assert (True, True) == await ledger.operating.resume(AGENT)
    assert offer.id == (await ledger.claim_one()).id
    assert (await ledger.reading.standing(AGENT)).pause is None


async def test_another_agent_goes_on(ledger):
    """A pause is of one agent."""
    await ledger.accept(agent="logins")
    await ledger.operating.pause(AGENT, lasts_ms=0, who="ada", reason="x")
    assert await may_claim(ledger, "logins")


async def test_pausing_again_replaces_reason_and_end_and_keeps_its_beginning(ledger):
    """The second pause is the same standstill with other words."""
    since, _ = await ledger.operating.pause(AGENT, lasts_ms=0, who="ada", reason="first")
    await until(lambda: later(ledger, since), "a millisecond")
    again, till = await ledger.operating.pause(AGENT, lasts_ms=HOUR_MS, who="bob", reason="second")
    standing = await ledger.reading.standing(AGENT)
    assert (since, since) == (again, standing.since)
    assert ("bob", "second", till) == (standing.pause.who, standing.pause.reason, standing.pause.till)
    assert HOUR_MS == pytest.approx(till - since, abs=5000)


async def later(ledger, ms):
    return await ledger.now() > ms


async def test_a_pause_with_an_end_ends_by_itself(ledger):
    """After its time the agent is claimed from again, and only the pause's time has stood still."""
    await ledger.accept()
    _, till = await ledger.operating.pause(AGENT, lasts_ms=60, who="ada", reason="x")
    assert not await may_claim(ledger)
    await until(lambda: later(ledger, till), "the end of the pause")
    assert await may_claim(ledger)
    assert not (await ledger.operating.resume(AGENT))[0]
    assert 60 == pytest.approx((await ledger.reading.standing(AGENT)).stood_still, abs=5)


async def test_resuming_who_is_not_paused_says_so(ledger):
    """No pause, no mail: nothing held and nothing to ring for."""
    assert (False, False) == await ledger.operating.resume(AGENT)


async def test_a_standing_clock_stands_while_paused(ledger):
    """The deadline moves on by the pause; an absolute one does not."""
    standing = await ledger.accept(standing_clock=True)
    absolute = await ledger.accept()
    since, till = await ledger.operating.pause(AGENT, lasts_ms=40, who="ada", reason="x")
    await until(lambda: later(ledger, till), "the end of the pause")
    await ledger.operating.resume(AGENT)
    stored = await ledger.stored(standing.id)
    assert till - since == pytest.approx(stored.deadline - stored.record.deadline, abs=5)
    stored = await ledger.stored(absolute.id)
    assert stored.deadline == stored.record.deadline


async def test_a_preferred_channel_is_told_and_taken_back(ledger):
    """Version and bell tell the lanes; an empty name clears it."""
    before = (await ledger.reading.standing(AGENT)).version
    till = await ledger.operating.prefer(AGENT, "backup", lasts_ms=HOUR_MS)
    standing = await ledger.reading.standing(AGENT)
    assert ("backup", till, before + 1) == (standing.preferred, standing.preferred_till, standing.version)
    assert 0 == await ledger.operating.prefer(AGENT, "", lasts_ms=0)
    standing = await ledger.reading.standing(AGENT)
    assert (None, before + 2) == (standing.preferred, standing.version)


@pytest.mark.parametrize(("verb", "state"), [("cancel", State.CANCELLED), ("expire", State.EXPIRED)])
async def test_what_the_filter_names_ends_and_nothing_else(ledger, verb, state):
    """Template, caller and time of acceptance each narrow it; the count before says the same."""
    wrong = [await accept_of(ledger, "price", priority=p) for p in ("high", "normal", "bulk")]
    other = [
        await accept_of(ledger, "prices"),
        await accept_of(ledger, "price", caller="billing"),
        await ledger.accept(),
    ]
    wanted = {"template": "price", "caller": "checkout", "accepted_before": await ledger.now() + 1}
    assert 3 == (await do(ledger, verb, counts_only=True, **wanted)).done
    assert 0 == (await do(ledger, verb, template="price", accepted_before=1)).done
    acted = await do(ledger, verb, **wanted)
    assert (3, 0) == acted[:2]
    assert {(o.id, state) for o in wrong} == {(one.id, one.state) for one in acted.ended}
    assert [state] * 3 == [(await ledger.record(o.id)).state for o in wrong]
    assert [State.QUEUED] * 3 == [(await ledger.record(o.id)).state for o in other]
    assert 0 == (await do(ledger, verb, **wanted)).done


@pytest.mark.parametrize("verb", ["pause", "cancel", "expire"])
async def test_scheduled_mail_is_left_out_where_it_is_to_be(ledger, verb):
    """By its `send_at` alone: what waits for another attempt, is due, or was scheduled and has come, is meant."""
    ahead = await ledger.accept(send_at=await ledger.now() + 9 * 86_400_000)
    retrying = await ledger.accept()
    await ledger.finish(await ledger.claim_one(), "d", delay_ms=3_600_000)
    moment = await ledger.now() + 20
    come, due = await ledger.accept(send_at=moment), await ledger.accept()

    async def has_come() -> bool:
        return await ledger.now() >= moment

    await until(has_come, "its send_at")
    assert 4 == (await do(ledger, verb, counts_only=True)).done
    assert 3 == (await do(ledger, verb, counts_only=True, skip_scheduled=True)).done
    assert 3 == (await do(ledger, verb, skip_scheduled=True)).done
    left = await ledger.record(ahead.id)
    assert (State.QUEUED, None) == (left.state, left.hold)
    for offer in (retrying, come, due):
        record = await ledger.record(offer.id)
        assert record.hold or record.state in (State.CANCELLED, State.EXPIRED)


async def test_a_count_changes_nothing(ledger):
    """Only counting leaves queue, records and the sums of acts alone."""
    offer = await accept_of(ledger, "price")
    before = sorted(await ledger.client.keys("*")), await ledger.queues()
    for verb in ("pause", "cancel", "expire"):
        assert (1, 0) == (await do(ledger, verb, counts_only=True))[:2]
    assert 0 == (await do(ledger, "release", counts_only=True)).done
    assert before == (sorted(await ledger.client.keys("*")), await ledger.queues())
    assert State.QUEUED == (await ledger.record(offer.id)).state


async def test_leased_mail_is_reached_before_its_mark_and_not_after(ledger):
    """The owner before its mark loses its fence; one past it is counted as too late."""
    await ledger.accept()
    await ledger.accept()
    early, marked = (await ledger.claim(2)).messages
    assert 1 == await ledger.advance(marked)
    assert (1, 1) == (await do(ledger, "cancel", counts_only=True))[:2]
    acted = await do(ledger, "cancel")
    assert (1, 1) == acted[:2]
    assert 0 == await ledger.advance(early)
    assert State.SENT == (await ledger.finish(marked, "s")).state


async def test_held_mail_waits_until_it_is_released(ledger):
    """Held mail is not due before its time is up, says who and why, and comes back to its old place."""
    offer = await ledger.accept()
    due = await ledger.score(offer.id)
    held = await ledger.claim_one()
    assert 1 == (await do(ledger, "pause")).done
    assert 0 == (await do(ledger, "pause")).done
    word, since, who = (await hold_fields(ledger, offer.id))[0].split("|")
    assert ("paused", "ada", "wrong price") == (word, who, (await hold_fields(ledger, offer.id))[1])
    assert int(since) == pytest.approx(await ledger.now(), abs=5000)
    assert 0 == await ledger.advance(held)
    assert (await ledger.record(offer.id)).deadline == await ledger.score(offer.id)
    assert () == (await ledger.claim()).messages
    await ledger.leave()
    acted = await do(ledger, "release")
    assert (1, True) == (acted.done, acted.ring)
    assert ("", "") == await hold_fields(ledger, offer.id)
    assert due == await ledger.score(offer.id)
    assert offer.id == (await ledger.claim_one()).id


async def test_held_mail_expires_in_its_time(ledger):
    """Holding takes nothing from a deadline."""
    offer = await ledger.accept()
    await do(ledger, "pause")
    await ledger.end_deadline(offer.id)
    await ledger.lapse(offer.id)
    assert [(offer.id, State.EXPIRED)] == [(e.id, e.state) for e in (await ledger.claim()).ended]


async def test_held_mail_goes_on_by_itself_where_its_hold_has_an_end(ledger):
    """At its end it is claimed as it would have been; before, a claim that meets it leaves it where it is."""
    offer = await ledger.accept()
    till = await ledger.now() + HOUR_MS
    assert 1 == (await do(ledger, "pause", till=till)).done
    assert till == await ledger.score(offer.id)
    hold = (await ledger.record(offer.id)).hold
    assert ("paused", "ada", "wrong price", till) == (hold.code, hold.who, hold.why, hold.till)
    await ledger.client.zadd(agent_key("q") + ":n", {offer.id: 1})
    assert () == (await ledger.claim()).messages
    assert till == await ledger.score(offer.id)
    await ledger.client.hset(keys.record_key(offer.id), "hu", await ledger.now() - 1)
    await ledger.client.zadd(agent_key("q") + ":n", {offer.id: 1})
    claimed = await ledger.claim_one()
    assert offer.id == claimed.id
    assert (await ledger.record(offer.id)).hold is None
    assert 1 == await ledger.advance(claimed)


async def test_a_hold_that_ends_takes_nothing_from_send_at_or_a_deadline(ledger):
    """What is scheduled waits on for its own time; what is over its time before the hold is ends then."""
    scheduled = await ledger.accept(send_at=await ledger.now() + HOUR_MS)
    due = await ledger.score(scheduled.id)
    await do(ledger, "pause", till=await ledger.now() + HOUR_MS // 2)
    await ledger.client.hset(keys.record_key(scheduled.id), "hu", await ledger.now() - 1)
    await ledger.client.zadd(agent_key("q") + ":n", {scheduled.id: 1})
    assert () == (await ledger.claim()).messages
    assert due == await ledger.score(scheduled.id)
    brief = await ledger.accept(lifetime=HOUR_MS)
    await do(ledger, "pause", till=await ledger.now() + 48 * HOUR_MS)
    assert (await ledger.record(brief.id)).deadline == await ledger.score(brief.id)


async def test_mail_held_by_the_storm_brake_is_released_as_well(ledger):
    """Who held it makes no difference."""
    offer = await ledger.accept()
    await ledger.client.hset(keys.record_key(offer.id), mapping={"hd": "storm|1|order_shipped", "hw": "x"})
    assert 1 == (await do(ledger, "release")).done
    assert offer.id == (await ledger.claim_one()).id


async def test_released_mail_that_is_scheduled_stays_so(ledger):
    """Back to its own time, and no round is asked for."""
    offer = await ledger.accept(send_at=await ledger.now() + HOUR_MS)
    due = await ledger.score(offer.id)
    await do(ledger, "pause")
    acted = await do(ledger, "release")
    assert (1, False) == (acted.done, acted.ring)
    assert due == await ledger.score(offer.id)


async def test_many_are_done_in_slices_while_workers_go_on(ledger):
    """Nothing is missed although the queue moves under the act, and every one is counted once."""
    offers = [await ledger.accept() for _ in range(2 * CHANGED + 40)]
    taken = []
    ended = []
    async for found in ledger.operating.act(make_act("cancel"), AGENT):
        ended += [one.id for one in found.ended]
        if len(taken) < 30:
            for held in (await ledger.claim(15)).messages:
                await ledger.advance(held)
                await ledger.finish(held, "s")
                taken.append(held.id)
    assert (len(offers), found.done) == (len({*ended, *taken}), len(ended))
    assert {} == {i: s for queue in (await ledger.queues()).values() for i, s in queue.items()}


@pytest.mark.parametrize("of_one_moment", [False, True])
async def test_none_that_waits_is_passed_over_while_those_before_it_go(ledger, of_one_moment):
    """One wrong mail among many: others end between two slices, of one moment or of many, and it is found."""
    send_at = await ledger.now() + HOUR_MS if of_one_moment else 0
    early = [await accept_of(ledger, "fine", send_at=send_at) for _ in range(LOOKED_AT + 60)]
    wrong = await accept_of(ledger, "wrong", send_at=send_at)
    await accept_of(ledger, "fine", send_at=send_at)
    act, at, found = make_act("cancel", template="wrong"), Position(), None
    while at is not None:
        found = await anext(ledger.operating.act(act, AGENT, at, seconds=0))
        at = found.goes_on if found.goes_on is None or found.goes_on.passes == 0 else None
        for _ in range(70):
            if early:
                await ledger.operating.cancel(early.pop(0).id)
    assert 1 == found.done
    assert State.CANCELLED == (await ledger.record(wrong.id)).state


async def test_what_is_in_a_workers_hands_is_looked_for_again(ledger):
    """An act that found nothing at first makes a second pass: what was given back meanwhile is not passed over."""
    wrong = await accept_of(ledger, "wrong")
    held = await ledger.claim_one()
    act = ledger.operating.act(make_act("cancel", template="wrong"), AGENT, seconds=0)
    await ledger.advance(held)
    first = await anext(act)
    assert (0, 1, 1) == (first.done, first.too_late, first.goes_on.passes)
    await ledger.delivery.release(AGENT, [(held.id, held.fence)], pace=UNLIMITED)
    done = [
        found
        async for found in ledger.operating.act(make_act("cancel", template="wrong"), AGENT, first.goes_on)
    ]
    assert 1 == done[-1].done
    assert State.CANCELLED == (await ledger.record(wrong.id)).state


async def test_a_lost_answer_is_made_good(ledger):
    """Whoever goes on from before the answer that got lost is told everything the act did."""
    for _ in range(CHANGED + 5):
        await ledger.accept()
    act = make_act("cancel")
    slices = ledger.operating.act(act, AGENT)
    await anext(slices)
    await slices.aclose()
    again = [found async for found in ledger.operating.act(act, AGENT, Position())]
    assert CHANGED + 5 == again[-1].done


async def test_a_full_redis_is_no_obstacle(own_ledger):
    """When Redis takes nothing new, an operator still pauses, ends wrong mail, and settles what is in doubt."""
    ledger = own_ledger
    doubtful = await make_unconfirmed(ledger)
    failed, *_ = [await ledger.accept() for _ in range(5)]
    await do(ledger, "expire", accepted_before=(await ledger.record(failed.id)).accepted_at + 1)
    await ledger.client.config_set("maxmemory", 1)
    await ledger.operating.pause(AGENT, lasts_ms=0, who="ada", reason="x")
    await ledger.operating.prefer(AGENT, "backup", lasts_ms=HOUR_MS)
    await do(ledger, "pause")
    assert (await ledger.operating.retry(failed.id)).done
    assert (await do(ledger, "cancel")).done
    assert (await ledger.operating.resolve(doubtful.id)).by_us
    assert (await ledger.operating.resume(AGENT))[0]
    assert {} == {i: s for queue in (await ledger.queues()).values() for i, s in queue.items()}


async def test_a_message_is_cancelled_by_the_operator(ledger):
    """As a caller's cancel, with who did it on record."""
    offer = await ledger.accept()
    resolved = await ledger.operating.cancel(offer.id)
    assert (State.CANCELLED, True) == (resolved.state, resolved.by_us)
    assert b"operator" == await ledger.client.hget(keys.record_key(offer.id), "w")
    again = await ledger.operating.cancel(offer.id)
    assert (State.CANCELLED, False) == (again.state, again.by_us)
