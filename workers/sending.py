"""Sending: the messages of one claim, one after the other over a lane's connection.

While one is under way, the next is made: a connection that takes commands in groups begins it with the end of the one
before. A message that is begun is sent next, or the lane hangs up.
"""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from postroom.ledger.claimed import Claim, Claimed
from postroom.ledger.errors import LedgerError
from postroom.outcome import ChannelFault, DayUsedUpError, FenceLostError, TooLateError
from workers.attempt import InHand
from workers.channels.seam import Order, Way
from workers.conclude import Ended
from workers.stages import Stages

if TYPE_CHECKING:
    from workers.round import Round

HURRIED_US = 5_000  # between two messages by an agent's rate; below 200/s a claim holds hardly any ahead
CALM_SECONDS = 5.0  # since mail came that goes before what was claimed, until such is begun ahead again
OWN_LEAST, OWN_MOST = 1.0, 60.0  # seconds until one is looked at again whose own channel stands still


class Sending:
    """Sends for one lane."""

    def __init__(self, owner: "Round", lane: str) -> None:
        self._round = owner
        self._carrier = owner.carrier
        self._agent = owner.agent
        self._lane = lane
        self.way: Way | None = None  # the connection in hand
        self._ahead: InHand | None = None  # the next message, which the connection may have begun already
        self._version = 0  # of what stands over the agent, as the last claim said
        self._recalls = 0  # how often the round's lanes had been recalled when the last claim was asked for
        self._paced = 0.0  # how long, at the last claim, the agent's rate had held its mail up

    def heed(self, claim: Claim, recalls: int) -> None:
        """Take note of a claim, and of how often the lanes had been recalled when it was asked for."""
        self._version, self._recalls = claim.version, recalls
        self._paced = claim.paced_ms / 1000

    async def look_around(self) -> None:
        """Heed what came to stand over the agent since this lane last looked, and what became of its connection."""
        ways = self._round.ways
        if self._version != ways.version:
            await ways.refresh()
        if self.way is not None and not (self.way.connection.usable and ways.is_right(self.way)):
            await self.hang_up()

    async def hang_up(self) -> None:
        """Close the connection, where there is one."""
        way, self.way = self.way, None
        if way is not None:
            await way.connection.aclose()

    async def send_all(self, messages: tuple[Claimed, ...]) -> int:
        """Send one after the other; what cannot be sent now goes back untouched."""
        done, met_fault = 0, ""
        try:
            await self.look_around()
            for message, following in zip(messages, (*messages[1:], None), strict=True):
                if self.way is None or self._is_called_off(message):
                    break
                if self._carrier.holdings.is_lost(message.id):
                    self._carrier.holdings.drop(self._agent, message.id)
                    done += 1
                    continue
                if not await self._fit_way(message):
                    done += 1
                    continue
                way = self.way
                in_hand = await self._take_in_hand(message, way)
                try:
                    ended = await self._send(in_hand, way, following)
                except DayUsedUpError:
                    break  # it waits for tomorrow, in its old place: nothing is wrong with it
                if ended is None:
                    met_fault = message.id
                    break
                # From here on the message has an outcome: whatever else goes wrong, it is not given back.
                self._carrier.settle(message, ended, way, self._round, in_hand.stages)
                done += 1
                await self._go_on(ended, way)
        finally:
            rest = [m for m in messages[done:] if self._carrier.holdings.holds(self._agent, m.id)]
            if rest:
                self._carrier.give_back(self._agent, rest, self._round.limits.pace, behind=met_fault)
            if self._ahead is not None:  # begun, and not sent: nothing else may be said over this connection
                self._ahead = None
                await self.hang_up()
        return done

    async def _take_in_hand(self, message: Claimed, way: Way) -> InHand:
        """Begin a message at its turn, or go on with what was made of it ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.message is not message:
            await self._carrier.turns.take(self._agent)
            ahead = InHand(message, Stages(self._paced))
        ahead.stages.connect, way.opened_in = way.opened_in, 0.0
        return ahead

    async def _look_ahead(self, message: Claimed) -> Order | None:
        """Make the next message's mail while the one before it is under way (`seam.Ahead`)."""
        await self._carrier.turns.take(self._agent)
        if not self._comes_next(message):
            return None
        ahead = InHand(message, Stages(self._paced))
        order = await self._carrier.make(ahead, self._round)
        self._ahead = ahead if order is not None else None
        return order

    def _comes_next(self, message: Claimed) -> bool:
        """True where, as far as is known now, this message will be sent next over the connection in hand."""
        round_, way, payload = self._round, self.way, message.payload
        # What a rate holds up is in no hurry, and would come closer to the one before than the rate says.
        if self._paced or round_.limits.pace.interval_us > HURRIED_US:
            return False
        if way is None or round_.over or self._recalls != round_.recalls:
            return False
        # Urgent mail that came in between would cost a connection, and urgent mail seldom comes alone.
        if message.priority != "high" and time.monotonic() - round_.urged_at < CALM_SECONDS:
            return False
        # Attachments may be large, and the message before would wait for them.
        if payload is None or payload.attachments or self._carrier.holdings.is_lost(message.id):
            return False
        own = round_.ways.own(message)
        return (own is None or way.channel in own) and round_.ways.is_right(way)

    async def _fit_way(self, message: Claimed) -> bool:
        """Have a connection that the message may go over; else give it back until its own channel is tried again."""
        ways = self._round.ways
        own = ways.own(message)
        if own is None or (self.way is not None and self.way.channel in own):
            return True
        if not ways.next_try(own):
            await self.hang_up()
            self.way = await ways.open(self._lane, own)
            if self.way is not None:
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

    async def _send(self, in_hand: InHand, way: Way, following: Claimed | None) -> Ended | None:
        """Make one attempt. None where the message was not sent and nothing more should be tried now.

        Raises:
            DayUsedUpError: the same, and not for anything about this message.
        """
        carrier, message = self._carrier, in_hand.message
        ahead = partial(self._look_ahead, following) if following is not None else None
        try:
            ended = await carrier.attempt(in_hand, way, self._round, ahead)
        except FenceLostError:
            carrier.metrics.fence_lost.labels("advance").inc()
            carrier.log.warning("fence.rejected", agent=self._agent, message_id=message.id, step="advance")
        except TooLateError:
            carrier.log.info("mark.too_late", agent=self._agent, message_id=message.id)
        except DayUsedUpError:
            carrier.log.info("day.used_up", agent=self._agent)
            await self.hang_up()
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
            await self.hang_up()
            await self._round.ways.stop(way.channel, ended)
        await self.hang_up()
        return None

    async def _go_on(self, ended: Ended, way: Way) -> None:
        ways = self._round.ways
        if not await ways.heed(way.channel, ended) and ended.answered:
            await ways.worked(way.channel, ended.outcome)
        if not way.connection.usable or not ways.is_right(way):
            await self.hang_up()
