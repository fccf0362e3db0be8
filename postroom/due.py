"""When a waiting message is tried next, by everything that may hold it up."""

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from postroom.config.structs import Agent
from postroom.ledger.reading import StoredMessage
from postroom.ledger.standing import StoredFault
from postroom.pace import pace_of
from postroom.states import State


def next_attempt(stored: StoredMessage, agent: Agent | None) -> int | None:
    """Return when the message is tried next, in ms: not before its agent's pause, channels, day and rate let it.

    None where nobody can know: its agent is unknown or paused without an end, or a person has to release it. None too
    where its time is up before it would be.
    """
    record, pause = stored.record, stored.standing.pause
    if record.state != State.QUEUED or record.next_at is None or agent is None or stored.tried_out:
        return None
    if record.hold is not None and not record.hold.till:
        return None
    held_till = record.hold.till if record.hold else 0
    paused_till = pause.till if pause and stored.standing.paused else None
    if paused_till == 0:
        return None
    reopens = reopens_at(stopped_channels(agent, stored.standing.faults))
    used_up, paced = day_used_up_until(stored, agent), paced_until(stored, agent)
    return max(record.next_at, held_till, paused_till or 0, reopens, used_up, paced)


def paced_until(stored: StoredMessage, agent: Agent) -> int:
    """Return when the agent's rate lets the next message go, in ms, or 0 where it does not hold it up."""
    pace = pace_of(agent)
    if not pace.interval_us:
        return 0
    free_at = (stored.arrival_us + pace.interval_us - pace.burst * pace.interval_us) // 1000
    return free_at if free_at > stored.standing.now else 0


def day_used_up_until(stored: StoredMessage, agent: Agent) -> int:
    """Return when the agent's next day begins, in ms, or 0 where this day has room for the message."""
    if agent.per_day is None:
        return 0
    zone = ZoneInfo(agent.timezone)
    today = datetime.fromtimestamp(stored.standing.now / 1000, zone).date()
    start, end = (datetime.combine(d, time.min, zone) for d in (today, today + timedelta(days=1)))
    counted_on, used = stored.day
    if counted_on != round(start.timestamp() * 1000):
        return 0
    waiting = sum(recipient.state == State.QUEUED for recipient in stored.record.recipients)
    return round(end.timestamp() * 1000) if used + waiting > agent.per_day else 0


def stopped_channels(agent: Agent, faults: dict[str, StoredFault]) -> list[StoredFault]:
    """Return the faults of the agent's channels, in their order, if every one of them stands still."""
    found = [faults[c.name] for c in agent.channels if c.name in faults]
    return found if len(found) == len(agent.channels) else []


def reopens_at(stopped: list[StoredFault]) -> int:
    """Return when the first of these channels is tried again, in ms, or 0 where none stands still."""
    return min((fault.till for fault in stopped), default=0)
