"""The ways out of one agent, as this process knows them: its channels and their faults."""

import asyncio
import time

from structlog.typing import FilteringBoundLogger

from postroom.config.structs import Agent, Breaker, kind_of
from postroom.config.units import milliseconds
from postroom.ledger.changes import Notes
from postroom.ledger.delivery import Delivery, Stop
from postroom.ledger.reading import Reading
from postroom.metrics import CarrierMetrics
from postroom.outcome import BY_A_PERSON, Cause, ChannelFault, Deferred, Phase
from workers.attempt import CLOSING, Ended
from workers.channels.registry import open_channels
from workers.channels.seam import Channel, Way

AT_ONCE = frozenset({Cause.AUTH, Cause.THROTTLE})  # said outright: no further evidence is asked for
PERSON_FACTOR = 5  # how much longer a stop is that only a person can end
QUICK_LONGEST_MS = 60_000  # what may pass by itself is tried at least so often
STILL_THE_SAME = {("refused", Cause.POLICY), ("deferred", Cause.THROTTLE)}
PROBED = frozenset({Cause.CONNECT, Cause.AUTH})  # what a probe can prove mended; the rest only a message can
SLOW_SECONDS = 5.0  # a host that was silent for so long is evidence enough
REFUSES_ALL = (
    "every message is refused and none is sent: look at the last attempts' reply codes, mend the sender or the "
    "account there, or cancel the mail if the recipients really are wrong"
)


