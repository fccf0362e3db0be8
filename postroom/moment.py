"""A moment as RFC 3339 in UTC, to the millisecond: in answers, and in front of each line of the log."""

from datetime import UTC, datetime
from functools import lru_cache

_PARTS = tuple(f".{ms:03d}Z" for ms in range(1000))  # to format one costs more than all the rest


def rfc3339(ms: int) -> str:
    """Return milliseconds since the epoch as text."""
    seconds, rest = divmod(ms, 1000)
    return _second(seconds) + _PARTS[rest]


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    """Return a moment up to its seconds; those of one answer, and of many at a time, are often the same."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
