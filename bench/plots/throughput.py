"""Throughput: each scenario a group of bars on a scale of its own, Postroom beside what it is measured against."""

from collections.abc import Mapping, Sequence

from bench.arithmetic import median
from bench.plots.svg import BLUE, GREY, INK, ORANGE, SOFT, TEAL, Drawing

Series = Mapping[str, Sequence[float]]

GROUPS = (
    ("accept", "Accept, POST/s", {"postroom": "Postroom", "empty_handler": "empty Litestar handler"}),
    (
        "deliver_smtp",
        "Deliver over SMTP, messages/s",
        {
            "postroom": "Postroom, one worker",
            "smtp_source": "smtp-source (C)",
            "bare_python": "bare Python client",
        },
    ),
    (
        "deliver_api",
        "Deliver over an API, messages/s",
        {"postroom": "Postroom, one worker", "bare_aiohttp": "bare aiohttp loop"},
    ),
    (
        "end_to_end",
        "End to end, messages/s",
        {"postroom": "Postroom", "celery": "FastAPI + Celery", "arq": "one arq job a message"},
    ),
)
COLORS = {"postroom": BLUE, "celery": ORANGE, "arq": TEAL}
LEFT, RIGHT, BAR, GAP = 210, 110, 20, 8


def draw(series: Mapping[str, Series], machine: str) -> Drawing:
    """Return the drawing of the groups that were measured."""
    groups = [(title, names, series[key]) for key, title, names in GROUPS if key in series]
    bars = sum(len([n for n in names if n in found]) for _, names, found in groups)
    height = 80 + len(groups) * 48 + bars * (BAR + GAP)
    drawing = Drawing(760, height, "Throughput", f"Medians; the thin line spans all runs. {machine}")
    y = 84.0
    for title, names, found in groups:
        drawing.text(24, y + 8, title, size=13.5, weight=600)
        y = _group(drawing, y + 20, names, found) + 28
    return drawing


def _group(drawing: Drawing, y: float, names: Mapping[str, str], found: Series) -> float:
    most = max(max(values) for values in found.values())
    scale = (drawing.width - LEFT - RIGHT) / most
    ours = median(found["postroom"])
    for name, label in names.items():
        if name not in found:
            continue
        value, low, high = median(found[name]), min(found[name]), max(found[name])
        middle = y + BAR / 2
        drawing.text(LEFT - 12, middle + 4.5, label, anchor="end")
        drawing.bar(LEFT, y, value * scale, BAR, COLORS.get(name, GREY))
        drawing.line([(LEFT + low * scale, middle), (LEFT + high * scale, middle)], INK, width=1.2)
        end = LEFT + max(value, high) * scale + 8
        drawing.text(end, middle + 4.5, f"{value:,.0f}", weight=600)
        if name != "postroom":
            drawing.text(
                end + 8.2 * len(f"{value:,.0f}") + 6, middle + 4.5, _times(ours / value), size=12, color=SOFT
            )
        y += BAR + GAP
    return y


def _times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 2 else f"{ratio:.1f}×"
