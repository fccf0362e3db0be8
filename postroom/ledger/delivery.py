"""The carriers' side of the ledger: claim, commit mark, finish, renew, release, and the state of channels."""

from typing import Any

from msgspec import Struct

from postroom.ledger.codec import decode_payload
from postroom.ledger.keys import PARTITIONS, agent_of, place_of, place_of_partition
from postroom.ledger.pipe import ScriptPipe
from postroom.message import Payload
from postroom.outcome import ChannelFault
from postroom.states import PRIORITIES, PROFILES, State

AMBIGUOUS_RETRIES = 1  # how often a message whose fate is unknown is tried again, where the policy is `retry`
CLAIM_BYTES = 1024 * 1024
SWEEP_AGENTS = 5000
FULL = "full"


class Claimed(Struct, frozen=True, kw_only=True):
    """A message in a lane's hands, until its lease ends or a newer fence is raised.

    `waiting` are the recipients still to be sent to, as indexes. `payload` is None where the stored bytes
    cannot be read, which is a defect of ours and ends the message.
    """

    id: str
    agent: str
    fence: int
    attempts: int
    accepted_at: int
    waiting: tuple[int, ...]
    recipients: int
    caller: str
    client_ref: str
    priority: str
    retry_profile: str
    template: str
    blobs: int
    payload: Payload | None


class Ended(Struct, frozen=True):
    """A message that a claim ended without an attempt: expired, or unconfirmed after a lapsed lease."""

    id: str
    state: State
    priority: str
    age_ms: int


class Lapsed(Struct, frozen=True):
    """A message whose owner did not come back in time, and the phase it was in."""

    id: str
    phase: str
    channel: str


class Claim(Struct, frozen=True):
    """What a claim brought. `next_in_ms` is None where nothing waits at all; `more` is due already.

    `left`: the lane is off the ledger's list.
    """

    messages: tuple[Claimed, ...]
    next_in_ms: int | None
    more: bool
    ended: tuple[Ended, ...] = ()
    lapsed: tuple[Lapsed, ...] = ()
    left: bool = False


class Pace(Struct, frozen=True):
    """An agent's rate: microseconds a message (0: unlimited) and how many may go at once."""

    interval_us: int = 0
    burst: int = 1


class Finished(Struct, frozen=True):
    """Where a finished attempt left its message. `again`: this was written before, its reply got lost."""

    state: State
    next_in_ms: int | None
    age_ms: int
    priority: str
    again: bool


class Finish(Struct, frozen=True, kw_only=True):
    """An attempt's outcome as it is written. `codes`: a letter a recipient (s, f, d, a, - if not in it)."""

    id: str
    fence: int
    codes: str
    delay_ms: int
    event: str
    replies: tuple[tuple[int, str], ...] = ()


