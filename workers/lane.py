"""A lane: one connection and one claim at a time, for one agent.

A lane is on the ledger's list before it connects and until it has hung up, so that the agent's `connections` hold
over all workers. The claim that puts the first lane of a round there brings a message along, where nothing is known
against the channel that it goes over. What goes wrong with the connection is the channel's matter: the message goes
back untouched, to its old place.
"""

import asyncio
import time
import uuid
from typing import TYPE_CHECKING

from postroom.ledger.claimed import Claim, Claimed
from postroom.ledger.errors import LedgerError
from postroom.outcome import ChannelFault, DayUsedUpError, FenceLostError, TooLateError
from workers.channels.seam import Way
from workers.conclude import Ended
from workers.stages import Stages

if TYPE_CHECKING:
    from workers.round import Round

MOST_CLAIMED = 16  # more would save little, and one claim holds Redis up for everybody
HOLD_SECONDS = 3.0  # with less, a thousand agents that share a worker claim each message by itself
LEDGER_PAUSE = 0.25  # seconds until a lane asks again, while the ledger is away
SHORT_STOP = 1.0  # seconds; for a longer one no lane waits, for the sweep rings again
LEAST_PAUSE = 0.02
OWN_LEAST, OWN_MOST = 1.0, 60.0  # seconds until one is looked at again whose own channel stands still
PACE_SECONDS = 1.0  # how long a lane waits for the agent's rate without looking


