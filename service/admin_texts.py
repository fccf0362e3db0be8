"""What an operator is told of an act on one message: a sentence, true to what became of it."""

from postroom.explain import moment
from postroom.ledger.operating import Retried
from postroom.ledger.resolved import Resolved
from postroom.states import WAITING, State

RETRIED = {
    "due": "due now, instead of waiting for another attempt.",
    "released": "no longer held.",
    "again": "tried again, until {until}.",
    "gone": "its content has been dropped: let its caller send it again.",
    "superseded": "a newer message with its collapse_key took its place, so it stays as it is.",
    "scheduled": "it waits for its send_at, and nothing was done.",
    "too_late": "its time is up, and nothing was done.",
    "unconfirmed": "the provider may have it: look there, then resolve it.",
    "queued": "it waits anyway, and nothing of it is in doubt.",
    "sending": "an attempt is under way.",
}
CANCELLED = {
    State.CANCELLED: "called back in time.",
    State.UNCONFIRMED: "no further attempt is made, but the provider may have it from an earlier one: look there, then "
    "resolve it.",
}


def say_retried(retried: Retried) -> str:
    """Say what became of a wish to try a message again."""
    text = RETRIED.get(retried.answer, "nothing of it can be tried again.")
    return text.format(until=moment(retried.deadline))


def say_resolved(resolved: Resolved) -> str:
    """Say what became of a wish to settle a message as sent."""
    if resolved.by_us:
        return (
            "settled; its other recipients go on."
            if resolved.state in WAITING
            else "settled, somebody knows."
        )
    return RETRIED["sending"] if resolved.state == State.SENDING else "nothing of it is in doubt."


def say_cancelled(resolved: Resolved) -> str:
    """Say what became of a wish to call a message back."""
    if resolved.by_us:
        return CANCELLED.get(resolved.state, "called back for the recipients that still waited.")
    if resolved.state == State.CANCELLED:
        return "it had been called back before."
    return "it is too late to call it back."
