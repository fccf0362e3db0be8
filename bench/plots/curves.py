"""Curves: shares of messages by milliseconds, and rates by a growing number, each from results as they are."""

import math
from collections.abc import Callable, Mapping, Sequence

from bench.arithmetic import median, percentile
from bench.plots.svg import BLUE, GREY, GRID, SOFT, Drawing, legend

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 100, 54
Place = Callable[[float], float]


def distribution(title: str, subtitle: str, curves: Sequence[tuple[str, Sequence[float], str]]) -> Drawing:
    """Return how large a share of messages took at most how long; time on a logarithmic scale."""
    drawing = Drawing(WIDTH, HEIGHT, title, subtitle)
    legend(drawing, LEFT, 82, [(name, color) for name, _, color in curves])
    low = min(min(values) for _, values, _ in curves) * 0.8
    high = max(max(values) for _, values, _ in curves) * 1.25
    across, up = _logarithmic(low, high), _linear(0, 1)
    for share in (0, 0.25, 0.5, 0.75, 0.99):
        _row(drawing, up(share), f"{share:.0%}")
    for value in _decades(low, high):
        _column(drawing, across(value), f"{value:g} ms")
    for _, values, color in curves:
        ordered = sorted(values)
        steps = [(across(ordered[0]), up(0))]
        for number, value in enumerate(ordered, 1):
            steps += [(across(value), steps[-1][1]), (across(value), up(number / len(ordered)))]
        drawing.line(steps, color, width=2.4)
        for share in (0.5, 0.99):
            value = percentile(values, share)
            drawing.dot(across(value), up(share), color)
            above = -9 if share > 0.5 else 16
            drawing.text(
                across(value) + 7, up(share) + above, f"{value:.0f}", size=12, color=color, weight=600
            )
    return drawing


def flatness(
    title: str, subtitle: str, found: Mapping[str, Sequence[float]], unit: str, bound: float
) -> Drawing:
    """Return the rate over a growing number, with every run as a dot and what must be reached as a dashed line."""
    drawing = Drawing(WIDTH, HEIGHT, title, subtitle)
    levels = sorted(found, key=int)
    first = median(found[levels[0]])
    legend(drawing, LEFT, 82, [("median", BLUE), (f"{bound:g} of the leftmost", GREY)])
    across = _logarithmic(int(levels[0]) * 0.8, int(levels[-1]) * 1.25)
    top = _nice(max(max(values) for values in found.values()) * 1.15)
    up = _linear(0, top)
    for number in range(5):
        _row(drawing, up(top * number / 4), f"{top * number / 4:,.0f}")
    ends = (across(int(levels[0])), across(int(levels[-1])))
    drawing.line([(ends[0], up(bound * first)), (ends[1], up(bound * first))], GREY, dash="6 5")
    drawing.line([(across(int(level)), up(median(found[level]))) for level in levels], BLUE, width=2.4)
    for level in levels:
        x, value = across(int(level)), median(found[level])
        _column(drawing, x, f"{int(level):,}")
        for run in found[level]:
            drawing.dot(x, up(run), BLUE, radius=3, opacity=0.4)
        drawing.dot(x, up(value), BLUE, radius=5)
        anchor = "end" if level == levels[-1] else "start"
        drawing.text(
            x + (-9 if anchor == "end" else 9), up(value) - 12, f"{value:,.0f}", weight=600, anchor=anchor
        )
    drawing.text(WIDTH - RIGHT, HEIGHT - 14, unit, size=12, color=SOFT, anchor="end")
    return drawing


def _row(drawing: Drawing, y: float, label: str) -> None:
    drawing.line([(LEFT, y), (WIDTH - RIGHT, y)], GRID, width=1)
    drawing.text(LEFT - 10, y + 4, label, size=12, color=SOFT, anchor="end")


def _column(drawing: Drawing, x: float, label: str) -> None:
    drawing.line([(x, TOP), (x, HEIGHT - BOTTOM)], GRID, width=1)
    drawing.text(x, HEIGHT - BOTTOM + 20, label, size=12, color=SOFT, anchor="middle")


def _linear(low: float, high: float) -> Place:
    span = HEIGHT - TOP - BOTTOM
    return lambda value: HEIGHT - BOTTOM - span * (value - low) / (high - low)


def _logarithmic(low: float, high: float) -> Place:
    start, end = math.log10(low), math.log10(high)
    span = WIDTH - LEFT - RIGHT
    return lambda value: LEFT + span * (math.log10(value) - start) / (end - start)


def _decades(low: float, high: float) -> list[float]:
    """Return 1, 2, 5 times powers of ten between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


def _nice(value: float) -> float:
    """Return the next larger number that four lines divide well."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if m * power >= value)
