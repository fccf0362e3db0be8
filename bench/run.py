"""What every scenario is given: cores, a folder, children, and a voice; and how legs take turns."""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.machine import Cores, Others
from bench.processes import Children

Leg = Callable[[], float]

# Of rows near their bound: the machine's speed moves by half within seconds, and the median is to stay.
MORE_PAIRS = 7


class Run:
    """One run of the bench."""

    def __init__(self, cores: Cores, pairs: int) -> None:
        self.cores = cores
        self.pairs = pairs
        self.series: dict[str, Any] = {}  # what the plots are drawn from, by scenario
        self.cpu: dict[
            str, dict[str, list[float]]
        ] = {}  # microseconds of processor a message, by scenario and leg
        self.others = Others(cores)
        self.began = time.monotonic()
        self._scenario = ""
        self._folder = Path(tempfile.mkdtemp(prefix="pb-"))  # short: a unix socket's path has 104 bytes
        self._places = 0

    def close(self) -> None:
        """Forget the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def enter(self, scenario: str) -> None:
        """Name what the next words are about."""
        self._scenario = scenario

    def say(self, text: str) -> None:
        """Tell how far it has come."""
        minutes, seconds = divmod(int(time.monotonic() - self.began), 60)
        print(f"  {minutes:2d}:{seconds:02d}  {self._scenario:14} {text}", file=sys.stderr, flush=True)

    def spent(self, leg: str, seconds: float, count: int) -> None:
        """Note what processor a leg took: unlike a rate, it hardly depends on who else uses the machine."""
        legs = self.cpu.setdefault(self._scenario, {})
        legs.setdefault(leg, []).append(round(seconds * 1e6 / count, 1))

    def spent_words(self) -> str:
        """Return what this scenario's legs took, in words."""
        legs = self.cpu.get(self._scenario, {})
        words = (f"{leg.replace('_', ' ')} {statistics.median(found):,.0f}" for leg, found in legs.items())
        return f"µs of processor each: {', '.join(words)}"

    @contextmanager
    def children(self) -> Iterator[Children]:
        """Give a place for processes, all of which end with the block."""
        folder = self.place("c")
        with Children(folder) as children:
            yield children

    def place(self, name: str) -> Path:
        """Return a new folder."""
        self._places += 1
        folder = self._folder / f"{name}{self._places}"
        folder.mkdir()
        return folder

    def take_turns(self, at_least: int = 0, /, **legs: Leg) -> dict[str, list[float]]:
        """Run each leg once a pair, of which there are `at_least` so many, in turn, every second time backwards."""
        found: dict[str, list[float]] = {name: [] for name in legs}
        pairs = max(self.pairs, at_least)
        for number in range(pairs):
            order = list(legs) if number % 2 == 0 else list(reversed(legs))
            for name in order:
                found[name].append(legs[name]())
            told = " · ".join(f"{name.replace('_', ' ')} {found[name][-1]:,.0f}" for name in legs)
            self.say(f"{number + 1}/{pairs}: {told}")
        return found


def as_json(**words: Any) -> str:
    """Return an order to a process as one line."""
    return msgspec.json.encode(words).decode()
