"""Why a message is where it is: one reason, in words a caller and a person on call both understand."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from postroom.config.structs import Agent
from postroom.due import day_used_up_until, paced_until, reopens_at, stopped_channels
from postroom.ledger.reading import StoredMessage
from postroom.ledger.record import Hold, RecipientRecord, Record
from postroom.ledger.standing import StoredFault
from postroom.moment import rfc3339
from postroom.outcome import BY_A_PERSON
from postroom.states import State

REFUSED = {
    "recipient": "Every recipient was refused; see recipients.",
    "message": "The message itself was refused; see its last attempt.",
    "postroom": "The message could not be composed.",
}
CANCELLED = {
    "superseded": "A newer message with the same collapse_key took its place.",
    "operator": "An operator cancelled it.",
    "caller": "Its caller cancelled it.",
}
# What Postroom refused itself, before a word of it was said to the other side: by the code it gave for that.
REFUSED_HERE = {
    "5.6.7": "The channel's server does not offer SMTPUTF8, which addresses beyond ASCII before the @ need.",
    "5.6.3": "The channel's server does not offer 8BITMIME, which a header beyond ASCII needs.",
    "5.3.4": "It is larger than the channel's server takes.",
    "5.1.3": "The recipient's address cannot be said in SMTP.",
    "5.1.7": "The sender's address cannot be said in SMTP.",
    "SM_127": "It has more recipients, attachments or Reply-To addresses than ZeptoMail takes.",
    "SM_129": "Its subject, a name or its attachments are longer than ZeptoMail takes.",
    "TM_3501": "ZeptoMail takes no attachment of this kind.",
}
OWN_CHANNEL = (
    "Not all of its agent's channels may carry it: an earlier attempt over one may have been taken, or it has a "
    "provider's file, or a Sender."
)
JUST_DUE_MS = 1000  # mail that became due within it is as good as taken
STORM = "The storm brake holds it: one recipient was sent one template too often. An operator can release it."


class Reason(Struct, frozen=True):
    """Why a message is where it is. `fault`: message, recipient, agent or postroom, if it is one's fault.

    `owner` is its agent's. `rule` is a JSON pointer to what says so, into the configuration (`/agents/…`) or into
    the request.
    """

    code: str
    fault: str | None
    text: str
    since: str | None = None
    until: str | None = None
    owner: str | None = None
    rule: str | None = None


def moment(ms: int | None) -> str | None:
    """Return milliseconds since the epoch as RFC 3339."""
    return None if ms is None else rfc3339(ms)


def explain(stored: StoredMessage, agent: Agent | None) -> Reason | None:
    """Say why the message is where it is: what it waits for, or what ended it."""
    if stored.record.state == State.QUEUED:
        reason: Reason | None = _explain_waiting(stored, agent)
    else:
        reason = _explain_end(stored.record)
    if reason is None or agent is None or not agent.owner:
        return reason
    return msgspec.structs.replace(reason, owner=agent.owner)


def is_superseded(record: Record) -> bool:
    """True where a newer message took the place of this one for at least one of its recipients."""
    return any(event.type == "message.superseded" for event in record.timeline)


def refused_here(recipient: RecipientRecord) -> str | None:
    """Say why Postroom itself refused a recipient; None where the other side did, or somebody will try again."""
    if recipient.state != State.FAILED or recipient.reply_code is not None:
        return None
    return REFUSED_HERE.get(recipient.enhanced_code or "")


def storm_reason(name: str, agent: Agent | None, since: int) -> Reason:
    """Return the reason of a message that the storm brake of its agent holds since then, in ms."""
    owner = agent.owner if agent else ""
    rule = f"/agents/{name}/storm"
    return Reason("storm", None, STORM + _ask(owner), moment(since), owner=owner or None, rule=rule)


def state_sentence(stored: StoredMessage, agent: Agent | None) -> str:
    """Return the answer to "why": the message, its state, since when, and the reason's words."""
    record, reason = stored.record, explain(stored, agent)
    if record.state == State.SENDING:
        return f"{record.id} is sending: an attempt is under way."
    since = (reason.since if reason else None) or moment(record.finished_at)
    text = f"{record.id} is {record.state}" + (f" since {since}" if since else "")
    return f"{text} ({reason.code}): {reason.text}" if reason else f"{text}."


