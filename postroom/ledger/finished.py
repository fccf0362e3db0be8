"""An attempt's outcome as it goes into the ledger, and where it left the message."""

from typing import Any

from msgspec import Struct

from postroom.states import PRIORITIES, State


class Finished(Struct, frozen=True):
    """Where a finished attempt left its message. `again`: this was written before, its reply got lost.

    `guarded`: the refusal was taken for the channel's own fault, and the message waits untouched. `slow`: the
    channel puts off one message after the other, and sends none.
    """

    state: State
    next_in_ms: int | None
    age_ms: int
    priority: str
    again: bool
    guarded: bool = False
    slow: bool = False


class Finish(Struct, frozen=True, kw_only=True):
    """An attempt's outcome as it is written. `codes`: a letter a recipient (s, f, d, a, - if not in it).

    `channel` is empty where a refusal says nothing about it, since the mail was never shown to it.
    """

    id: str
    fence: int
    codes: str
    delay_ms: int
    event: str
    replies: tuple[tuple[int, str], ...] = ()
    channel: str = ""


def read_finished(reply: list[Any]) -> Finished | None:
    """Read where an outcome left its message; None where somebody else owns it."""
    if reply[0] == b"stale":
        return None
    word, state, next_in, age, priority, *said = reply
    return Finished(
        State(state.decode()),
        None if next_in < 0 else next_in,
        age,
        PRIORITIES[priority.decode()],
        said == [b"again"],
        word == b"guarded",
        said == [b"slow"],
    )
