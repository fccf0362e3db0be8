"""Accepting: one ref is one message, and times make sense by Redis's clock."""

import asyncio

import pytest
from redis.asyncio import Redis

from postroom.ledger import keys
from postroom.ledger.accept import GROUP_LIMIT, Created, Exists, Untimely
from postroom.ledger.digests import Digests, differing
from postroom.states import State
from tests.ledger.harness import AGENT, CALLER, DAY_MS, DIGESTS, make_offer

MONTH_MS = 30 * DAY_MS


async def test_an_offer_is_recorded(ledger):
    """What is created is queued and due at once, with its deadline a lifetime later."""
    before = await ledger.now()
    offer = make_offer(2, client_ref="order-1")
    reply = await ledger.acceptance.accept(offer)
    assert isinstance(reply, Created)
    assert before <= reply.accepted_at <= await ledger.now()
    assert (reply.accepted_at, reply.accepted_at + DAY_MS) == (reply.due, reply.deadline)
    stored = await ledger.stored(offer.id)
    record = stored.record
    assert ("order-1", AGENT, CALLER, State.QUEUED) == (
        record.client_ref,
        record.agent,
        record.caller,
        record.state,
    )
    assert offer.payload == stored.payload
    assert [State.QUEUED] * 2 == [recipient.state for recipient in record.recipients]
    assert ["message.accepted"] == [event.type for event in record.timeline]
    assert {"h": {}, "n": {offer.id: reply.due}, "b": {}} == await ledger.queues()
    assert reply.due == await ledger.agenda()


async def test_a_known_ref_answers_its_message_with_its_live_state(ledger):
    """The same ref finds the first message, as it stands now, and writes nothing."""
    first = await ledger.accept(client_ref="order-1")
    again = make_offer(client_ref="order-1")
    reply = await ledger.acceptance.accept(again)
    assert isinstance(reply, Exists)
    assert (first.id, State.QUEUED, first.digests) == (reply.record.id, reply.record.state, reply.digests)
    await ledger.send()
    reply = await ledger.acceptance.accept(again)
    assert (first.id, State.SENT) == (reply.record.id, reply.record.state)
    assert await ledger.reading.message(again.id) is None
    assert {"h": {}, "n": {}, "b": {}} == await ledger.queues()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({1: b"a", 5: b"b"}, {1: b"a", 5: b"b"}, []),
        ({1: b"a", 5: b"b"}, {1: b"a", 5: b"c"}, [5]),
        ({1: b"a"}, {1: b"b", 2: b"x"}, [1, 2]),
        ({1: b"a", 16: b"high"}, {1: b"a"}, [16]),
        ({}, {9: b""}, [9]),
        ({}, {}, []),
        (dict.fromkeys(range(1, 128), b"|"), dict.fromkeys(range(1, 128), b"|"), []),
    ],
)
async def test_a_conflict_can_name_its_fields(ledger, first, second, expected):
    """What is stored under a ref tells which fields of another request differ, whatever bytes a digest has."""
    await ledger.accept(client_ref="order-1", fields=first)
    offer = make_offer(client_ref="order-1", fields=second)
    reply = await ledger.acceptance.accept(offer)
    assert expected == differing(reply.digests, offer.digests)


def test_digests_are_keyed_and_bounded():
    """Without the key nobody finds what a digest covers, and caller, agent and ref do not run together."""
    other = Digests(b"another key of 32 bytes, all mine")
    assert other.ref("a", "b", "c") != DIGESTS.ref("a", "b", "c")
    assert other.fields({1: b"x"}) != DIGESTS.fields({1: b"x"})
    assert 16 == len(DIGESTS.ref("a", "b", "c"))
    assert 10 == len(DIGESTS.fields({1: b"x", 2: b"y"}))
    variants = {("a", "b", "c"), ("ab", "", "c"), ("a", "bc", ""), ("b", "a", "c")}
    assert len(variants) == len({DIGESTS.ref(*variant) for variant in variants})


async def test_another_agent_or_caller_has_its_own_refs(ledger):
    """A ref names a message of one caller under one agent."""
    ids = set()
    for caller, agent in (("a", "orders"), ("a", "logins"), ("b", "orders")):
        ref = DIGESTS.ref(caller, agent, "order-1")
        ids.add((await ledger.accept(caller=caller, agent=agent, client_ref="order-1", ref=ref)).id)
    assert 3 == len(ids)
    pairs = [(agent, DIGESTS.ref("a", agent, "order-1")) for agent in ("orders", "none", "logins")]
    found = await ledger.reading.find(pairs)
    assert ["orders", "logins"] == [keys.agent_of(message_id) for message_id in found]


async def test_a_repeat_after_a_lost_reply_is_created(ledger):
    """The same offer twice is answered as created both times, and is one message in one queue."""
    offer = await ledger.accept()
    assert isinstance(await ledger.acceptance.accept(offer), Created)
    assert [offer.id] == list((await ledger.queues())["n"])
    held = await ledger.claim_one()
    assert isinstance(await ledger.acceptance.accept(offer), Created)
    assert 1 == held.fence
    assert State.SENDING == (await ledger.record(offer.id)).state


async def test_a_race_of_many_is_one_message(ledger):
    """However many race for one ref, one of them is created and the others find it."""
    offers = [make_offer(client_ref="order-1") for _ in range(50)]
    replies = await asyncio.gather(*(ledger.acceptance.accept(offer) for offer in offers))
    created = [offer.id for offer, reply in zip(offers, replies, strict=True) if isinstance(reply, Created)]
    assert 1 == len(created)
    assert {*created} == {reply.record.id for reply in replies if isinstance(reply, Exists)}
    assert created == list((await ledger.queues())["n"])


