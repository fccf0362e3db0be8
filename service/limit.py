"""A caller's own rate, kept by each API process (GCRA, so that it needs one number a caller)."""

import math
import time


class RateLimit:
    """Lets `rate` requests a second through, and one second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate
        self._tolerance = max(1.0, rate) * self._interval
        self._arrival = 0.0

    def take(self) -> int | None:
        """Take a place and return None, or return the whole seconds after which to try again."""
        now = time.monotonic()
        arrival = max(self._arrival, now)
        if arrival + self._interval - now > self._tolerance + 1e-9:
            return max(1, math.ceil(arrival + self._interval - now - self._tolerance))
        self._arrival = arrival + self._interval
        return None
