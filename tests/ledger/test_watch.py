"""Sweeping, stopped channels, the depth of queues, and whether a Redis is fit to hold mail."""

import pytest

from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.keys import PARTITIONS, agent_of, place_of
from postroom.ledger.limits import Pace, Stop
from postroom.ledger.watch import HELD_LOOKED_AT, Fitness, QueueDepth, read_version
from postroom.outcome import Cause, ChannelFault, Phase
from tests.ledger.harness import AGENT, Ledger, agent_key, make_offer, queue_key, until
from tests.ledger.operator import do
from tests.redisd import RedisServer

FAULT = ChannelFault(Cause.CONNECT, Phase.CONNECT, "cannot be reached")


async def sweep_all(ledger):
    swept = [await ledger.delivery.sweep(partition) for partition in range(PARTITIONS)]
    return sorted(agent for agents in swept for agent in agents)


async def stop(ledger, channel="relay", channels=("relay",), faults=1, **changes):
    """Record a fault of a channel."""
    given = {"cause": Cause.CONNECT, "phase": Phase.CONNECT, "text": "cannot be reached"} | changes
    stop = Stop(faults=faults, window_ms=30_000, shortest_ms=1_000, longest_ms=60_000)
    return await ledger.delivery.stop_channel(
        AGENT, channel, ChannelFault(**given), channels=channels, stop=stop, connections=10
    )


async def test_the_sweep_finds_what_nobody_rings_for(ledger):
    """Due mail without lanes is found in whatever partition, once a second, until somebody comes."""
    agents = [f"agent-{i}" for i in range(40)]
    for agent in agents:
        await ledger.accept(agent=agent)
    assert [] == await sweep_all(ledger)  # each accept has just rung
    await ledger.client.delete(*await ledger.client.keys("pr:*:rung:*"))  # as a second does
    assert sorted(agents) == await sweep_all(ledger)
    assert [] == await sweep_all(ledger)
    await ledger.client.delete(*await ledger.client.keys("pr:*:rung:*"))
    await ledger.claim(agent=agents[0])
    assert sorted(agents[1:]) == await sweep_all(ledger)
    assert len({place_of(agent).agenda for agent in agents}) > PARTITIONS // 2


async def test_the_rings_pause_is_over_by_itself(ledger):
    """A ring that was lost is rung again after a second, without anybody's doing."""
    await ledger.accept()
    await ledger.client.pexpire(agent_key("rung"), 5)
    await until(lambda: sweep_all(ledger), "the sweep rings")


async def test_the_sweep_leaves_alone_what_is_awake_waiting_or_stopped(ledger):
    """Live lanes see their mail, scheduled mail is not due, and a stopped agent could do nothing."""
    await ledger.claim(agent="awake")
    await ledger.accept(agent="awake")
    await ledger.accept(agent="later", send_at=await ledger.now() + 60_000)
    await ledger.accept()
    await stop(ledger)
    await ledger.client.delete(*await ledger.client.keys("pr:*:rung:*"))
    assert [] == await sweep_all(ledger)
    await ledger.client.delete(agent_key("stop"))  # as the end of its pause does
    assert [AGENT] == await sweep_all(ledger)


async def test_a_dead_workers_lanes_do_not_hide_its_mail(ledger):
    """After one lease the sweep finds what a killed worker held."""
    offer = await ledger.accept()
    await ledger.claim()
    await ledger.client.delete(agent_key("rung"))
    await ledger.lapse(offer.id)
    assert [] == await sweep_all(ledger)
    await ledger.client.zadd(agent_key("lanes"), {"lane": await ledger.now() - 1})
    assert [AGENT] == await sweep_all(ledger)


