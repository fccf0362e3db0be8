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

NAMES = [f"team-{number}" for number in range(4 * RUNG_AT_ONCE)]


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


async def test_rings_that_nobody_takes_end_a_sweep_and_not_the_sweeping(
    ledger: Ledger, pool: rounds.RoundsPool
):
    """It waits until the next sweep at most, and that one rings again."""
    await pool.rpush(rounds.RUNG, *[b"x"] * 100)
    await pool.persist(rounds.RUNG)
    sweeping = asyncio.create_task(sweep(ledger, pool, 0.1).keep_sweeping())

    async def rung_again() -> bool:
        await pool.persist(rounds.RUNG)
        return await pool.zcard(rounds.QUEUE) >= 3 * RUNG_AT_ONCE

    await until(rung_again, "three sweeps have rung")
    await end_tasks(sweeping)
    assert 0 == await pool.zcard(rounds.QUEUE) % RUNG_AT_ONCE


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
