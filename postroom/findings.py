"""What an operator is told of one message: the answer of the admin port, and what `postroom why` prints."""

from msgspec import Struct

from postroom.config.structs import Agent
from postroom.due import next_attempt
from postroom.explain import Reason, explain, moment, state_sentence
from postroom.ledger.reading import StoredMessage
from postroom.ledger.record import Attempt


class Tried(Struct, frozen=True, kw_only=True):
    """One attempt, and the codes it was answered with."""

    at: str | None
    n: int
    channel: str
    outcome: str
    phase: str
    reply_code: int | None
    enhanced_code: str | None


class Findings(Struct, frozen=True, kw_only=True):
    """Why a message is where it is, and the data behind it. No address, no content.

    Unlike callers, a person on call is told who paused its agent, or holds it.
    """

    id: str
    state: str
    sentence: str
    reason: Reason | None
    owner: str | None
    agent_paused_by: str | None
    held_by: str | None
    caller: str
    client_ref: str
    priority: str
    next_attempt_at: str | None
    expires_at: str | None
    events: list[tuple[str, str]]
    attempts: list[Tried]


def find_why(stored: StoredMessage, agent: Agent | None) -> Findings:
    """Return what is known of a message; `agent` is None where it is not configured any more."""
    record, pause = stored.record, stored.standing.pause
    return Findings(
        id=record.id,
        state=record.state,
        sentence=state_sentence(stored, agent),
        reason=explain(stored, agent),
        owner=(agent.owner or None) if agent else None,
        agent_paused_by=pause.who if pause and stored.standing.paused else None,
        held_by=(record.hold.who or None) if record.hold else None,
        caller=record.caller,
        client_ref=record.client_ref,
        priority=record.priority,
        next_attempt_at=moment(next_attempt(stored, agent)),
        expires_at=moment(stored.deadline),
        events=[(moment(event.at) or "", event.type) for event in record.timeline],
        attempts=[_tried(attempt) for attempt in record.attempts],
    )


def _tried(attempt: Attempt) -> Tried:
    return Tried(
        at=moment(attempt.at),
        n=attempt.n,
        channel=attempt.channel,
        outcome=attempt.outcome,
        phase=attempt.phase,
        reply_code=attempt.reply_code,
        enhanced_code=attempt.enhanced_code,
    )