async def test_the_sweep_mends_an_agenda_that_is_too_early(ledger):
    """An entry that names no due mail is moved to the next due time, or taken out."""
    offer = await ledger.accept()
    held = await ledger.claim_one()
    await ledger.finish(held, "d", delay_ms=60_000)
    await ledger.leave()
    await ledger.client.zadd(place_of(AGENT).agenda, {AGENT: 1})
    assert [] == await sweep_all(ledger)
    assert await ledger.score(offer.id) == await ledger.agenda()
    await ledger.lapse(offer.id)
    await ledger.send()
    await ledger.leave()
    await ledger.client.zadd(place_of(AGENT).agenda, {AGENT: 1, "gone": 1})
    await sweep_all(ledger)
    assert await ledger.agenda() is None
    assert await ledger.client.zscore(place_of(AGENT).agenda, "gone") is None


async def test_release_rings_for_what_it_gives_back(ledger):
    """The last lane to go leaves no due mail without a ring."""
    await ledger.accept()
    held = await ledger.claim_one()
    await ledger.claim(lane="other")
    pair = [(held.id, held.fence)]
    assert (1, False) == await ledger.delivery.release(AGENT, pair, pace=Pace(), lane="lane")
    assert (0, True) == await ledger.delivery.release(AGENT, [], pace=Pace(), lane="other")


async def test_a_channels_stop_grows_while_the_fault_stays(ledger):
    """Every failed try doubles the pause up to its end, and the lanes that met it too change nothing."""
    expected = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
    for tries, pause in enumerate(expected):
        assert (pause, "still" if tries else "opened") == await stop(ledger)
        left, new = await stop(ledger)
        assert (True, "known") == (0 < left <= pause, new)
        await pass_time(ledger, "relay")
    found = (await ledger.reading.standing(AGENT)).faults["relay"]
    assert (8, "connect", "cannot be reached") == (found.times, found.cause, found.text)


async def pass_time(ledger, channel):
    """Let a channel's pause be over."""
    stored = await ledger.client.hget(agent_key("faults"), channel)
    rest = stored.partition(b"|")[2]
    await ledger.client.hset(agent_key("faults"), channel, b"1|" + rest)
    await ledger.client.delete(agent_key("stop"))


async def test_what_the_other_side_asks_for_is_a_floor(ledger):
    """A longer pause the provider asked for is kept, and another cause begins anew."""
    assert (90_000, "opened") == await stop(ledger, cause=Cause.THROTTLE, retry_after=90.0, reply_code=421)
    await pass_time(ledger, "relay")
    assert (1_000, "opened") == await stop(ledger, reply_code=535, enhanced_code="5.7.8")
    found = (await ledger.reading.standing(AGENT)).faults["relay"]
    assert ("535", "5.7.8", 1) == (found.reply_code, found.enhanced_code, found.times)


async def test_an_agent_stops_with_its_last_channel(ledger):
    """While one channel works mail is rung for; with none it waits until the first is tried again."""
    channels = ("first", "second")
    await stop(ledger, "first", channels)
    assert (await ledger.acceptance.accept(make_offer())).ring
    await ledger.client.delete(agent_key("rung"))
    await stop(ledger, "second", channels)
    assert not (await ledger.acceptance.accept(make_offer())).ring
    assert 0 < await ledger.client.pttl(agent_key("stop")) <= 1_000
    assert [] == await sweep_all(ledger)
    assert await ledger.mend("second")
    assert not await ledger.mend("second")
    assert [AGENT] == await sweep_all(ledger)
    assert ["first"] == list((await ledger.reading.standing(AGENT)).faults)


async def test_depth_counts_by_agent_and_priority(ledger):
    """Waiting mail counts leased and scheduled mail, due mail only what could be claimed now."""
    now = await ledger.now()
    await ledger.accept(priority="high")
    await ledger.claim_one()
    await ledger.accept()
    await ledger.accept(send_at=now + 60_000)
    await ledger.accept(agent="logins", send_at=now + 60_000)
    rows = {(row.agent, row.priority): row for row in await ledger.watch.depth()}
    assert {("orders", "high"), ("orders", "normal"), ("logins", "normal")} == set(rows)
    assert QueueDepth("orders", "high", 1, 0, 0) == rows["orders", "high"]
    normal = rows["orders", "normal"]
    assert (2, 1, True) == (normal.waiting, normal.due, 0 <= normal.oldest_due_ms < 5_000)
    assert QueueDepth("logins", "normal", 1, 0, 0) == rows["logins", "normal"]


