"""The operator's commands on agents and on single messages, and the list of changes."""

import argparse
from typing import Any
from urllib.parse import quote

from postroom.cli.admin import AdminApi
from postroom.cli.labels import fit, read_labels
from postroom.cli.look import show_held
from postroom.errors import UsageError
from postroom.ids import is_message_id


def show_agents(options: argparse.Namespace) -> int:
    """Print a row for each agent, and why one does not work."""
    wanted = read_labels(options)
    rows = [row for row in AdminApi(options).get("/admin/agents")["agents"] if fit(row["labels"], wanted)]
    print(
        f"{'AGENT':<24}{'OWNER':<20}{'STATE':<10}{'WAITING':>9}{'DUE':>9}{'HELD':>8}  {'OLDEST DUE':<12}NOTES"
    )
    for row in rows:
        oldest = f"{row['oldest_due_seconds']:.1f} s" if row["due"] else "-"
        held = show_held(row.get("held", 0), is_least=row.get("held_is_least", False))
        print(
            f"{row['agent']:<24}{row['owner'] or '-':<20}{row['state']:<10}"
            f"{row['waiting']:>9}{row['due']:>9}{held:>8}  {oldest:<12}{_notes(row)}".rstrip()
        )
    return 0


def _notes(row: dict[str, Any]) -> str:
    notes = []
    if not row["configured"]:
        notes.append("not configured")
    if row["state"] == "paused":
        until = f" until {row['until']}" if row["until"] else ""
        notes.append(f"paused since {row['since']}{until} by {row['who']}: {row['reason']}")
    notes += [f"{fault['channel']}: {fault['cause']} since {fault['since']}" for fault in row["faults"]]
    if row["preferred"]:
        notes.append(f"prefers {row['preferred']} until {row['preferred_until']}")
    return "; ".join(notes)


def pause_agent(options: argparse.Namespace) -> int:
    """Pause an agent."""
    if not options.reason:
        raise UsageError("give a --reason: callers see it")
    body = {"reason": options.reason, "for": options.lasts}
    answer = AdminApi(options).post(f"/admin/agents/{quote(options.agent_name, safe='')}/pause", body)
    until = f"until {answer['until']}" if answer["until"] else f"until: postroom resume {answer['agent']}"
    print(f"{answer['agent']} is paused since {answer['since']}, {until}")
    return 0


def resume_agent(options: argparse.Namespace) -> int:
    """End an agent's pause."""
    path = f"/admin/agents/{quote(options.agent_name, safe='')}/resume"
    answer = AdminApi(options).post(path, {"reason": options.reason})
    goes_on = (
        "goes on" if answer["configured"] else "is not paused any more, but not configured: its mail waits"
    )
    print(f"{answer['agent']} {goes_on if answer['paused'] else 'was not paused'}")
    return 0


def prefer_channel(options: argparse.Namespace) -> int:
    """Let a channel of an agent go first for a while."""
    if (options.channel is None) != options.clear:
        raise UsageError("give either --channel NAME with --for, or --clear")
    body = {"reason": options.reason, "for": options.lasts}
    path = f"/admin/agents/{quote(options.agent_name, safe='')}/prefer"
    answer = AdminApi(options).post(path, body | {"channel": options.channel})
    if answer["channel"] is None:
        print(f"{answer['agent']} uses its channels in their usual order")
    else:
        print(f"{answer['agent']} prefers {answer['channel']} until {answer['until']}")
    return 0


def retry_message(options: argparse.Namespace) -> int:
    """Try a message again now."""
    return _act_on_message(options, "retry", {})


def cancel_message(options: argparse.Namespace) -> int:
    """End a message before it goes to the channel."""
    return _act_on_message(options, "cancel", {})


def resolve_message(options: argparse.Namespace) -> int:
    """Settle a message whose fate was unknown."""
    return _act_on_message(options, "resolve", {"outcome": options.outcome})


def _act_on_message(options: argparse.Namespace, verb: str, body: dict[str, Any]) -> int:
    if not is_message_id(options.id):
        raise UsageError("this is not the id of a message")
    answer = AdminApi(options).post(
        f"/admin/messages/{options.id}/{verb}", {"reason": options.reason, **body}
    )
    state = f" is {answer['state']}" if answer["state"] else ""
    print(f"{answer['id']}{state}: {answer['text']}")
    return 0 if answer["done"] else 1


def show_changes(options: argparse.Namespace) -> int:
    """Print what was changed, oldest first."""
    changes = AdminApi(options).get(f"/admin/changes?since={quote(options.since, safe='')}")["changes"]
    for change in changes:
        data = " ".join(f"{name}={_shown(value)}" for name, value in change["data"].items())
        print(f"{change['at']}  {change['kind']:<20}{data}".rstrip())
    if not changes:
        print(f"Nothing was changed since {options.since}.")
    return 0


def _shown(value: str) -> str:
    return '"' + value.replace('"', "'") + '"' if " " in value or not value else value
