"""The states of a message and of each of its recipients, and the letters the ledger writes for the latter."""

from enum import StrEnum


class State(StrEnum):
    """Where a message, or one recipient of it, stands."""

    QUEUED = "queued"  # waits, for whatever reason; the reason is told beside it
    SENDING = "sending"  # an attempt is under way
    SENT = "sent"  # the channel took responsibility; not the same as delivered
    PARTLY_SENT = "partly_sent"  # sent to some recipients, ended otherwise for the rest
    FAILED = "failed"  # refused for good
    EXPIRED = "expired"  # its deadline passed first
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    UNCONFIRMED = "unconfirmed"  # the provider may have taken it; nobody knows


WAITING = frozenset({State.QUEUED, State.SENDING})

# q and r both wait; r remembers that an earlier attempt may have reached the recipient.
RECIPIENT_LETTERS: dict[str, State] = {
    "q": State.QUEUED,
    "r": State.QUEUED,
    "s": State.SENT,
    "f": State.FAILED,
    "x": State.EXPIRED,
    "c": State.CANCELLED,
    "p": State.SUPPRESSED,
    "u": State.UNCONFIRMED,
}

PRIORITY_LETTERS: dict[str, str] = {"high": "h", "normal": "n", "bulk": "b"}
PRIORITIES: dict[str, str] = {letter: word for word, letter in PRIORITY_LETTERS.items()}
PROFILE_LETTERS: dict[str, str] = {"interactive": "i", "standard": "s"}
PROFILES: dict[str, str] = {letter: word for word, letter in PROFILE_LETTERS.items()}
AMBIGUOUS_LETTERS: dict[str, str] = {"retry": "r", "hold": "h"}
