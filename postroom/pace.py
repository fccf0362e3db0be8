"""An agent's limits in the form the ledger counts them in."""

from datetime import datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from postroom.config.structs import Agent, Breaker
from postroom.config.units import milliseconds, per_second
from postroom.ledger.limits import Limits, Pace

GUARDED_STOPS = 20  # shortest stops that a message waits whose refusal was taken for its channel's fault
# So that the day is found although a clock is off, and whatever the hour of summer time.
DAYS_AROUND = (-2, -1, 0, 1, 2, 3)


def pace_of(agent: Agent) -> Pace:
    """Return the agent's pace; unset `burst` is one second's worth, at least 1."""
    interval_us, burst = 0, 1
    if agent.rate is not None:
        rate = per_second(agent.rate)
        interval_us, burst = max(1, round(1_000_000 / rate)), agent.burst or max(1, int(rate))
    if agent.per_day is None:
        return Pace(interval_us, burst)
    today = datetime.now(ZoneInfo(agent.timezone)).date()
    return Pace(interval_us, burst, agent.per_day, midnights(agent.timezone, today.toordinal()))


@lru_cache(maxsize=1024)
def midnights(timezone: str, today: int) -> tuple[int, ...]:
    """Return the beginnings of the days around `today` (an ordinal) in a time zone, in ms since the epoch."""
    zone, day = ZoneInfo(timezone), datetime.fromordinal(today).date()
    days = (day + timedelta(days=step) for step in DAYS_AROUND)
    return tuple(round(datetime.combine(d, time.min, zone).timestamp() * 1000) for d in days)


def limits_of(agent: Agent, breaker: Breaker) -> Limits:
    """Return everything the ledger keeps the agent to, over all workers."""
    return Limits(
        connections=agent.connections,
        pace=pace_of(agent),
        ambiguous_retries=agent.ambiguous_retries,
        refusals=breaker.refusals,
        refusal_window_ms=milliseconds(breaker.refusal_window),
        guarded_wait_ms=GUARDED_STOPS * milliseconds(breaker.shortest),
    )
