"""The commands that run, check and send, their options, and what each of them runs."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from postroom.arguments import LAST_PORT, patience, whole

Command = Callable[[argparse.Namespace], int]
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  it has no public name


def add_command(commands: Commands, name: str, text: str, run: Command) -> argparse.ArgumentParser:
    """Add a command that runs `run`; return its parser, for its own options."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="configuration (or POSTROOM_CONFIG)",
    )
    parser.set_defaults(run=run)
    return parser


def _add_dev(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from postroom.dev.run import run_dev  # noqa: PLC0415  only this command needs what it imports

        return run_dev(options.port, options.data, Path(options.config) if options.config else None)

    parser = add_command(commands, "dev", "run everything on this machine, with an inbox to look at", run)
    parser.add_argument(
        "--port",
        type=whole(1, LAST_PORT - 3),
        default=os.environ.get("PORT") or "8080",
        help="of the API; inbox page, inbox SMTP and metrics follow it (PORT, or 8080)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(".postroom"),
        metavar="DIR",
        help="where everything is kept (%(default)s)",
    )


def _add_serve(commands: Commands) -> None:
    add_command(commands, "serve", "run the API", lambda _: _become("service"))


def _add_work(commands: Commands) -> None:
    add_command(commands, "work", "run a worker", lambda _: _become("workers"))


def _become(package: str, *arguments: str) -> int:
    """Replace this process, so that signals reach the service itself."""
    sys.stdout.flush()
    command = [sys.executable, "-P", "-m", package, *arguments]
    os.execv(sys.executable, command)  # noqa: S606  our own interpreter and package


def _add_probe(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        return _become("workers.probe", f"--timeout={options.timeout}", "--", options.agent)

    text = "see what an agent's channels would say to mail, without sending any"
    parser = add_command(commands, "probe", text, run)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "For each channel: does its name resolve, does it connect, TLS version and days the certificate is good for,\n"
        "what EHLO offers, is the login or the token accepted; and what to do where something fails. A channel that\n"
        "passes and stood still is released. Status 1 where a channel would not take mail.\n\n"
        "examples:\n  postroom probe orders\n  postroom probe orders --timeout 3"
    )
    parser.add_argument("agent", metavar="AGENT", help="the agent's name in the configuration")
    parser.add_argument(
        "--timeout",
        type=patience,
        default=10.0,
        metavar="SECONDS",
        help="for each step, from 0.1 to 600 (default: 10)",
    )


def _add_check(commands: Commands) -> None:
    def run(_: argparse.Namespace) -> int:
        from postroom.cli.check import check  # noqa: PLC0415

        return check()

    add_command(commands, "check", "check the configuration and all templates, and start nothing", run)


def _add_token(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from postroom.cli.token import new_token  # noqa: PLC0415

        return new_token(options.caller, options.id, options.scope)

    parser = commands.add_parser("token", help="make a caller's token", description="Make a caller's token.")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = add_command(verbs, "new", "make a token and the line of configuration that lets it in", run)
    new.add_argument("caller", metavar="CALLER", help="the caller's name in the configuration")
    new.add_argument("--id", metavar="ID", help="the token's id (default: random)")
    new.add_argument(
        "--scope",
        action="append",
        choices=("send", "read", "templates", "admin"),
        help="may be repeated (default: send and read)",
    )


def _add_send(commands: Commands) -> None:
    def run(options: argparse.Namespace) -> int:
        from postroom.cli.send import send  # noqa: PLC0415

        return send(options)

    parser = add_command(
        commands, "send", "send one message and watch it go (without options: the sample)", run
    )
    add = parser.add_argument
    add("--url", default=os.environ.get("POSTROOM_URL", f"http://127.0.0.1:{os.environ.get('PORT') or 8080}"))
    add("--token", help="default: POSTROOM_TOKEN, else the file .postroom/token of `postroom dev`")
    add("--agent", default="orders")
    add("--to", action="append", metavar="ADDRESS", help="may be repeated (default: ada@example.com)")
    add("--template", metavar="NAME", help="default: order_shipped, the sample")
    add("--var", action="append", default=[], metavar="NAME=VALUE", help="a variable: JSON, else text")
    add("--subject", help="send without a template")
    add("--text", help="the text that goes with --subject")
    add("--ref", metavar="CLIENT_REF", help="default: a new one")
    add("--no-wait", action="store_true", help="do not wait until it is sent")


COMMANDS = (
    _add_dev,
    _add_serve,
    _add_work,
    _add_check,
    _add_probe,
    _add_token,
    _add_send,
)
