"""`collapse_key`: of the messages with one key to one recipient only the newest is sent."""

import pytest

from postroom.ledger.accept import Brake, Created
from postroom.ledger.errors import LedgerFullError
from postroom.ledger.limits import Pace
from postroom.states import State
from tests.ledger.harness import CONTENT_MS, DAY_MS, DIGESTS, agent_key, make_offer
from tests.ledger.operator import do

ADA, BOB = (DIGESTS.collapse("checkout", "code", f"{name}@example.com") for name in ("ada", "bob"))


async def accept(ledger, *digests, **changes):
    """Accept a message to as many recipients as there are digests."""
    offer = make_offer(len(digests), collapse=digests, **changes)
    reply = await ledger.acceptance.accept(offer)
    assert isinstance(reply, Created)
    return offer.id, reply


async def test_of_three_only_the_newest_waits(ledger):
    """Each one ends the one before it, which says why; the tally knows where all of them are."""
    made = [await accept(ledger, ADA) for _ in range(3)]
    assert [[], [made[0][0]], [made[1][0]]] == [[ended.id for ended in r.superseded] for _, r in made]
    assert State.CANCELLED == made[2][1].superseded[0].state
    record = await ledger.record(made[0][0])
    assert (State.CANCELLED, "superseded") == (record.state, record.ended_by)
    assert ["message.accepted", "message.superseded", "message.cancelled"] == [
        e.type for e in record.timeline
    ]
    assert [made[2][0]] == [message.id for message in (await ledger.claim()).messages]
    tally = await ledger.client.hgetall(agent_key("tally").rpartition(":")[0])
    assert {b"orders|accepted": b"3", b"orders|cancelled": b"2"} == tally


async def test_a_claimed_message_is_taken_from_its_owner(ledger):
    """Before the commit mark a worker that holds it is stopped by the fence."""
    await accept(ledger, ADA)
    held = await ledger.claim_one()
    _, reply = await accept(ledger, ADA)
    assert [(held.id, State.CANCELLED)] == [(ended.id, ended.state) for ended in reply.superseded]
    assert 0 == await ledger.advance(held)


async def test_past_the_mark_it_is_too_late(ledger):
    """What the channel may have is left alone, and may still be sent."""
    await accept(ledger, ADA)
    held = await ledger.claim_one()
    await ledger.advance(held)
    _, reply = await accept(ledger, ADA)
    assert () == reply.superseded
    assert State.SENT == (await ledger.finish(held, "s")).state


@pytest.mark.parametrize(("claimed", "expected_fence"), [(False, 1), (True, 3)])
async def test_other_recipients_go_on_waiting(ledger, claimed, expected_fence):
    """Only the recipient that is written to again is ended; the others keep their place under a new fence."""
    first, accepted = await accept(ledger, ADA, BOB)
    held = None
    if claimed:
        held = await ledger.claim_one()
        await ledger.leave()
    _, reply = await accept(ledger, BOB, send_at=await ledger.now() + 60_000)
    assert ((), claimed) == (reply.superseded, reply.ring)
    assert ("qc", accepted.due) == (await ledger.letters(first), await ledger.score(first))
    if held is not None:
        assert 0 == await ledger.advance(held)
    again = await ledger.claim_one()
    assert (first, (0,), expected_fence) == (again.id, again.waiting, again.fence)
    assert 1 == await ledger.advance(again)
    assert State.PARTLY_SENT == (await ledger.finish(again, "s-")).state


async def test_a_recipient_in_doubt_is_unconfirmed(ledger):
    """What an earlier attempt may have sent is not called cancelled."""
    first, _ = await accept(ledger, ADA)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "a", delay_ms=60_000)
    _, reply = await accept(ledger, ADA)
    (ended,) = reply.superseded
    assert (first, State.UNCONFIRMED, "superseded") == (ended.id, ended.state, ended.how)


