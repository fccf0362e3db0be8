"""What is the same for all processes is told by one of them: queues, what stands over agents, Redis itself.

The role is a lease in Redis. Whoever has it reads Redis at each scrape; the others tell nothing of it, so nothing is
counted twice and a thousand agents do not become a thousand series a pod.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.config.structs import Agent
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.keys import EXPORTER_KEY
from postroom.ledger.overview import read_standings
from postroom.ledger.watch import Watch
from postroom.shared_metrics import SharedMetrics

HOLD_MS = 15_000
EVERY_SECONDS = 5.0
REFRESH_SECONDS = 2.0  # what a scrape waits for Redis before it shows what was seen last


class Exporter:
    """One process's part in that: it asks for the role, and reads while it has it."""

    def __init__(
        self,
        client: Redis,
        watch: Watch,
        agents: Callable[[], Mapping[str, Agent]],
        metrics: SharedMetrics,
        *,
        hold_ms: int = HOLD_MS,
    ) -> None:
        self._client = client
        self._watch = watch
        self._agents = agents
        self._metrics = metrics
        self._hold_ms = hold_ms
        self._me = uuid.uuid4().hex
        self.has_role = False

    async def keep_asking(self) -> None:
        """Hold the role, or ask for it, until cancelled. A dead holder is followed within 20 s."""
        while True:
            await self._ask_in_time()
            await asyncio.sleep(EVERY_SECONDS)

    async def refresh(self) -> None:
        """Read everything for a scrape, where the role is ours; without Redis what was seen last stands."""
        await self._ask_in_time()
        if not self.has_role:
            return
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self._read()
        except (LedgerUnavailableError, TimeoutError):
            return

    async def give_up(self) -> None:
        """Leave the role to the next who asks, as well as Redis lets us."""
        if self.has_role:
            self._leave()
            try:
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._client.delete(EXPORTER_KEY)
            except (RedisError, OSError, TimeoutError):
                return  # it runs out

    async def _ask_in_time(self) -> None:
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self._ask()
        except (RedisError, OSError, TimeoutError):
            return  # nobody can take the role meanwhile

    async def _ask(self) -> None:
        taken = await self._client.set(EXPORTER_KEY, self._me, nx=True, px=self._hold_ms)
        if not taken and (holder := await self._client.get(EXPORTER_KEY)) is not None:
            taken = holder.decode() == self._me
            if taken:
                await self._client.pexpire(EXPORTER_KEY, self._hold_ms)
        if taken:
            self.has_role = True
        elif self.has_role:
            self._leave()

    def _leave(self) -> None:
        self.has_role = False
        self._metrics.clear()

    async def _read(self) -> None:
        metrics, agents = self._metrics, self._agents()
        depths, balances = await self._watch.depth(), await self._watch.balance.rows()
        named = {*agents, *(row.agent for row in depths)}
        standings = await read_standings(self._client, named)
        fitness = await self._watch.fitness()
        metrics.clear()
        metrics.show_queues(depths)
        metrics.show_balance(balances)
        metrics.show_agents(agents)
        metrics.show_standings(standings)
        metrics.show_redis(fitness)