async def test_a_ref_whose_message_is_gone_is_free(ledger):
    """A ref that outlived its record names nothing, so it is taken anew."""
    offer = await ledger.accept(client_ref="order-1")
    await ledger.client.delete(keys.record_key(offer.id))
    assert isinstance(await ledger.acceptance.accept(make_offer(client_ref="order-1")), Created)


@pytest.mark.parametrize(
    ("send_in", "expected"),
    [
        (-61_000, Untimely("send_at_past")),
        (-3 * 365 * DAY_MS, Untimely("send_at_past")),
        (-59_000, 0),
        (5_000, 5_000),
        (MONTH_MS - 1_000, MONTH_MS - 1_000),
        (MONTH_MS + 1_000, Untimely("send_at_far")),
        (20 * 365 * DAY_MS, Untimely("send_at_far")),
    ],
)
async def test_send_at(ledger, send_in, expected):
    """A little past is now, more is refused, and nothing is scheduled more than 30 days ahead."""
    now = await ledger.now()
    offer = make_offer(send_at=now + send_in)
    reply = await ledger.acceptance.accept(offer)
    if isinstance(expected, Untimely):
        assert expected == reply
        assert await ledger.reading.message(offer.id) is None
        assert await ledger.client.dbsize() == 0
        return
    assert abs(now + expected - reply.due) < 500
    assert reply.due + DAY_MS == reply.deadline
    assert reply.due == await ledger.score(offer.id) == await ledger.agenda()


@pytest.mark.parametrize("time", [-1, -315_619_200_000, -62_135_596_800_000])
@pytest.mark.parametrize("field", ["send_at", "deliver_before"])
async def test_a_time_before_the_epoch_is_in_the_past(ledger, field, time):
    """A negative time is a time, long past."""
    assert isinstance(await ledger.acceptance.accept(make_offer(**{field: time})), Untimely)


@pytest.mark.parametrize(("before", "send_in"), [(-1, 0), (0, 0), (-DAY_MS, 0), (5_000, 6_000)])
async def test_deliver_before_must_leave_time(ledger, before, send_in):
    """A deadline before the message could be sent is refused."""
    now = await ledger.now()
    offer = make_offer(send_at=now + send_in if send_in else 0, deliver_before=now + before)
    assert Untimely("deliver_before_past") == await ledger.acceptance.accept(offer)


async def test_deliver_before_is_the_deadline(ledger):
    """An absolute deadline stands, whatever the lifetime says."""
    now = await ledger.now()
    reply = await ledger.acceptance.accept(make_offer(deliver_before=now + 5_000))
    assert now + 5_000 == reply.deadline


async def test_accept_rings_when_nobody_is_awake_once_a_second(ledger):
    """The first due message of a sleeping agent rings; the next second's do not, nor do scheduled ones."""
    rings = [(await ledger.acceptance.accept(make_offer())).ring for _ in range(3)]
    assert [True, False, False] == rings
    later = make_offer(agent="logins", send_at=await ledger.now() + 9_000)
    assert not (await ledger.acceptance.accept(later)).ring
    assert (await ledger.acceptance.accept(make_offer(agent="logins"))).ring
    assert 0 < await ledger.client.pttl(f"{keys.place_of(AGENT).prefix}rung:{AGENT}") <= 1000


async def test_accept_does_not_ring_while_lanes_live(ledger):
    """A live lane sees the mail by itself, and an idle one is told over the bell, once."""
    listening: Redis = ledger.client
    async with listening.pubsub() as bell:
        await bell.subscribe(keys.bell_channel(AGENT))
        assert "subscribe" == (await bell.get_message(timeout=5))["type"]
        await ledger.claim()
        assert [False, False] == [(await ledger.acceptance.accept(make_offer())).ring for _ in range(2)]
        assert "message" == (await bell.get_message(timeout=5))["type"]
        assert await bell.get_message(timeout=0.05) is None
        assert 2 == len((await ledger.claim()).messages)
        await ledger.accept()
        assert "message" == (await bell.get_message(timeout=5))["type"]


async def test_a_busy_lane_is_not_belled(ledger):
    """Where no idle lane listens, the bell stays silent: a busy lane looks again by itself."""
    async with ledger.client.pubsub() as bell:
        await bell.subscribe(keys.bell_channel(AGENT))
        assert "subscribe" == (await bell.get_message(timeout=5))["type"]
        await ledger.accept()
        await ledger.claim_one(listening=False)
        assert not (await ledger.acceptance.accept(make_offer())).ring
        assert await bell.get_message(timeout=0.05) is None


async def test_blobs_lie_beside_and_large_requests_travel_alone(ledger):
    """Attachments have keys of their own, are in no claim, and do not hold up the group."""
    blobs = (b"a" * GROUP_LIMIT, b"\x00\xff")
    offer = await ledger.accept(blobs=blobs)
    assert (0, 1) == (ledger.pipe.flushes, ledger.large.flushes)
    assert list(blobs) == await ledger.reading.blobs(offer.id, 2)
    assert [*blobs, None] == await ledger.reading.blobs(offer.id, 3)
    assert [] == await ledger.reading.blobs(offer.id, 0)
    assert 2 == (await ledger.claim_one()).blobs
    await ledger.accept()
    assert 1 == ledger.pipe.flushes


async def test_a_long_ref_comes_back_whole(ledger):
    """A ref longer than Redis's small values is stored in two and read in one."""
    client_ref = "a" * 64 + "b" * 64
    offer = await ledger.accept(client_ref=client_ref)
    assert client_ref == (await ledger.record(offer.id)).client_ref
    assert client_ref == (await ledger.claim_one()).client_ref
