"""What the ledger keeps an agent to over all workers: its day, its width after a throttle, probes, refusals."""

import pytest

from postroom.ledger.limits import Limits, Pace, Stop
from postroom.outcome import Cause, ChannelFault, Phase
from postroom.states import State
from tests.ledger.harness import AGENT, agent_key

DAY = 86_400_000


async def day_of(ledger, per_day):
    """Return a pace whose day began an hour ago."""
    start = await ledger.now() - 3_600_000
    return Pace(per_day=per_day, midnights=(start - DAY, start, start + DAY, start + 2 * DAY))


async def mark(ledger, held, pace):
    known = "".join("a" if i in held.waiting else "-" for i in range(held.recipients))
    return await ledger.delivery.advance(held.id, held.fence, known, "relay", pace)


async def test_a_day_counts_recipients_at_the_mark(ledger):
    """Five recipients a day: messages of two go until a third would not fit, and then wait for midnight."""
    pace = await day_of(ledger, 5)
    for _ in range(3):
        await ledger.accept(2)
    claim = await ledger.claim(pace=pace)
    assert 2 == len(claim.messages)
    assert [1, 1] == [await mark(ledger, held, pace) for held in claim.messages]
    claim = await ledger.claim(pace=pace)
    assert ((), False) == (claim.messages, claim.more)
    assert 82_000_000 < claim.next_in_ms <= 82_800_000
    small = await ledger.accept(1, priority="high")
    assert [small.id] == [held.id for held in (await ledger.claim(pace=pace)).messages]


async def test_a_mark_beyond_the_day_is_refused(ledger):
    """Two workers that claimed at once cannot go beyond the day together: the mark is what counts."""
    pace = await day_of(ledger, 1)
    await ledger.accept()
    await ledger.accept()
    (first,) = (await ledger.claim(1, lane="a")).messages
    (second,) = (await ledger.claim(1, lane="b")).messages
    assert [1, -2] == [await mark(ledger, held, pace) for held in (first, second)]


async def test_a_new_day_begins_at_midnight(ledger):
    """What was counted belongs to its day."""
    pace = await day_of(ledger, 1)
    await ledger.accept()
    await mark(ledger, await ledger.claim_one(pace=pace), pace)
    await ledger.accept()
    assert () == (await ledger.claim(pace=pace)).messages
    tomorrow = Pace(per_day=1, midnights=tuple(m + 3_500_000 for m in pace.midnights))
    assert 1 == len((await ledger.claim(pace=tomorrow)).messages)


async def throttle(ledger, connections=10):
    fault = ChannelFault(Cause.THROTTLE, Phase.MAIL, "slow down")
    stop = Stop(1, 1000, 1, 1)
    return await ledger.delivery.stop_channel(
        AGENT, "relay", fault, channels=("relay",), stop=stop, connections=connections
    )


async def test_a_throttle_halves_the_connections_and_sending_gives_them_back(ledger):
    """Eight lanes become four; twenty messages sent bring back a fifth, and never more than `connections`."""
    for lane in range(8):
        await ledger.claim(lane=f"lane{lane}", connections=8)
    await throttle(ledger, 8)
    claims = [await ledger.delivery.claim(AGENT, f"lane{n}", most=1, limits=Limits(8)) for n in range(8)]
    assert 4 == sum(claim is not None for claim in claims)
    for _ in range(20):
        await ledger.accept()
    lane = next(f"lane{n}" for n, claim in enumerate(claims) if claim is not None)
    for _ in range(20):
        held = await ledger.claim_one(lane=lane, connections=8)
        await ledger.finish(held, "s", limits=Limits(8))
    assert b"5" == await ledger.client.hget(agent_key("width"), "w")


async def test_one_lane_at_a_time_probes(ledger):
    """After its stop a channel is tried by one lane of all workers, until it works, fails again, or the lane is gone."""
    assert 0 == await ledger.delivery.ask_probe(AGENT, "relay", "a")  # it never had a fault
    await throttle(ledger)
    await ledger.claim(lane="a")
    while await ledger.delivery.ask_probe(AGENT, "relay", "a"):
        pass
    assert 0 == await ledger.delivery.ask_probe(AGENT, "relay", "a")
    assert 0 < await ledger.delivery.ask_probe(AGENT, "relay", "b")
    await ledger.leave("a")
    assert 0 == await ledger.delivery.ask_probe(AGENT, "relay", "b")
    assert await ledger.mend("relay")
    assert 0 == await ledger.delivery.ask_probe(AGENT, "relay", "b")


