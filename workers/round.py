"""A round: one process's work on one agent's queue, through a few lanes.

It begins because somebody rang, opens lanes while there is more to do, and ends when all of them have left.
After its time it ends as well, and rings again, so that another worker may take over.
"""

import asyncio
import math
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from postroom.config.structs import Agent
from postroom.pace import limits_of
from workers.lane import Lane
from workers.ways import Ways

if TYPE_CHECKING:
    from workers.carrier import Carrier

ANOTHER_SECONDS = 0.005
FLOW_SECONDS = 0.1

Waiters = deque[asyncio.Future[None]]


class Round:
    """One round. At most one a process and agent runs at a time."""

    def __init__(self, carrier: "Carrier", agent: str, config: Agent, ways: Ways) -> None:
        self.carrier = carrier
        self.agent = agent
        self.config = config
        self.ways = ways
        self.limits = limits_of(config, carrier.config.breaker)
        self.ended = asyncio.Event()
        self._stopped = asyncio.Event()
        self._ends_at = time.monotonic() + carrier.round_seconds
        self._lanes: set[asyncio.Task[None]] = set()
        self._idle: Waiters = deque()
        self._spare: Waiters = deque()
        self._rung_for_help = 0.0
        self._missed = False
        self._wanted_at = 0.0  # when one more lane was wanted, 0 for never
        self._opening = False
        self.urgent = False  # mail of high priority is due, and no lane was free to take it
        self.urged_at = -math.inf  # when that was so last
        self.narrowed = False  # the agent was asked to slow down and works with fewer connections
        self.recalls = 0  # how often all lanes were told to stop and look again
        self.rung_again = False  # by somebody who may have seen no lane, for this round was about to end

    async def run(self) -> None:
        """Work until no lane is left."""
        async with self.carrier.bell.heard_by(self.agent, self.hear):
            self._open_lane()
            try:
                await self._watch_lanes()
            finally:
                self.stop()  # cancelled or not, no lane is left without an end

    async def _watch_lanes(self) -> None:
        while self._lanes:
            left = self._ends_at - time.monotonic()
            await asyncio.wait(self._lanes, timeout=max(left, 0) if not self.over else None)
            if time.monotonic() >= self._ends_at:
                self.stop()

    def stop(self) -> None:
        """Let every lane finish the message in hand and leave."""
        self._stopped.set()
        while _wake_one(self._idle) or _wake_one(self._spare):
            pass

    @property
    def over(self) -> bool:
        """True once the lanes are to leave."""
        return self._stopped.is_set()

    @property
    def single(self) -> bool:
        """True while there is no lane but one."""
        return len(self._lanes) <= 1

    @property
    def crowded(self) -> bool:
        """True where this round has more lanes than its share, because others have begun since."""
        return len(self._lanes) > self.carrier.lanes_for_each()

    @property
    def can_react(self) -> bool:
        """True where a ring finds an idle lane, or room for another one."""
        return bool(self._idle) or self._has_room()

    def hear(self, said: str) -> None:
        """Hear a ring of the bell (`workers.bell`)."""
        if said == "s":
            # Rings before this moment went unheard: an idle lane looks now, any other before it sleeps.
            self._missed = not _wake_one(self._idle)
            return
        if said == "x":
            self.recalls += 1
        elif said != "b" and _wake_one(self._spare):
            return
        elif said == "h":
            self.urgent = not self._idle
            self.urged_at = time.monotonic() if self.urgent else self.urged_at
        self.nudge()

    def pass_on(self) -> None:
        """Mail is due that the lane that saw it leaves to others: wake one of them, or open one."""
        if not self.over and not _wake_one(self._idle) and self._has_room():
            self._open_lane()

    def nudge(self) -> None:
        """Mail is due: wake an idle lane, else open another, else ring for help."""
        if not self.over and not _wake_one(self._idle):
            self._missed = True  # whichever lane is done next looks again before it sleeps
            self._open_another()

    def share(self) -> None:
        """More mail is due than the lane that saw it has claimed."""
        if not self.over and not _wake_one(self._idle):
            self._open_another()

    def caught_up(self, asked_at: float) -> None:
        """A claim that was made then, by the monotonic clock, left nothing due: no other lane is wanted any more."""
        if self._wanted_at <= asked_at:
            self._wanted_at = 0.0

    async def wait_for_mail(self, seconds: float, next_in_ms: int | None, *, spare: bool = False) -> None:
        """Sleep as an idle lane: until a nudge, until the next message is due, or for `seconds`.

        A `spare` lane leaves bulk mail to the others, and is only woken for what it takes.
        """
        if next_in_ms is not None:
            seconds = min(seconds, next_in_ms / 1000 + 0.001)
        missed = self._missed and not spare
        if missed:
            self._missed = False
        if seconds <= 0 or self.over or missed:
            await asyncio.sleep(0)
            return
        await _sleep(self._spare if spare else self._idle, seconds)

    async def until_flowing(self) -> None:
        """Wait while outcomes cannot be written; the end of the round cuts it short."""
        while not (self.carrier.outbox.flows or self.over):
            await self.pause(FLOW_SECONDS)

    async def pause(self, seconds: float) -> None:
        """Wait, whatever rings; only the end of the round cuts it short."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    def _has_room(self) -> bool:
        return len(self._lanes) < min(self.config.connections, self.carrier.lanes_for_each())

    def _open_another(self) -> None:
        """Open one more lane in a moment, unless those there are have caught up by then.

        A connection costs as much as a dozen messages, and a quick server needs no second one for a handful.
        """
        if not self._has_room():
            if len(self._lanes) < self.config.connections:
                self._ring_for_help()
        elif not self._opening:
            self._opening = True
            asyncio.get_running_loop().call_later(ANOTHER_SECONDS, self._open_if_wanted)
        self._wanted_at = time.monotonic()

    def _open_if_wanted(self) -> None:
        self._opening = False
        if self._wanted_at and self._lanes and not self.over and self._has_room():
            self._open_lane()

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
        if now - self._rung_for_help >= self.carrier.help_seconds():
            self._rung_for_help = now
            self.carrier.ring_soon(self.agent)


async def _sleep(waiters: Waiters, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()
    waiters.append(waiter)
    timer = loop.call_later(seconds, _wake, waiter)
    try:
        await waiter
    finally:
        timer.cancel()
        if waiter in waiters:
            waiters.remove(waiter)


def _wake_one(waiters: Waiters) -> bool:
    while waiters:
        if _wake(waiters.popleft()):
            return True
    return False


def _wake(waiter: asyncio.Future[None]) -> bool:
    if waiter.done():
        return False
    waiter.set_result(None)
    return True
