"""Draw the plots of results again: `python -m bench.plots docs/bench/results.json`."""

import json
import sys
from pathlib import Path

from bench.plots.draw import draw_plots


def main() -> None:
    """Draw beside the file."""
    path = Path(sys.argv[1])
    results = json.loads(path.read_text())
    for drawn in draw_plots(path.parent, results["series"], results["machine"]):
        print(f"Drawn: {drawn}")


if __name__ == "__main__":
    main()