class Lane:
    """Works until nothing has been due for a linger, the round is over, or no channel is left."""

    def __init__(self, owner: "Round") -> None:
        self._round = owner
        self._carrier = owner.carrier
        self._agent = owner.agent
        self.id = uuid.uuid4().hex[:16]
        self._way: Way | None = None
        self._batch = 1
        self._version = 0  # of what stands over the agent, as the last claim said
        self._idle_since = time.monotonic()
        self._paced = 0.0  # how long, at the last claim, the agent's rate had held its mail up
        self._recalls = 0  # how often the round's lanes had been recalled when the last claim was asked for
        self._left = False  # a claim took it off the ledger's list: nothing due, or lanes enough

    async def run(self) -> None:
        """Never raises but for cancellation: what goes wrong is written down and the mail goes back."""
        self._carrier.holdings.enter(self._agent, self.id)
        try:
            await self._work_until_done()
        except Exception:
            self._carrier.log.exception("lane.crashed", agent=self._agent)
        finally:
            await self._hang_up()
            self._carrier.holdings.leave(self._agent, self.id)
            if not self._left:
                await self._carrier.leave_lane(self._agent, self.id, self._round.limits.pace)

    async def _work_until_done(self) -> None:
        while not self._round.over and not self._left and not self._round.crowded:
            try:
                await self._round.until_flowing()
                if not await self._work():
                    return
            except LedgerError as error:
                self._carrier.ledger_failed(error)
                await self._round.pause(LEDGER_PAUSE)

    async def _work(self) -> bool:
        """Connect, claim and deliver; False where every channel stands still for a while, and the sweep rings again."""
        claim = None
        if self._way is None or self._lingered():
            await self._hang_up()
            claim = await self._first_claim()
            if claim is None:
                return True
        if not await self._hold_connection(claim):
            if (wait := self._round.ways.next_try()) > SHORT_STOP:
                return False
            await self._round.pause(max(wait, LEAST_PAUSE))
            return True
        if claim is None or not claim.messages:
            claim = await self._claim(self._batch)
        if claim is not None:
            await self._deliver(claim)
        return True

    def _lingered(self) -> bool:
        return time.monotonic() - self._idle_since >= self._carrier.linger

    async def _first_claim(self) -> Claim | None:
        """Without a connection: stay on the ledger's list, or get on it, only where mail is due and may be sent.

        A message comes along where no other lane is there that might be quicker to send it.
        """
        claim = await self._claim(int(self._round.single and self._round.ways.sound), leave=True)
        if claim is None or self._left:
            return None
        if claim.bulk_waits:
            self._round.pass_on()
        if claim.messages or claim.more:
            return claim
        # Mail is due, and the agent's rate is in the way, or it is left to other lanes.
        await self._round.wait_for_mail(PACE_SECONDS, claim.next_in_ms, spare=claim.bulk_waits)
        return None

    async def _hold_connection(self, claim: Claim | None) -> bool:
        """Have a ready connection in hand; where there is none, what was claimed for it goes back untouched."""
        try:
            await self._look_around()
            if self._way is None:
                self._way = await self._round.ways.open(self.id)
        finally:
            if self._way is None and claim is not None and claim.messages:
                self._carrier.give_back(self._agent, list(claim.messages), self._round.limits.pace)
        return self._way is not None

    async def _look_around(self) -> None:
        """Heed what came to stand over the agent since this lane last looked, and what became of its connection."""
        ways = self._round.ways
        if self._version != ways.version:
            await ways.refresh()
        if self._way is not None and not (self._way.connection.usable and ways.is_right(self._way)):
            await self._hang_up()

    async def _claim(self, most: int, *, leave: bool = False) -> Claim | None:
        asked_at, recalls = time.monotonic(), self._round.recalls
        claim = await self._carrier.delivery.claim(
            self._agent,
            self.id,
            most=most,
            limits=self._round.limits,
            leave=leave,
            listening=self._round.can_react,
        )
        if claim is None:
            self._left = True
            return None
        for message in claim.messages:
            self._carrier.holdings.take(self._agent, message.id, message.fence)
        self._carrier.account.claim(self._agent, claim)
        self._left, self._round.narrowed = claim.left, claim.narrowed
        if not claim.more and not claim.bulk_waits:
            self._round.caught_up(asked_at)
        self._version, self._recalls = claim.version, recalls
        self._paced = claim.paced_ms / 1000
        return claim

    async def _deliver(self, claim: Claim) -> None:
        if claim.more:
            self._round.share()
        elif claim.bulk_waits:
            self._idle_since = time.monotonic()  # stays ready: the others are busy with bulk mail
            self._round.pass_on()
        if claim.messages:
            started = time.monotonic()
            done = await self._send_all(claim.messages)
            self._idle_since = time.monotonic()
            # No more at once than it sends in a few seconds: what a lane holds, nobody else can send.
            rate = done / max(self._idle_since - started, 1e-6)
            self._batch = min(MOST_CLAIMED, max(1, int(rate * HOLD_SECONDS)))
        else:
            linger_left = self._idle_since + self._carrier.linger - time.monotonic()
            await self._round.wait_for_mail(linger_left, claim.next_in_ms, spare=claim.bulk_waits)

    async def _send_all(self, messages: tuple[Claimed, ...]) -> int:
        """Send one after the other; what cannot be sent now goes back untouched."""
        done, met_fault = 0, ""
        try:
            await self._look_around()
            for message in messages:
                if self._way is None or self._is_called_off(message):
                    break
                if self._carrier.holdings.is_lost(message.id):
                    self._carrier.holdings.drop(self._agent, message.id)
                    done += 1
                    continue
                if not await self._fit_way(message):
                    done += 1
                    continue
                way = self._way
                await self._carrier.turns.take(self._agent)
                stages = Stages(self._paced, way.opened_in)
                way.opened_in = 0.0
                try:
                    ended = await self._send(message, way, stages)
                except DayUsedUpError:
                    break  # it waits for tomorrow, in its old place: nothing is wrong with it
                if ended is None:
                    met_fault = message.id
                    break
                # From here on the message has an outcome: whatever else goes wrong, it is not given back.
                self._carrier.settle(message, ended, way, self._round, stages)
                done += 1
                await self._go_on(ended, way)
        finally:
            rest = [m for m in messages[done:] if self._carrier.holdings.holds(self._agent, m.id)]
            if rest:
                self._carrier.give_back(self._agent, rest, self._round.limits.pace, behind=met_fault)
        return done

    async def _fit_way(self, message: Claimed) -> bool:
        """Have a connection that the message may go over; else give it back until its own channel is tried again."""
        ways = self._round.ways
        own = ways.own(message)
        if own is None or (self._way is not None and self._way.channel in own):
            return True
        if not ways.next_try(own):
            await self._hang_up()
            self._way = await ways.open(self.id, own)
            if self._way is not None:
                return True
        wait = min(max(ways.next_try(own), OWN_LEAST), OWN_MOST)  # a person may mend it at any time
        self._carrier.give_back(self._agent, [message], self._round.limits.pace, wait=wait)
        return False

    def _is_called_off(self, message: Claimed) -> bool:
        """True where the lane should look again before it sends this one."""
        if self._round.over or self._recalls != self._round.recalls:
            return True
        if self._round.urgent and message.priority != "high":
            self._round.urgent = False  # one lane is enough
            return True
        return False

    async def _send(self, message: Claimed, way: Way, stages: Stages) -> Ended | None:
        """Make one attempt. None where the message was not sent and nothing more should be tried now.

        Raises:
            DayUsedUpError: the same, and not for anything about this message.
        """
        carrier = self._carrier
        try:
            ended = await carrier.attempt(message, way, self._round, stages)
        except FenceLostError:
            carrier.metrics.fence_lost.labels("advance").inc()
            carrier.log.warning("fence.rejected", agent=self._agent, message_id=message.id, step="advance")
        except TooLateError:
            carrier.log.info("mark.too_late", agent=self._agent, message_id=message.id)
        except DayUsedUpError:
            carrier.log.info("day.used_up", agent=self._agent)
            await self._hang_up()
            raise
        except LedgerError as error:
            carrier.ledger_failed(error)
        except asyncio.CancelledError:
            # The dot may be out: what the mark says must stand, so it is not given back.
            carrier.holdings.drop(self._agent, message.id)
            raise
        else:
            if not isinstance(ended, ChannelFault):
                return ended
            await self._hang_up()
            await self._round.ways.stop(way.channel, ended)
        await self._hang_up()
        return None

    async def _go_on(self, ended: Ended, way: Way) -> None:
        ways = self._round.ways
        if not await ways.heed(way.channel, ended) and ended.answered:
            await ways.worked(way.channel, ended.outcome)
        if not way.connection.usable or not ways.is_right(way):
            await self._hang_up()

    async def _hang_up(self) -> None:
        way, self._way = self._way, None
        if way is not None:
            await way.connection.aclose()
