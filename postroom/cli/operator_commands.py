"""The operator's commands: their options, and what each of them runs. All but `ledger` ask the API's admin port;
`queue` and `why` do where one is named, and else look into Redis.
"""

import argparse
import textwrap
from importlib import import_module

from postroom.cli.commands import Command, Commands, add_command
from postroom.cli.labels import add_label_option
from postroom.errors import UsageError

ADMIN = (
    "Asks the admin port of a running API (--admin-url, POSTROOM_ADMIN_URL) with a token of the scope admin "
    "(--token, POSTROOM_ADMIN_TOKEN, or the one of `postroom dev`)."
)
LOOK = (
    "Asks the admin port of a running API where --admin-url or --token is given (POSTROOM_ADMIN_URL, "
    "POSTROOM_ADMIN_TOKEN; the token needs the scope admin); else it reads the configuration and looks straight into "
    "Redis."
)
LOOKS = ("queue", "why")
FILTERS = ("agent", "template", "caller", "accepted_before", "skip_scheduled", "all")
BY_FILTER = "By filter it only counts; the same command with --yes does it and prints how many it did."


def later(module: str, name: str) -> Command:
    """Return a command whose module is imported when it is run."""

    def run(options: argparse.Namespace) -> int:
        command: Command = getattr(import_module(f"postroom.cli.{module}"), name)
        return command(options)

    return run


def _either(single: Command, by_filter: Command, positional: str) -> Command:
    """Return a command that takes a name or id, or else a filter."""

    def run(options: argparse.Namespace) -> int:
        if getattr(options, positional) is None:
            return by_filter(options)
        if options.yes or any(getattr(options, name) for name in FILTERS):
            raise UsageError("give either a name or a filter")
        return single(options)

    return run


def add_asking(
    commands: Commands, name: str, text: str, run: Command, examples: str, note: str = ""
) -> argparse.ArgumentParser:
    """Add a command that asks the admin port, or may; return its parser."""
    parser, way = add_command(commands, name, text, run), LOOK if name in LOOKS else ADMIN
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = "\n".join(textwrap.fill(t, 80) for t in (parser.description or "", note, way) if t)
    parser.epilog = f"examples:\n{examples}"
    parser.add_argument(
        "--admin-url", metavar="URL", help="the API's metrics port (default: on this machine)"
    )
    parser.add_argument("--token", help="a token with the scope admin")
    return parser


def add_reason(parser: argparse.ArgumentParser, text: str = "why: logged; at most 200 characters") -> None:
    """Add `--reason`."""
    parser.add_argument("--reason", metavar="TEXT", help=text)


def _add_filter(parser: argparse.ArgumentParser, verb: str) -> None:
    group = parser.add_argument_group("by filter", "all that are given must fit")
    group.add_argument("--agent", metavar="NAME", help="only this agent's mail")
    group.add_argument("--template", metavar="NAME", help="only mail of this template")
    group.add_argument("--caller", metavar="NAME", help="only mail of this caller")
    group.add_argument("--accepted-before", metavar="WHEN", help="a time with zone, or a duration ago: 2h")
    group.add_argument("--skip-scheduled", action="store_true", help="not mail whose send_at is still ahead")
    group.add_argument("--all", action="store_true", help="all waiting mail of all agents")
    group.add_argument("--yes", action="store_true", help="do it; without, it is only counted")
    parser.set_defaults(verb=verb)


def _add_queue(commands: Commands) -> None:
    parser = add_asking(commands, "queue", "show the waiting mail of every agent", later("look", "show_queue"),
         "  postroom queue\n  postroom queue --label business=shop")  # fmt: skip
    add_label_option(parser)


def _add_why(commands: Commands) -> None:
    parser = add_asking(commands, "why", "say in one sentence why a message is where it is", later("look", "show_why"),
                  "  postroom why orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C")  # fmt: skip
    parser.add_argument("id", metavar="ID", help="the message's id")


def _add_agents(commands: Commands) -> None:
    example = "  postroom agents prefer orders --channel backup --for 2h --reason 'relay is slow'"
    examples = f"  postroom agents --label business=shop\n{example}"
    parser = add_asking(commands, "agents", "show all agents, what stands over them and their mail",
                  later("operate", "show_agents"), examples)  # fmt: skip
    add_label_option(parser)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND")
    example = (
        "  postroom agents prefer orders --channel backup --for 2h\n  postroom agents prefer orders --clear"
    )
    prefer = add_asking(verbs, "prefer", "let one of an agent's channels go first for a while",
                  later("operate", "prefer_channel"), example)  # fmt: skip
    prefer.add_argument("agent_name", metavar="AGENT")
    prefer.add_argument("--channel", metavar="NAME", help="the channel that goes first")
    prefer.add_argument("--for", dest="lasts", metavar="DURATION", help="how long, such as 2h; at most 30d")
    prefer.add_argument("--clear", action="store_true", help="back to the usual order")
    add_reason(prefer)


