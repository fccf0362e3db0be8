"""Why a message is where it is: one reason, in words a caller and a person on call both understand."""

from datetime import UTC, datetime

from msgspec import Struct

from postroom.config.structs import Agent
from postroom.ledger.reading import StoredFault, StoredMessage
from postroom.pace import pace_of
from postroom.states import State

REFUSED = {
    "recipient": "Every recipient was refused; see recipients.",
    "message": "The message itself was refused; see its last attempt.",
    "postroom": "The message could not be composed.",
}


class Reason(Struct, frozen=True):
    """Why a message is where it is. `fault`: message, recipient, agent or postroom, if it is one's fault."""

    code: str
    fault: str | None
    text: str
    since: str | None = None


def moment(ms: int | None) -> str | None:
    """Return milliseconds since the epoch as RFC 3339."""
    if ms is None:
        return None
    text = datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def explain(stored: StoredMessage, agent: Agent | None) -> Reason | None:
    """Say why the message is where it is: what it waits for, or what ended it."""
    record = stored.record
    if record.state == State.QUEUED:
        return _explain_waiting(stored, agent)
    since = moment(record.finished_at)
    match record.state:
        case State.FAILED:
            whose = {recipient.whose for recipient in record.recipients}
            fault = whose.pop() if len(whose) == 1 else "recipient"
            return Reason("refused", fault, REFUSED[fault], since)
        case State.PARTLY_SENT:
            return Reason("refused", "recipient", "Some recipients were refused; see recipients.", since)
        case State.EXPIRED:
            return Reason("expired", None, "Its deadline passed before it could be sent.", since)
        case State.UNCONFIRMED:
            return Reason(
                "ambiguous",
                "agent",
                "The provider may have taken it: its answer did not come, or could not be understood.",
                since,
            )
        case _:
            return None


def next_attempt(stored: StoredMessage, agent: Agent | None) -> int | None:
    """Return when the message is tried next, in ms: not before its agent's channels and rate let it."""
    record = stored.record
    if record.state != State.QUEUED or record.next_at is None or agent is None:
        return None
    stopped = _stopped(agent, stored.faults)
    reopens = min((fault.till for fault in stopped), default=0)
    return max(record.next_at, reopens, paced_until(stored, agent))


def paced_until(stored: StoredMessage, agent: Agent) -> int:
    """Return when the agent's rate lets the next message go, in ms, or 0 where it does not hold it up."""
    pace = pace_of(agent)
    if not pace.interval_us:
        return 0
    free_at = (stored.arrival_us + pace.interval_us - pace.burst * pace.interval_us) // 1000
    return free_at if free_at > stored.now else 0


def _stopped(agent: Agent, faults: dict[str, StoredFault]) -> list[StoredFault]:
    """Return the faults of the agent's channels, in their order, if every one of them stands still."""
    found = [faults[c.name] for c in agent.channels if c.name in faults]
    return found if len(found) == len(agent.channels) else []


def _explain_waiting(stored: StoredMessage, agent: Agent | None) -> Reason:
    record = stored.record
    if agent is None:
        return Reason("agent_unknown", "agent", "Its agent is no longer configured.")
    if stopped := _stopped(agent, stored.faults):
        first = stopped[0]
        return Reason(f"channel_{first.cause}", "agent", first.text, moment(first.since))
    if record.reason is not None:
        code, since = record.reason
        text = f"Waiting for attempt {len(record.attempts) + 1}."
        if code == "ambiguous":
            text = "The last attempt may have been taken; waiting to try once more."
        return Reason(code, None, text, moment(since))
    if record.next_at is not None and record.next_at > record.accepted_at:
        return Reason("scheduled", None, "Waiting for its send_at.", moment(record.accepted_at))
    if paced_until(stored, agent):
        return Reason("pacing", None, "Waiting for its agent's rate.", moment(record.accepted_at))
    return Reason("due", None, "Due now; a worker takes it next.", moment(record.accepted_at))
