"""What is the same for all processes is told by one of them: queues, what stands over agents, Redis itself.

The role is a lease in Redis. Whoever has it reads Redis at each scrape; the others tell nothing of it, so nothing is
counted twice and a thousand agents do not become a thousand series a pod.
"""

import asyncio
from collections.abc import Callable, Mapping

from redis.asyncio import Redis

from postroom.config.structs import Agent
from postroom.ledger.canaries import Canaries
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.keys import EXPORTER_KEY
from postroom.ledger.overview import read_standings
from postroom.ledger.watch import Watch
from postroom.role import HOLD_MS, Role
from postroom.shared_metrics import SharedMetrics

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
        self._role = Role(client, EXPORTER_KEY, hold_ms=hold_ms)

    @property
    def has_role(self) -> bool:
        """True where this process is the one that tells."""
        return self._role.ours

    async def keep_asking(self) -> None:
        """Hold the role, or ask for it, until cancelled. A dead holder is followed within 20 s."""
        while True:
            await self._ask()
            await asyncio.sleep(EVERY_SECONDS)

    async def refresh(self) -> None:
        """Read everything for a scrape, where the role is ours; without Redis what was seen last stands."""
        if not await self._ask():
            return
        try:
            async with asyncio.timeout(REFRESH_SECONDS):
                await self._read()
        except (LedgerUnavailableError, TimeoutError):
            return

    async def give_up(self) -> None:
        """Leave the role to the next who asks, as well as Redis lets us."""
        await self._role.give_up()
        self._metrics.clear()

    async def _ask(self) -> bool:
        had = self._role.ours
        has = await self._role.ask()
        if had and not has:
            self._metrics.clear()
        return has

    async def _read(self) -> None:
        metrics, agents = self._metrics, self._agents()
        depths, balances = await self._watch.depth(), await self._watch.balance.rows()
        named = {*agents, *(row.agent for row in depths)}
        standings = await read_standings(self._client, named)
        fitness = await self._watch.fitness()
        watched = {name: agent.canary for name, agent in agents.items() if agent.canary}
        beats = await Canaries(self._client).read() if watched else {}
        metrics.clear()
        metrics.show_queues(depths)
        metrics.show_balance(balances)
        metrics.show_agents(agents)
        metrics.show_standings(standings)
        metrics.show_redis(fitness)
        metrics.show_canaries(watched, beats)
