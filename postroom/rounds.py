"""Rounds: "somebody look at this agent", as arq jobs. The only module that knows arq.

A round is an alarm clock, never the mail itself: all of arq's keys may be lost, and the sweep rings again.
Rounds may repeat, for a round too many finds nothing to do and ends at once; so they need no unique ids.
"""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms
from arq.worker import Worker, func
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from postroom.ledger.clients import connection_options, end_tasks
from postroom.ledger.connection import told_when_lost
from postroom.ledger.redis_url import open_pool
from postroom.log import get_logger
from postroom.supervise import supervise

QUEUE = "pr:rounds"
RUNG = "pr:rounds:rung"  # a list of what was just rung for: the worker that waited longest takes it
JOB = "deliver"
# A round is due for arq's poll only when no worker has taken it from the list for so long. arq compares this with
# local clocks: where they are wrong, a round is begun twice, or the sweep rings for it again. The score of a begun
# round is moved further ahead, but not for ever: the one of a worker that was killed comes up again, and arq clears
# it away because its job has expired.
TAKEN_WITHIN_MS = 250
EXPIRES_SECONDS = 60
MOST_WAITING = 10_000  # rounds nobody fetches: with no worker alive, ringing on would only fill Redis
SOCKET_SECONDS = 5.0
HEALTH_SECONDS = 15
LISTEN_SECONDS = 4  # less than the socket's time
# Redis gives a ring to the worker that has waited longest. One that is busy begins to wait anew all the time, so that
# any idle one goes before it.
BUSY_LISTEN_SECONDS = 0.01
BUSY_SHARE = 0.5  # of a core
SHARE_SECONDS = 0.1  # of what time
LISTEN_AGAIN_SECONDS = 1.0
LOOK_SECONDS = 0.01  # between looks at what nobody has taken yet
MOST_LEFT = 32  # rounds that one takes at once where all are busy

Deliver = Callable[[str], Awaitable[None]]
_decode_rung = msgspec.msgpack.Decoder(tuple[str, str]).decode


class Busyness:
    """Whether this process has used most of a core of late."""

    def __init__(self) -> None:
        self._busy, self._looked_at, self._used = False, time.monotonic(), time.process_time()

    def look(self) -> bool:
        """Return whether it is busy."""
        now, used = time.monotonic(), time.process_time()
        if (passed := now - self._looked_at) >= SHARE_SECONDS:
            self._busy = used - self._used >= BUSY_SHARE * passed
            self._looked_at, self._used = now, used
        return self._busy


class RoundsPool(ArqRedis):
    """arq's connection pool, and how many rounds waited when it last rang."""

    waiting = 0


def rounds_pool(url: str) -> RoundsPool:
    """Return arq's connection pool: bounded in time, with msgpack instead of pickle."""
    pool = open_pool(
        url,
        socket_timeout=SOCKET_SECONDS,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 3),
        retry_on_error=[RedisConnectionError],
        **connection_options(url),
    )
    return RoundsPool(
        told_when_lost(pool),
        job_serializer=msgspec.msgpack.encode,
        job_deserializer=msgspec.msgpack.decode,
        default_queue_name=QUEUE,
    )


async def ring(pool: RoundsPool, *agents: str) -> bool:
    """Ask for a round of each agent. False where they could not be asked for; the sweep will.

    What `enqueue_job` writes, in one round trip instead of three: the ids are our own, so nobody has to look whether
    one exists. A ring that is sent twice is a round too many.
    """
    try:
        now = timestamp_ms()
        # Due for so long, their jobs have expired: rung for by workers that ended when there was no other one.
        expired = (QUEUE, "-inf", now - EXPIRES_SECONDS * 1000)
        if pool.waiting >= MOST_WAITING:
            await pool.zremrangebyscore(*expired)
            pool.waiting = await pool.zcard(QUEUE)
            if pool.waiting >= MOST_WAITING:
                return False
        async with pool.pipeline(transaction=True) as pipe:
            jobs = {uuid.uuid4().hex: agent for agent in agents}
            for job_id, agent in jobs.items():
                job = serialize_job(JOB, (agent,), {}, None, now, serializer=msgspec.msgpack.encode)
                pipe.psetex(job_key_prefix + job_id, EXPIRES_SECONDS * 1000, job)
            pipe.zremrangebyscore(*expired)
            pipe.zadd(QUEUE, dict.fromkeys(jobs, now + TAKEN_WITHIN_MS))
            pipe.rpush(RUNG, *map(msgspec.msgpack.encode, jobs.items()))
            pipe.pexpire(RUNG, TAKEN_WITHIN_MS)
            pipe.zcard(QUEUE)
            *_, pool.waiting = await pipe.execute()
    except (RedisError, OSError):
        return False
    return True


