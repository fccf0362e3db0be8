"""Rounds over a real Redis: a ring is taken once and at once, and one that gets lost on the way comes a little later."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from postroom import rounds
from postroom.ledger.clients import end_tasks
from tests.ledger.harness import until
from tests.redisd import RedisServer

JOB_SECONDS = 30.0
RINGS = 20


class Crew:
    """Workers that only note which agents they had a round for."""

    def __init__(self, pool: rounds.RoundsPool) -> None:
        self.pool = pool
        self.begun: Counter[str] = Counter()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def deliver(self, agent: str) -> None:
        """Note a round; it lasts as long as the test wants."""
        self.begun[agent] += 1
        await self.may_end.wait()

    @asynccontextmanager
    async def working(self, count: int) -> AsyncIterator[None]:
        """Let so many workers fetch rounds while the block runs."""
        workers = [
            rounds.RoundsWorker(self.pool, self.deliver, job_seconds=JOB_SECONDS) for _ in range(count)
        ]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            yield
        finally:
            self.may_end.set()
            await asyncio.gather(*(worker.stop(5) for worker in workers))
            await end_tasks(*running)

    async def nothing_is_left(self) -> bool:
        """True where arq's queue, its jobs, and the list of rings are empty."""
        jobs = await self.pool.keys("arq:job:*")
        return not (jobs or await self.pool.zcard(rounds.QUEUE) or await self.pool.llen(rounds.RUNG))


@pytest.fixture
async def crew(shared_redis: RedisServer) -> AsyncIterator[Crew]:
    """Nobody works yet, and nothing is rung for."""
    shared_redis.command("FLUSHALL")
    pool = rounds.rounds_pool(shared_redis.url)
    yield Crew(pool)
    await pool.aclose(close_connection_pool=True)


async def test_each_ring_is_one_round_whoever_takes_it(crew: Crew):
    """Forty agents rung for at once, and two more one by one, over three workers; nothing of them stays in Redis."""
    names = [f"team-{number}" for number in range(40)]
    async with crew.working(3):
        assert await rounds.ring(crew.pool, *names)
        assert await rounds.ring(crew.pool, "orders")
        assert await rounds.ring(crew.pool, "logins")
        await until(crew.nothing_is_left, "all rounds have ended")
    assert dict.fromkeys([*names, "orders", "logins"], 1) == crew.begun


async def test_a_ring_that_was_taken_and_lost_comes_by_the_queue(crew: Crew):
    """Whoever took it from the list died with it: arq's poll finds it."""
    await rounds.ring(crew.pool, "orders")
    assert 1 == await crew.pool.delete(rounds.RUNG)
    async with crew.working(2):
        await until(crew.nothing_is_left, "the round has ended")
    assert {"orders": 1} == crew.begun


async def test_a_round_that_lasts_is_not_begun_once_more(crew: Crew):
    """A begun round is out of the way of arq's poll, which looks for what nobody took, long before that moment."""
    crew.may_end.clear()
    async with crew.working(2):
        await rounds.ring(crew.pool, "orders")

        async def moved_away() -> bool:
            found = await crew.pool.zrange(rounds.QUEUE, 0, -1, withscores=True)
            return bool(found) and found[0][1] > (JOB_SECONDS - 5) * 1000 + rounds.timestamp_ms()

        await until(moved_away, "the round is out of the way")
        await rounds.ring(crew.pool, "logins")
        await until(lambda: _both(crew), "another is begun")
        crew.may_end.set()
        await until(crew.nothing_is_left, "both have ended")
    assert {"orders": 1, "logins": 1} == crew.begun


async def test_rings_that_nobody_takes_do_not_fill_redis(crew: Crew, monkeypatch: pytest.MonkeyPatch):
    """With no worker alive there is an end to what is rung for, and the list of rings goes by itself."""
    monkeypatch.setattr(rounds, "MOST_WAITING", 20)
    rung = [await rounds.ring(crew.pool, f"team-{number}") for number in range(30)]
    assert (True, False) == (rung[0], rung[-1])
    assert 20 == await crew.pool.zcard(rounds.QUEUE)
    assert 0 < await crew.pool.pttl(rounds.RUNG) <= rounds.TAKEN_WITHIN_MS


async def test_what_has_expired_is_cleared_away_by_the_next_ring(crew: Crew):
    """Rings of long ago, whose jobs are gone, do not count against those of today; what is due and what runs stays."""
    await rounds.ring(crew.pool, "orders")
    (due,) = await crew.pool.zrange(rounds.QUEUE, 0, -1)
    now, old = rounds.timestamp_ms(), 1000 * rounds.EXPIRES_SECONDS + 5_000
    for waiting in (0, rounds.MOST_WAITING):
        crew.pool.waiting = waiting
        await crew.pool.zadd(rounds.QUEUE, {"gone": now - old, "late": now - old + 10_000, "runs": now + old})
        assert await rounds.ring(crew.pool, "logins")
        left = set(await crew.pool.zrange(rounds.QUEUE, 0, -1))
        assert {due, b"late", b"runs"} < left
        assert b"gone" not in left


async def _both(crew: Crew) -> bool:
    return len(crew.begun) == 2


async def test_an_idle_worker_goes_before_a_busy_one(crew: Crew):
    """Each of them waits for a ring; the busy one begins to wait anew all the time, and so stands behind the other."""
    taken: Counter[bool] = Counter()

    async def waits() -> int:
        return (await crew.pool.info("commandstats")).get("cmdstat_blpop", {"calls": 0})["calls"]

    def worker(busy: bool) -> rounds.RoundsWorker:
        async def deliver(_agent: str) -> None:
            taken[busy] += 1

        return rounds.RoundsWorker(crew.pool, deliver, job_seconds=JOB_SECONDS, busy=lambda: busy)

    workers = [worker(True), worker(False)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    for number in range(RINGS):
        before = await waits()
        await until(lambda before=before: _grown(waits, before + 4), "the busy one has begun anew")
        await rounds.ring(crew.pool, f"team-{number}")
        await until(lambda number=number: _is(number + 1, taken.total), "the ring was taken")
    await asyncio.gather(*(worker.stop(5) for worker in workers))
    await end_tasks(*running)
    assert taken[False] > 0.75 * RINGS


async def _grown(count: Callable[[], Awaitable[int]], least: int) -> bool:
    return await count() >= least


async def _is(expected: int, count: Callable[[], int]) -> bool:
    return count() == expected
