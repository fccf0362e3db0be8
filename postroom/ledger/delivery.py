"""The carriers' side of the ledger: claim, commit mark, finish, renew, release, and the state of channels."""

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from postroom.ledger.claimed import Claim, read_claim
from postroom.ledger.ends import Ended, read_ended
from postroom.ledger.files import collect_files
from postroom.ledger.finished import Finish, Finished, read_finished
from postroom.ledger.keys import PARTITIONS, agent_of, place_of, place_of_partition
from postroom.ledger.limits import UNLIMITED, Limits, Pace, Stop
from postroom.ledger.pipe import Pipe
from postroom.outcome import ChannelFault

CLAIM_BYTES = 1024 * 1024
_encode = msgspec.msgpack.Encoder().encode  # as one argument: packing each by itself costs five times as much
SWEEP_AGENTS = 5000


class Cursor(NamedTuple):
    """Where looking through a partition's waiting mail goes on."""

    agent: str = ""
    priority: str = ""
    rank: int = 0


class Delivery:
    """All calls name their agent by the message id or outright; none is repeated here."""

    def __init__(
        self, pipe: Pipe, *, lease_ms: int, content_ms: int, message_ms: int, claims: Pipe | None = None
    ) -> None:
        """`claims` is a pipe for claims alone: a sleeping agent's mail does not wait behind a busy one's outcomes."""
        self._pipe = pipe
        self._claims = claims or pipe
        self.lease_ms = lease_ms
        self._content_ms = str(content_ms)
        self._message_ms = str(message_ms)

    async def aclose(self) -> None:
        """Close the ways to the scripts."""
        await self._pipe.aclose()
        await self._claims.aclose()

    def _call(self, script: str, agent: str, *args: Any, pipe: Pipe | None = None) -> asyncio.Future[Any]:
        place = place_of(agent)
        return (pipe or self._pipe).begin(
            script, place.agenda, place.prefix, agent, self._content_ms, self._message_ms, *args
        )

    async def claim(  # noqa: PLR0913  every one of them is a limit of this very claim
        self,
        agent: str,
        lane: str,
        *,
        most: int,
        limits: Limits,
        order: str = "hnb",
        leave: bool = False,
        listening: bool = True,
    ) -> Claim | None:
        """Claim up to `most` due messages in the lane's name; None tells the lane to close.

        With `most=0` it only asks for a lane: to be admitted before a connection is made, or to leave.
        With `leave`, a claim that finds nothing due removes the lane in the same script, so that an accept
        either sees the lane, and the lane its mail, or rings for a round. `listening`: a bell would find an
        idle lane, or somebody who may open one.
        """
        pace = limits.pace
        reply = await self._call(
            "claim", agent, lane, self.lease_ms, most, CLAIM_BYTES, limits.connections, order, int(leave),
            pace.interval_us, pace.burst, limits.ambiguous_retries, int(listening), pace.per_day,
            " ".join(map(str, pace.midnights)), pipe=self._claims,
        )  # fmt: skip
        return read_claim(agent, reply)

    async def advance(
        self, message_id: str, fence: int, known: str, channel: str, pace: Pace = UNLIMITED
    ) -> int:
        """Write the commit mark: 1 written, 0 the fence is not current, -1 time is up, -2 the day is used up."""
        midnights = " ".join(map(str, pace.midnights))
        mark = _encode((message_id, fence, known, channel, pace.per_day, midnights))
        return int(await self._call("advance", agent_of(message_id), mark))

    async def finish(self, finish: Finish, limits: Limits, *, narrowed: bool = True) -> Finished | None:
        """Write an outcome; None where somebody else owns the message. May be repeated until answered.

        `narrowed` is what the last claim said: then what was sent counts towards more connections.
        """
        return read_finished(await self.begin_finish(finish, limits, narrowed=narrowed))

    def begin_finish(self, finish: Finish, limits: Limits, *, narrowed: bool) -> asyncio.Future[Any]:
        """Write an outcome without waiting; `read_finished` reads what the future brings."""
        flat = [part for index, text in finish.replies for part in (index, text)]
        outcome = _encode((
            finish.id, finish.fence, finish.codes, finish.delay_ms, finish.event, limits.ambiguous_retries,
            finish.channel, limits.refusals, limits.refusal_window_ms, limits.connections if narrowed else 0,
            limits.guarded_wait_ms, flat,
        ))  # fmt: skip
        return self._call("finish", agent_of(finish.id), outcome)

    async def renew(
        self, agent: str, lanes: list[str], held: list[tuple[str, int]]
    ) -> tuple[bool, list[str]]:
        """Extend lanes and messages by a lease; returns whether mail is due, and the ids no longer owned here."""
        flat = [part for pair in held for part in pair]
        due, lost = await self._call("renew", agent, self.lease_ms, len(lanes), *lanes, *flat)
        return bool(due), [message_id.decode() for message_id in lost]

    async def release(
        self,
        agent: str,
        held: list[tuple[str, int]],
        *,
        pace: Pace,
        lane: str = "",
        behind: str = "",
        wait_ms: int = 0,
    ) -> tuple[int, bool]:
        """Give messages back untouched and let a lane go; returns how many, and if a round should be rung.

        They take their old places, but for the one called `behind`: it met a fault and may be the cause of it.
        With `wait_ms` (above 1) they are all due in so long: their own channel stands still.
        """
        flat = [part for id_, fence in held for part in (id_, fence, wait_ms or int(id_ == behind))]
        given, ring = await self._call("release", agent, lane, pace.interval_us, *flat)
        return given, bool(ring)

    async def collect_files(self, client: Redis) -> int:
        """Drop cached files that are over and that no message needs (`postroom.ledger.files`)."""
        return await collect_files(self._pipe, client)

    async def sweep(self, partition: int) -> list[str]:
        """Return the agents of a partition that have mail due and nobody awake."""
        assert 0 <= partition < PARTITIONS
        place = place_of_partition(partition)
        reply = await self._pipe.call("sweep", place.agenda, place.prefix, "", 0, 0, SWEEP_AGENTS)
        return [agent.decode() for agent in reply]

    async def expire(self, partition: int, cursor: Cursor, most: int) -> tuple[Cursor, list[Ended]]:
        """End waiting mail whose time is up and that no claim meets, looking at `most` messages at a time.

        Returns where to go on (an empty cursor: it is through) and what ended.
        """
        place = place_of_partition(partition)
        reply = await self._pipe.call(
            "expire", place.agenda, place.prefix, "", self._content_ms, self._message_ms, *cursor, most
        )
        agent, priority, rank, rows = reply
        return Cursor(agent.decode(), priority.decode(), rank), [read_ended(row) for row in rows]

    async def stop_channel(
        self,
        agent: str,
        channel: str,
        fault: ChannelFault,
        *,
        channels: tuple[str, ...],
        stop: Stop,
        connections: int,
    ) -> tuple[int, str]:
        """Record a channel's fault; returns ms until it is tried again, and what is new about it.

        `seen`: not stopped yet, for want of evidence; `opened`: it worked until now; `still`: another try failed;
        `known`: somebody else has just said so. The stop doubles with every failed try. The agent stops once all
        its channels have.
        """
        retry_ms = int((fault.retry_after or 0) * 1000)
        pause_ms, new = await self._call(
            "fault", agent, channel, fault.cause, fault.reply_code or "", fault.enhanced_code or "", fault.text,
            stop.shortest_ms, stop.longest_ms, retry_ms, stop.faults, stop.window_ms, connections, *channels,
        )  # fmt: skip
        return pause_ms, new.decode()

    async def ask_probe(self, agent: str, channel: str, lane: str) -> int:
        """Ask to try a channel that had a fault: 0 where the lane may, else ms after which to ask again.

        One lane at a time may, over all workers, until it has mended the channel, failed, or left.
        """
        return int(await self._call("probe", agent, channel, lane))

    async def reconcile(self, agent: str, forget: Iterable[str], channels: Iterable[str]) -> list[str]:
        """Let what stands over the agent follow a changed configuration; returns the channels whose faults went.

        Forgotten are the faults of the channels named, and of those that are not among `channels` any more.
        """
        named = list(forget)
        gone = await self._call("reconcile", agent, len(named), *named, *channels)
        return [channel.decode() for channel in gone]

    async def mend_channel(self, agent: str, channel: str, *, probed: bool = False) -> bool:
        """Forget a channel's fault; True where there was one.

        It has answered for a message, which counts once its stop is over, or it was probed since.
        """
        return bool(await self._call("mend", agent, channel, int(probed)))
