"""What a claim brings: messages in a lane's hands, and what was found out on the way to them."""

from typing import Any

from msgspec import Struct

from postroom.ledger.codec import decode_payload
from postroom.ledger.ends import Ended, read_ended
from postroom.message import Payload
from postroom.states import PRIORITIES, PROFILES

FULL, PAUSED = b"full", b"paused"


class Claimed(Struct, frozen=True, kw_only=True):
    """A message in a lane's hands, until its lease ends or a newer fence is raised.

    `waiting` are the recipients still to be sent to, as indexes. `maybe_taken_by` is the channel that an earlier
    attempt may have gone out over without an answer; empty where there was none. `payload` is None where the
    stored bytes cannot be read, which is a defect of ours and ends the message.
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
    maybe_taken_by: str = ""
    payload: Payload | None


class Lapsed(Struct, frozen=True):
    """A message whose owner did not come back in time, and the phase it was in."""

    id: str
    phase: str
    channel: str


class Claim(Struct, frozen=True):
    """What a claim brought. `next_in_ms` is None where nothing waits at all; `more` is due already.

    `left`: the lane is off the ledger's list. `version` changes with whatever stands over the agent: a pause, a
    preferred channel, a channel's fault. `bulk_waits`: bulk mail is due that this lane leaves to the others.
    `narrowed`: the agent was asked to slow down, and has fewer connections for a while. `paced`: its rate lets none of
    the due mail through now; `paced_ms`: for so long it had held mail up without a gap, whoever looked.
    """

    messages: tuple[Claimed, ...]
    next_in_ms: int | None
    more: bool
    ended: tuple[Ended, ...] = ()
    lapsed: tuple[Lapsed, ...] = ()
    left: bool = False
    version: int = 0
    bulk_waits: bool = False
    narrowed: bool = False
    paced: bool = False
    paced_ms: int = 0


def read_claim(agent: str, reply: list[Any]) -> Claim | None:
    """Read a claim's reply; None where the lane is to close."""
    if reply[0] in (FULL, PAUSED):
        return None
    _, next_in, more, claimed, ended, lapsed, left, version, bulk_waits, narrowed, paced, paced_ms = reply
    return Claim(
        tuple(_read_claimed(agent, row) for row in claimed),
        None if next_in < 0 else next_in,
        bool(more),
        tuple(map(read_ended, ended)),
        tuple(Lapsed(i.decode(), phase.decode(), c.decode()) for i, phase, c in lapsed),
        bool(left),
        version,
        bool(bulk_waits),
        bool(narrowed),
        bool(paced),
        paced_ms,
    )


def _read_claimed(agent: str, row: list[Any]) -> Claimed:
    message_id, fence, attempts, accepted_at, letters, blobs, fields, stored = row
    priority, channel, ref, ref_rest, caller, profile, template = [f.decode() if f else "" for f in fields]
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
        blobs=blobs,
        maybe_taken_by=channel,
        payload=payload,
    )
