"""`python -m bench`: measure, show the table, write the results and the plots."""

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bench.arithmetic import Row, VoidError
from bench.machine import choose_cores, describe_machine, describe_versions
from bench.report import show_head, show_table, write_results
from bench.run import Run
from postroom.dev.embedded import find_redis

# In the order of the table. Each is a module of `bench.scenarios` with `measure(run)`; the seconds are for telling
# how long it takes.
SCENARIOS = {
    "accept": 80,
    "deliver-smtp": 130,
    "deliver-api": 110,
    "end-to-end": 90,
    "latency": 110,
    "backlog": 120,
    "agents": 150,
    "workers": 100,
    "memory": 230,
    "neighbour": 130,
    "cost": 50,
}
RESULTS = Path("docs/bench")
LEAST_PAIRS = 3
PARTIAL = Path(".postroom/bench")  # so that a few scenarios never pass for a whole run


def main() -> int:
    """Return 0 where every row is within its bound, 1 where one is not, 130 after Ctrl-C."""
    asked = read_arguments()
    cores = choose_cores()
    os.sched_setaffinity(0, cores.second)
    signal.signal(signal.SIGTERM, _interrupt)
    run = Run(cores, asked.pairs)
    rows: list[Row] = []
    versions, machine = describe_versions(find_redis(run.place("v")).command[0]), describe_machine()
    show_head(run, asked.only, SCENARIOS, machine, versions)
    try:
        for number, name in enumerate(asked.only):
            run.enter(name)
            left = sum(SCENARIOS[one] for one in asked.only[number:]) / 60
            run.say(f"{number + 1} of {len(asked.only)}, about {left:.0f} minutes left")
            rows += measure(run, name)
    except KeyboardInterrupt:
        print("\nStopped; all that was started has ended, nothing is written.", file=sys.stderr)
        return 130
    finally:
        run.close()
    show_table(rows)
    write_results(asked.into, rows, run, machine, versions)
    return 0 if all(row.holds for row in rows) else 1


def measure(run: Run, name: str) -> list[Row]:
    """Run one scenario; one that measured nothing is a row that does not hold."""
    module: Any = importlib.import_module(f"bench.scenarios.{name.replace('-', '_')}")
    try:
        rows: list[Row] = module.measure(run)
    except (VoidError, RuntimeError) as error:
        run.say(f"void: {error}")
        return [Row(scenario=name, unit="", note=f"void: {error}")]
    return rows


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", default="", help=f"some of: {', '.join(SCENARIOS)}; comma-separated")
    parser.add_argument("--pairs", type=int, default=3, help="how often each leg is run (3)")
    parser.add_argument("--into", type=Path, help=f"where results go ({RESULTS}; of a part {PARTIAL})")
    asked = parser.parse_args()
    asked.only = [word for word in asked.only.replace(" ", "").split(",") if word] or list(SCENARIOS)
    if unknown := [word for word in asked.only if word not in SCENARIOS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if asked.into is None:
        asked.into = RESULTS if asked.only == list(SCENARIOS) and asked.pairs >= LEAST_PAIRS else PARTIAL
    if asked.pairs < 1:
        parser.error("--pairs must be at least 1")
    return asked


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