async def test_what_has_ended_or_is_gone_is_left_alone(ledger):
    """A sent, a cancelled and a forgotten message are nothing to supersede."""
    first, _ = await accept(ledger, ADA)
    await ledger.send()
    second, reply = await accept(ledger, ADA)
    assert () == reply.superseded
    assert State.SENT == (await ledger.record(first)).state
    await ledger.acceptance.cancel(second)
    _, reply = await accept(ledger, ADA)
    assert () == reply.superseded
    await ledger.client.flushall()
    assert () == (await accept(ledger, ADA))[1].superseded


async def test_a_held_message_is_superseded_too(ledger):
    """What a person or the storm brake holds up waits like any other."""
    first, _ = await accept(ledger, ADA, BOB)
    await ledger.client.hset(f"{agent_key('x').partition('x:')[0]}m:{first}", "hd", "paused|1|somebody")
    await accept(ledger, ADA)
    assert "cq" == await ledger.letters(first)
    _, reply = await accept(ledger, BOB)
    assert [first] == [ended.id for ended in reply.superseded]
    assert await ledger.score(first) is None


async def test_what_the_channel_may_have_is_not_tried_again(ledger):
    """An older message past its mark may arrive, but once it is put off the newer one has taken its place."""
    first, _ = await accept(ledger, ADA, BOB)
    held = await ledger.claim_one()
    await ledger.advance(held)
    _, reply = await accept(ledger, ADA)
    assert () == reply.superseded
    await ledger.finish(held, "dd", delay_ms=60_000)
    assert "cq" == await ledger.letters(first)
    held = await ledger.claim_one()
    assert first != held.id


async def test_a_mark_that_lapses_is_not_tried_again_either(ledger):
    """Where nobody knows whether the older message went out, it is unconfirmed, since a newer one exists."""
    first, _ = await accept(ledger, ADA)
    await ledger.advance(await ledger.claim_one())
    await accept(ledger, ADA)
    for _ in range(2):
        await ledger.lapse(first)
        claim = await ledger.claim(0)
    assert [(first, State.UNCONFIRMED)] == [(ended.id, ended.state) for ended in claim.ended]


async def test_the_same_recipient_twice_is_harmless(ledger):
    """A message never supersedes itself."""
    first, reply = await accept(ledger, ADA, ADA)
    assert ((), "qq") == (reply.superseded, await ledger.letters(first))
    _, reply = await accept(ledger, ADA)
    assert ((), "qc") == (reply.superseded, await ledger.letters(first))


async def test_a_message_ends_once_however_many_of_its_recipients_are_superseded(ledger):
    """Its end is told with the recipient that was the last to wait."""
    first, _ = await accept(ledger, ADA, BOB)
    _, reply = await accept(ledger, BOB, ADA)
    assert [first] == [ended.id for ended in reply.superseded]
    assert "cc" == await ledger.letters(first)


async def test_an_old_ref_supersedes_nothing(ledger):
    """A replay of the first message leaves the newest one alone, and a repeat of an offer leaves itself alone."""
    old = make_offer(client_ref="one", collapse=(ADA,))
    assert isinstance(await ledger.acceptance.accept(old), Created)
    newest, _ = await accept(ledger, ADA)
    await ledger.acceptance.accept(make_offer(client_ref="one", collapse=(ADA,)))
    reply = await ledger.acceptance.accept(old)
    assert () == reply.superseded
    assert State.QUEUED == (await ledger.record(newest)).state


async def test_the_key_lives_as_long_as_its_message_may_be_sent(ledger):
    """Until its deadline, a month more where that moves on while its agent stands, and as long as it may be retried."""
    key = agent_key("col") + ":" + ADA
    for standing, expected in ((False, DAY_MS + 3_600_000), (True, 31 * DAY_MS)):
        message_id, _ = await accept(ledger, ADA, standing_clock=standing)
        assert f"{message_id}|0".encode() == await ledger.client.get(key)
        assert 0 <= expected + CONTENT_MS - await ledger.client.pttl(key) < 60_000