class Delivery:
    """All calls name their agent by the message id or outright; none is repeated here."""

    def __init__(self, pipe: ScriptPipe, *, lease_ms: int, content_ms: int, message_ms: int) -> None:
        self._pipe = pipe
        self.lease_ms = lease_ms
        self._content_ms = content_ms
        self._message_ms = message_ms

    async def aclose(self) -> None:
        """Close the way to the scripts."""
        await self._pipe.aclose()

    async def _call(self, script: str, agent: str, *args: Any) -> Any:
        place = place_of(agent)
        return await self._pipe.call(
            script, place.agenda, place.prefix, agent, self._content_ms, self._message_ms, *args
        )

    async def claim(  # noqa: PLR0913  every one of them is a limit of this very claim
        self,
        agent: str,
        lane: str,
        *,
        most: int,
        connections: int,
        pace: Pace,
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
        reply = await self._call(
            "claim", agent, lane, self.lease_ms, most, CLAIM_BYTES, connections, order, int(leave),
            pace.interval_us, pace.burst, AMBIGUOUS_RETRIES, int(listening),
        )  # fmt: skip
        if reply[0] == FULL.encode():
            return None
        _, next_in, more, claimed, ended, lapsed, left = reply
        return Claim(
            tuple(_read_claimed(agent, row) for row in claimed),
            None if next_in < 0 else next_in,
            bool(more),
            tuple(
                Ended(i.decode(), State(s.decode()), PRIORITIES[p.decode()], age) for i, s, p, age in ended
            ),
            tuple(Lapsed(i.decode(), phase.decode(), c.decode()) for i, phase, c in lapsed),
            bool(left),
        )

    async def advance(self, message_id: str, fence: int, known: str, channel: str) -> int:
        """Write the commit mark: 1 written, 0 the fence is not current, -1 the deadline has passed."""
        agent = agent_of(message_id)
        return int(await self._call("advance", agent, message_id, fence, known, channel, self.lease_ms))

    async def finish(self, finish: Finish) -> Finished | None:
        """Write an outcome; None where somebody else owns the message. May be repeated until answered."""
        flat = [part for index, text in finish.replies for part in (index, text)]
        reply = await self._call(
            "finish", agent_of(finish.id), finish.id, finish.fence, finish.codes, finish.delay_ms,
            finish.event, AMBIGUOUS_RETRIES, *flat,
        )  # fmt: skip
        if reply[0] == b"stale":
            return None
        _, state, next_in, age, priority, *again = reply
        return Finished(
            State(state.decode()),
            None if next_in < 0 else next_in,
            age,
            PRIORITIES[priority.decode()],
            bool(again),
        )

    async def renew(self, agent: str, lanes: list[str], held: list[tuple[str, int]]) -> list[str]:
        """Extend lanes and messages by a lease; returns the ids this process no longer owns."""
        flat = [part for pair in held for part in pair]
        reply = await self._call("renew", agent, self.lease_ms, len(lanes), *lanes, *flat)
        return [lost.decode() for lost in reply]

    async def release(
        self, agent: str, held: list[tuple[str, int]], *, pace: Pace, lane: str = ""
    ) -> tuple[int, bool]:
        """Give messages back untouched and let a lane go; returns how many, and if a round should be rung."""
        flat = [part for pair in held for part in pair]
        given, ring = await self._call("release", agent, lane, pace.interval_us, *flat)
        return given, bool(ring)

    async def sweep(self, partition: int) -> list[str]:
        """Return the agents of a partition that have mail due and nobody awake."""
        assert 0 <= partition < PARTITIONS
        place = place_of_partition(partition)
        reply = await self._pipe.call("sweep", place.agenda, place.prefix, "", 0, 0, SWEEP_AGENTS)
        return [agent.decode() for agent in reply]

    async def stop_channel(
        self,
        agent: str,
        channel: str,
        fault: ChannelFault,
        *,
        channels: tuple[str, ...],
        pause: tuple[int, int],
    ) -> tuple[int, str]:
        """Record a channel's fault; returns ms until it is tried again, and what is new about it.

        `opened`: it worked until now; `still`: another try failed; `known`: somebody else has just said so.

        `pause` is the shortest and the longest stop in ms: it doubles with every failed try. The agent stops
        once all its channels have.
        """
        retry_ms = int((fault.retry_after or 0) * 1000)
        pause_ms, new = await self._call(
            "fault", agent, channel, fault.cause, fault.reply_code or "", fault.enhanced_code or "",
            fault.text, *pause, retry_ms, *channels,
        )  # fmt: skip
        return pause_ms, new.decode()

    async def mend_channel(self, agent: str, channel: str) -> bool:
        """Forget a channel's fault, for a connection was made; True where there was one."""
        return bool(await self._call("mend", agent, channel))


def _read_claimed(agent: str, row: list[Any]) -> Claimed:
    message_id, fence, attempts, accepted_at, letters, fields, stored = row
    ref, ref_rest, caller, priority, profile, template, blobs = (f.decode() if f else "" for f in fields)
    try:
        payload = decode_payload(stored)
    except ValueError:
        payload = None
    return Claimed(
        id=message_id.decode(),
        agent=agent,
        fence=fence,
        attempts=attempts,
        accepted_at=accepted_at,
        waiting=tuple(i for i, letter in enumerate(letters.decode()) if letter in "qr"),
        recipients=len(letters),
        caller=caller,
        client_ref=ref + ref_rest,
        priority=PRIORITIES[priority],
        retry_profile=PROFILES[profile or "s"],
        template=template,
        blobs=int(blobs or 0),
        payload=payload,
    )
