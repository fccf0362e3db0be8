"""Accepting: the one call that begins a message."""

from collections.abc import Awaitable
from typing import Any

import msgspec
from msgspec import Struct

from postroom.ledger.codec import encode_payload
from postroom.ledger.ends import Ended, read_ended
from postroom.ledger.keys import agent_of, place_of
from postroom.ledger.pipe import Pipe
from postroom.ledger.record import Hold, Record, read_hold, read_record
from postroom.ledger.resolved import Resolved, read_resolved
from postroom.message import Payload
from postroom.states import AMBIGUOUS_LETTERS, PRIORITY_LETTERS, PROFILE_LETTERS

GROUP_LIMIT = 64 * 1024  # larger requests travel alone, so that nobody's small one waits behind their bytes
FURTHEST_AHEAD_MS = 30 * 24 * 3600 * 1000
TOLERATED_PAST_MS = 60 * 1000
BRAKED, STORM_BEGAN = 1, 2  # what holds it up, as the script tells it
_encode = msgspec.msgpack.Encoder().encode
VALUE_LIMIT = 64  # longer values spoil the small encoding of Redis's hashes


class Brake(Struct, frozen=True):
    """The storm brake over an offer: more than `limit` of one digest within the window make the message wait.

    `digests` cover its recipients (`Digests.storm`), but for those that are exempt.
    """

    limit: int
    window_ms: int
    digests: tuple[str, ...]


class Offer(Struct, frozen=True, kw_only=True):
    """What is offered to the ledger: a checked request, resolved options, and when it is wanted.

    Times in milliseconds: `send_at` and `deliver_before` since the epoch (0: not given), `lifetime` from the
    later of acceptance and `send_at`. `digests` cover the request as sent (`postroom.ledger.digests`). `collapse`
    holds a digest a recipient (`Digests.collapse`): older waiting messages of the same one are superseded.
    """

    id: str
    agent: str
    caller: str
    client_ref: str
    ref: str
    digests: bytes
    payload: Payload
    blobs: tuple[bytes, ...] = ()
    priority: str = "normal"
    retry_profile: str = "standard"
    on_ambiguous: str = "retry"
    send_at: int = 0
    lifetime: int = 0
    deliver_before: int = 0
    standing_clock: bool = False  # the deadline moves on by the time its agent stands still
    storm: Brake | None = None
    collapse: tuple[str, ...] = ()


class Created(Struct, frozen=True):
    """The message was recorded now. `ring`: nobody is awake for its agent.

    `braked`: it waits for the storm brake; `storm_began`: it is the first of its window that does. `superseded` are
    older messages that it ended; one of which other recipients still wait is not among them. `hold` is a person's
    over one of those, which holds this one as well.
    """

    accepted_at: int
    due: int
    deadline: int
    ring: bool
    braked: bool = False
    storm_began: bool = False
    superseded: tuple[Ended, ...] = ()
    hold: Hold | None = None


class Exists(Struct, frozen=True):
    """The ref is taken, by the same request or by another one: compare the digests."""

    record: Record
    digests: bytes


class Untimely(Struct, frozen=True):
    """The times asked for make no sense by Redis's clock.

    `code` is `send_at_past`, `send_at_far`, `deliver_before_past` or `deliver_before_far`.
    """

    code: str