@pytest.mark.parametrize(("codes", "in_doubt"), [("f", False), ("a", True)])
@pytest.mark.parametrize("newer_comes", ["after its end", "past its mark"])
async def test_an_older_one_is_not_tried_again_after_a_newer_one(ledger, codes, in_doubt, newer_comes):
    """Whoever asks for it: the recipient would have an old code on top of the new one."""
    older, _ = await accept(ledger, ADA, on_ambiguous="hold")
    held = await ledger.claim_one()
    await ledger.advance(held)
    if newer_comes == "past its mark":
        await accept(ledger, ADA)
    ended = (await ledger.finish(held, codes)).state
    if newer_comes == "after its end":
        assert () == (await accept(ledger, ADA))[1].superseded
    retried = await ledger.operating.retry(older, unconfirmed=in_doubt)
    assert (False, "superseded") == (retried.done, retried.answer)
    assert ended == (await ledger.record(older)).state


async def test_recipients_without_a_newer_one_are_tried_again(ledger):
    """Of two who were refused only the one is left out that has a newer message."""
    older, _ = await accept(ledger, ADA, BOB)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "ff")
    await accept(ledger, BOB)
    assert "again" == (await ledger.operating.retry(older)).answer
    assert "qf" == await ledger.letters(older)


async def test_a_refused_one_is_not_tried_again_though_others_of_its_message_waited(ledger):
    """The newer message came while the older one waited for its other recipient, or ended that one as well."""
    for newer in ((ADA,), (ADA, BOB)):
        older, _ = await accept(ledger, ADA, BOB)
        held = await ledger.claim_one()
        await ledger.advance(held)
        await ledger.finish(held, "fd", delay_ms=60_000)
        await accept(ledger, *newer)
        if newer == (ADA,):
            await ledger.acceptance.cancel(older)
        assert ("superseded", "fc") == (
            (await ledger.operating.retry(older)).answer,
            await ledger.letters(older),
        )
        await ledger.claim()


async def test_without_a_key_nothing_is_remembered(ledger):
    """Messages without a collapse key leave nothing and supersede nothing."""
    await ledger.accept()
    await ledger.accept()
    assert [] == await ledger.client.keys("*col:*")
    assert 2 == len((await ledger.queues())["n"])


async def test_a_full_redis_changes_nothing(own_ledger, redis_server):
    """An accept that is refused for want of memory supersedes nothing and counts nothing."""
    first, _ = await accept(own_ledger, ADA)
    assert b"+OK\r\n" == redis_server.command("CONFIG", "SET", "maxmemory", "100kb")
    newer = make_offer(collapse=(ADA,), storm=Brake(1, 60_000, (ADA,)))
    with pytest.raises(LedgerFullError):
        await own_ledger.acceptance.accept(newer)
    assert State.QUEUED == (await own_ledger.record(first)).state
    assert [] == await own_ledger.client.keys("*storm*")
    assert f"{first}|0".encode() == await own_ledger.client.get(agent_key("col") + ":" + ADA)


async def test_what_is_given_back_after_its_mark_is_superseded_all_the_same(ledger):
    """A channel's fault at the mark gives the older one back; the newer one has taken its place."""
    first, _ = await accept(ledger, ADA)
    held = await ledger.claim_one()
    await ledger.advance(held)
    newer, _ = await accept(ledger, ADA)
    await ledger.delivery.release("orders", [(held.id, held.fence)], pace=Pace())
    claim = await ledger.claim()
    assert [newer] == [message.id for message in claim.messages]
    assert [(first, State.CANCELLED)] == [(ended.id, ended.state) for ended in claim.ended]


async def test_what_only_takes_the_place_of_others_is_no_storm(ledger):
    """Three login codes behind a pause and a brake of two: the third is not held, for the others did not go out."""
    brake = Brake(2, 60_000, (ADA,))
    replies = [(await accept(ledger, ADA, storm=brake))[1] for _ in range(4)]
    assert [False] * 4 == [reply.braked for reply in replies]


def brake(limit=2, name="ada", window_ms=60_000):
    return Brake(limit, window_ms, (DIGESTS.storm("-", f"{name}@example.com"),))


