"""`postroom top`: the agents, live, the one in most trouble first."""

import argparse
import shutil
import sys
import time
from typing import Any

from postroom.cli.admin import AdminApi
from postroom.errors import PostroomError

HEAD = (
    f"{'AGENT':<22}{'STATE':<9}{'IN/S':>8}{'OUT/S':>8}{'WAITING':>9}{'DUE':>8}{'OLDEST':>9}{'CONN':>6}"
    "  BREAKER, LAST ERROR"
)
ENDED = ("sent", "partly_sent", "failed", "expired", "cancelled", "suppressed", "unconfirmed")
LATELY = 3600.0  # seconds; an error that is older says nothing about now
CLEAR = "\x1b[H\x1b[J"


class _Sample:
    """What was read at one moment."""

    def __init__(self, api: AdminApi) -> None:
        self.at = time.monotonic()
        self.agents: list[dict[str, Any]] = api.get("/admin/agents")["agents"]
        balance = api.get("/admin/balance")["balance"]
        self.sums = {row["agent"]: (row["accepted"], sum(row[end] for end in ENDED)) for row in balance}


def show_top(options: argparse.Namespace) -> int:
    """Print a table every `--interval` seconds, over itself on a terminal, until Ctrl-C.

    Once it has begun, a turn without an answer is told and the next one tried: the API may be what is restarting.
    """
    api, live = AdminApi(options), sys.stdout.isatty() and not options.once
    before = _Sample(api)
    try:
        while True:
            time.sleep(1.0 if options.once else options.interval)
            try:
                now = _Sample(api)
            except PostroomError as error:
                if options.once:
                    raise
                print(f"{time.strftime('%H:%M:%S')}  {error}", file=sys.stderr)
                continue
            if live:
                print(CLEAR, end="")
            _print_table(before, now, shutil.get_terminal_size().lines - 4 if live else None)
            if options.once:
                return 0
            before = now
    except KeyboardInterrupt:
        return 0


def _print_table(before: _Sample, now: _Sample, most: int | None) -> None:
    rows = sorted(now.agents, key=lambda row: (-_trouble(row), row["agent"]))
    waiting, due = (sum(row[name] for row in rows) for name in ("waiting", "due"))
    stopped = sum(row["state"] != "working" for row in rows if row["configured"] or row["waiting"])
    print(
        f"{time.strftime('%H:%M:%S')}  {len(rows)} agents, {stopped} not working; {waiting} wait, {due} due"
    )
    print(HEAD)
    for row in rows[:most]:
        came, went = _rates(before, now, row["agent"])
        oldest = _age(row["oldest_due_seconds"]) if row["due"] else "-"
        print(
            f"{row['agent']:<22}{row['state']:<9}{came:>8.1f}{went:>8.1f}{row['waiting']:>9}{row['due']:>8}"
            f"{oldest:>9}{row['connections']:>6}  {_error(row)}".rstrip()
        )
    if most is not None and len(rows) > most:
        print(f"… and {len(rows) - most} more")
    sys.stdout.flush()


def _trouble(row: dict[str, Any]) -> float:
    return float(row["oldest_due_seconds"]) if row["due"] else 0.0


def _rates(before: _Sample, now: _Sample, agent: str) -> tuple[float, float]:
    took = max(now.at - before.at, 1e-3)
    old, new = (sample.sums.get(agent, (0, 0)) for sample in (before, now))
    return max(0.0, new[0] - old[0]) / took, max(0.0, new[1] - old[1]) / took


def _error(row: dict[str, Any]) -> str:
    if row["state"] == "paused":
        return f"paused by {row['who']}: {row['reason']}"
    faults = [f"{fault['channel']}: {fault['cause']}, {fault['text']}" for fault in row["faults"]]
    last = row.get("last_error")
    if faults or last is None or last["seconds_ago"] > LATELY:
        return "; ".join(faults)
    codes = [str(code) for code in (last["reply_code"], last["enhanced_code"]) if code]
    what = " ".join([last["outcome"], *codes])
    return f"{last['channel']}: {what} at {last['phase']}, {_age(last['seconds_ago'])} ago"


def _age(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}min" if seconds < 5400 else f"{seconds / 3600:.1f}h"
