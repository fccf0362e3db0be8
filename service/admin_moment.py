"""Moments as operators write them: a time with its zone, or a duration, counted from now by Redis's clock."""

from postroom.config.rules import read_time
from postroom.config.structs import Duration
from postroom.config.units import milliseconds
from postroom.decode import Fault, convert
from postroom.errors import Code, RefusedError
from postroom.ledger.watch import Watch

LONGEST_MS = 30 * 24 * 3600 * 1000  # of a pause with an end, or of a preference
LATEST_MS = 253_370_764_800_000  # the year 9999, the last one that can be written in any zone


def is_duration(text: str | None) -> bool:
    """True where the text is a duration, such as `2h`."""
    return text is not None and not convert(text, Duration)[1]


async def read_moment(watch: Watch, text: str) -> int | None:
    """Return a moment in ms since the epoch, below 0 where it lies before; None where the text is none.

    Raises:
        LedgerUnavailableError: the text is a duration, and Redis does not tell the time.
    """
    if is_duration(text):
        return await watch.now() - milliseconds(text)
    at = read_time(text)
    return None if at is None else round(at.timestamp() * 1000)


def read_lasting(duration: str | None) -> int:
    """Return a duration in ms, 0 where there is none.

    Raises:
        RefusedError: it is 0, or longer than 30 days.
    """
    if duration is None:
        return 0
    lasts = milliseconds(duration)
    if not 0 < lasts <= LONGEST_MS:
        raise RefusedError(
            Code.INVALID_REQUEST, "See errors.", faults=[Fault("/for", "must be at most 30d, and not 0")]
        )
    return lasts
