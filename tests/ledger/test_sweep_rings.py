"""How quickly a sweep rings for many agents at once: as quickly as somebody takes the rings."""

import asyncio
from types import SimpleNamespace
from unittest.mock import Mock

import msgspec
import pytest

from postroom import rounds
from postroom.heart import Heart
from postroom.ledger.clients import end_tasks
from tests.ledger.harness import PATIENCE, Ledger, until
from tests.redisd import RedisServer
from workers.upkeep import RUNG_AT_ONCE, UNTAKEN, Sweep

NAMES = [f"team-{number}" for number in range(3 * RUNG_AT_ONCE)]


@pytest.fixture
async def pool(ledger: Ledger, shared_redis: RedisServer):
    """arq's pool; a message waits for each agent, and nobody is awake."""
    for name in NAMES:
        await ledger.accept(agent=name)
    opened = rounds.rounds_pool(shared_redis.url)
    yield opened
    await opened.aclose(close_connection_pool=True)


def sweep(ledger: Ledger, pool: rounds.RoundsPool, every: float, beside: Mock | None = None) -> Sweep:
    """Return a sweep of a process that runs nothing itself, or tells of it."""
    carrier = Mock(config=SimpleNamespace(agents=dict.fromkeys(NAMES)), deliver_beside=beside or Mock())
    return Sweep(carrier, ledger.delivery, ledger.client, pool, every, Heart())


async def take(pool: rounds.RoundsPool) -> str:
    """Take a ring as a worker does, and return its agent."""
    rung = await pool.blpop([rounds.RUNG], timeout=PATIENCE)
    return msgspec.msgpack.decode(rung[1])[1]


async def test_each_agent_is_rung_for_once_however_many_there_are(ledger: Ledger, pool: rounds.RoundsPool):
    """Few rings lie untaken at any time, and in the end each agent has had one."""
    # Mail that has just come is left to its own ring, so the first sweep may find none; the second has all.
    sweeping = asyncio.create_task(sweep(ledger, pool, 2.0).keep_sweeping())
    taken, untaken = [], []
    while len(taken) < len(NAMES):
        taken.append(await take(pool))
        untaken.append(await pool.llen(rounds.RUNG))
    await end_tasks(sweeping)
    assert sorted(NAMES) == sorted(taken)
    assert max(untaken) <= UNTAKEN + RUNG_AT_ONCE
    assert len(NAMES) == await pool.zcard(rounds.QUEUE)


async def test_rings_of_others_hold_a_sweep_up_for_a_moment_only(ledger: Ledger, pool: rounds.RoundsPool):
    """The list is full of what others rang for, all the time: in the same sweep every agent has its ring."""
    await pool.rpush(rounds.RUNG, *[b"x"] * (2 * UNTAKEN))
    sweeping = asyncio.create_task(sweep(ledger, pool, 3.0).keep_sweeping())

    async def all_rung() -> bool:
        await pool.persist(rounds.RUNG)
        return await pool.zcard(rounds.QUEUE) >= len(NAMES)

    await until(all_rung, "all are rung for")
    await end_tasks(sweeping)
    assert len(NAMES) == await pool.zcard(rounds.QUEUE)


async def test_those_who_are_rung_for_in_vain_leave_the_others_their_turn(
    ledger: Ledger, pool: rounds.RoundsPool
):
    """A sweep has time for one group, and nobody ever wakes: sooner or later each agent is in that group."""
    sweeping = asyncio.create_task(sweep(ledger, pool, 0.05).keep_sweeping())
    found: set[str] = set()

    async def all_found() -> bool:
        await pool.persist(rounds.RUNG)
        found.update(msgspec.msgpack.decode(ring)[1] for ring in await pool.lrange(rounds.RUNG, 0, -1))
        return len(found) == len(NAMES)

    await until(all_found, "each was rung for", 30)
    await end_tasks(sweeping)


async def test_where_nothing_can_be_rung_for_each_round_is_run_here(ledger: Ledger, pool: rounds.RoundsPool):
    """arq's queue takes no more: it is asked once, and every agent's round begins in this process."""
    full = {f"x{number}": 2.0 * rounds.timestamp_ms() for number in range(rounds.MOST_WAITING)}
    await pool.zadd(rounds.QUEUE, full)
    pool.waiting = rounds.MOST_WAITING
    beside = Mock()
    sweeping = asyncio.create_task(sweep(ledger, pool, 0.2, beside).keep_sweeping())

    async def all_begun() -> bool:
        return beside.call_count >= len(NAMES)

    await until(all_begun, "all rounds begin here")
    await end_tasks(sweeping)
    assert sorted(NAMES) == sorted({call.args[0] for call in beside.call_args_list})
    assert rounds.MOST_WAITING == await pool.zcard(rounds.QUEUE)
