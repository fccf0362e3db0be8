"""The commands on templates: their options, and what each of them runs."""

import argparse
from collections.abc import Callable
from pathlib import Path

from postroom.arguments import LAST_PORT, whole
from postroom.cli.commands import Command, Commands, add_command

PREVIEW_PORT = 8090


def _add_templates(commands: Commands) -> None:
    text = "judge, look at, compare and publish templates"
    parser = commands.add_parser("templates", help=text, description=text.capitalize() + ".")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_check, _add_preview, _add_diff, _add_push):
        add(verbs)


def _lazily(name: str) -> Command:
    """Return what runs a command of `postroom.cli.templates`, which imports a lot."""

    def run(options: argparse.Namespace) -> int:
        from postroom.cli import templates  # noqa: PLC0415  only these commands need what it imports

        command: Callable[[argparse.Namespace], int] = getattr(templates, name)
        return command(options)

    return run


def _add_check(verbs: Commands) -> None:
    text = "judge a folder of templates; 1 with file and line of every fault"
    _add_dir(add_command(verbs, "check", text, _lazily("check")))


def _add_preview(verbs: Commands) -> None:
    text = "show a folder of templates on a page that follows what is saved"
    parser = _explained(
        add_command(verbs, "preview", text, _lazily("preview")),
        "Every template, example and locale at 375 and 1,024 pixels, with faults by file and line. The page is for\n"
        "this machine only, and needs neither a configuration nor Redis.\n\n"
        "examples:\n  postroom templates preview templates\n  postroom templates preview templates/order_shipped",
    )
    _add_dir(parser)
    parser.add_argument(
        "--port",
        type=whole(0, LAST_PORT),
        default=PREVIEW_PORT,
        metavar="N",
        help="of the page; 0 for any (%(default)s)",
    )


def _add_diff(verbs: Commands) -> None:
    text = "compare the templates of two folders or services, rendered on their examples"
    parser = _explained(
        add_command(verbs, "diff", text, _lazily("diff")),
        "Status 0 where nothing differs, 1 where something does, 2 where nobody can say.\n\n"
        "examples:\n"
        "  postroom templates diff https://postroom.shop.example templates --html diff.html\n"
        "  postroom templates diff ../main/templates templates order_shipped",
    )
    parser.add_argument("old", metavar="OLD", help="a folder, or the URL of an API")
    parser.add_argument("new", metavar="NEW", help="a folder, or the URL of an API")
    _add_names(parser, "compare")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a page that shows old and new side by side"
    )
    parser.add_argument("--token", help="for a URL, with the scope read or templates (or POSTROOM_TOKEN)")
    parser.add_argument("--old-token", metavar="TOKEN", help="for OLD, where that needs another one")


def _add_push(verbs: Commands) -> None:
    text = "publish the templates of a folder that are not current yet"
    parser = add_command(verbs, "push", text, _lazily("push"))
    _add_dir(parser)
    parser.add_argument("url", metavar="URL", help="of the API to publish to")
    _add_names(parser, "publish")
    parser.add_argument("--token", help="with the scope templates (or POSTROOM_TOKEN)")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be published, and publish nothing"
    )


def _add_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="the folder of templates, or of one of them")


def _add_names(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{verb} these only (default: all)")


def _explained(parser: argparse.ArgumentParser, text: str) -> argparse.ArgumentParser:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = text
    return parser


TEMPLATE_COMMANDS = (_add_templates,)