def _explain_end(record: Record) -> Reason | None:
    since = moment(record.finished_at)
    match record.state:
        case State.FAILED:
            whose = {recipient.whose for recipient in record.recipients}
            fault = whose.pop() if len(whose) == 1 else "recipient"
            texts = {refused_here(recipient) for recipient in record.recipients}
            text = texts.pop() if len(texts) == 1 else None
            return Reason("refused", fault, text or REFUSED[fault], since)
        case State.PARTLY_SENT:
            return _explain_partly_sent(record, since)
        case State.EXPIRED:
            return Reason("expired", None, "Its deadline passed before it could be sent.", since)
        case State.CANCELLED:
            return _explain_cancelled(record.ended_by or "caller", since)
        case State.UNCONFIRMED:
            return Reason(
                "ambiguous",
                "agent",
                "The provider may have taken it: its answer did not come, or could not be understood.",
                since,
            )
        case _:
            return None


def _explain_partly_sent(record: Record, since: str | None) -> Reason:
    states = {recipient.state for recipient in record.recipients}
    if State.FAILED in states:
        return Reason("refused", "recipient", "Some recipients were refused; see recipients.", since)
    if State.EXPIRED in states:
        return Reason("expired", None, "Its deadline passed before all recipients had it.", since)
    return _explain_cancelled("superseded" if is_superseded(record) else record.ended_by or "caller", since)


def _explain_cancelled(by: str, since: str | None) -> Reason:
    if by == "superseded":
        return Reason("superseded", None, CANCELLED[by], since, rule="/collapse_key")
    return Reason("cancelled", None, CANCELLED.get(by, CANCELLED["operator"]), since)


def _explain_waiting(stored: StoredMessage, agent: Agent | None) -> Reason:
    """Return the first of what holds the message up, the most lasting one first.

    Mail that is scheduled beyond the known end of a pause, or of its channels' stop, waits for its `send_at` only.
    """
    record = stored.record
    if agent is None:
        text = "Its agent is not configured any more; its mail is kept."
        return Reason("agent_unknown", "agent", text, rule=f"/agents/{record.agent}")
    obstacles: tuple[Callable[[StoredMessage, Agent], Reason | None], ...] = (
        _held, _paused, _stood_still, _not_yet, _day_used_up, _paced, _crowded,
    )  # fmt: skip
    for obstacle in obstacles:
        if (reason := obstacle(stored, agent)) is not None:
            return reason
    text = "Due now; a worker takes it next."
    return Reason("due", None, text, moment(_due_since(record)))


def held_reason(agent: Agent | None, hold: Hold) -> Reason:
    """Return the reason of what a person holds."""
    owner = agent.owner if agent else ""
    until = moment(hold.till or None)
    text = "An operator holds it" + (f" until {until}" if until else "") + _because(hold.why) + _ask(owner)
    return Reason("held", None, text, moment(hold.since), until, owner=owner or None)


def _held(stored: StoredMessage, agent: Agent) -> Reason | None:
    hold = stored.record.hold
    if hold is None:
        return None
    if hold.code == "storm":
        return storm_reason(stored.record.agent, agent, hold.since)
    is_over = 0 < hold.till <= stored.standing.now
    return None if is_over or _is_scheduled_beyond(stored, hold.till) else held_reason(agent, hold)


def _paused(stored: StoredMessage, agent: Agent) -> Reason | None:
    pause = stored.standing.pause
    if pause is None or not stored.standing.paused or _is_scheduled_beyond(stored, pause.till):
        return None
    until = moment(pause.till or None)
    text = (
        "Its agent is paused"
        + (f" until {until}" if until else "")
        + _because(pause.reason)
        + _ask(agent.owner)
    )
    return Reason("paused", "agent", text, moment(pause.since), until)


