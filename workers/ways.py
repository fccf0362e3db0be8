"""The ways out of one agent, as this process knows them: its channels and their faults."""

import asyncio
import time

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from postroom.config.structs import Agent
from postroom.ledger.delivery import Delivery
from postroom.ledger.reading import Reading
from postroom.metrics import CarrierMetrics
from postroom.outcome import Cause, ChannelFault
from workers.channels.registry import open_channels
from workers.channels.seam import Channel, Connection

# The shortest and the longest stop of a channel, in ms. What a person must mend is not tried every second.
QUICK_STOP = (1_000, 60_000)
LONG_STOP = (5_000, 300_000)
STOPS = {
    Cause.CONNECT: QUICK_STOP,
    Cause.THROTTLE: QUICK_STOP,
    Cause.AUTH: LONG_STOP,
    Cause.QUOTA: LONG_STOP,
    Cause.POLICY: LONG_STOP,
}


class Way(Struct, frozen=True):
    """A ready connection and the name of its channel."""

    channel: str
    connection: Connection


class Ways:
    """Opens connections for the lanes of one agent, in the order of its channels."""

    def __init__(
        self,
        name: str,
        agent: Agent,
        delivery: Delivery,
        reading: Reading,
        metrics: CarrierMetrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._name = name
        self._channels: tuple[Channel, ...] = open_channels(agent)
        self._delivery = delivery
        self._reading = reading
        self._metrics = metrics
        self._log = log.bind(agent=name)
        self._stopped: dict[str, float] = {}  # channel → when to try again, by this process's monotonic clock
        self._faulty: set[str] = set()  # channels with a fault in the ledger, not yet proved mended

    async def refresh(self) -> None:
        """Learn what other workers found out about the channels."""
        now = time.monotonic()
        faults = await self._reading.faults(self._name)
        self._faulty = set(faults)
        self._stopped = {name: now + fault.till / 1000 for name, fault in faults.items() if fault.till > 0}

    async def open(self) -> Way | None:
        """Return a ready connection through the first channel that works, or None where all stand still."""
        for channel in self._channels:
            if self._stopped.get(channel.name, 0.0) > time.monotonic():
                continue
            connected = await channel.connect()
            if not isinstance(connected, ChannelFault):
                self._metrics.channel_up.labels(self._name, channel.name).set(1)
                return Way(channel.name, connected)
            await self.stop(channel.name, connected)
        return None

    async def stop(self, channel: str, fault: ChannelFault) -> None:
        """Let a channel stand still for a while, for all workers."""
        self._metrics.channel_up.labels(self._name, channel).set(0)
        self._metrics.channel_faults.labels(self._name, channel, fault.cause).inc()
        pause, names = STOPS[fault.cause], tuple(c.name for c in self._channels)
        # Held here first: without the ledger the channel must rest all the same.
        self._stopped[channel] = time.monotonic() + pause[0] / 1000
        for_ms, new = await self._delivery.stop_channel(
            self._name, channel, fault, channels=names, pause=pause
        )
        self._stopped[channel] = time.monotonic() + for_ms / 1000
        self._faulty.add(channel)
        if new == "known":
            return
        tell = self._log.warning if new == "opened" else self._log.info
        tell(
            "breaker.opened" if new == "opened" else "breaker.probe_failed",
            channel=channel,
            cause=fault.cause,
            phase=fault.phase,
            reply_code=fault.reply_code,
            enhanced_code=fault.enhanced_code,
            text=fault.text,
            again_in_ms=for_ms,
        )

    async def worked(self, channel: str) -> None:
        """Forget a channel's fault: it has just answered for a message."""
        if channel not in self._faulty:
            return
        self._faulty.discard(channel)
        self._stopped.pop(channel, None)
        if await self._delivery.mend_channel(self._name, channel):
            self._log.info("breaker.closed", channel=channel)

    async def aclose(self) -> None:
        """Close the channels."""
        await asyncio.gather(*(channel.aclose() for channel in self._channels))
