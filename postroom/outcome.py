"""How an attempt ends, per recipient: a closed set of values, never an exception.

Sent          the channel took responsibility
Deferred      surely not accepted, worth another try
Refused       surely not accepted, trying again would change nothing
Ambiguous     the channel may have accepted it and we shall not know
ChannelFault  the channel itself is out of order; the message is untouched
"""

from enum import StrEnum
from typing import Protocol

from msgspec import Struct


class Phase(StrEnum):
    """The step of an attempt that decided its outcome (RFC 5321 verbs, or the one HTTP request)."""

    CONNECT = "connect"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DONE = "done"  # from the commit mark on: the lone dot, or the HTTP request
    REQUEST = "request"
    RENDER = "render"  # ours: nothing was said to the channel yet


class Cause(StrEnum):
    """Why a channel stands still."""

    CONNECT = "connect"  # cannot be reached: DNS, refused, timeout, TLS
    AUTH = "auth"  # credentials refused, or no safe way to present them
    QUOTA = "quota"  # credits or a daily limit are used up
    THROTTLE = "throttle"  # asked to slow down
    POLICY = "policy"  # our address, sender or account is not allowed


BY_A_PERSON = frozenset({Cause.AUTH, Cause.QUOTA, Cause.POLICY})  # who must mend it; the others may pass


class Sent(Struct, frozen=True):
    """The channel took responsibility for the recipient. Not the same as delivered."""

    provider_id: str = ""


class Deferred(Struct, frozen=True):
    """Surely not accepted; due again later. `retry_after` in seconds, where the channel named one."""

    phase: Phase
    retry_after: float | None = None


class Refused(Struct, frozen=True):
    """Surely not accepted, for good. `whose` is `recipient`, or `message` when its content was refused."""

    phase: Phase
    whose: str = "recipient"


class Ambiguous(Struct, frozen=True):
    """Lost between the commit mark and the answer: the recipient may or may not get the message."""

    phase: Phase


class ChannelFault(Struct, frozen=True):
    """The channel cannot work now. The message goes back untouched; `text` says what a person can do.

    `text` is written by us and never holds what the other side said, which may echo addresses.
    """

    cause: Cause
    phase: Phase
    text: str
    reply_code: int | None = None
    enhanced_code: str | None = None
    retry_after: float | None = None


RecipientOutcome = Sent | Deferred | Refused | Ambiguous


class Answer(Struct, frozen=True):
    """One recipient's outcome with the codes that came with it (`reply_code` is SMTP's or HTTP's)."""

    outcome: RecipientOutcome
    reply_code: int | None = None
    enhanced_code: str | None = None  # RFC 3463, or the provider's own code for an HTTP API


class Submitted(Struct, frozen=True):
    """The end of a submission: one answer a recipient, in the order of the submission's recipients."""

    answers: tuple[Answer, ...]


Submission = Submitted | ChannelFault


class FenceLostError(Exception):
    """Raised by `Commit` only: somebody else owns the message now, so nothing more may be said for it."""


class TooLateError(Exception):
    """Raised by `Commit` only: the time of the message is up."""


class DayUsedUpError(Exception):
    """Raised by `Commit` only: the agent's `per_day` leaves no room for the recipients of this mail."""


class Commit(Protocol):
    """The commit mark. A channel awaits it at the last point where the message surely is not accepted.

    For SMTP that is after the body and before the terminating dot, for HTTP before the request. It is told,
    per recipient of the submission, None where the server took the recipient and an answer where it
    already refused or deferred it: only recipients the server took can become ambiguous.

    Raises:
        FenceLostError: the message has another owner; the channel drops its connection without the dot.
        TooLateError, DayUsedUpError: its time is up, or it must wait for tomorrow, with the same consequence.
        LedgerUnavailableError: the mark could not be written, with the same consequence.
    """

    async def __call__(self, known: tuple[Answer | None, ...]) -> None: ...
