"""Deadlines while an agent stands still: the patient ones wait with it, the absolute ones do not."""

from postroom.ledger.delivery import Cursor
from postroom.ledger.keys import agent_of, place_of, record_key
from postroom.ledger.limits import Stop
from postroom.outcome import Cause, ChannelFault, Phase
from postroom.states import State
from tests.ledger.harness import AGENT, agent_key, until

DOWN = ChannelFault(Cause.CONNECT, Phase.CONNECT, "cannot be reached")
PARTITION = int(place_of(AGENT).prefix[5:7])


async def stop(ledger, ms=60_000):
    await ledger.delivery.stop_channel(
        AGENT, "relay", DOWN, channels=("relay",), stop=Stop(1, 1000, ms, ms), connections=10
    )


async def stood(ledger, ms):
    """Let the agent's standstill have begun so much earlier, and its mail have been accepted before that."""
    since = int(await ledger.client.hget(agent_key("halt"), "since"))
    await ledger.client.hset(agent_key("halt"), "since", since - ms)


async def expire(ledger):
    """Look through the whole partition for mail whose time is up."""
    found, cursor = [], Cursor()
    while True:
        cursor, ended = await ledger.delivery.expire(PARTITION, cursor, 2)
        found += [message.id for message in ended]
        if not cursor.agent:
            return found


async def test_a_patient_clock_stands_while_no_channel_works(ledger):
    """A message of the profile `standard` outlives its deadline by the time its agent stood still."""
    patient = await ledger.accept(lifetime=1_000, standing_clock=True)
    absolute = await ledger.accept(lifetime=1_000)
    await stop(ledger)
    await stood(ledger, 30_000)
    for offer in (patient, absolute):
        key = record_key(offer.id)
        await ledger.client.hset(key, "dl", await ledger.now() - 20_000)
    assert [absolute.id] == await expire(ledger)
    stored = await ledger.stored(patient.id)
    assert 8_000 < stored.deadline - await ledger.now() <= 11_000
    await ledger.mend("relay")
    assert [patient.id] == [m.id for m in (await ledger.claim()).messages]


async def test_time_it_stood_still_before_does_not_count(ledger):
    """A message accepted after the standstill has the whole of its time, and no more."""
    await stop(ledger)
    await stood(ledger, 30_000)
    await ledger.mend("relay")
    offer = await ledger.accept(lifetime=5_000, standing_clock=True)
    stored = await ledger.stored(offer.id)
    assert stored.record.accepted_at + 5_000 == stored.deadline
    await ledger.end_deadline(offer.id)
    assert [offer.id] == [ended.id for ended in (await ledger.claim()).ended]


async def test_one_working_channel_keeps_the_clock_going(ledger):
    """The agent stands still only when its last channel does."""
    for channel, expected in (("first", False), ("second", True)):
        await ledger.delivery.stop_channel(
            AGENT,
            channel,
            DOWN,
            channels=("first", "second"),
            stop=Stop(1, 1000, 60_000, 60_000),
            connections=10,
        )
        assert expected == (await ledger.reading.standing(AGENT)).stopped
    await ledger.mend("first")
    standing = await ledger.reading.standing(AGENT)
    assert (False, None) == (standing.stopped, standing.since)


async def test_expired_mail_behind_a_backlog_ends_all_the_same(ledger):
    """What no claim comes to for a while is ended by the look through the queues, a part at a time."""
    offers = [await ledger.accept() for _ in range(7)]
    late = offers[5]
    await ledger.end_deadline(late.id)
    assert [late.id] == await expire(ledger)
    assert State.EXPIRED == (await ledger.record(late.id)).state
    assert AGENT == agent_of(late.id)
    assert [] == await expire(ledger)


async def test_leased_mail_is_left_to_its_owner(ledger):
    """A message in somebody's hands is not ended behind his back; its mark is refused."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.end_deadline(offer.id)
    assert [] == await expire(ledger)
    assert -1 == await ledger.advance(held)


async def test_an_evidence_is_forgotten_with_its_window(ledger):
    """Faults open the breaker only where enough of them come within the window."""

    async def fault():
        stop = Stop(faults=2, window_ms=80, shortest_ms=1000, longest_ms=60_000)
        return (
            await ledger.delivery.stop_channel(
                AGENT, "relay", DOWN, channels=("relay",), stop=stop, connections=10
            )
        )[1]

    assert "seen" == await fault()
    await until(lambda: _gone(ledger, agent_key("tries") + ":relay"), "the window is over")
    assert ["seen", "opened"] == [await fault(), await fault()]


async def _gone(ledger, key):
    return not await ledger.client.exists(key)