PUTS_OFF_ALL = "every message is put off and none is sent: look at the last attempts' reply codes"
HANGS_UP = (
    "the server hangs up in the midst of mail: look at its log, and at firewalls and proxies on the way"
)
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
            agent, lambda channel: reading.provider_keys(name, channel)
        )
        self._kinds = {channel.name: kind_of(channel) for channel in agent.channels}
        self._delivery = delivery
        self._reading = reading
        self._notes = notes
        self._metrics = metrics
        self._log = log.bind(agent=name)
        self._preferred: str | None = None
        self._stopped: dict[str, float] = {}  # channel → when to try again, by this process's monotonic clock
        self._denied: dict[str, float] = {}  # channel → when to ask again, since another lane is trying it
        self._faulty: dict[str, str] = {}  # channel → cause of a fault in the ledger, not yet proved mended
        self._silent: set[str] = set()  # of those, channels that hang up in the midst of mail
        self._tried: set[str] = set()  # channels there is evidence against, and no fault yet
        self._preferred_until = 0.0
        self._used = ""  # the channel that the last connection went over
        self.version = 0  # of what stands over the agent, as last read; 0: nothing ever did

    async def refresh(self) -> None:
        """Learn what other workers found out about the channels, and what a person wants."""
        now = time.monotonic()
        standing = await self._reading.standing(self._name)
        self.version = standing.version
        self._preferred = standing.preferred
        self._preferred_until = now + (standing.preferred_till - standing.now) / 1000
        self._faulty = {name: fault.cause for name, fault in standing.faults.items()}
        self._silent = {name for name, fault in standing.faults.items() if fault.text == HANGS_UP}
        self._stopped = {
            name: now + (fault.till - standing.now) / 1000
            for name, fault in standing.faults.items()
            if fault.till > standing.now
        }

    async def open(self, lane: str) -> Way | None:
        """Return a ready connection through the first channel that works, or None where all stand still."""
        for channel in self._in_order():
            if not await self._may_try(channel.name, lane):
                continue
            started = time.monotonic()
            if self._can_be_probed(channel.name) and not await self._is_mended(channel):
                continue
            connected = await channel.connect()
            if not isinstance(connected, ChannelFault):
                self._metrics.channel_up.labels(self._name, channel.name).set(1)
                self._note_way(channel.name)
                return Way(channel.name, self._kinds[channel.name], connected, time.monotonic() - started)
            slow = time.monotonic() - started >= SLOW_SECONDS
            await self.stop(channel.name, connected, at_once=slow or None)
        return None

    def _can_be_probed(self, channel: str) -> bool:
        """One that hangs up in the midst of mail is fine until it is given some: only a message can tell."""
        return self._faulty.get(channel) in PROBED and channel not in self._silent

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
        cause = self._faulty.get(before)
        self._log.warning("channel.switched", channel=channel, instead_of=before, cause=cause)
        self._notes("channel.switched", agent=self._name, channel=channel, instead_of=before)

    def next_try(self) -> float:
        """Return the seconds until a channel may be tried again."""
        now = time.monotonic()
        return max(0.0, min(self._not_before(c.name) - now for c in self._channels))

    def is_right(self, way: Way) -> bool:
        """False where the connection's channel stands still by now, or a channel that goes before it works."""
        if len(self._channels) == 1 and not self._stopped:
            return True
        if not self._may_go_on(way.channel):
            return False
        order = [channel.name for channel in self._in_order()]
        return not any(self._is_sound(name) for name in order[: order.index(way.channel)])

    async def stop(self, channel: str, fault: ChannelFault, *, at_once: bool | None = None) -> None:
        """Let a channel stand still for a while, for all workers, once there is evidence enough against it.

        `at_once` tells whether this alone is enough; unset, the cause does.
        """
        self._metrics.channel_faults.labels(self._name, channel, fault.cause).inc()
        stop = self._stop_for(fault, at_once)
        # Held here first: without the ledger the channel must rest all the same.
        self._stopped[channel] = time.monotonic() + stop.shortest_ms / 1000
        for_ms, new = await self._delivery.stop_channel(
            self._name,
            channel,
            fault,
            channels=tuple(c.name for c in self._channels),
            stop=stop,
            connections=self._connections,
        )
        self._stopped[channel] = time.monotonic() + for_ms / 1000
        if new == "seen":
            self._tried.add(channel)
        else:
            self._faulty[channel] = fault.cause
            (self._silent.add if fault.text == HANGS_UP else self._silent.discard)(channel)
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
        if channel not in self._faulty and channel not in self._tried:
            return
        # What answers while the channel stands still was under way before, and proves nothing.
        if self._stopped.get(channel, 0.0) > time.monotonic():
            return
        # One that stands still because it refuses or puts off everything must send something to be trusted again.
        if (outcome, self._faulty.get(channel)) in STILL_THE_SAME:
            return
        await self._release(channel)

    async def _release(self, channel: str) -> None:
        for known in (self._faulty, self._stopped, self._denied):
            known.pop(channel, None)
        self._tried.discard(channel)
        self._silent.discard(channel)
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

    def _is_sound(self, channel: str) -> bool:
        return not any(channel in known for known in (self._stopped, self._faulty, self._tried))

    def _may_go_on(self, channel: str) -> bool:
        """A connection that is open outlives its channel's failure to open another one."""
        stopped = self._stopped.get(channel, 0.0) > time.monotonic()
        if not stopped:
            return True
        return self._faulty.get(channel, Cause.CONNECT) == Cause.CONNECT and channel not in self._silent

    def _not_before(self, channel: str) -> float:
        return max(self._stopped.get(channel, 0.0), self._denied.get(channel, 0.0))

    async def _may_try(self, channel: str, lane: str) -> bool:
        now = time.monotonic()
        if self._not_before(channel) > now:
            return False
        if channel not in self._faulty:
            return True
        wait = await self._delivery.ask_probe(self._name, channel, lane)
        if wait:
            self._denied[channel] = now + wait / 1000
        return not wait

    def _stop_for(self, fault: ChannelFault, at_once: bool | None) -> Stop:
        breaker = self._breaker
        person = fault.cause in BY_A_PERSON
        said = fault.cause in AT_ONCE or fault.retry_after is not None if at_once is None else at_once
        longest = milliseconds(breaker.longest)
        shortest = milliseconds(breaker.shortest) * (PERSON_FACTOR if person else 1)
        return Stop(
            faults=1 if said else breaker.faults,
            window_ms=milliseconds(breaker.window),
            shortest_ms=min(shortest, longest),
            longest_ms=longest if person else min(longest, QUICK_LONGEST_MS),
        )

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
