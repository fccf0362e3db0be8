"""Liveness: a process lives as long as its loops come round, whatever Redis does.

A loop beats after each of its turns. With Redis away, hung or full a turn still ends, for every call is bounded in
time; a loop that does not come round any more is a defect of ours that only a restart ends.
"""

import time
from collections.abc import Callable

MOST_SECONDS = 60.0  # the longest turn takes about 20 s, with a Redis that swallows everything


class Heart:
    """The loops of one process, and when each last came round."""

    def __init__(self, most: float = MOST_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._beats: dict[str, float] = {}

    def beat(self, loop: str) -> None:
        """Say that the loop has come round; from the first beat on it is expected to go on."""
        self._beats[loop] = self._clock()

    def rest(self, *loops: str) -> None:
        """Expect nothing more of these: they were ended on purpose."""
        for loop in loops:
            self._beats.pop(loop, None)

    def stalled(self) -> list[str]:
        """Return the loops that have not come round for too long."""
        now = self._clock()
        return [loop for loop, at in self._beats.items() if now - at > self._most]
