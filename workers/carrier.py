"""The carrier: what all rounds of one worker process share, and what is told of their work."""

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any

from postroom import rounds
from postroom.config.change import Change
from postroom.config.structs import Config
from postroom.config.units import seconds
from postroom.failpoint import reach
from postroom.ledger.changes import Notes
from postroom.ledger.claimed import Claimed
from postroom.ledger.clients import end_tasks
from postroom.ledger.delivery import Delivery
from postroom.ledger.errors import LedgerError
from postroom.ledger.finished import Finished
from postroom.ledger.limits import Pace
from postroom.ledger.reading import Reading
from postroom.outage import Outage, kind_of
from postroom.outcome import ChannelFault
from workers.account import Account
from workers.attempt import Attempt, InHand
from workers.bell import Bell
from workers.channels.seam import Ahead, Order, Way
from workers.conclude import Ended
from workers.holdings import Holdings
from workers.outbox import Outbox
from workers.reload import start_over
from workers.round import Round
from workers.stages import Stages
from workers.turns import Turns
from workers.ways import Ways

HELP_SECONDS, HELP_RINGS = 1.0, 40


class Carrier:
    """Runs the rounds of one process."""

    def __init__(  # noqa: PLR0913, PLR0917  the composition root hands over what it has opened
        self,
        config: Config,
        delivery: Delivery,
        reading: Reading,
        attempt: Attempt,
        bell: Bell,
        arq: rounds.RoundsPool,
        notes: Notes,
        account: Account,
    ) -> None:
        self.config = config
        self.delivery = delivery
        self.bell = bell
        self.notes = notes
        self.account = account
        self.metrics, self.log = account.metrics, account.log
        self.holdings = Holdings()
        self.turns = Turns()
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
        self._outage = Outage(self.log)

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
            ways = Ways(
                agent,
                config,
                self.config.breaker,
                self.delivery,
                self._reading,
                self.notes,
                self.metrics,
                self.log,
            )
            self._ways[agent] = ways
        self.metrics.rounds.inc()
        round_ = self._rounds[agent] = Round(self, agent, config, ways)
        self.metrics.rounds_running.set(len(self._rounds))
        try:
            await round_.run()
        except Exception:
            self.log.exception("round.crashed", agent=agent)
        finally:
            del self._rounds[agent]
            self.metrics.rounds_running.set(len(self._rounds))
            round_.ended.set()
        if round_.rung_again and not self.draining:
            self.ring_soon(agent)

    def apply(self, change: Change) -> None:
        """Work by a reloaded configuration. Messages under way end as they began, over their old channels."""
        self.config = change.new
        for agent in change.touched:
            self._spawn(start_over(self, agent, change, self._rounds.get(agent), self._ways.pop(agent, None)))

    def deliver_beside(self, agent: str) -> None:
        """Run a round without arq, where ringing for one failed."""
        self._spawn(self.deliver(agent))

    def nudge(self, agent: str) -> None:
        """Have the agent's round look again, if it has an idle lane."""
        if agent in self._rounds:
            self._rounds[agent].nudge()

    def ring_soon(self, agent: str) -> None:
        """Ring for a round without waiting."""
        self._spawn(self._ring(agent))

    def make(self, in_hand: InHand, round_: Round) -> Awaitable[Order | None]:
        """Make a message's order before its attempt (`workers.attempt`)."""
        return self._attempt.make(in_hand, round_.config.bounce_address)

    def attempt(
        self, in_hand: InHand, way: Way, round_: Round, ahead: Ahead | None
    ) -> Awaitable[Ended | ChannelFault]:
        """Make one attempt (`workers.attempt`)."""
        return self._attempt(in_hand, way, round_.config.bounce_address, round_.limits.pace, ahead)

    def settle(self, message: Claimed, ended: Ended, way: Way, round_: Round, stages: Stages) -> None:
        """Put an outcome on its way into the ledger; what becomes of the message is told when it is there."""
        put_at = time.perf_counter()

        def written(finished: Finished | None) -> None:
            reach("after_finish")
            self.holdings.drop(message.agent, message.id)
            if finished is not None and (finished.guarded or finished.slow):
                self._spawn(self._stop_for_all(round_.ways, ended, way.channel, refused=finished.guarded))
            if finished is None or not finished.guarded:
                stages.finish = time.perf_counter() - put_at
                self.account.attempt(message, ended, way, finished, stages)

        reach("before_finish")
        self.outbox.put(ended.finish, round_.limits, written, narrowed=round_.narrowed)

    def give_back(
        self, agent: str, messages: list[Claimed], pace: Pace, *, behind: str = "", wait: float = 0
    ) -> None:
        """Release messages untouched, the one called `behind` to the end of the queue; or all for `wait` seconds."""
        for message in messages:
            self.holdings.drop(agent, message.id)
        held = [(m.id, m.fence) for m in messages]
        self.outbox.release(agent, held, pace, lambda: self.ring_soon(agent), behind=behind, wait=wait)

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

    def help_seconds(self) -> float:
        """Return how long a round that wants more lanes waits before it rings for other workers again.

        To ring, and to hear it where nobody else does, costs as much as two messages: so all rounds together ring
        `HELP_RINGS` times a second at most, once each has rung.
        """
        return max(HELP_SECONDS, len(self._rounds) / HELP_RINGS)

    def lane_opened(self) -> None:
        """Count a lane."""
        self._lanes += 1
        self.metrics.lanes.set(self._lanes)

    def lane_closed(self) -> None:
        """Count a lane no longer."""
        self._lanes -= 1
        self.metrics.lanes.set(self._lanes)

    def ledger_failed(self, error: LedgerError) -> None:
        """Count a failed call of the ledger, and tell of an outage."""
        self.metrics.redis_errors.labels(kind_of(error)).inc()
        self.metrics.redis_up.set(0)
        self._outage.failed(error)

    def ledger_answered(self) -> None:
        """Tell of the end of an outage."""
        self.metrics.redis_up.set(1)
        self._outage.over()

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

    async def _stop_for_all(self, ways: Ways, ended: Ended, channel: str, *, refused: bool) -> None:
        try:
            await ways.stop_for_all(channel, ended, refused=refused)
        except LedgerError as error:
            self.ledger_failed(error)

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
