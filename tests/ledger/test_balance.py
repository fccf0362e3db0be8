"""Conservation: accepted = ended + waiting, whatever happened; and a deep look names what does not fit."""

import asyncio

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from postroom.ledger import keys
from postroom.ledger.changes import Journal
from postroom.ledger.delivery import Cursor
from postroom.ledger.limits import Limits, Pace
from tests.ledger.harness import AGENT, LEASED, Ledger, queue_key, until
from tests.ledger.operator import accept_of, do

LIMITS, PACE = Limits(connections=100), Pace()
STEPS = (
    "accept", "accept", "accept two", "accept hold", "claim", "sent", "refused", "deferred", "ambiguous", "release",
    "lapse", "cancel", "expire by time", "pause mail", "release mail", "cancel mail", "expire mail", "retry",
    "retry doubtful", "resolve", "pause", "resume", "price cancel",
)  # fmt: skip


class Day:
    """A day of a ledger: one step at a time, some of which find nothing to do."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.ids: list[str] = []
        self.held: list = []

    async def step(self, name: str, number: int) -> None:  # noqa: C901, PLR0912  a table of steps
        """Take a step; `number` chooses among messages."""
        ledger = self.ledger
        message_id = self.ids[number % len(self.ids)] if self.ids else "orders-01ARZ3NDEKTSV4RRFFQ69G5FAV"
        held = self.held.pop(number % len(self.held)) if self.held and name in OUTCOMES else None
        match name:
            case "accept":
                offer = await accept_of(ledger, ("price", "hello")[number % 2])
                self.ids.append(offer.id)
            case "accept two" | "accept hold":
                policy = "hold" if name == "accept hold" else "retry"
                self.ids.append((await ledger.accept(2, on_ambiguous=policy)).id)
            case "claim":
                found = await ledger.delivery.claim(AGENT, "lane", most=3, limits=LIMITS)
                self.held += found.messages if found else ()
            case "release" if held is not None:
                await ledger.delivery.release(AGENT, [(held.id, held.fence)], pace=PACE)
            case _ if name in OUTCOMES and held is not None:
                await ledger.advance(held)
                await ledger.finish(held, OUTCOMES[name] * held.recipients)
            case "lapse":
                await ledger.lapse(message_id)
            case "cancel":
                await ledger.operating.cancel(message_id)
            case "expire by time":
                if await ledger.score(message_id) is not None:
                    await ledger.end_deadline(message_id)
                await ledger.delivery.expire(number_of(AGENT), Cursor(), 100)
            case "retry" | "retry doubtful":
                await ledger.operating.retry(message_id, unconfirmed=name != "retry")
            case "resolve":
                await ledger.operating.resolve(message_id)
            case "pause":
                await ledger.operating.pause(AGENT, lasts_ms=0, who="ada", reason="x")
            case "resume":
                await ledger.operating.resume(AGENT)
            case "price cancel":
                await do(ledger, "cancel", template="price")
            case "pause mail" | "release mail" | "cancel mail" | "expire mail":
                await do(ledger, name.split(maxsplit=1)[0], accepted_before=await ledger.now())


OUTCOMES = {"sent": "s", "refused": "f", "deferred": "d", "ambiguous": "a", "release": ""}


def number_of(agent):
    """Return the number of an agent's partition."""
    return [keys.place_of_partition(n) for n in range(keys.PARTITIONS)].index(keys.place_of(agent))


def test_nothing_is_unaccounted_for_after_any_day(shared_redis):
    """Whatever callers, carriers and operators do in whatever order, the balance holds and everything fits."""

    async def live(steps):
        ledger = Ledger(shared_redis.url)
        await ledger.client.flushall()
        day = Day(ledger)
        try:
            for name, number in steps:
                await day.step(name, number)
                rows = await ledger.balance.rows()
                assert [0 for _ in rows] == [row.unaccounted for row in rows], (name, rows)
            if day.ids:
                assert len(day.ids) == rows[0].accepted
            assert [] == (await ledger.balance.check()).misfits
        finally:
            await ledger.aclose()

    @settings(
        max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None,
        phases=[Phase.generate],
    )  # fmt: skip
    @given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 20)), min_size=25, max_size=60))
    def run(steps):
        asyncio.run(live(steps))

    run()


async def test_the_balance_names_every_end(ledger):
    """Each state is counted where the message ended, per agent."""
    await ledger.accept()
    await ledger.send()
    await ledger.accept(agent="logins")
    offer = await ledger.accept()
    await ledger.operating.cancel(offer.id)
    await ledger.accept()
    rows = {row.agent: row for row in await ledger.balance.rows()}
    orders = rows["orders"]
    assert (3, 1, 1, 1, 0) == (
        orders.accepted, orders.ends["sent"], orders.ends["cancelled"], orders.waiting, orders.unaccounted,
    )  # fmt: skip
    assert (1, 1, 0) == (rows["logins"].accepted, rows["logins"].waiting, rows["logins"].unaccounted)


async def misfits(ledger):
    """Look deeply; each misfit is told and counted once, whichever of its traces it is met by."""
    verdict = await ledger.balance.check()
    found = {(one.id, one.problem) for one in verdict.misfits}
    assert (len(found), len(found)) == (verdict.found, len(verdict.misfits))
    return found


