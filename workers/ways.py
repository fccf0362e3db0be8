"""The ways out of one agent, as this process knows them: its channels and their faults."""

import asyncio
import time

from structlog.typing import FilteringBoundLogger

from postroom.config.carrying import able_channels
from postroom.config.structs import Agent, Breaker, kind_of
from postroom.ledger.changes import Notes
from postroom.ledger.claimed import Claimed
from postroom.ledger.delivery import Delivery
from postroom.ledger.reading import Reading
from postroom.metrics import CarrierMetrics
from postroom.outcome import Cause, ChannelFault, Deferred, Phase
from workers.channel_faults import HANGS_UP, ChannelFaults, stop_for
from workers.channels.registry import open_channels
from workers.channels.seam import Channel, Way
from workers.conclude import CLOSING, Ended

SLOW_SECONDS = 5.0  # a host that was silent for so long is evidence enough
REFUSES_ALL = (
    "every message is refused and none is sent: look at the last attempts' reply codes, mend the sender or the "
    "account there, or cancel the mail if the recipients really are wrong"
)
PUTS_OFF_ALL = "every message is put off and none is sent: look at the last attempts' reply codes"
SLOW_DOWN = "the server asks us to come back later: lower `rate` or `connections` if this stays"


class Ways:
    """Opens connections for the lanes of one agent, in the order of its channels."""

    def __init__(  # noqa: PLR0913, PLR0917  the carrier hands over what it has opened
        self,
        name: str,
        agent: Agent,
        breaker: Breaker,
        delivery: Delivery,
        reading: Reading,
        notes: Notes,
        metrics: CarrierMetrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._name = name
        self._connections = agent.connections
        self._breaker = breaker
        self._channels: tuple[Channel, ...] = open_channels(
            name, agent, lambda channel: reading.provider_keys(name, channel)
        )
        self._configs = agent.channels
        self._kinds = {channel.name: kind_of(channel) for channel in agent.channels}
        self._delivery = delivery
        self._reading = reading
        self._notes = notes
        self._metrics = metrics
        self._log = log.bind(agent=name)
        self._preferred: str | None = None
        self._faults = ChannelFaults()
        self._preferred_until = 0.0
        self._used = ""  # the channel that the last connection went over
        self.version = 0  # of what stands over the agent, as last read; 0: nothing ever did

    async def refresh(self) -> None:
        """Learn what other workers found out about the channels, and what a person wants."""
        standing = await self._reading.standing(self._name)
        self.version = standing.version
        self._preferred = standing.preferred
        self._preferred_until = time.monotonic() + (standing.preferred_till - standing.now) / 1000
        self._faults.read(standing)

    def own(self, message: Claimed) -> frozenset[str] | None:
        """Return the channels that a message is for, where it may not go over any.

        What one channel may have taken is tried again over that one, as long as the configuration has it; a file of
        a provider's own goes where it can be named, and a Sender over SMTP.
        """
        if message.maybe_taken_by and any(c.name == message.maybe_taken_by for c in self._channels):
            return frozenset((message.maybe_taken_by,))
        payload = message.payload
        if payload is None or len(self._channels) == 1:
            return None
        if payload.submitter is None and not any(file.provider_key for file in payload.attachments):
            return None
        # Where none can, its channel says so.
        return able_channels(self._configs, payload.submitter, payload.attachments) or None

    async def open(self, lane: str, own: frozenset[str] | None = None) -> Way | None:
        """Return a ready connection through the first channel that works, or None where all stand still.

        With `own`, only these are tried: for a message that may go over no other.
        """
        for channel in self._in_order():
            if own is not None and channel.name not in own:
                continue
            if not await self._may_try(channel.name, lane):
                continue
            started = time.monotonic()
            if self._faults.can_be_probed(channel.name) and not await self._is_mended(channel):
                continue
            connected = await channel.connect()
            if not isinstance(connected, ChannelFault):
                self._metrics.channel_up.labels(self._name, channel.name).set(1)
                if own is None:
                    self._note_way(channel.name)
                return Way(channel.name, self._kinds[channel.name], connected, time.monotonic() - started)
            slow = time.monotonic() - started >= SLOW_SECONDS
            await self.stop(channel.name, connected, at_once=slow or None)
        return None

    async def _is_mended(self, channel: Channel) -> bool:
        """Probe a channel that stood still, before any message is tried on it, and release it where that passes."""
        fault = (await channel.probe()).fault
        if fault is not None:
            await self.stop(channel.name, fault)
            return False
        await self._release(channel.name)
        return True

    def _note_way(self, channel: str) -> None:
        """Tell when mail goes over another channel than before: nothing masks a broken first one silently."""
        order = [one.name for one in self._in_order()]
        before, self._used = self._used or order[0], channel
        if channel == before or before not in order:
            return
        if order.index(channel) < order.index(before):
            self._log.info("channel.returned", channel=channel, instead_of=before)
            return
        self._metrics.channel_switches.labels(self._name, before, channel).inc()
        cause = self._faults.causes.get(before)
        self._log.warning("channel.switched", channel=channel, instead_of=before, cause=cause)
        self._notes("channel.switched", agent=self._name, channel=channel, instead_of=before)

    @property
    def sound(self) -> bool:
        """True where nothing is known against the channel that is tried next."""
        names = (channel.name for channel in self._in_order())
        first = next((name for name in names if not self._faults.closed_for(name)), None)
        return first is not None and self._faults.is_sound(first)

    def next_try(self, own: frozenset[str] | None = None) -> float:
        """Return the seconds until a channel may be tried again, or one of these."""
        return min(self._faults.closed_for(c.name) for c in self._channels if own is None or c.name in own)

    def is_right(self, way: Way) -> bool:
        """False where the connection's channel stands still by now, or a channel that goes before it works."""
        if len(self._channels) == 1 and not self._faults.stopped:
            return True
        if not self._faults.may_go_on(way.channel):
            return False
        order = [channel.name for channel in self._in_order()]
        return not any(map(self._faults.is_sound, order[: order.index(way.channel)]))

    async def stop(self, channel: str, fault: ChannelFault, *, at_once: bool | None = None) -> None:
        """Let a channel stand still for a while, for all workers, once there is evidence enough against it.

        `at_once` tells whether this alone is enough; unset, the cause does.
        """
        self._metrics.channel_faults.labels(self._name, channel, fault.cause).inc()
        stop = stop_for(self._breaker, fault, at_once)
        # Held here first: without the ledger the channel must rest all the same.
        self._faults.rest(channel, stop.shortest_ms)
        for_ms, new = await self._delivery.stop_channel(
            self._name,
            channel,
            fault,
            channels=tuple(c.name for c in self._channels),
            stop=stop,
            connections=self._connections,
        )
        self._faults.rest(channel, for_ms)
        if new == "seen":
            self._faults.tried.add(channel)
        else:
            self._faults.note(channel, fault.cause, silent=fault.text == HANGS_UP)
            self._metrics.channel_up.labels(self._name, channel).set(0)
        self._tell(channel, fault, for_ms, new)

    async def stop_for_all(self, channel: str, ended: Ended, *, refused: bool) -> None:
        """Let a channel stand still that refuses every message, or puts every one off."""
        cause, text = (Cause.POLICY, REFUSES_ALL) if refused else (Cause.THROTTLE, PUTS_OFF_ALL)
        fault = ChannelFault(cause, Phase(ended.phase), text, ended.reply_code, ended.enhanced_code)
        await self.stop(channel, fault, at_once=True)

    async def heed(self, channel: str, ended: Ended) -> bool:
        """Count what an attempt says against its channel, and return whether it said anything of the kind.

        Retry-After and 421 slow down at once; 4.7.x and a bare 454 where they are not alone: one may be greylisting,
        about one recipient. So does a server that hangs up in the midst of mail and answers nothing: once is an
        accident.
        """
        if ended.went_silent:
            await self.stop(channel, ChannelFault(Cause.CONNECT, Phase(ended.phase), HANGS_UP), at_once=False)
            return True
        answer = ended.throttle
        if answer is None:
            return False
        phase = answer.outcome.phase if isinstance(answer.outcome, Deferred) else Phase(ended.phase)
        fault = ChannelFault(
            Cause.THROTTLE, phase, SLOW_DOWN, answer.reply_code, answer.enhanced_code, ended.retry_after
        )
        said = ended.retry_after is not None or answer.reply_code == CLOSING
        await self.stop(channel, fault, at_once=said)
        return True

    async def worked(self, channel: str, outcome: str) -> None:
        """Forget a channel's fault: it has just answered for a message."""
        if self._faults.is_disproved(channel, outcome):
            await self._release(channel)

    async def _release(self, channel: str) -> None:
        self._faults.forget(channel)
        if await self._delivery.mend_channel(self._name, channel):
            self._metrics.channel_up.labels(self._name, channel).set(1)
            self._log.info("breaker.closed", channel=channel)
            self._notes("breaker.closed", agent=self._name, channel=channel)

    async def aclose(self) -> None:
        """Close the channels."""
        await asyncio.gather(*(channel.aclose() for channel in self._channels))

    def _in_order(self) -> list[Channel]:
        if self._preferred is not None and time.monotonic() >= self._preferred_until:
            self._preferred = None
        return sorted(self._channels, key=lambda channel: channel.name != self._preferred)

    async def _may_try(self, channel: str, lane: str) -> bool:
        if self._faults.closed_for(channel):
            return False
        if channel not in self._faults.causes:
            return True
        wait = await self._delivery.ask_probe(self._name, channel, lane)
        if wait:
            self._faults.deny(channel, wait)
        return not wait

    def _tell(self, channel: str, fault: ChannelFault, for_ms: int, new: str) -> None:
        events = {"seen": "channel.faulty", "opened": "breaker.opened", "still": "breaker.probe_failed"}
        if new not in events:
            return
        if new == "opened":
            self._notes("breaker.opened", agent=self._name, channel=channel, cause=fault.cause)
        tell = self._log.warning if new == "opened" else self._log.info
        tell(
            events[new],
            channel=channel,
            cause=fault.cause,
            phase=fault.phase,
            reply_code=fault.reply_code,
            enhanced_code=fault.enhanced_code,
            text=fault.text,
            again_in_ms=for_ms,
        )
