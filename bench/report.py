"""What a run shows and leaves behind: the head, the table, `results.json`."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.arithmetic import Row
from bench.plots.draw import draw_plots
from bench.run import Run

IN_USE = 0.05  # share of the cores that others take, above which it is told
COLUMNS = ("scenario", "figure", "baseline", "ratio", "spread", "must", "holds")


def show_head(
    run: Run,
    only: Sequence[str],
    seconds: Mapping[str, int],
    machine: dict[str, str],
    versions: dict[str, str],
) -> None:
    """Say what runs where, and for how long."""
    first, second = (",".join(map(str, sorted(cores))) for cores in (run.cores.first, run.cores.second))
    minutes = sum(seconds[name] for name in only) / 60
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, {machine['system']}")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    print(
        f"Pinned: what is measured to core {first}; load, sinks, Redis and this to core {second}; end to end both."
    )
    print(f"{len(only)} scenarios, {run.pairs} pairs each, about {minutes:.0f} minutes.", flush=True)


def show_table(rows: Sequence[Row]) -> None:
    """Print the table."""
    lines = [COLUMNS, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    print()
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if not number:
            print("  ".join("-" * width for width in widths))
    for row in rows:
        if row.note:
            print(f"  {row.scenario}: {row.note}")
    sys.stdout.flush()


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as the table shows it."""
    spread = "" if row.spread is None else "–".join(number(value) for value in row.spread)
    baseline = "–" if row.baseline is None else f"{number(row.baseline)} ({row.against})"
    return (
        row.scenario,
        "–" if row.figure is None else f"{number(row.figure)} {row.unit}",
        baseline,
        "–" if row.ratio is None else number(row.ratio),
        spread,
        row.must or "–",
        "yes" if row.holds else "NO",
    )


def number(value: float) -> str:
    """Return a number with three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def write_results(
    folder: Path,
    rows: Sequence[Row],
    run: Run,
    machine: dict[str, str],
    versions: dict[str, str],
) -> None:
    """Write the results of a run."""
    others = run.others.share()
    if others > IN_USE:
        print(f"Others took {others:.0%} of the two cores meanwhile: repeat this on a machine at rest.")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions,
        "pairs": run.pairs,
        "others": round(others, 3),  # share of the two cores that went to processes of others
        "minutes": round((time.monotonic() - run.began) / 60, 1),
        "rows": msgspec.to_builtins(list(rows)),
        "cpu_us": run.cpu,
        "series": run.series,
    }
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    drawn = draw_plots(folder, result["series"], machine)
    print("Written:", ", ".join(map(str, [path, *drawn])))
