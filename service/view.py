"""A message as callers see it. Times are RFC 3339 in UTC; what is not known is null."""

from typing import Any

from msgspec import Struct

from postroom.config.structs import Agent
from postroom.config.units import milliseconds
from postroom.due import next_attempt
from postroom.explain import (
    Reason,
    explain,
    held_reason,
    is_superseded,
    moment,
    refused_here,
    state_sentence,
    storm_reason,
)
from postroom.ledger.accept import Created, Offer
from postroom.ledger.files import StoredFile
from postroom.ledger.reading import StoredMessage
from postroom.ledger.record import Attempt, RecipientRecord, Record
from postroom.states import State


class FileView(Struct, frozen=True):
    """A file of the cache. `key` goes into a message's attachments as `file`, until `expires_at`."""

    key: str
    content_type: str
    size: int
    expires_at: str


class RecipientReason(Struct, frozen=True):
    """The answer that deferred or ended a recipient. `text` says why Postroom refused it without asking the channel."""

    code: str
    fault: str | None
    reply_code: int | None = None
    enhanced_code: str | None = None
    text: str | None = None


class RecipientView(Struct, frozen=True):
    """One recipient. `address` is null once the content is dropped."""

    index: int
    kind: str
    address: str | None
    state: str
    reason: RecipientReason | None


class AttemptView(Struct, frozen=True):
    """One finished attempt, with the codes the channel answered."""

    n: int
    at: str
    channel: str
    outcome: str
    phase: str
    reply_code: int | None
    enhanced_code: str | None
    ms: int | None


class EventView(Struct, frozen=True):
    """One entry of the timeline."""

    at: str
    type: str


class TemplateView(Struct, frozen=True):
    """The template and the version pinned at acceptance."""

    name: str
    version: str


class AcceptedView(Struct, frozen=True, kw_only=True):
    """What a 202, and a replay's 200, answers: a part of the whole view."""

    id: str
    client_ref: str
    agent: str
    caller: str
    state: str
    finished: bool
    reason: Reason | None
    accepted_at: str
    next_attempt_at: str | None
    expires_at: str | None
    ref_valid_until: str | None
    template: TemplateView | None


class MessageView(AcceptedView, frozen=True, kw_only=True):
    """The whole view."""

    recipients: list[RecipientView]
    attempts: list[AttemptView]
    events: list[EventView]
    metadata: dict[str, str]


class WhyView(Struct, frozen=True, kw_only=True):
    """Why a message is where it is. `sentence` says it; `attempts` is how many have ended."""

    id: str
    state: str
    finished: bool
    sentence: str
    reason: Reason | None
    accepted_at: str
    next_attempt_at: str | None
    expires_at: str | None
    attempts: int


class MessageList(Struct, frozen=True):
    """A page of messages."""

    messages: list[MessageView]
    next: str | None = None


def view_created(offer: Offer, created: Created, agent: Agent | None) -> AcceptedView:
    """Return the part for a message that was recorded now."""
    template = offer.payload.template
    return AcceptedView(
        id=offer.id,
        client_ref=offer.client_ref,
        agent=offer.agent,
        caller=offer.caller,
        state="queued",
        finished=False,
        reason=_reason_at_once(offer, created, agent),
        accepted_at=moment(created.accepted_at) or "",
        next_attempt_at=moment(_first_attempt(created)),
        expires_at=moment(created.deadline),
        ref_valid_until=None,
        template=TemplateView(template.name, template.version) if template else None,
    )


def _first_attempt(created: Created) -> int | None:
    """Return when it is tried first, in ms; None where a person has to release it."""
    if created.braked or (created.hold is not None and not created.hold.till):
        return None
    return max(created.due, created.hold.till) if created.hold else created.due


def _reason_at_once(offer: Offer, created: Created, agent: Agent | None) -> Reason | None:
    """Return what holds a message up from its beginning."""
    if created.hold is not None:
        return held_reason(agent, created.hold)
    return storm_reason(offer.agent, agent, created.accepted_at) if created.braked else None


def view_accepted(stored: StoredMessage, agent: Agent | None, retention: str) -> dict[str, Any]:
    """Return the fields of the part."""
    record = stored.record
    ref_until = record.finished_at + milliseconds(retention) if record.finished_at else None
    return {
        "id": record.id,
        "client_ref": record.client_ref,
        "agent": record.agent,
        "caller": record.caller,
        "state": str(record.state),
        "finished": record.finished,
        "reason": explain(stored, agent),
        "accepted_at": moment(record.accepted_at),
        "next_attempt_at": moment(next_attempt(stored, agent)),
        "expires_at": moment(stored.deadline),
        "ref_valid_until": moment(ref_until),
        "template": TemplateView(*record.template) if record.template else None,
    }


def view_message(stored: StoredMessage, agent: Agent | None, retention: str) -> MessageView:
    """Return the whole view of a stored message."""
    record, payload = stored.record, stored.payload
    addresses = [r.address for r in payload.recipients] if payload else [None] * len(record.recipients)
    return MessageView(
        **view_accepted(stored, agent, retention),
        recipients=[
            RecipientView(r.index, r.kind, address, str(r.state), _recipient_reason(r, record))
            for r, address in zip(record.recipients, addresses, strict=True)
        ],
        attempts=[_view_attempt(attempt) for attempt in record.attempts],
        events=[EventView(moment(event.at) or "", event.type) for event in record.timeline],
        metadata=payload.metadata if payload else {},
    )


def view_why(stored: StoredMessage, agent: Agent | None) -> WhyView:
    """Return the reason, in a sentence and as data."""
    record = stored.record
    return WhyView(
        id=record.id,
        state=str(record.state),
        finished=record.finished,
        sentence=state_sentence(stored, agent),
        reason=explain(stored, agent),
        accepted_at=moment(record.accepted_at) or "",
        next_attempt_at=moment(next_attempt(stored, agent)),
        expires_at=moment(stored.deadline),
        attempts=record.attempted,
    )


def _recipient_reason(recipient: RecipientRecord, record: Record) -> RecipientReason | None:
    codes = (recipient.reply_code, recipient.enhanced_code)
    if recipient.doubtful or recipient.state == State.UNCONFIRMED:
        return RecipientReason("ambiguous", "agent", *codes)
    match recipient.state:
        case State.FAILED:
            return RecipientReason("refused", recipient.whose, *codes, refused_here(recipient))
        case State.QUEUED if recipient.reply_code is not None:
            return RecipientReason("deferred", recipient.whose, *codes)
        case State.EXPIRED:
            return RecipientReason("expired", None, *codes)
        case State.CANCELLED:
            return RecipientReason("superseded" if is_superseded(record) else "cancelled", None, *codes)
        case _:
            return None


def _view_attempt(attempt: Attempt) -> AttemptView:
    return AttemptView(
        n=attempt.n,
        at=moment(attempt.at) or "",
        channel=attempt.channel,
        outcome=attempt.outcome,
        phase=attempt.phase,
        reply_code=attempt.reply_code,
        enhanced_code=attempt.enhanced_code,
        ms=attempt.ms,
    )


def view_file(file: StoredFile) -> FileView:
    """Show a file of the cache."""
    return FileView(file.id, file.content_type, file.size, moment(file.until) or "")
