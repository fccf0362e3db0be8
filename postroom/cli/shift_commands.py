"""Commands for the shift: what goes on now, and what went wrong."""

import argparse

from postroom.arguments import number
from postroom.cli.commands import Commands, add_command
from postroom.cli.operator_commands import add_asking, add_reason, later


def _add_top(commands: Commands) -> None:
    parser = add_asking(commands, "top", "watch all agents: rates, depth, age, connections, breaker, last error",
                  later("top", "show_top"), "  postroom top\n  postroom top --once")  # fmt: skip
    parser.add_argument(
        "--interval",
        type=number(0.1, 3600),
        default=2.0,
        metavar="SECONDS",
        help="from 0.1 to 3600 (default: %(default)s)",
    )
    parser.add_argument("--once", action="store_true", help="print one table, over one second, and end")


def _add_failed(commands: Commands) -> None:
    text = "look at mail that ended badly, and send it again"
    parser = commands.add_parser("failed", help=text, description=text[0].upper() + text[1:] + ".")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = add_asking(verbs, "list", "list what failed and is still kept", later("failed", "list_failed"),
                   "  postroom failed list --agent orders --since 3h\n  postroom failed list --expired")  # fmt: skip
    listing.add_argument("--all-rows", action="store_true", help="print all of them, not the first 50")
    show = add_asking(verbs, "show", "say what became of one", later("look", "show_why"),
                "  postroom failed show orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C")  # fmt: skip
    show.add_argument("id", metavar="ID")
    note = (
        "Only what failed, and only where its content is still kept; what was sent is never sent again, and what "
        "expired only with --expired. It counts first; --yes does it. Break it off with Ctrl-C and go on later."
    )
    replay = add_asking(verbs, "replay", "send failed mail again", later("failed", "replay_failed"),
                  "  postroom failed replay --agent orders --since 3h --rate 20", note)  # fmt: skip
    replay.add_argument(
        "--rate",
        type=number(0.01, 10_000),
        default=10.0,
        metavar="N",
        help="messages a second, from 0.01 to 10000 (%(default)s)",
    )
    replay.add_argument("--yes", action="store_true", help="do it; without, it is only counted")
    add_reason(replay)
    for one in (listing, replay):
        group = one.add_argument_group("which", "all that are given must fit")
        group.add_argument("--agent", metavar="NAME", help="only this agent's")
        group.add_argument("--template", metavar="NAME", help="only of this template")
        group.add_argument("--caller", metavar="NAME", help="only this caller's")
        group.add_argument(
            "--since", metavar="WHEN", help="ended since a time with zone, or a duration ago: 3h"
        )
        group.add_argument("--ended-before", metavar="WHEN", help="ended before (default: now)")
        group.add_argument("--expired", action="store_true", help="also what expired")
        group.add_argument(
            "--partly-sent", action="store_true", help="also the failed recipients of what was partly sent"
        )


def _add_redis(commands: Commands) -> None:
    def run(_options: argparse.Namespace) -> int:
        from postroom.cli.redis_state import show_redis  # noqa: PLC0415

        return show_redis()

    text = "look straight at Redis: role, memory, eviction, file, replicas; status 1 where mail is not safe there"
    add_command(commands, "redis", text, run)


SHIFT_COMMANDS = (_add_top, _add_failed, _add_redis)