class Acceptance:
    """The callers' side of the ledger: a message begins here, and may be called back."""

    def __init__(self, pipe: Pipe, large: Pipe, *, content_ms: int, message_ms: int) -> None:
        """`large` is a second pipe, for requests that would hold up the group on `pipe`."""
        self._pipe = pipe
        self._large = large
        self._content_ms = str(content_ms)
        self._message_ms = str(message_ms)

    async def accept(self, offer: Offer) -> Created | Exists | Untimely:
        """Record the offer unless its ref is known.

        A returned `Created` means that the script's reply came back: the message is in the ledger.

        Raises:
            LedgerUnavailableError: surely not recorded.
            LedgerUnconfirmedError: perhaps recorded; the same offer may be made again.
        """
        payload = encode_payload(offer.payload)
        size = len(payload) + sum(map(len, offer.blobs))
        pipe = self._pipe if size <= GROUP_LIMIT else self._large
        words = (_encode(_offered(offer)), offer.digests, payload, *offer.blobs)
        reply = await self._call(pipe, "accept", offer.agent, *words)
        return _read_reply(reply, offer.agent)

    async def find(self, agent: str, ref: str) -> Exists | None:
        """Return what is recorded under a ref, and record nothing.

        Raises:
            LedgerUnavailableError, LedgerUnconfirmedError, LedgerFullError: it is not known.
        """
        # A message wanted long ago is one the script cannot begin; it looks the ref up before it says so.
        long_ago = _encode((ref, "", -1, 0, 0, "", 0, 0, PRIORITY_LETTERS["normal"], False, "", "", ()))
        reply = await self._call(self._pipe, "accept", agent, long_ago, b"", b"")
        found = _read_reply(reply, agent)
        return found if isinstance(found, Exists) else None

    async def cancel(self, message_id: str) -> Resolved | None:
        """End a message before its commit mark; return its state and whether this call ended it.

        None where the id is unknown. `sending` means that it is too late: the channel may have the message.

        Raises:
            LedgerUnavailableError: surely not cancelled.
            LedgerUnconfirmedError: perhaps cancelled; ask again.
        """
        reply = await self._call(self._pipe, "cancel", agent_of(message_id), message_id, "")
        return read_resolved(reply)

    async def lapse(self, message_id: str) -> Ended | None:
        """End a waiting message whose time is up; None where it is not.

        Raises:
            LedgerUnavailableError, LedgerUnconfirmedError, LedgerFullError: perhaps ended; it will be later.
        """
        reply = await self._call(self._pipe, "lapse", agent_of(message_id), message_id)
        return read_ended(reply) if reply else None

    def _call(self, pipe: Pipe, script: str, agent: str, *args: Any) -> Awaitable[Any]:
        place = place_of(agent)
        return pipe.call(script, place.agenda, place.prefix, agent, self._content_ms, self._message_ms, *args)


def _offered(offer: Offer) -> tuple[Any, ...]:
    """Return what travels as one argument: what is packed by itself costs five times as much."""
    return (
        offer.ref,
        offer.id,
        offer.send_at,
        offer.lifetime,
        offer.deliver_before,
        "q" * len(offer.payload.recipients),
        FURTHEST_AHEAD_MS,
        TOLERATED_PAST_MS,
        PRIORITY_LETTERS[offer.priority],
        offer.standing_clock,
        _write_brake(offer.storm),
        ",".join(offer.collapse),
        _record_fields(offer),
    )


def _write_brake(brake: Brake | None) -> str:
    if brake is None or not brake.digests:
        return ""
    return f"{brake.limit}|{brake.window_ms}|{','.join(brake.digests)}"


def _record_fields(offer: Offer) -> list[str]:
    """Return fields and values, texts all of them: Redis would write a number by way of its float."""
    payload = offer.payload
    fields = [
        "pf", PROFILE_LETTERS[offer.retry_profile],
        "oa", AMBIGUOUS_LETTERS[offer.on_ambiguous],
        "d", offer.caller,
        "c", offer.client_ref[:VALUE_LIMIT],
        "k", f"{len(payload.to)},{len(payload.cc)},{len(payload.bcc)}",
    ]  # fmt: skip
    if len(offer.client_ref) > VALUE_LIMIT:
        fields += ["c2", offer.client_ref[VALUE_LIMIT:]]
    if payload.template is not None:
        fields += ["t", f"{payload.template.name}@{payload.template.version}"]
    if offer.blobs:
        fields += ["bl", str(len(offer.blobs))]
    # For a person who tries it again after its end: a limit somebody named holds for that as well.
    if not offer.standing_clock:
        fields += ["lm", f"b{offer.deliver_before}" if offer.deliver_before else f"w{offer.lifetime}"]
    if offer.send_at > 0:
        fields += ["sa", str(offer.send_at)]
    files = payload.files
    for index, file in enumerate(files):
        fields += [f"fi{index}", file]
    if files:
        fields += ["fh", str(len(files))]  # the last one: the script looks for it there
    return fields


def _read_created(
    accepted_at: int, due: int, deadline: int, ring: int, held: int, superseded: list[Any], *hold: bytes
) -> Created:
    ended = tuple(map(read_ended, superseded))
    braked = held in (BRAKED, STORM_BEGAN)
    taken_over = read_hold(*(part.decode() for part in hold)) if hold else None
    return Created(accepted_at, due, deadline, bool(ring), braked, held == STORM_BEGAN, ended, taken_over)


def _read_reply(reply: list[Any], agent: str) -> Created | Exists | Untimely:
    match reply:
        case [b"created", *told]:
            return _read_created(*told)
        case [b"exists", stored, flat]:
            known, _, digests = stored.partition(b"|")
            record = read_record(known.decode(), agent, dict(zip(flat[::2], flat[1::2], strict=True)))
            assert agent_of(record.id) == agent
            return Exists(record, digests)
        case [b"invalid", code]:
            return Untimely(code.decode())
        case _:
            raise AssertionError("the accept script answered something new")