async def until_taken(pool: RoundsPool, most: int) -> None:
    """Wait until at most so many rings lie there untaken, and no longer than until arq's poll would take them.

    What is rung for while others wait is begun no sooner, and is also due for arq's poll by then, which runs it again.

    Raises:
        RedisError, OSError: arq's Redis is away.
    """
    over = time.monotonic() + TAKEN_WITHIN_MS / 1000
    while time.monotonic() < over and await pool.llen(RUNG) > most:  # type: ignore[misc]  # noqa: ASYNC110  who takes tells nobody
        await asyncio.sleep(LOOK_SECONDS)


class RoundsWorker:
    """Fetches rounds with an arq worker, and takes those just rung for past its poll.

    arq's poll and its way to a job cost a new round eight round trips, of which a process that is busy with one
    agent's flood sees each late. A ring names its agent, so one answer of Redis begins the round; arq's queue holds it
    meanwhile, for a worker that dies with it. arq ends on many kinds of trouble; its owner then builds another.
    """

    def __init__(
        self, pool: ArqRedis, deliver: Deliver, *, job_seconds: float, busy: Callable[[], bool] | None = None
    ) -> None:
        """`deliver` is given an agent's name and must not raise; `job_seconds` is more than it ever takes.

        `busy` tells whether this process has so much to do that another one should take a ring; unset, its use of the
        processor does.
        """
        self._pool = pool
        self._busy = busy or Busyness().look
        self._deliver = deliver
        self._job_seconds = job_seconds
        self._listening: asyncio.Task[None] | None = None
        self._worker = Worker(
            [func(self._run, name=JOB, keep_result=0, timeout=job_seconds, max_tries=1_000_000)],
            redis_pool=pool,
            queue_name=QUEUE,
            handle_signals=False,
            # At the limit arq does not even poll; how much is done at once is bounded by `worker.max_lanes`.
            max_jobs=10_000,
            # What is found here was rung for again by now, or lies on the list: to begin it costs four round trips by
            # way of arq, and nobody waits for it.
            queue_read_limit=8,
            poll_delay=0.5,
            keep_result=0,
            max_tries=1_000_000,
            health_check_interval=HEALTH_SECONDS,
            health_check_key=f"pr:health:{socket.gethostname()}:{os.getpid()}",
            job_serializer=msgspec.msgpack.encode,
            job_deserializer=msgspec.msgpack.decode,
            log_results=False,
        )

    async def run(self) -> None:
        """Fetch rounds until cancelled or until arq gives up, with whatever exception it has."""
        self._listening = asyncio.create_task(supervise("listen", self._listen, get_logger()))
        try:
            await self._worker.async_run()
        finally:
            await end_tasks(self._listening)

    async def stop(self, grace: float) -> None:
        """Fetch no more, wait for running rounds to end (`grace` in seconds), close."""
        self._worker.allow_pick_jobs = False
        if self._listening is not None:
            await end_tasks(self._listening)
        tasks = set(self._worker.tasks.values())
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        await end_tasks(*(task for task in (self._worker.main_task, *tasks) if task is not None))

    def abandon(self) -> list[asyncio.Task[Any]]:
        """Return arq's tasks after its worker gave up: rounds that still run, and endings nobody looked at."""
        return list(self._worker.tasks.values())

    async def _listen(self) -> None:
        while True:
            try:
                seconds = BUSY_LISTEN_SECONDS if self._busy() else LISTEN_SECONDS
                rung = await self._pool.blpop([RUNG], timeout=seconds)  # type: ignore[misc,arg-type]
                if rung is None:
                    continue
                self._begin(rung[1])
                # Others that wait have what is pushed before it is on the list: what lies there, nobody waits for.
                for left in await self._pool.lpop(RUNG, MOST_LEFT) or ():  # type: ignore[misc]
                    self._begin(left)
            except (RedisError, OSError):
                await asyncio.sleep(LISTEN_AGAIN_SECONDS)

    def _begin(self, rung: bytes) -> None:
        job_id, agent = _decode_rung(rung)
        # Among arq's own tasks, for which it and `stop` care.
        self._worker.tasks[job_id] = asyncio.create_task(self._run_rung(job_id, agent))

    async def _run_rung(self, job_id: str, agent: str) -> None:
        await self._run({"job_id": job_id}, agent)
        with suppress(RedisError, OSError):
            async with self._pool.pipeline(transaction=True) as pipe:
                pipe.zrem(QUEUE, job_id)
                pipe.delete(job_key_prefix + job_id)
                await pipe.execute()

    async def _run(self, ctx: dict[Any, Any], agent: str) -> None:
        # Beside the round, whose mail does not wait for it.
        await asyncio.gather(self._move_away(ctx["job_id"]), self._deliver(agent))

    async def _move_away(self, job_id: str) -> None:
        # Without it the round is begun once more, and that one finds nothing to do.
        with suppress(RedisError, OSError):
            out_of_the_way = (time.time() + self._job_seconds) * 1000
            await self._pool.zadd(QUEUE, {job_id: out_of_the_way}, xx=True)
