"""What a worker process does on its own clock: renew what it holds, and sweep for agents nobody is awake for."""

import asyncio
import os
import random
import socket
import time

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from postroom import rounds
from postroom.heart import Heart
from postroom.ledger.delivery import Cursor, Delivery
from postroom.ledger.errors import LedgerError
from postroom.ledger.keys import PARTITIONS
from workers.carrier import Carrier

RENEW_SHARE = 0.2  # of the lease: one renewal may fail before a lane is lost, three before a message is
RENEWED_AT_ONCE = 64  # agents; their calls travel together
RUNG_AT_ONCE = 50
UNTAKEN = 50  # rings that may lie there when more are added: so many are taken before arq's poll would
SWEEPER = "pr:sweeper"
EXPIRE_SECONDS = 1.0
COLLECT_SECONDS = 30.0
UNKNOWN_SECONDS = 60.0
EXPIRE_MOST = 500  # messages of a partition that are looked at in that time


async def keep_renewing(carrier: Carrier, delivery: Delivery, heart: Heart) -> None:
    """Extend everything this process holds, whatever its phase, until cancelled.

    Mail that is due although a round has an idle lane is found on the way: its ring was lost.
    """
    while True:
        await asyncio.sleep(delivery.lease_ms / 1000 * RENEW_SHARE)
        agents = carrier.holdings.agents()
        for start in range(0, len(agents), RENEWED_AT_ONCE):
            group = agents[start : start + RENEWED_AT_ONCE]
            await asyncio.gather(*(_renew(carrier, delivery, agent) for agent in group))
            heart.beat("renew")
        heart.beat("renew")


async def _renew(carrier: Carrier, delivery: Delivery, agent: str) -> None:
    lanes, messages = carrier.holdings.of(agent)
    try:
        due, lost = await delivery.renew(agent, lanes, messages)
    except LedgerError as error:
        carrier.ledger_failed(error)
        return
    carrier.ledger_answered()
    gone = set(lost)
    carrier.holdings.lose(agent, [held for held in messages if held[0] in gone])
    if due:
        carrier.nudge(agent)


class Sweep:
    """Rings for agents with due mail and no lanes: whatever was lost on the way costs one sweep."""

    def __init__(
        self,
        carrier: Carrier,
        delivery: Delivery,
        client: Redis,
        arq: rounds.RoundsPool,
        every: float,
        heart: Heart,
    ) -> None:
        self._carrier = carrier
        self._delivery = delivery
        self._client = client
        self._arq = arq
        self._every = every
        self._heart = heart
        self._me = f"{socket.gethostname()}:{os.getpid()}"
        self._cursors = [Cursor()] * PARTITIONS
        self._expired_at = self._collected_at = 0.0
        self._rung: dict[str, float] = {}

    async def keep_sweeping(self) -> None:
        """Sweep until cancelled. One process does it at a time; a dead one is followed within a sweep."""
        while True:
            next_at = time.monotonic() + self._every
            try:
                if await self._lead():
                    await self._sweep()
                self._carrier.ledger_answered()
            except LedgerError as error:
                self._carrier.ledger_failed(error)
            except (RedisError, OSError):
                pass  # the ledger's own calls tell of an outage
            self._heart.beat("sweep")
            await asyncio.sleep(max(self._every / 10, next_at - time.monotonic()))

    async def _lead(self) -> bool:
        hold_ms = max(50, int(self._every * 900))
        try:
            return bool(await self._client.set(SWEEPER, self._me, nx=True, px=hold_ms))
        except OutOfMemoryError:
            # A full Redis takes no lock, and sweeping is what drains it: then everybody sweeps.
            return True

    async def _sweep(self) -> None:
        found = await asyncio.gather(*(self._delivery.sweep(p) for p in range(PARTITIONS)))
        await self._ring([agent for agents in found for agent in agents])
        if time.monotonic() - self._expired_at >= EXPIRE_SECONDS:
            self._expired_at = time.monotonic()
            await self._expire()
        if time.monotonic() - self._collected_at >= COLLECT_SECONDS:
            self._collected_at = time.monotonic()
            await self._delivery.collect_files(self._client)

    async def _ring(self, asleep: list[str]) -> None:
        """Ring for these about as quickly as rings are taken; who is left after an interval, the next sweep finds.

        In any order, so that those whose rounds come to nothing, and who are rung for each time, hold nobody up.
        """
        random.shuffle(asleep)
        over = time.monotonic() + self._every
        for start in range(0, len(asleep), RUNG_AT_ONCE):
            if start:
                await rounds.until_taken(self._arq, UNTAKEN)
                if time.monotonic() >= over:
                    return
            group = [a for a in asleep[start : start + RUNG_AT_ONCE] if not self._is_unknown(a)]
            self._carrier.metrics.swept.inc(len(group))
            if group and not await rounds.ring(self._arq, *group):
                # arq's Redis is away or full, and to ask it again takes long: the ledger alone is enough to deliver.
                for agent in asleep[start:]:
                    self._carrier.deliver_beside(agent)
                return

    def _is_unknown(self, agent: str) -> bool:
        """True for one not configured here; now and then it is rung for all the same, for others may know it."""
        now = time.monotonic()
        if (
            agent in self._carrier.config.agents
            or now - self._rung.get(agent, -UNKNOWN_SECONDS) >= UNKNOWN_SECONDS
        ):
            self._rung[agent] = now
            return False
        return True

    async def _expire(self) -> None:
        """End mail whose time is up and that no lane comes to, a part of each queue at a time."""
        looked = (self._delivery.expire(p, self._cursors[p], EXPIRE_MOST) for p in range(PARTITIONS))
        for partition, (cursor, ended) in enumerate(await asyncio.gather(*looked)):
            self._cursors[partition] = cursor
            for message in ended:
                self._carrier.account.ended(message)
