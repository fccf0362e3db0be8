"""Put the table of the last whole run into README.md: `python -m bench.page`."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from bench.arithmetic import Row
from bench.report import number

README = Path("README.md")
RESULTS = Path("docs/bench/results.json")
BEGIN, END = "<!-- bench: written by `python -m bench.page` -->\n", "<!-- bench ends -->\n"


def main() -> int:
    """Replace what stands between the two marks."""
    if not RESULTS.exists():
        print(f"{RESULTS} is not there: run `make bench`.", file=sys.stderr)
        return 1
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + page(json.loads(RESULTS.read_text())) + END + after)
    return 0


def page(results: dict[str, Any]) -> str:
    """Return the table as Markdown, with the machine that it is of."""
    machine, versions = results["machine"], results["versions"]
    rows = msgspec.convert(results["rows"], list[Row])
    lines = [
        "| | Postroom | against | ratio | spread | must | holds |",
        "|---|---|---|---|---|---|---|",
        *(_line(row) for row in rows),
    ]
    where = f"two cores of {machine['processor']}, {machine['memory']}, {machine['system']}"
    of = f"Measured on {results['at'][:10]} on {where}, Python {versions['python']}; at least {results['pairs']} pairs."
    plot = "![Throughput of Postroom beside its baselines](docs/bench/throughput.svg)"
    return "\n".join([plot, "", *lines, "", of]) + "\n"


def _line(row: Row) -> str:
    figure = "–" if row.figure is None else f"{number(row.figure)} {row.unit}"
    against = row.against if row.baseline is None else f"{row.against}: {number(row.baseline)}"
    ratio = "–" if row.ratio is None else number(row.ratio)
    spread = "–" if row.spread is None else "–".join(number(value) for value in row.spread)
    cells = (
        row.scenario,
        figure,
        against or "–",
        ratio,
        spread,
        row.must or "–",
        "yes" if row.holds else "**no**",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
