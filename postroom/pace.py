"""An agent's rate in the form the ledger counts it in."""

from postroom.config.structs import Agent
from postroom.config.units import per_second
from postroom.ledger.delivery import Pace


def pace_of(agent: Agent) -> Pace:
    """Return the agent's pace; unset `burst` is one second's worth, at least 1."""
    if agent.rate is None:
        return Pace()
    rate = per_second(agent.rate)
    return Pace(max(1, round(1_000_000 / rate)), agent.burst or max(1, int(rate)))
