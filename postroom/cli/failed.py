"""`postroom failed`: mail that ended badly; look at it, and send it again once the cause is mended."""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from postroom.cli.admin import AdminApi
from postroom.errors import PostroomError

BAR = 30
SHOWN = 50


def list_failed(options: argparse.Namespace) -> int:
    """Print a row for each, and how many there are of which kind."""
    search = _Search(AdminApi(options), options)
    rows = list(search)
    if not rows:
        print("Nothing has failed that is still kept.")
        return 0
    print(f"{'ENDED':<26}{'STATE':<12}{'TEMPLATE':<28}{'CALLER':<16}{'ANSWER':<18}ID")
    shown = rows if options.all_rows else rows[:SHOWN]
    for row in shown:
        print(
            f"{row['ended_at']:<26}{row['state']:<12}{_short(row['template'] or '-', 26):<28}{row['caller']:<16}"
            f"{_answer(row):<18}{row['id']}"
        )
    if len(shown) < len(rows):
        print(f"… and {len(rows) - len(shown)} more (--all-rows)")
    print()
    _print_sums(rows)
    return 0


def replay_failed(options: argparse.Namespace) -> int:
    """Count what would be sent again; with --yes send it again, paced, and go on where it was broken off."""
    api = AdminApi(options)
    search = _Search(api, options)
    rows = list(search)
    can = [row for row in rows if row["can_be_replayed"]]
    if not can:
        print(f"Nothing to send again: {len(rows)} found, and the content of none is kept any more.")
        return 0
    if not options.yes:
        _print_sums(rows)
        print(
            f"{len(can)} message(s) would be sent again, {options.rate:g} a second: {_lasts(len(can) / options.rate)}."
        )
        fixed = f"--ended-before {search.ended_before} --yes"
        print(f"Nothing is done yet: give the same command with {fixed}.")
        return 0
    return _Replay(api, options, search.ended_before).run(can)


class _Search:
    """All that fit, each once; after it has been gone through, `ended_before` is the moment it was asked at."""

    def __init__(self, api: AdminApi, options: argparse.Namespace) -> None:
        self._api = api
        states = ["failed"]
        states += ["expired"] if options.expired else []
        states += ["partly_sent"] if options.partly_sent else []
        names = ("agent", "template", "caller", "since", "ended_before")
        given = {name: getattr(options, name) for name in names}
        self._query = {name: value for name, value in given.items() if value} | {"state": ",".join(states)}
        self.ended_before = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        query, seen = dict(self._query), set()
        while True:
            page = self._api.get(f"/admin/failed?{urlencode(query)}")
            self.ended_before = page["ended_before"]
            # A duration is another moment in the next call: the first answer has made times of both.
            query |= {"ended_before": page["ended_before"]}
            query |= {"since": page["since"]} if page["since"] else {}
            for row in page["failed"]:
                if row["id"] not in seen:
                    seen.add(row["id"])
                    yield row
            if page["next"] is None:
                return
            query["cursor"] = page["next"]


class _Replay:
    def __init__(self, api: AdminApi, options: argparse.Namespace, ended_before: str) -> None:
        self._api = api
        self._rate = options.rate
        self._reason = options.reason
        self._ended_before = ended_before
        self._done = self._left = 0

    def run(self, rows: list[dict[str, Any]]) -> int:
        total, started = len(rows), time.monotonic()
        try:
            for n, row in enumerate(rows):
                time.sleep(max(0.0, started + n / self._rate - time.monotonic()))
                answer = self._api.post(f"/admin/messages/{row['id']}/retry", {"reason": self._reason})
                self._done += answer["done"]
                self._left += not answer["done"]
                self._show(n + 1, total)
        except KeyboardInterrupt:
            self._break_off(total)
            return 130
        except PostroomError:
            self._break_off(total)
            raise
        self._end_bar()
        left = (
            f", {self._left} could not be (sent, cancelled, superseded or forgotten meanwhile)"
            if self._left
            else ""
        )
        print(f"{self._done} message(s) sent again{left}.")
        return 0

    def _break_off(self, total: int) -> None:
        self._end_bar()
        print(f"Broken off: {self._done} sent again, {total - self._done - self._left} are left.")
        print(f"To go on: the same command with --ended-before {self._ended_before} --yes.", flush=True)

    def _show(self, n: int, total: int) -> None:
        if sys.stderr.isatty():
            filled = BAR * n // total
            bar = "█" * filled + "·" * (BAR - filled)
            rest = _lasts((total - n) / self._rate)
            print(f"\r{bar} {n}/{total}, {rest} left ", end="", file=sys.stderr, flush=True)

    def _end_bar(self) -> None:
        if sys.stderr.isatty():
            print(file=sys.stderr)


def _print_sums(rows: list[dict[str, Any]]) -> None:
    sums = Counter((row["agent"], row["template"] or "-", row["state"], _answer(row)) for row in rows)
    kept = Counter(
        (row["agent"], row["template"] or "-", row["state"], _answer(row))
        for row in rows
        if row["can_be_replayed"]
    )
    print(f"{'COUNT':>7}{'KEPT':>7}  {'AGENT':<20}{'STATE':<12}{'ANSWER':<18}TEMPLATE")
    for key, count in sums.most_common():
        agent, template, state, answer = key
        print(f"{count:>7}{kept[key]:>7}  {agent:<20}{state:<12}{answer:<18}{template}")


def _answer(row: dict[str, Any]) -> str:
    codes = [str(code) for code in (row["reply_code"], row["enhanced_code"]) if code]
    return " ".join(codes) or row["phase"] or "-"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _lasts(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