def _add_pause(commands: Commands) -> None:
    run = _either(later("operate", "pause_agent"), later("act", "act_by_filter"), "agent_name")
    examples = (
        "  postroom pause orders --reason 'wrong prices' --for 1h\n"
        "  postroom pause --agent orders --template order_shipped --reason 'wrong prices' --yes"
    )
    note = f"An agent paused sends nothing at all; by filter, the named waiting mail is held. {BY_FILTER}"
    parser = add_asking(commands, "pause", "pause an agent, or hold waiting mail", run, examples, note)
    parser.add_argument("agent_name", metavar="AGENT", nargs="?")
    parser.add_argument(
        "--for", dest="lasts", metavar="DURATION", help="then it goes on by itself, such as 1h; at most 30d"
    )
    add_reason(
        parser,
        "why: logged, and shown to callers; at most 200 characters of an agent's pause, 64 bytes of UTF-8 by filter",
    )
    _add_filter(parser, "pause")


def _add_resume(commands: Commands) -> None:
    parser = add_asking(commands, "resume", "end an agent's pause", later("operate", "resume_agent"),
                  "  postroom resume orders")  # fmt: skip
    parser.add_argument("agent_name", metavar="AGENT")
    add_reason(parser)


def _add_cancel(commands: Commands) -> None:
    run = _either(later("operate", "cancel_message"), later("act", "act_by_filter"), "id")
    examples = (
        "  postroom cancel orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C\n"
        "  postroom cancel --agent orders --template order_shipped --accepted-before 10min --yes"
    )
    parser = add_asking(commands, "cancel", "end messages before they go out", run, examples, BY_FILTER)
    parser.add_argument("id", metavar="ID", nargs="?")
    add_reason(parser)
    _add_filter(parser, "cancel")


def _add_expire(commands: Commands) -> None:
    parser = add_asking(commands, "expire", "let waiting mail end as too late", later("act", "act_by_filter"),
                  "  postroom expire --agent logins --accepted-before 15min --yes", BY_FILTER)  # fmt: skip
    add_reason(parser)
    _add_filter(parser, "expire")


def _add_release(commands: Commands) -> None:
    note = f"Mail held by `postroom pause` by filter, or by the storm brake. {BY_FILTER}"
    parser = add_asking(commands, "release", "let held mail go", later("act", "act_by_filter"),
                  "  postroom release --agent orders --yes", note)  # fmt: skip
    add_reason(parser)
    _add_filter(parser, "release")


def _add_retry(commands: Commands) -> None:
    note = (
        "One that waits for another attempt, one that is held, or one that failed or expired while its content is "
        "still kept. It goes out no sooner than its send_at and no later than its caller allowed: until "
        "deliver_before, or deliver_within from now on."
    )
    parser = add_asking(commands, "retry", "try a message again now", later("operate", "retry_message"),
                  "  postroom retry orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C --reason 'mailbox mended'", note)  # fmt: skip
    parser.add_argument("id", metavar="ID")
    add_reason(parser)


def _add_resolve(commands: Commands) -> None:
    note = "Look at the provider first: only there it is known whether the mail was taken."
    parser = add_asking(commands, "resolve", "settle an unconfirmed message", later("operate", "resolve_message"),
                  "  postroom resolve orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C --sent", note)  # fmt: skip
    parser.add_argument("id", metavar="ID")
    outcome = parser.add_mutually_exclusive_group(required=True)
    outcome.add_argument("--sent", dest="outcome", action="store_const", const="sent", help="it was sent")
    outcome.add_argument(
        "--retry", dest="outcome", action="store_const", const="retry", help="it was not: try again"
    )
    add_reason(parser)


def _add_changes(commands: Commands) -> None:
    note = "Starts with their versions and configurations, templates, pauses, breakers, and operators' acts."
    parser = add_asking(commands, "changes", "show what was changed lately", later("operate", "show_changes"),
                  "  postroom changes --since 3h", note)  # fmt: skip
    parser.add_argument(
        "--since", default="3h", metavar="WHEN", help="a duration, or a time with zone (%(default)s)"
    )


def _add_ledger(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from postroom.cli.ledger import check_ledger  # noqa: PLC0415

        return check_ledger(quick=options.quick)

    text = "prove that everything accepted is accounted for"
    parser = commands.add_parser("ledger", help=text, description=text[0].upper() + text[1:] + ".")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = add_command(verbs, "check", "look straight at Redis; status 1 where anything does not fit", run)
    check.add_argument(
        "--quick", action="store_true", help="only the balance, without a look at each message"
    )


OPERATOR_COMMANDS = (
    _add_queue,
    _add_why,
    _add_agents,
    _add_pause,
    _add_resume,
    _add_cancel,
    _add_expire,
    _add_release,
    _add_retry,
    _add_resolve,
    _add_changes,
    _add_ledger,
)
