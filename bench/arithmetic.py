"""From legs to a row: medians, spread, and whether what must hold does."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct


class VoidError(Exception):
    """A leg in which a message failed, or a request was answered otherwise than with 2xx, measures nothing."""


class Must(Struct, frozen=True):
    """A bound on a row's ratio, or on its figure where there is no baseline."""

    word: str  # as the table shows it
    holds: Callable[["Row"], bool]


class Row(Struct, kw_only=True):
    """One line of the table. `figure` and `baseline` are medians over the pairs, `ratio` that of the pairs' ratios."""

    scenario: str
    unit: str
    figure: float | None = None
    baseline: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None  # lowest and highest ratio, or figure where none is
    must: str = ""
    stretch: str = ""
    holds: bool = False
    against: str = ""
    pairs: int = 0
    note: str = ""


def compare(row: Row, pairs: Sequence[tuple[float, float]], must: Must | None) -> Row:
    """Fill a row in from pairs of (measured, baseline)."""
    ratios = [measured / baseline for measured, baseline in pairs]
    row.figure = median(measured for measured, _ in pairs)
    row.baseline = median(baseline for _, baseline in pairs)
    row.ratio = median(ratios)
    row.spread = (min(ratios), max(ratios))
    row.pairs = len(pairs)
    return judge(row, must)


def alone(row: Row, figures: Sequence[float], must: Must | None) -> Row:
    """Fill a row in that has no baseline."""
    row.figure = median(figures)
    row.spread = (min(figures), max(figures))
    row.pairs = len(figures)
    return judge(row, must)


def void(row: Row, reason: str, must: Must | None) -> Row:
    """Return the row of a run that measured nothing; it does not hold."""
    row.must = must.word if must else ""
    row.note = f"void: {reason}"
    row.holds = False
    return row


def judge(row: Row, must: Must | None) -> Row:
    """Say whether the row is within its bound; one without a bound always is."""
    row.must = must.word if must else ""
    row.holds = must is None or must.holds(row)
    return row


def ratio_at_least(bound: float, mark: str = "") -> Must:
    """The ratio must reach `bound`."""
    return Must(f"≥ {bound:g}{mark}", lambda row: row.ratio is not None and row.ratio >= bound)


def ratio_at_most(bound: float, mark: str = "×") -> Must:
    """The ratio must not pass `bound`."""
    return Must(f"≤ {bound:g}{mark}", lambda row: row.ratio is not None and row.ratio <= bound)


def figure_at_most(bound: float, unit: str = "") -> Must:
    """The figure must not pass `bound`."""
    return Must(f"≤ {bound:g}{unit}", lambda row: row.figure is not None and row.figure <= bound)


def within(times: float, more: float, unit: str) -> Must:
    """The figure must not pass the larger of `times` its baseline and its baseline plus `more`."""

    def holds(row: Row) -> bool:
        if row.figure is None or row.baseline is None:
            return False
        return row.figure <= max(times * row.baseline, row.baseline + more)

    return Must(f"≤ max({times:g}×, +{more:g} {unit})", holds)


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least `share` of them do not pass."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered) - 1e-9)) - 1]
