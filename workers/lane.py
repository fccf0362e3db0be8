"""A lane: one connection and one claim at a time, for one agent.

The connection is made first: what goes wrong with it is the channel's matter, and no message has been touched.
"""

import time
import uuid
from typing import TYPE_CHECKING

from postroom.ledger.delivery import Claim, Claimed
from postroom.ledger.errors import LedgerError
from postroom.outcome import ChannelFault, FenceLostError
from workers.attempt import Ended
from workers.ways import Way

if TYPE_CHECKING:
    from workers.round import Round

MOST_CLAIMED = 64
LEDGER_PAUSE = 0.25  # seconds until a lane asks again, while the ledger is away
BULK_EVERY = 8  # so often a lane looks at bulk mail first, so that it never starves


class Lane:
    """Works until nothing has been due for a linger, the round is over, or no channel is left."""

    def __init__(self, owner: "Round") -> None:
        self._round = owner
        self._carrier = owner.carrier
        self._agent = owner.agent
        self.id = uuid.uuid4().hex[:16]
        self._way: Way | None = None
        self._batch = 1
        self._claims = 0
        self._idle_since = time.monotonic()
        self._left = False  # by the claim that found nothing due, in the ledger itself

    async def run(self) -> None:
        """Never raises but for cancellation: what goes wrong is written down and the mail goes back."""
        self._carrier.holdings.enter(self._agent, self.id)
        try:
            await self._work_until_done()
        except Exception:
            self._carrier.log.exception("lane.crashed", agent=self._agent)
        finally:
            self._carrier.holdings.leave(self._agent, self.id)
            await self._clear_up()

    async def _work_until_done(self) -> None:
        while not self._round.over and not self._left:
            try:
                await self._carrier.outbox.wait_until_flowing()
                if not await self._hold_connection():
                    return
                claim = await self._claim()
                if claim is None:
                    return
                await self._deliver(claim)
            except LedgerError as error:
                self._carrier.ledger_failed(error)
                await self._round.pause(LEDGER_PAUSE)

    async def _hold_connection(self) -> bool:
        """Have a ready connection in hand, before anything is claimed."""
        if self._way is not None and not self._way.connection.usable:
            way, self._way = self._way, None
            await way.connection.aclose()
        if self._way is None:
            self._way = await self._round.ways.open()
        return self._way is not None

    async def _claim(self) -> Claim | None:
        agent = self._round.config
        self._claims += 1
        leave = time.monotonic() - self._idle_since >= self._carrier.linger
        claim = await self._carrier.delivery.claim(
            self._agent,
            self.id,
            most=self._batch,
            connections=agent.connections,
            pace=self._round.pace,
            order="bhn" if self._claims % BULK_EVERY == 0 else "hnb",
            leave=leave,
            listening=self._round.can_react,
        )
        if claim is None:
            self._left = True
            return None
        for message in claim.messages:
            self._carrier.holdings.take(self._agent, message.id, message.fence)
        self._carrier.account_claim(self._agent, claim)
        self._left = leave and not claim.messages and not claim.more
        return claim

    async def _deliver(self, claim: Claim) -> None:
        if claim.more:
            self._round.nudge()
        if claim.messages:
            started = time.monotonic()
            done = await self._send_all(claim.messages)
            self._idle_since = time.monotonic()
            # No more at once than it sent in the last second: what a lane holds, nobody else can send.
            rate = done / max(self._idle_since - started, 1e-6)
            self._batch = min(MOST_CLAIMED, max(1, int(rate)))
        elif not self._left:
            linger_left = self._idle_since + self._carrier.linger - time.monotonic()
            await self._round.wait_for_mail(max(0.0, linger_left), claim.next_in_ms)

    async def _send_all(self, messages: tuple[Claimed, ...]) -> int:
        """Send one after the other; what cannot be sent now goes back untouched."""
        done = 0
        try:
            for message in messages:
                if self._round.over or self._way is None:
                    break
                if self._carrier.holdings.is_lost(message.id):
                    self._carrier.holdings.drop(self._agent, message.id)
                elif not await self._send(message):
                    break
                done += 1
        finally:
            rest = [m for m in messages[done:] if self._carrier.holdings.holds(self._agent, m.id)]
            if rest:
                self._carrier.give_back(self._agent, rest, self._round.pace)
        return done

    async def _send(self, message: Claimed) -> bool:
        """Make one attempt. False where the message was not sent and nothing more should be tried now."""
        assert self._way is not None
        carrier, way = self._carrier, self._way
        try:
            ended = await carrier.attempt(message, way.connection, way.channel)
        except FenceLostError:
            carrier.metrics.fence_lost.labels("advance").inc()
            carrier.log.warning("fence.rejected", agent=self._agent, message_id=message.id, step="advance")
            await self._drop_connection()
            return False
        except LedgerError as error:
            carrier.ledger_failed(error)
            await self._drop_connection()
            return False
        if isinstance(ended, ChannelFault):
            await self._drop_connection()
            await self._round.ways.stop(way.channel, ended)
            return False
        await self._settle(message, ended, way)
        return True

    async def _settle(self, message: Claimed, ended: Ended, way: Way) -> None:
        self._carrier.settle(message, ended, way.channel)
        if ended.defect is None:
            await self._round.ways.worked(way.channel)
        if not way.connection.usable:
            await self._drop_connection()
            await self._hold_connection()

    async def _drop_connection(self) -> None:
        way, self._way = self._way, None
        if way is not None:
            await way.connection.aclose()

    async def _clear_up(self) -> None:
        """Park the connection and leave the ledger's list of lanes; mail that is due is rung for."""
        if self._way is not None:
            await self._round.ways.park(self._way)
        if not self._left:
            await self._carrier.leave_lane(self._agent, self.id, self._round.pace)
