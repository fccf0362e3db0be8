"""A round: one process's work on one agent's queue, through a few lanes.

It begins because somebody rang, opens lanes while there is more to do, and ends when all of them have left.
After its time it ends as well, and rings again, so that another worker may take over.
"""

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from postroom.config.structs import Agent
from postroom.ledger.errors import LedgerError
from postroom.pace import pace_of
from workers.lane import Lane
from workers.ways import Ways

if TYPE_CHECKING:
    from workers.carrier import Carrier

POLL_SECONDS = 0.5  # how soon a round looks by itself, should the bell's ring have been lost
HELP_SECONDS = 1.0
FLOW_SECONDS = 0.1


class Round:
    """One round. At most one a process and agent runs at a time."""

    def __init__(self, carrier: "Carrier", agent: str, config: Agent, ways: Ways) -> None:
        self.carrier = carrier
        self.agent = agent
        self.config = config
        self.ways = ways
        self.pace = pace_of(config)
        self._stopped = asyncio.Event()
        self._ends_at = time.monotonic() + carrier.round_seconds
        self._lanes: set[asyncio.Task[None]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._rung_for_help = 0.0
        self._missed = False
        self.rung_again = False  # by somebody who may have seen no lane, for this round was about to end

    async def run(self) -> None:
        """Work until no lane is left."""
        async with self.carrier.bell.heard_by(self.agent, self.nudge):
            try:
                await self.ways.refresh()
            except LedgerError as error:
                self.carrier.ledger_failed(error)
            self._open_lane()
            try:
                await self._watch_lanes()
            finally:
                self.stop()  # cancelled or not, no lane is left without an end

    async def _watch_lanes(self) -> None:
        while self._lanes:
            await asyncio.wait(self._lanes, timeout=POLL_SECONDS)
            if time.monotonic() >= self._ends_at:
                self.stop()
            elif self._lanes and (self._idle or self._has_room()):
                self.nudge()  # should a ring have been lost; a lane nobody needs leaves at once

    def stop(self) -> None:
        """Let every lane finish the message in hand and leave."""
        self._stopped.set()
        while self._idle:
            self._wake_one()

    @property
    def over(self) -> bool:
        """True once the lanes are to leave."""
        return self._stopped.is_set()

    @property
    def can_react(self) -> bool:
        """True where a ring finds an idle lane, or room for another one."""
        return bool(self._idle) or self._has_room()

    def nudge(self) -> None:
        """Mail is due: wake an idle lane, else open another, else ring for help."""
        if self.over:
            return
        if not self._wake_one():
            if self._has_room():
                self._open_lane()
                return
            self._missed = True  # whichever lane is done next looks again before it sleeps
            if len(self._lanes) < self.config.connections:
                self._ring_for_help()

    async def wait_for_mail(self, seconds: float, next_in_ms: int | None) -> None:
        """Sleep as an idle lane: until a nudge, until the next message is due, or for `seconds`."""
        if next_in_ms is not None:
            seconds = min(seconds, next_in_ms / 1000 + 0.001)
        missed, self._missed = self._missed, False
        if seconds <= 0 or self.over or missed:
            await asyncio.sleep(0)
            return
        await self._sleep(seconds)

    async def until_flowing(self) -> None:
        """Wait while outcomes cannot be written; the end of the round cuts it short."""
        while not (self.carrier.outbox.flows or self.over):
            await self.pause(FLOW_SECONDS)

    async def pause(self, seconds: float) -> None:
        """Wait, whatever rings; only the end of the round cuts it short."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _sleep(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._idle.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return
        finally:
            if waiter in self._idle:
                self._idle.remove(waiter)

    def _wake_one(self) -> bool:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return True
        return False

    def _has_room(self) -> bool:
        return len(self._lanes) < min(self.config.connections, self.carrier.lanes_for_each())

    def _open_lane(self) -> None:
        task = asyncio.create_task(Lane(self).run())
        self._lanes.add(task)
        self.carrier.lane_opened()
        task.add_done_callback(self._lane_closed)

    def _lane_closed(self, task: asyncio.Task[None]) -> None:
        self._lanes.discard(task)
        self.carrier.lane_closed()

    def _ring_for_help(self) -> None:
        now = time.monotonic()
        if now - self._rung_for_help >= HELP_SECONDS:
            self._rung_for_help = now
            self.carrier.ring_soon(self.agent)