async def test_a_sound_ledger_has_no_misfits(ledger):
    """Waiting, held, leased, past its mark, scheduled, ended: all fit, and are all seen."""
    await ledger.accept()
    await ledger.send()
    offers = [await ledger.accept(blobs=(b"x",)) for _ in range(4)]
    first, second = (await ledger.claim(2)).messages
    await ledger.advance(second)
    await do(ledger, "pause", accepted_before=1)
    await ledger.accept(agent="logins", send_at=await ledger.now() + 60_000)
    verdict = await ledger.balance.check()
    assert (6, 5, []) == (verdict.records, verdict.queued, verdict.misfits)
    assert first.id in [offer.id for offer in offers]


async def test_a_check_among_traffic_accuses_nobody(ledger):
    """Each message is judged at one moment, so moving mail is no misfit, and the balance holds at each look."""
    busy = True

    async def traffic(lane):
        while busy:
            for _ in range(5):
                await ledger.accept()
            for held in (await ledger.claim(4, lane=lane)).messages:
                await ledger.advance(held)
                await ledger.finish(held, "s")
            await do(ledger, "cancel", accepted_before=await ledger.now() - 20)

    running = [asyncio.create_task(traffic(f"lane{n}")) for n in range(3)]
    seen = 0
    try:
        while seen < 2000:
            verdict = await ledger.balance.check()
            assert [] == verdict.misfits
            assert {0} >= {row.unaccounted for row in await ledger.balance.rows()}
            seen += verdict.records
    finally:
        busy = False
        await asyncio.gather(*running)


async def damage_queue(ledger, offer):
    await ledger.client.zrem(queue_key(AGENT, "n"), offer.id)


async def damage_twice(ledger, offer):
    await ledger.client.zadd(queue_key(AGENT, "b"), {offer.id: 1})


async def damage_record(ledger, offer):
    await ledger.client.delete(keys.record_key(offer.id))


async def damage_all(ledger, offer):
    await damage_record(ledger, offer)
    await damage_queue(ledger, offer)


async def damage_payload(ledger, offer):
    await ledger.client.delete(keys.payload_key(offer.id))


async def damage_ref(ledger, offer):
    await ledger.client.delete(keys.ref_key(AGENT, offer.ref))


async def damage_ttl(ledger, offer):
    await ledger.client.pexpire(keys.record_key(offer.id), 60_000)


async def damage_state(ledger, offer):
    await ledger.client.hset(keys.record_key(offer.id), "rr", "s")


async def damage_score(ledger, offer):
    await ledger.client.zadd(queue_key(AGENT, "n"), {offer.id: 1 - LEASED})


async def damage_agenda(ledger, _offer):
    await ledger.client.delete(keys.place_of(AGENT).agenda)


@pytest.mark.parametrize(
    ("damage", "problem", "unaccounted"),
    [
        (damage_queue, "waits_in_no_queue", 1),
        (damage_twice, "waits_in_two_queues", -1),
        (damage_record, "queued_without_record", 0),
        (damage_all, "record_lost", 1),
        (damage_payload, "waits_without_content", 0),
        (damage_ref, "waits_without_ref", 0),
        (damage_ttl, "waits_and_is_forgotten", 0),
        (damage_state, "state_and_recipients_differ", 0),
        (damage_score, "state_and_place_differ", 0),
        (damage_agenda, "agent_not_on_agenda", 0),
    ],
)
async def test_what_does_not_fit_is_named(ledger, damage, problem, unaccounted):
    """Each kind of damage to a waiting message is told with its id, and nothing else is."""
    whole = await ledger.accept(agent="logins")
    offer = await ledger.accept()
    await damage(ledger, offer)
    assert {(offer.id, problem)} == await misfits(ledger)
    rows = {row.agent: row.unaccounted for row in await ledger.balance.rows()}
    assert {"logins": 0, AGENT: unaccounted} == rows
    assert whole.id.startswith("logins")


async def test_what_has_ended_and_stays_is_named(ledger):
    """An ended message that is queued, or that nothing will ever clear away, does not fit."""
    offer = await ledger.accept()
    await ledger.send()
    await ledger.client.zadd(queue_key(AGENT, "n"), {offer.id: 1})
    await ledger.client.persist(keys.record_key(offer.id))
    await ledger.client.persist(keys.payload_key(offer.id))
    await ledger.client.persist(keys.ref_key(AGENT, offer.ref))
    await ledger.client.hset(keys.record_key(offer.id), "na", 1)
    problems = (
        *("ended_and_queued", "ended_and_noted_as_waiting"),
        *("ended_and_kept_for_ever", "content_kept_for_ever", "ref_kept_for_ever"),
    )
    assert {(offer.id, problem) for problem in problems} == await misfits(ledger)


async def test_the_journal_tells_changes_since_a_moment(ledger):
    """In the order they happened, by Redis's clock, without what has no value."""
    journal = Journal(ledger.client)
    await journal.note("process.started", service="api", version="1.0", config_hash="")
    since = await ledger.now() + 1

    async def is_later():
        return await ledger.now() > since

    await until(is_later, "a later moment")
    await journal.note("agent.paused", agent="orders", who=None)
    every = await journal.since(0)
    assert ["process.started", "agent.paused"] == [change.kind for change in every]
    assert {"service": "api", "version": "1.0"} == every[0].data
    assert [{"agent": "orders"}] == [change.data for change in await journal.since(since)]
