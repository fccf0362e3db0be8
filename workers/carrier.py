"""The carrier: what all rounds of one worker process share, and what is told of their work."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from arq.connections import ArqRedis
from structlog.typing import FilteringBoundLogger

from postroom import rounds
from postroom.config.structs import Config
from postroom.config.units import seconds
from postroom.ledger.clients import end_tasks
from postroom.ledger.delivery import Claim, Claimed, Delivery, Finished, Pace
from postroom.ledger.errors import LedgerError
from postroom.ledger.reading import Reading
from postroom.metrics import CarrierMetrics
from postroom.outcome import ChannelFault
from postroom.states import State
from workers.attempt import Attempt, Ended
from workers.bell import Bell
from workers.channels.seam import Connection
from workers.holdings import Holdings
from workers.outbox import Outbox
from workers.round import Round
from workers.ways import Ways


class Carrier:
    """Runs the rounds of one process."""

    def __init__(  # noqa: PLR0913, PLR0917  the composition root hands over what it has opened
        self,
        config: Config,
        delivery: Delivery,
        reading: Reading,
        attempt: Attempt,
        bell: Bell,
        arq: ArqRedis,
        metrics: CarrierMetrics,
        log: FilteringBoundLogger,
    ) -> None:
        self.config = config
        self.delivery = delivery
        self.bell = bell
        self.metrics = metrics
        self.log = log
        self.holdings = Holdings()
        self.outbox = Outbox(delivery, self.ledger_failed)
        self.linger = seconds(config.worker.linger)
        self.round_seconds = seconds(config.worker.round)
        self.draining = False
        self._reading = reading
        self._attempt = attempt
        self._arq = arq
        self._ways: dict[str, Ways] = {}
        self._rounds: dict[str, Round] = {}
        self._beside: set[asyncio.Task[Any]] = set()
        self._lanes = 0
        self._ledger_ok = True

    async def deliver(self, agent: str) -> None:
        """Run a round for the agent, one at a time. Never raises: a round is only an alarm clock."""
        config = self.config.agents.get(agent)
        if self.draining or config is None:
            return
        if agent in self._rounds:
            self._rounds[agent].rung_again = True
            return
        ways = self._ways.get(agent)
        if ways is None:
            ways = Ways(agent, config, self.delivery, self._reading, self.metrics, self.log)
            self._ways[agent] = ways
        round_ = self._rounds[agent] = Round(self, agent, config, ways)
        try:
            await round_.run()
        except Exception:
            self.log.exception("round.crashed", agent=agent)
        finally:
            del self._rounds[agent]
        if round_.rung_again and not self.draining:
            self.ring_soon(agent)

    def deliver_beside(self, agent: str) -> None:
        """Run a round without arq, where ringing for one failed."""
        self._spawn(self.deliver(agent))

    def ring_soon(self, agent: str) -> None:
        """Ring for a round without waiting."""
        self._spawn(self._ring(agent))

    async def attempt(self, message: Claimed, connection: Connection, channel: str) -> Ended | ChannelFault:
        """Make one attempt (`workers.attempt`)."""
        bounce_address = self.config.agents[message.agent].bounce_address
        return await self._attempt(message, connection, channel, bounce_address)

    def settle(self, message: Claimed, ended: Ended, channel: str) -> None:
        """Put an outcome on its way into the ledger; what becomes of the message is told when it is there."""

        def written(finished: Finished | None) -> None:
            self.holdings.drop(message.agent, message.id)
            self._account(message, ended, channel, finished)

        self.outbox.put(ended.finish, written)

    def give_back(self, agent: str, messages: list[Claimed], pace: Pace) -> None:
        """Release messages untouched."""
        for message in messages:
            self.holdings.drop(agent, message.id)
        held = [(m.id, m.fence) for m in messages]
        self.outbox.release(agent, held, pace, lambda: self.ring_soon(agent))

    async def leave_lane(self, agent: str, lane: str, pace: Pace) -> None:
        """Take a lane off the ledger's list, and ring if mail is due that nobody is awake for."""
        try:
            _, ring = await self.delivery.release(agent, [], pace=pace, lane=lane)
        except LedgerError as error:
            self.ledger_failed(error)
            return
        if ring:
            self.ring_soon(agent)

    def lanes_for_each(self) -> int:
        """Return how many lanes one round may have, so that the process's lanes are shared fairly."""
        return max(1, self.config.worker.max_lanes // max(1, len(self._rounds)))

    def lane_opened(self) -> None:
        """Count a lane."""
        self._lanes += 1
        self.metrics.lanes.set(self._lanes)

    def lane_closed(self) -> None:
        """Count a lane no longer."""
        self._lanes -= 1
        self.metrics.lanes.set(self._lanes)

    def ledger_failed(self, error: LedgerError) -> None:
        """Count a failed call of the ledger; the first of an outage is told."""
        kind = type(error).__name__.removeprefix("Ledger").removesuffix("Error").lower() or "script"
        self.metrics.redis_errors.labels(kind).inc()
        if self._ledger_ok:
            self._ledger_ok = False
            self.log.warning("redis.unavailable", kind=kind, detail=str(error))

    def ledger_answered(self) -> None:
        """Tell of the end of an outage."""
        if not self._ledger_ok:
            self._ledger_ok = True
            self.log.info("redis.recovered")

    def drain(self) -> None:
        """Begin nothing more; let every lane finish the message in hand and give the rest back."""
        self.draining = True
        for round_ in list(self._rounds.values()):
            round_.stop()

    async def ended(self, grace: float) -> None:
        """Wait until every round has ended, `grace` seconds at most."""
        if self._beside:
            await asyncio.wait(set(self._beside), timeout=grace)

    def adopt(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Look after rounds whose arq worker has ended: they go on, and what they raise at the end is known."""
        for task in tasks:
            self._beside.add(task)
            task.add_done_callback(self._forget)

    async def aclose(self) -> None:
        """Close all channels."""
        await end_tasks(*self._beside)
        await asyncio.gather(*(ways.aclose() for ways in self._ways.values()), return_exceptions=True)

    @property
    def lanes(self) -> int:
        """How many lanes this process has open."""
        return self._lanes

    def account_claim(self, agent: str, claim: Claim) -> None:
        """Tell what a claim found out by itself: messages that ended, and leases that had run out."""
        for ended in claim.ended:
            self.metrics.finished.labels(agent, ended.priority, ended.state).inc()
            event = f"message.{ended.state}"
            self.log.warning(event, agent=agent, message_id=ended.id, age_ms=ended.age_ms)
        for lapsed in claim.lapsed:
            self.metrics.lapsed.labels(agent, lapsed.phase or "claimed").inc()
            if lapsed.phase == "committing":
                self.metrics.ambiguous.labels(agent).inc()
                self.metrics.attempts.labels(agent, lapsed.channel, "ambiguous", "none").inc()
            self.log.warning("lease.expired", agent=agent, message_id=lapsed.id, phase=lapsed.phase)

    def _account(self, message: Claimed, ended: Ended, channel: str, finished: Finished | None) -> None:
        log = self.log.bind(
            message_id=message.id,
            client_ref=message.client_ref,
            caller=message.caller,
            agent=message.agent,
            channel=channel,
            n=message.attempts + 1,
        )
        if finished is None:
            self.metrics.fence_lost.labels("finish").inc()
            log.warning("fence.rejected", step="finish", outcome=ended.outcome)
            return
        reply_class = f"{ended.reply_code // 100}xx" if ended.reply_code else "none"
        self.metrics.attempts.labels(message.agent, channel, ended.outcome, reply_class).inc()
        self.metrics.attempt_seconds.labels(message.agent, channel).observe(ended.ms / 1000)
        if ended.ambiguous:
            self.metrics.ambiguous.labels(message.agent).inc()
        if ended.defect is not None:
            self.metrics.render_failures.labels(message.template.partition("@")[0], ended.defect).inc()
        if finished.next_in_ms is None:
            self.metrics.finished.labels(message.agent, message.priority, finished.state).inc()
        if finished.state == State.SENT:
            self.metrics.latency.labels(message.agent, message.priority).observe(finished.age_ms / 1000)
        tell = log.info if ended.outcome in ("sent", "deferred") else log.warning
        tell(
            f"attempt.{ended.outcome}",
            phase=ended.phase,
            reply_code=ended.reply_code,
            enhanced_code=ended.enhanced_code,
            ms=ended.ms,
            provider_id=ended.provider_id or None,
            defect=ended.defect,
            state=finished.state,
            next_in_ms=finished.next_in_ms,
            age_ms=finished.age_ms,
        )

    async def _ring(self, agent: str) -> None:
        if not await rounds.ring(self._arq, agent):
            self.log.warning("ring.failed", agent=agent)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.warning("round.unfinished", error=type(error).__name__)
