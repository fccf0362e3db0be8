"""Moments as operators write them: a time with its zone, or a duration, which is so long ago by Redis's clock."""

from postroom.config.rules import read_time
from postroom.config.structs import Duration
from postroom.config.units import milliseconds
from postroom.decode import convert
from postroom.ledger.watch import Watch

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