async def test_a_chain_of_replacements_does_not_pass_the_storm_brake(ledger):
    """What takes the place of a message that the brake holds waits as well, without another event."""
    replies = []
    for number in range(9):
        replies.append((await accept(ledger, ADA, storm=brake()))[1])
        if number < 4:
            for held in (await ledger.claim()).messages:
                await ledger.advance(held)
                await ledger.finish(held, "s")
    assert [False] * 2 + [True] * 7 == [reply.braked for reply in replies]
    assert [2] == [number for number, reply in enumerate(replies) if reply.storm_began]
    assert 6 == sum(len(reply.superseded) for reply in replies)
    key = agent_key("storm") + ":" + brake().digests[0]
    assert b"3" == await ledger.client.get(key)
    assert {b"orders|accepted": b"9", b"orders|sent": b"2", b"orders|cancelled": b"6"} == (
        await ledger.client.hgetall(agent_key("tally").rpartition(":")[0])
    )


async def test_after_the_window_a_replacement_goes_out(ledger):
    """The brake counts anew: somebody who asks for a code hours later gets it."""
    await accept(ledger, ADA, storm=brake(1))
    await ledger.send()
    assert (await accept(ledger, ADA, storm=brake(1)))[1].braked
    await ledger.client.delete(agent_key("storm") + ":" + brake().digests[0])
    message_id, reply = await accept(ledger, ADA, storm=brake(1))
    assert (False, 1) == (reply.braked, len(reply.superseded))
    assert [message_id] == [message.id for message in (await ledger.claim()).messages]
    assert 0 < await ledger.client.pttl(agent_key("storm") + ":" + brake().digests[0])


async def test_what_was_let_go_is_replaced_without_a_brake(ledger):
    """Somebody released it: the newer one, which takes its place, goes too."""
    for _ in range(2):
        held, reply = await accept(ledger, BOB, storm=brake(1, "bob"))
        if not reply.braked:
            await ledger.send()
    assert reply.braked
    await do(ledger, "release")
    message_id, reply = await accept(ledger, BOB, storm=brake(1, "bob"))
    assert ([held], False) == ([ended.id for ended in reply.superseded], reply.braked)
    assert [message_id] == [message.id for message in (await ledger.claim()).messages]


async def test_what_may_have_gone_out_counts(ledger):
    """A message that an attempt may have sent was mail: the one after it is another."""
    await accept(ledger, ADA, storm=brake(1))
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "a", delay_ms=60_000)
    _, reply = await accept(ledger, ADA, storm=brake(1))
    assert ([State.UNCONFIRMED], True) == ([ended.state for ended in reply.superseded], reply.braked)


async def test_what_a_person_holds_is_held_in_its_newer_version(ledger):
    """A hold is over the place in the queue: a newer message does not slip past it, and is released with the rest."""
    older, _ = await accept(ledger, ADA)
    await do(ledger, "pause")
    hold = (await ledger.record(older)).hold
    newer, reply = await accept(ledger, ADA, storm=brake())
    assert ("paused", "ada", "wrong price") == (hold.code, hold.who, hold.why)
    assert (hold, hold, False, False) == (
        reply.hold,
        (await ledger.record(newer)).hold,
        reply.braked,
        reply.ring,
    )
    assert reply.deadline == await ledger.score(newer)
    assert () == (await ledger.claim()).messages
    assert 1 == (await do(ledger, "release")).done
    assert newer == (await ledger.claim_one()).id


async def test_a_newer_version_is_held_as_long_as_the_older_one_would_have_been(ledger):
    """The end of a hold is taken over too."""
    older, _ = await accept(ledger, ADA)
    till = await ledger.now() + 3_600_000
    await do(ledger, "pause", till=till)
    newer, reply = await accept(ledger, ADA)
    assert (till, till) == (reply.hold.till, (await ledger.record(newer)).hold.till)
    assert till == await ledger.score(newer)
    assert State.CANCELLED == (await ledger.record(older)).state


async def test_one_held_recipient_of_several_holds_the_newer_message(ledger):
    """A message is one mail: it waits if any of those it takes the place of is held."""
    await accept(ledger, BOB)
    await do(ledger, "pause")
    _, reply = await accept(ledger, ADA, BOB)
    assert "paused" == reply.hold.code
