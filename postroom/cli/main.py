"""`postroom`: reads the command line and runs one command."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from postroom import __version__
from postroom.cli.commands import COMMANDS, Command
from postroom.cli.operator_commands import OPERATOR_COMMANDS
from postroom.cli.shift_commands import SHIFT_COMMANDS
from postroom.cli.template_commands import TEMPLATE_COMMANDS
from postroom.errors import PostroomError, UsageError
from postroom.startup import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status: 0, 1 where something is wrong, 2 for wrong usage."""
    options = build_parser().parse_args(arguments)
    if options.config is not None:
        os.environ["POSTROOM_CONFIG"] = str(options.config)
    try:
        run: Command = options.run
        return run(options)
    except PostroomError as error:
        report(error)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing is left to be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="postroom",
        description="The mail room of a company's backend: internal services send email through it.",
        epilog="Environment: POSTROOM_CONFIG, POSTROOM_REDIS_URL, POSTROOM_HOST, POSTROOM_PORT, "
        "POSTROOM_METRICS_PORT, POSTROOM_LOG_FORMAT=json|console, POSTROOM_LOG_LEVEL; for an operator's commands "
        "POSTROOM_ADMIN_URL and POSTROOM_ADMIN_TOKEN.",
    )
    parser.add_argument("--version", action="version", version=f"postroom {__version__}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (or POSTROOM_CONFIG)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (*COMMANDS, *TEMPLATE_COMMANDS, *OPERATOR_COMMANDS, *SHIFT_COMMANDS):
        add(commands)
    return parser