async def test_many_refusals_and_nothing_sent_are_the_channels_fault(ledger):
    """From the third refusal in a row on the message waits untouched; anything sent starts the count anew."""
    limits = Limits(refusals=3)

    async def refuse(code="f"):
        await ledger.accept()
        held = await ledger.claim_one()
        return held, await ledger.finish(held, code, limits=limits, channel="relay")

    assert [False, False] == [(await refuse())[1].guarded for _ in range(2)]
    await refuse("s")
    assert [False, False] == [(await refuse())[1].guarded for _ in range(2)]
    held, finished = await refuse()
    assert (True, State.QUEUED) == (finished.guarded, finished.state)
    record = await ledger.record(held.id)
    assert (State.QUEUED, 0, ()) == (record.state, held.attempts, record.attempts)
    assert (True, 0) == (
        (await ledger.finish(held, "f", limits=limits, channel="relay")).again,
        held.attempts,
    )


async def test_a_partial_refusal_says_nothing_about_the_channel(ledger):
    """Where one recipient of two is taken the channel works; a mail never shown to it says nothing either."""
    limits = Limits(refusals=2)
    for codes, channel in (("fd", "relay"), ("fd", "relay"), ("ff", ""), ("ff", "")):
        await ledger.accept(2)
        held = await ledger.claim_one()
        assert not (await ledger.finish(held, codes, delay_ms=60_000, limits=limits, channel=channel)).guarded


async def test_a_dead_workers_mail_goes_before_a_backlog(ledger):
    """Lapsed leases are looked at first, however much is due."""
    held = await ledger.accept()
    await ledger.claim_one()
    for _ in range(20):
        await ledger.accept_later()
    await ledger.lapse(held.id)
    assert [held.id] == [message.id for message in (await ledger.claim(1)).messages]


@pytest.mark.parametrize(("lanes", "expected"), [(1, ["bulk"]), (2, [])])
async def test_of_two_lanes_one_leaves_bulk_alone(ledger, lanes, expected):
    """A lane is kept free of bulk mail where there are two; the only one takes everything."""
    for lane in range(lanes):
        await ledger.claim(lane=f"lane{lane}")
    await ledger.accept(priority="bulk")
    spare = await ledger.client.hget(agent_key("width"), "spare") or b"lane0"
    claim = await ledger.claim(lane=spare.decode())
    assert expected == [message.priority for message in claim.messages]
    assert claim.bulk_waits == (not expected)
    if not expected:
        other = "lane1" if spare == b"lane0" else "lane0"
        assert ["bulk"] == [message.priority for message in (await ledger.claim(lane=other)).messages]


async def test_high_mail_rings_for_lanes_that_are_busy_with_less(ledger):
    """A lane that holds more than one message of less priority is told of high mail, and of nothing else."""
    pubsub = ledger.client.pubsub()
    await pubsub.subscribe(f"pr:bell:{AGENT}")
    await pubsub.get_message(timeout=5)
    for _ in range(3):
        await ledger.accept(priority="bulk")
    await ledger.claim(3, listening=False)
    await ledger.accept(priority="normal")
    await ledger.accept(priority="high")
    message = await pubsub.get_message(timeout=5)
    assert b"h" == message["data"]
    await pubsub.aclose()


async def test_mail_given_back_takes_its_old_place(ledger):
    """What was not sent is first again, but for the one that met a fault: it would hold up all others."""
    first, second, third = [await ledger.accept_later() for _ in range(3)]
    claim = await ledger.claim(2)
    held = [(message.id, message.fence) for message in claim.messages]
    await ledger.next_ms()
    await ledger.delivery.release(AGENT, held, pace=Pace(), behind=first.id)
    assert [second.id, third.id, first.id] == [m.id for m in (await ledger.claim()).messages]


async def test_an_answer_to_what_was_under_way_mends_nothing(ledger):
    """While a channel stands still nothing releases it: what answers then was sent before."""
    fault = ChannelFault(Cause.THROTTLE, Phase.MAIL, "slow down", retry_after=30)
    stop = Stop(1, 1000, 1000, 60_000)
    await ledger.delivery.stop_channel(AGENT, "relay", fault, channels=("relay",), stop=stop, connections=10)
    assert not await ledger.delivery.mend_channel(AGENT, "relay")
    assert (await ledger.reading.standing(AGENT)).stopped
    assert await ledger.mend("relay")
    assert not (await ledger.reading.standing(AGENT)).stopped


@pytest.mark.parametrize(
    ("forget", "channels", "gone", "stands"),
    [
        ((), ("b",), ["a"], False),
        ((), ("a", "b"), [], False),
        (("a",), ("a",), ["a"], False),
        ((), ("a",), [], True),
    ],
)
async def test_a_changed_configuration_takes_its_channels_faults_along(
    ledger, forget, channels, gone, stands
):
    """A channel that is renamed, joined by another, or changed does not leave its agent standing still."""
    fault = ChannelFault(Cause.AUTH, Phase.AUTH, "wrong password")
    stop = Stop(1, 1000, 60_000, 60_000)
    await ledger.accept()
    await ledger.delivery.stop_channel(AGENT, "a", fault, channels=("a",), stop=stop, connections=10)
    assert gone == await ledger.delivery.reconcile(AGENT, forget, channels)
    standing = await ledger.reading.standing(AGENT)
    assert (stands, stands) == (standing.stopped, standing.since is not None)
    assert stands == bool(await ledger.client.exists(agent_key("stop")))