def _stood_still(stored: StoredMessage, agent: Agent) -> Reason | None:
    stopped = stopped_channels(agent, stored.standing.faults)
    if not stopped or _is_scheduled_beyond(stored, _ends_by_itself(stopped)):
        return None
    first, reopens = stopped[0], reopens_at(stopped)
    until = moment(reopens) if reopens > stored.standing.now else None
    rule = f"/agents/{stored.record.agent}/channels/0"
    return Reason(f"channel_{first.cause}", "agent", first.text, moment(first.since), until, rule=rule)


def _ends_by_itself(stopped: list[StoredFault]) -> int:
    """Return when the first of these channels is tried again that no person has to mend, in ms; 0 where none is."""
    return min((fault.till for fault in stopped if fault.cause not in BY_A_PERSON), default=0)


def _is_scheduled_beyond(stored: StoredMessage, end: int) -> bool:
    """True where the message waits for its `send_at` until after this moment, in ms; 0 is one nobody knows."""
    record = stored.record
    if end == 0 or record.reason is not None or record.next_at is None:
        return False
    return record.next_at > max(end, stored.standing.now)


def _not_yet(stored: StoredMessage, _agent: Agent) -> Reason | None:
    record = stored.record
    if record.next_at is None or record.next_at <= stored.standing.now:
        return None
    until = moment(record.next_at)
    if record.reason is None:
        text = f"Waiting for its send_at, {until}."
        return Reason("scheduled", None, text, moment(record.accepted_at), until, rule="/send_at")
    code, since = record.reason
    text = f"Waiting for attempt {record.attempted + 1} at {until}."
    if stored.tried_out:
        doubt = "The last attempt may have been taken" if code == "ambiguous" else "Its last attempt is over"
        text = f"{doubt}; another one would come too late. Its time is up at {until}."
    elif code == "ambiguous":
        text = f"The last attempt may have been taken; waiting to try once more at {until}."
    elif code == "own_channel":
        text = f"{OWN_CHANNEL} What may carry it stands still now; it is looked at again at {until}."
    return Reason(code, None, text, moment(since), until)


def _day_used_up(stored: StoredMessage, agent: Agent) -> Reason | None:
    until = moment(day_used_up_until(stored, agent) or None)
    if until is None:
        return None
    text = f"Its agent has no room for it among its {agent.per_day} recipients of the day, which ends at {until}."
    rule = f"/agents/{stored.record.agent}/per_day"
    return Reason("per_day", None, text, moment(_due_since(stored.record)), until, rule=rule)


def _paced(stored: StoredMessage, agent: Agent) -> Reason | None:
    until = moment(paced_until(stored, agent) or None)
    if until is None:
        return None
    text, rule = f"Waiting for its agent's rate of {agent.rate}.", f"/agents/{stored.record.agent}/rate"
    return Reason("pacing", None, text, moment(_due_since(stored.record)), until, rule=rule)


def _crowded(stored: StoredMessage, agent: Agent) -> Reason | None:
    most = min(agent.connections, stored.width or agent.connections)
    since = _due_since(stored.record)
    if stored.lanes < most or stored.standing.now - since < JUST_DUE_MS:
        return None
    fewer = ", halved because the provider asked to slow down" if most < agent.connections else ""
    text = f"All {most} connections of its agent are at work{fewer}."
    return Reason("connections", None, text, moment(since), rule=f"/agents/{stored.record.agent}/connections")


def _due_since(record: Record) -> int:
    return max(record.accepted_at, record.next_at or 0)


def _because(why: str) -> str:
    return f": {why.rstrip('. ')}." if why.strip(". ") else "."


def _ask(owner: str) -> str:
    return f" Ask {owner}." if owner else ""
