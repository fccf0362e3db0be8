"""Messages that ended without an attempt, or were settled by a person: what their last log line tells."""

from typing import Any

from msgspec import Struct

from postroom.ledger.codec import decode_head
from postroom.states import PRIORITIES, State


class Ended(Struct, frozen=True, kw_only=True):
    """A message's end that no attempt brought about.

    `how` it came to that: `expired`, `cancelled`, `superseded`, `ambiguous` (a lapsed lease past the commit mark),
    `lost` (its content is not there any more), `nobody_left` (a record that was meddled with), `settled` (by a person).
    `attempts` are those before, the last one over `channel`. Where it came from is empty once its content is dropped.
    """

    id: str
    state: State
    priority: str
    age_ms: int
    how: str
    attempts: int
    channel: str
    client_ref: str
    caller: str
    template: str
    request_id: str
    traceparent: str
    accept_us: int


def read_ended(row: list[Any]) -> Ended:
    """Read a row of `end_untried` (scripts/prelude.lua)."""
    message_id, state, priority, age, how, attempts, channel, shown, stored = row
    ref, ref_rest, caller, template = (field.decode() if field else "" for field in shown)
    head = decode_head(stored)
    return Ended(
        id=message_id.decode(),
        state=State(state.decode()),
        priority=PRIORITIES[priority.decode()],
        age_ms=age,
        how=how.decode(),
        attempts=attempts,
        channel=channel.decode(),
        client_ref=ref + ref_rest,
        caller=caller,
        template=template,
        request_id=head.request_id,
        traceparent=head.traceparent,
        accept_us=head.accept_us,
    )