async def test_a_fault_rings_for_lanes_everywhere(ledger):
    """All lanes of all workers hear that something came to stand over their agent."""
    pubsub = ledger.client.pubsub()
    await pubsub.subscribe(f"pr:bell:{AGENT}")
    await pubsub.get_message(timeout=5)
    before = (await ledger.claim()).version
    await throttle(ledger)
    assert b"x" == (await pubsub.get_message(timeout=5))["data"]
    assert before < (await ledger.claim()).version
    await pubsub.aclose()


async def test_a_guarded_message_lets_others_be_tried(ledger):
    """One that was refused as the channel's fault is due a while later, so that a good one behind it gets its chance."""
    limits = Limits(refusals=1, guarded_wait_ms=5_000)
    bad = await ledger.accept(priority="high")
    good = await ledger.accept()
    held = await ledger.claim_one()
    assert bad.id == held.id
    assert (await ledger.finish(held, "f", limits=limits, channel="relay")).guarded
    assert good.id == (await ledger.claim_one()).id


async def test_bulk_has_a_turn_of_its_own(ledger):
    """Of eight claims one takes bulk first, whichever lanes make them, and those that take nothing do not count."""
    for _ in range(12):
        await ledger.accept()
    await ledger.accept(priority="bulk")
    taken = []
    for number in range(8):
        await ledger.claim(0, lane=f"lane{number}")
        taken += [m.priority for m in (await ledger.claim(1, lane=f"lane{number}")).messages]
        await ledger.leave(f"lane{number}")
    assert 1 == taken.count("bulk")


async def test_what_does_not_fit_today_holds_up_nobody(ledger):
    """A message with more recipients than the day has left waits; smaller ones behind it go."""
    pace = await day_of(ledger, 3)
    await ledger.accept(5)
    await ledger.accept_later(2)
    small = await ledger.accept_later(1)
    claim = await ledger.claim(pace=pace)
    assert [2, 1] == [held.recipients for held in claim.messages]
    assert small.id == claim.messages[-1].id


@pytest.mark.parametrize(("codes", "left"), [("ss", 0), ("sa", 0), ("sd", 1), ("ff", 2)])
async def test_a_day_gets_back_what_surely_did_not_go_out(ledger, codes, left):
    """Charged at the mark, refunded for recipients that were refused or put off after it."""
    pace = await day_of(ledger, 2)
    await ledger.accept(2)
    held = await ledger.claim_one(pace=pace)
    await mark(ledger, held, pace)
    await ledger.finish(held, codes, delay_ms=60_000)
    await ledger.accept(1)
    await ledger.accept(1)
    assert left == len((await ledger.claim(pace=pace)).messages)


async def test_a_release_gives_the_day_back_too(ledger):
    """A channel's fault after the mark costs the day nothing."""
    pace = await day_of(ledger, 2)
    await ledger.accept(2)
    held = await ledger.claim_one(pace=pace)
    await mark(ledger, held, pace)
    await ledger.delivery.release(AGENT, [(held.id, held.fence)], pace=pace)
    assert held.id == (await ledger.claim_one(pace=pace)).id


async def test_an_ambiguous_outcome_is_counted_once(ledger):
    """The same finish twice, because its reply got lost, leaves one attempt in a message that is unconfirmed."""
    await ledger.accept(on_ambiguous="hold")
    held = await ledger.claim_one()
    await ledger.advance(held)
    first, again = await ledger.finish(held, "a"), await ledger.finish(held, "a")
    assert (State.UNCONFIRMED, False, True) == (first.state, first.again, again.again)
    assert 1 == len((await ledger.record(held.id)).attempts)
    assert State.SENT == (await ledger.finish(held, "s")).state


async def test_how_many_connections_are_at_work_is_read_with_a_message(ledger):
    """Live lanes of all workers, and how many the agent may have since it was asked to slow down."""
    first, waiting = await ledger.accept(), await ledger.accept_later()
    assert 0 == (await ledger.stored(waiting.id)).lanes
    held = [await ledger.claim_one(lane="one"), await ledger.claim(lane="two")]
    assert first.id == held[0].id
    stored = await ledger.stored(waiting.id)
    assert (2, 0) == (stored.lanes, stored.width)
    await ledger.client.zadd(agent_key("lanes"), {"two": await ledger.now() - 1})
    await ledger.client.hset(agent_key("width"), "w", 3)
    stored = await ledger.stored(waiting.id)
    assert (1, 3) == (stored.lanes, stored.width)