async def test_the_digest_key_is_made_once_and_restored(ledger):
    """All processes share one key, and an API that knows it puts it back into an emptied Redis."""
    key, new = await ledger.watch.digest_key()
    assert (32, True) == (len(key), new)
    assert (key, False) == await ledger.watch.digest_key()
    await ledger.client.flushall()
    assert (key, True) == await ledger.watch.digest_key(key)
    assert (key, False) == await ledger.watch.digest_key(b"another")


async def test_a_good_redis_is_fit(ledger):
    """A Redis that keeps what it is given has nothing to be told about."""
    assert Fitness(evicts=None, durable=True, too_old=None, memory_share=0.0) == await ledger.watch.fitness()


async def test_what_is_wrong_with_a_redis_is_seen(folder):
    """An evicting policy, no append-only file, and how full it is."""
    server = RedisServer(
        folder, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru", "--appendonly", "no"
    )
    server.start()
    ledger = Ledger(server.url)
    fitness = await ledger.watch.fitness()
    assert ("allkeys-lru", False) == (fitness.evicts, fitness.durable)
    assert 0.01 < fitness.memory_share < 0.5
    await ledger.aclose()
    server.kill()


@pytest.mark.parametrize(
    ("text", "expected"), [("6.2.14", (6, 2)), ("7.0", (7, 0)), ("9.1.2-rc1", (9, 1)), ("10", (10, 0))]
)
def test_versions(text, expected):
    """A version is compared by its first two numbers."""
    assert expected == read_version(text)


async def test_without_redis_reading_is_unavailable(folder):
    """Every read tells an outage in one way."""
    ledger = Ledger(f"unix://{folder}/none.sock")
    for read in (
        ledger.watch.fitness(),
        ledger.watch.depth(),
        ledger.watch.digest_key(),
        ledger.reading.message("orders-X"),
        ledger.reading.find([(AGENT, "x")]),
        ledger.reading.blobs("orders-X", 1),
        ledger.reading.standing(AGENT),
    ):
        with pytest.raises(LedgerUnavailableError):
            await read
    await ledger.aclose()


async def test_an_id_of_nobody_leads_nowhere(ledger):
    """Any text may be looked for."""
    for text in ("", "-", "orders", "orders-", "x" * 1000, "a\r\nb", "{p00}", "ä"):
        assert await ledger.reading.message(text) is None
    assert ["a-b", "", "", "orders"] == [agent_of(i) for i in ("a-b-X", "orders", "", "orders-")]


async def test_what_is_held_is_counted_among_what_is_not_due(ledger):
    """By a person or the brake; due, scheduled and leased mail is not, and of a long queue only a part is looked at."""
    for n in range(3):
        await ledger.accept(priority="high" if n else "bulk")
    await do(ledger, "pause")
    await ledger.accept(priority="high", send_at=await ledger.now() + 60_000)
    await ledger.accept(priority="normal")
    found = {row.priority: (row.waiting, row.due, row.held) for row in await ledger.watch.depth_and_held()}
    assert {"high": (3, 0, 2), "bulk": (1, 0, 1), "normal": (1, 1, 0)} == found
    assert {0} == {row.held for row in await ledger.watch.depth()}
    pipe, later = ledger.client.pipeline(transaction=False), await ledger.now() + 60_000
    for n in range(HELD_LOOKED_AT):
        pipe.zadd(queue_key(AGENT, "h"), {f"orders-{n}": later + n})
    await pipe.execute()
    assert [True] == [r.held_is_least for r in await ledger.watch.depth_and_held() if r.priority == "high"]
