"""Canaries: a message of our own for each agent that asks for it, again and again, over the way all mail goes.

It is accepted as any other, waits in its agent's queue, and a lane sends it to the sink that the configuration names.
One API process of all sends them. When the last one arrived is kept in Redis and told with the queues: if that moment
grows old, something on the way is broken that perhaps nothing else shows.
"""

import asyncio
import time
import uuid
import zlib
from collections.abc import Callable, Mapping

from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from postroom.address import domain_of, parse_address
from postroom.config.structs import Agent, Canary
from postroom.config.units import milliseconds
from postroom.errors import RefusedError
from postroom.ids import new_message_id
from postroom.ledger.accept import Created, Exists, Offer
from postroom.ledger.canaries import CALLER, Beat, Canaries
from postroom.ledger.errors import LedgerError
from postroom.ledger.keys import CANARY_KEY
from postroom.message import Address, Content, Payload
from postroom.origin import Origin
from postroom.role import Role
from postroom.states import State
from service.accept import Accepted
from service.desk import Desk

TICK_SECONDS = 1.0
TEXT = "This message shows that mail of this agent goes out. Nobody needs to read it.\n"


class CanarySender:
    """Sends them, and sees what became of each."""

    def __init__(
        self, desk: Desk, agents: Callable[[], Mapping[str, Agent]], log: FilteringBoundLogger
    ) -> None:
        self._desk = desk
        self._agents = agents
        self._log = log
        self._canaries = Canaries(desk.client)
        self._role = Role(desk.client, CANARY_KEY)
        self._beats: dict[str, Beat] | None = None  # not read since the role came to us
        self._failing: set[str] = set()

    async def keep_sending(self) -> None:
        """Look at every canary each moment, where the role is ours, until cancelled."""
        try:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                wanted = {name: agent for name, agent in self._agents().items() if agent.canary}
                if wanted and await self._role.ask():
                    await self._tend_all(wanted)
                else:
                    self._beats = None
        finally:
            await self._role.give_up()

    async def _tend_all(self, wanted: Mapping[str, Agent]) -> None:
        try:
            if self._beats is None:
                self._beats = await self._canaries.read()
            now = await self._desk.watch.now()
            for name, agent in wanted.items():
                beat = self._beats.get(name, Beat())
                after = await self._tend(name, agent, beat, now)
                if after != beat:
                    self._beats[name] = after
                    await self._canaries.write(name, after)
        except LedgerError:
            return  # the desk tells of an outage, and the moment of the last good one grows old

    async def _tend(self, name: str, agent: Agent, beat: Beat, now: int) -> Beat:
        assert agent.canary is not None
        turn = _turn(name, agent.canary, now)
        if beat.id:
            beat = await self._judge(name, beat, is_over=turn > beat.turn)
        if turn <= beat.turn or beat.id:
            return beat
        if (await self._desk.reading.standing(name)).paused:
            return beat  # it would only expire
        return await self._send(name, agent, agent.canary, replace(beat, turn=turn))

    async def _judge(self, name: str, beat: Beat, *, is_over: bool) -> Beat:
        """See what became of the newest one: good is only what was sent."""
        stored = await self._desk.reading.message(beat.id)
        record = stored.record if stored else None
        if record is not None and not record.finished and not is_over:
            return beat
        if record is None or record.state != State.SENT or record.finished_at is None:
            self._failed(name, beat.id, record.state if record else "forgotten")
            return replace(beat, id="")
        self._failing.discard(name)
        return replace(
            beat,
            id="",
            good_at=record.finished_at,
            good_accept_us=beat.accept_us,
            good_sent_ms=record.finished_at - record.accepted_at,
        )

    async def _send(self, name: str, agent: Agent, canary: Canary, beat: Beat) -> Beat:
        origin = Origin(request_id=f"canary-{uuid.uuid4().hex}", started=time.perf_counter())
        try:
            self._desk.check_room()
            offer = self._make_offer(name, agent, canary, beat.turn, origin)
            reply = await self._desk.acceptance.accept(offer)
        except (RefusedError, LedgerError) as error:
            self._failed(name, None, error.code if isinstance(error, RefusedError) else "unavailable")
            return replace(beat, turn=beat.turn - 1)  # the very same one again until it is accepted
        if isinstance(reply, Exists):  # another process had the role, and sent this very one
            return replace(beat, id=reply.record.id)
        assert isinstance(reply, Created)
        if reply.ring:
            self._desk.ring(name)
        took = origin.since()
        self._desk.account.accepted(Accepted(offer, reply, None), origin, took / 1000, 0)
        return replace(beat, id=offer.id, accept_us=took)

    def _make_offer(self, name: str, agent: Agent, canary: Canary, turn: int, origin: Origin) -> Offer:
        message_id = new_message_id(name)
        sender = Address(parse_address(agent.sender.address), agent.sender.name)
        client_ref = f"canary-{canary.every}-{turn}"
        digests = self._desk.digests()
        return Offer(
            id=message_id,
            agent=name,
            caller=CALLER,
            client_ref=client_ref,
            ref=digests.ref(CALLER, name, client_ref),
            digests=digests.fields({}),
            payload=Payload(
                message_id=f"<{message_id.rpartition('-')[2]}@{domain_of(sender.address)}>",
                sender=sender,
                to=(Address(parse_address(canary.to)),),
                content=Content(f"Canary of {name}", TEXT),
                headers={"Auto-Submitted": "auto-generated"},
                request_id=origin.request_id,
                accept_us=origin.since(),
            ),
            priority=canary.priority,
            retry_profile="interactive",
            on_ambiguous="hold",
            lifetime=milliseconds(canary.every),
        )

    def _failed(self, name: str, message_id: str | None, how: str) -> None:
        """Tell of the first one of a row; the metric tells of the rest."""
        if name not in self._failing:
            self._failing.add(name)
            self._log.warning("canary.failed", agent=name, message_id=message_id, how=how)


def _turn(name: str, canary: Canary, now: int) -> int:
    """Return the number of the interval that `now` lies in: canaries of many agents do not leave all at once."""
    every = milliseconds(canary.every)
    return (now + zlib.crc32(name.encode()) % every) // every
