"""What became of a message that somebody called back or settled."""

from typing import Any

from msgspec import Struct

from postroom.states import PRIORITIES, State


class Resolved(Struct, frozen=True):
    """Where a message stands after somebody settled it. `by_us`: this call changed it.

    Only then `priority` and `age_ms`, since it was accepted, are the message's own.
    """

    state: State
    by_us: bool
    priority: str
    age_ms: int


def read_resolved(reply: list[Any]) -> Resolved | None:
    """Read what the scripts `cancel` and `resolve` answer; None where the id is unknown."""
    if reply[0] == b"unknown":
        return None
    state, by_us, *rest = reply
    priority, age = rest or (b"n", 0)
    return Resolved(State(state.decode()), bool(by_us), PRIORITIES[priority.decode()], age)
