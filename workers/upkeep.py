"""What a worker process does on its own clock: renew what it holds, and sweep for agents nobody is awake for."""

import asyncio
import os
import socket

from arq.connections import ArqRedis
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from postroom import rounds
from postroom.ledger.delivery import Delivery
from postroom.ledger.errors import LedgerError
from postroom.ledger.keys import PARTITIONS
from workers.carrier import Carrier

RENEW_SHARE = 0.2  # of the lease: one renewal may fail before a lane is lost, three before a message is
SWEEPER = "pr:sweeper"


async def keep_renewing(carrier: Carrier, delivery: Delivery) -> None:
    """Extend everything this process holds, whatever its phase, until cancelled."""
    while True:
        await asyncio.sleep(delivery.lease_ms / 1000 * RENEW_SHARE)
        for agent in carrier.holdings.agents():
            lanes, messages = carrier.holdings.of(agent)
            try:
                lost = await delivery.renew(agent, lanes, messages)
            except LedgerError as error:
                carrier.ledger_failed(error)
                continue
            carrier.ledger_answered()
            gone = set(lost)
            carrier.holdings.lose(agent, [held for held in messages if held[0] in gone])


class Sweep:
    """Rings for agents with due mail and no lanes: whatever was lost on the way costs one sweep."""

    def __init__(
        self, carrier: Carrier, delivery: Delivery, client: Redis, arq: ArqRedis, every: float
    ) -> None:
        self._carrier = carrier
        self._delivery = delivery
        self._client = client
        self._arq = arq
        self._every = every
        self._me = f"{socket.gethostname()}:{os.getpid()}"

    async def keep_sweeping(self) -> None:
        """Sweep until cancelled. One process does it at a time; a dead one is followed within a sweep."""
        while True:
            try:
                if await self._lead():
                    await self._sweep()
                self._carrier.ledger_answered()
            except LedgerError as error:
                self._carrier.ledger_failed(error)
            except (RedisError, OSError):
                pass  # the ledger's own calls tell of an outage
            await asyncio.sleep(self._every)

    async def _lead(self) -> bool:
        hold_ms = max(50, int(self._every * 900))
        try:
            return bool(await self._client.set(SWEEPER, self._me, nx=True, px=hold_ms))
        except OutOfMemoryError:
            # A full Redis takes no lock, and sweeping is what drains it: then everybody sweeps.
            return True

    async def _sweep(self) -> None:
        found = await asyncio.gather(*(self._delivery.sweep(p) for p in range(PARTITIONS)))
        for agent in (agent for agents in found for agent in agents):
            self._carrier.metrics.swept.inc()
            # Where arq's Redis is away or full, the round is run here: the ledger alone is enough to deliver.
            if not await rounds.ring(self._arq, agent):
                self._carrier.deliver_beside(agent)
