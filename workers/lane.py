"""A lane: one connection and one claim at a time, for one agent.

A lane is on the ledger's list before it connects and until it has hung up, so that the agent's `connections` hold
over all workers. The claim that puts the first lane of a round there brings a message along, where nothing is known
against the channel that it goes over. What goes wrong with the connection is the channel's matter: the message goes
back untouched, to its old place.
"""

import time
import uuid
from typing import TYPE_CHECKING

from postroom.ledger.claimed import Claim
from postroom.ledger.errors import LedgerError
from workers.sending import Sending

if TYPE_CHECKING:
    from workers.round import Round

MOST_CLAIMED = 16  # more would save little, and one claim holds Redis up for everybody
HOLD_SECONDS = 3.0  # with less, a thousand agents that share a worker claim each message by itself
LEDGER_PAUSE = 0.25  # seconds until a lane asks again, while the ledger is away
SHORT_STOP = 1.0  # seconds; for a longer one no lane waits, for the sweep rings again
LEAST_PAUSE = 0.02
PACE_SECONDS = 1.0  # how long a lane waits for the agent's rate without looking


class Lane:
    """Works until nothing has been due for a linger, the round is over, or no channel is left."""

    def __init__(self, owner: "Round") -> None:
        self._round = owner
        self._carrier = owner.carrier
        self._agent = owner.agent
        self.id = uuid.uuid4().hex[:16]
        self._sending = Sending(owner, self.id)
        self._batch = 1
        self._idle_since = time.monotonic()
        self._left = False  # a claim took it off the ledger's list: nothing due, or lanes enough

    async def run(self) -> None:
        """Never raises but for cancellation: what goes wrong is written down and the mail goes back."""
        self._carrier.holdings.enter(self._agent, self.id)
        try:
            await self._work_until_done()
        except Exception:
            self._carrier.log.exception("lane.crashed", agent=self._agent)
        finally:
            await self._sending.hang_up()
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
        if self._sending.way is None or self._lingered():
            await self._sending.hang_up()
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
            await self._sending.look_around()
            if self._sending.way is None:
                self._sending.way = await self._round.ways.open(self.id)
        finally:
            if self._sending.way is None and claim is not None and claim.messages:
                self._carrier.give_back(self._agent, list(claim.messages), self._round.limits.pace)
        return self._sending.way is not None

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
        self._sending.heed(claim, recalls)
        return claim

    async def _deliver(self, claim: Claim) -> None:
        if claim.more:
            self._round.share()
        elif claim.bulk_waits:
            self._idle_since = time.monotonic()  # stays ready: the others are busy with bulk mail
            self._round.pass_on()
        if claim.messages:
            started = time.monotonic()
            done = await self._sending.send_all(claim.messages)
            self._idle_since = time.monotonic()
            # No more at once than it sends in a few seconds: what a lane holds, nobody else can send.
            rate = done / max(self._idle_since - started, 1e-6)
            self._batch = min(MOST_CLAIMED, max(1, int(rate * HOLD_SECONDS)))
        else:
            linger_left = self._idle_since + self._carrier.linger - time.monotonic()
            await self._round.wait_for_mail(linger_left, claim.next_in_ms, spare=claim.bulk_waits)
