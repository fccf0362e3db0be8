"""What Redis says when it does not do what it was asked, in the ledger's own errors."""

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from postroom.ledger.errors import (
    LedgerError,
    LedgerFullError,
    LedgerMovedError,
    LedgerUnavailableError,
    LedgerUnconfirmedError,
)

WHO_WE_ARE = (AuthenticationError, AuthorizationError)
STRANGER = "Redis refuses our user or password"
NO_RIGHT = "Redis does not let our user do this: look at its ACL"
REFUSES_WRITES = "Redis refuses writes at the moment"
UNREACHABLE = "cannot reach Redis"
UNANSWERED = "Redis did not answer in time"

NOTHING_DONE = (BusyLoadingError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
NOTHING_DONE_WORDS = (
    "MISCONF",
    "NOREPLICAS",
    "BUSY",
    "UNKILLABLE",
    "READONLY",
    "LOADING",
    "CLUSTERDOWN",
    "TRYAGAIN",
)
MOVED_WORDS = ("MOVED ", "ASK ")
NOT_HERE = "attempted to access a non local key"  # said of the guard, the first thing a script does
NO_RIGHT_INSIDE = ("The user executing the script can't", "ACL failure in script")
IN_A_PIPELINE = "caused error: "  # before it redis-py repeats the command, values and all


def refusal_of(reply: BaseException) -> LedgerError | None:
    """Return the error that a reply of Redis stands for; None where it is no refusal that we know."""
    text = str(reply).rpartition(IN_A_PIPELINE)[2]
    if isinstance(reply, OutOfMemoryError) or "OOM " in text:
        return LedgerFullError("Redis is out of memory")
    if isinstance(reply, MovedError) or text.startswith(MOVED_WORDS) or NOT_HERE in text:
        return LedgerMovedError("another node of the cluster serves this")
    if any(words in text for words in NO_RIGHT_INSIDE):
        # What the script did before the command that it may not run stays done.
        return LedgerUnconfirmedError(NO_RIGHT)
    why = _nothing_done(reply, text)
    return LedgerUnavailableError(why) if why else None


def unreachable(error: RedisError | OSError | TimeoutError) -> LedgerUnavailableError:
    """Return what to raise for a call that surely did nothing, or is a read: with the reason, where Redis told one."""
    both = (error, error.__cause__)  # redis-py wraps what a new connection was told, or waited for in vain
    for one in both:
        refusal = refusal_of(one) if isinstance(one, RedisError) else None
        if isinstance(refusal, LedgerUnavailableError):
            return refusal
    late = any(isinstance(one, TimeoutError | RedisTimeoutError) for one in both)
    return LedgerUnavailableError(UNANSWERED if late else UNREACHABLE)


def _nothing_done(reply: BaseException, text: str) -> str:
    if isinstance(reply, WHO_WE_ARE):
        return STRANGER
    if isinstance(reply, NoPermissionError):
        return NO_RIGHT
    refused = (
        isinstance(reply, NOTHING_DONE) or text.startswith(NOTHING_DONE_WORDS) or _was_refused_inside(text)
    )
    return REFUSES_WRITES if refused else ""


def _was_refused_inside(text: str) -> bool:
    """Redis 6.2 reports what it refused inside a script in the middle of its text."""
    return "Error running script" in text and any(f"-{word}" in text for word in NOTHING_DONE_WORDS)
