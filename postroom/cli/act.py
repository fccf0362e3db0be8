"""Verbs by filter: counted first, and with --yes done, to the end, with an exact sum."""

import argparse
import sys
import uuid
from collections.abc import Callable
from typing import Any

from postroom.cli.admin import AdminApi
from postroom.config.rules import read_time
from postroom.config.structs import Duration
from postroom.decode import convert
from postroom.errors import UsageError

DONE = {"pause": "held", "release": "released", "cancel": "cancelled", "expire": "expired"}


def act_by_filter(options: argparse.Namespace) -> int:
    """Count what the filter names; with --yes do it, and print exactly how many it were."""
    wanted = read_filter(options)
    if options.verb == "pause" and options.yes and not options.reason:
        raise UsageError("give a --reason: callers see it")
    api = AdminApi(options)
    body = {"act": uuid.uuid4().hex, "verb": options.verb, "filter": wanted, "reason": options.reason}
    if options.verb == "pause" and options.lasts is not None:
        body["for"] = options.lasts
    word = DONE[options.verb]
    if not options.yes:
        _print_count(options, _run(api, {**body, "dry_run": True}, lambda _: None))
        return 0
    tell = _progress(word) if sys.stderr.isatty() else lambda _: None
    acted = _run(api, body, tell)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    late = f", {acted['too_late']} too late" if options.verb != "release" else ""
    until = f" until {acted['until']}" if acted["until"] else ""
    print(f"{acted['done']} message(s){_before(acted)} {word}{until}{late}.")
    return 0


def _print_count(options: argparse.Namespace, acted: dict[str, Any]) -> None:
    late = f" {acted['too_late']} more are past the point where they could be." if acted["too_late"] else ""
    print(f"{acted['done']} waiting message(s){_before(acted)} would be {DONE[options.verb]}.{late}")
    if not acted["done"]:
        return
    # A duration is another moment in the next run, and more mail may be meant by it.
    fixed = f"--accepted-before {acted['accepted_before']} --yes"
    ago = options.accepted_before is not None and read_time(options.accepted_before) is None
    print(f"Nothing is done yet: give the same command with {fixed if ago else '--yes'}.")


def _before(acted: dict[str, Any]) -> str:
    return f" accepted before {acted['accepted_before']}" if acted["accepted_before"] else ""


def read_filter(options: argparse.Namespace) -> dict[str, Any]:
    """Return the filter as it is sent.

    Raises:
        UsageError: it names nothing, or no time.
    """
    wanted = {"agent": options.agent, "template": options.template, "caller": options.caller}
    wanted["accepted_before"] = check_moment(options.accepted_before) if options.accepted_before else None
    given = {name: value for name, value in wanted.items() if value is not None}
    if not given and not options.all:
        raise UsageError(
            "say which messages: --agent, --template, --caller, --accepted-before, or --all for all that wait"
        )
    flags = {"all": options.all, "skip_scheduled": options.skip_scheduled}
    return given | {name: True for name, is_given in flags.items() if is_given}


def check_moment(text: str) -> str:
    """Return a time with its zone, or a duration, as it is: when that was, the API says by Redis's clock.

    Raises:
        UsageError: it is neither.
    """
    if convert(text, Duration)[1] and read_time(text) is None:
        raise UsageError(
            "--accepted-before takes a time such as 2027-01-31T12:00:00Z, or a duration such as 2h"
        )
    return text


def _run(api: AdminApi, body: dict[str, Any], tell: Callable[[int], None]) -> dict[str, Any]:
    """Call until the act is through; return the last answer.

    A call that was lost is repeated from its place; the sums are the ledger's, and so is the moment of a duration.
    """
    while True:
        answer = api.post("/admin/messages/act", body)
        tell(answer["done"])
        if answer["next"] is None:
            return answer
        body = {**body, "at": answer["next"]}
        if answer["accepted_before"] is not None:
            body["filter"] = {**body["filter"], "accepted_before": answer["accepted_before"]}


def _progress(word: str) -> Callable[[int], None]:
    def tell(done: int) -> None:
        print(f"\r{done} {word} …", end="", file=sys.stderr, flush=True)

    return tell
