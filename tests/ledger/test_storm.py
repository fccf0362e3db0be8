"""The storm brake: beyond its limit mail of one template to one recipient waits until somebody releases it."""

import pytest

from postroom.ledger.accept import Brake, Created, Exists
from postroom.ledger.digests import Digests
from postroom.states import State
from tests.ledger.harness import DIGESTS, agent_key, make_offer

MINUTE_MS = 60_000


def brake(limit=2, window_ms=MINUTE_MS, recipients=("ada0@example.com",), template="-"):
    """Return the brake over an offer to these recipients."""
    return Brake(limit, window_ms, tuple(DIGESTS.storm(template, address) for address in recipients))


async def accept(ledger, **options):
    """Accept a message under a brake; return its id and what was answered."""
    changes = {
        k: options.pop(k) for k in ("send_at", "lifetime", "client_ref", "standing_clock") if k in options
    }
    offer = make_offer(storm=brake(**options), **changes)
    reply = await ledger.acceptance.accept(offer)
    assert isinstance(reply, Created)
    return offer.id, reply


async def test_beyond_the_limit_mail_waits_and_the_first_one_says_so(ledger):
    """The limit itself passes; what comes after is held to the end of its time, with one event a window."""
    replies = [await accept(ledger) for _ in range(5)]
    assert [False, False, True, True, True] == [reply.braked for _, reply in replies]
    assert [False, False, True, False, False] == [reply.storm_began for _, reply in replies]
    message_id, reply = replies[2]
    record = await ledger.record(message_id)
    assert (State.QUEUED, "storm", reply.accepted_at) == (record.state, record.hold.code, record.hold.since)
    assert ["message.accepted", "message.braked"] == [event.type for event in record.timeline]
    assert (reply.deadline, reply.accepted_at) == (await ledger.score(message_id), record.next_at)
    assert {i for i, _ in replies[:2]} == {m.id for m in (await ledger.claim()).messages}


async def test_a_held_message_wakes_nobody_and_stays_on_the_agenda(ledger):
    """It rings for no round; the agenda knows of the end of its time."""
    _, reply = await accept(ledger, limit=1)
    assert reply.ring
    await ledger.send()
    await ledger.leave()
    _, reply = await accept(ledger, limit=1)
    assert (True, False) == (reply.braked, reply.ring)
    assert (await ledger.claim(leave=True)).left
    assert reply.deadline == await ledger.agenda()


async def test_a_held_message_whose_time_is_up_ends(ledger):
    """Nobody released it, so it expires like any other."""
    await accept(ledger, limit=1)
    await ledger.send()
    message_id, _ = await accept(ledger, limit=1)
    await ledger.end_deadline(message_id)
    await ledger.lapse(message_id)
    claim = await ledger.claim()
    assert [(message_id, State.EXPIRED)] == [(ended.id, ended.state) for ended in claim.ended]
    assert (await ledger.record(message_id)).hold is None


async def test_each_recipient_and_template_has_its_own_window(ledger):
    """Other recipients, templates and agents are not held up, and the window ends by itself."""
    for _ in range(2):
        await accept(ledger, limit=1)
    for other in ({"recipients": ("bob@example.com",)}, {"template": "login_code"}):
        assert not (await accept(ledger, limit=1, **other))[1].braked
    reply = await ledger.acceptance.accept(make_offer(agent="logins", storm=brake(1)))
    assert not reply.braked
    key = agent_key("storm") + ":" + DIGESTS.storm("-", "ada0@example.com")
    assert b"2" == await ledger.client.get(key)
    assert 0 < await ledger.client.pttl(key) <= MINUTE_MS
    await ledger.client.pexpire(key, 1)
    while await ledger.client.exists(key):
        pass
    assert not (await accept(ledger, limit=1))[1].braked


async def test_one_recipient_too_many_holds_the_whole_message(ledger):
    """A message is one mail: it waits if any of its recipients has had enough."""
    await accept(ledger, limit=1)
    _, reply = await accept(ledger, limit=1, recipients=("bob@example.com", "ada0@example.com"))
    assert (True, True) == (reply.braked, reply.storm_began)


async def test_only_what_is_created_counts(ledger):
    """Replays, conflicts, refused times and repeats of the same offer are not a second message."""
    offer = make_offer(client_ref="one", storm=brake(1))
    again = make_offer(client_ref="one", storm=brake(1))
    late = make_offer(send_at=1, storm=brake(1))
    assert isinstance(await ledger.acceptance.accept(offer), Created)
    for other in (offer, again, late):
        reply = await ledger.acceptance.accept(other)
        assert not isinstance(reply, Created) or not reply.braked
    assert isinstance(await ledger.acceptance.accept(again), Exists)
    key = agent_key("storm") + ":" + DIGESTS.storm("-", "ada0@example.com")
    assert b"1" == await ledger.client.get(key)


async def test_an_offer_without_a_brake_leaves_nothing(ledger):
    """Without one, or with nobody to count, no counter is written."""
    await ledger.accept()
    await ledger.accept(storm=Brake(1, MINUTE_MS, ()))
    assert [] == await ledger.client.keys("*storm*")


@pytest.mark.parametrize(
    "named", [DIGESTS.storm("t", "ada@example.com"), DIGESTS.collapse("c", "k", "ada@example.com")]
)
def test_no_key_tells_an_address(named):
    """What is counted by is a keyed digest, so that nobody who reads the keys can guess an address."""
    other = Digests(b"another key of 32 bytes, all mine")
    assert 16 == len(named)
    assert named not in (other.storm("t", "ada@example.com"), other.collapse("c", "k", "ada@example.com"))


async def test_a_held_message_is_not_taken_before_it_is_due_again(ledger):
    """With nothing but held mail a claim finds nothing, and says when the first one's time is up."""
    await accept(ledger, limit=1, lifetime=MINUTE_MS)
    await ledger.send()
    _, reply = await accept(ledger, limit=1, lifetime=MINUTE_MS)
    claim = await ledger.claim()
    assert ((), False) == (claim.messages, claim.more)
    assert 0 < claim.next_in_ms <= MINUTE_MS
    assert reply.braked
