"""Which plots there are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.plots import throughput
from bench.plots.curves import distribution, flatness
from bench.plots.svg import BLUE, GREY, ORANGE, TEAL, Drawing


def draw_plots(folder: Path, series: Mapping[str, Any], machine: Mapping[str, str]) -> list[Path]:
    """Draw what was measured, each into a file, and return the files."""
    where = f"{machine['processor']}, two cores, {machine['system'].split('-')[0]}."
    plots: dict[str, Drawing] = {}
    if series.keys() & {key for key, _, _ in throughput.GROUPS}:
        plots["throughput"] = throughput.draw(series, where)
    if "latency" in series:
        plots["latency"] = _latency(series["latency"], where)
    if "neighbour" in series:
        plots["neighbour"] = _neighbour(series["neighbour"], where)
    if "backlog" in series:
        words = "One worker with so many messages waiting; every run a dot."
        plots["backlog"] = flatness(
            "Messages a second, by backlog", f"{words} {where}", series["backlog"], "messages waiting", 0.9
        )
    if "agents" in series:
        words = "One worker for so many agents; every run a dot."
        plots["agents"] = flatness(
            "Messages a second, by agents", f"{words} {where}", series["agents"], "agents", 0.8
        )
    for name, drawing in plots.items():
        drawing.write(folder / f"{name}.svg")
    return [folder / f"{name}.svg" for name in plots]


def _latency(found: Mapping[str, Any], where: str) -> Drawing:
    words = "From POST to the last byte in the sink; dots: p50 and p99."
    curves = [
        ("Postroom", found["postroom"], BLUE),
        ("Postroom, agent idle for a minute", found["cold"], TEAL),
        ("FastAPI + Celery", found["celery"], ORANGE),
    ]
    return distribution("Latency", f"{words} {where}", curves)


def _neighbour(found: Mapping[str, Any], where: str) -> Drawing:
    words = "20 quiet agents while one floods and one is dead; dots: p50 and p99."
    curves = [("alone", found["alone"], GREY), ("beside the two", found["beside"], BLUE)]
    return distribution("Noisy neighbour", f"{words} {where}", curves)
