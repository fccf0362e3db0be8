"""What became of a message that somebody called back or settled."""

from typing import Any

from msgspec import Struct

from postroom.ledger.ends import Ended, read_ended
from postroom.states import State


class Resolved(Struct, frozen=True):
    """Where a message stands after somebody settled it.

    `by_us`: this call changed it. `ended` where it has ended by that.
    """

    state: State
    by_us: bool
    ended: Ended | None = None


def read_resolved(reply: list[Any]) -> Resolved | None:
    """Read what the scripts `cancel` and `resolve` answer; None where the id is unknown."""
    if reply[0] == b"unknown":
        return None
    state, by_us, *rows = reply
    return Resolved(State(state.decode()), bool(by_us), read_ended(rows[0]) if rows else None)
