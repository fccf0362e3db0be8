"""Labels of agents as filters: `--label business=shop`."""

import argparse
from collections.abc import Mapping

from postroom.errors import UsageError


def add_label_option(parser: argparse.ArgumentParser) -> None:
    """Let a command take labels."""
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only agents with this label; may be repeated, then all must fit",
    )


def read_labels(options: argparse.Namespace) -> dict[str, str]:
    """Return the labels asked for."""
    wanted = {}
    for given in options.label:
        name, sign, value = given.partition("=")
        if not sign or not name:
            raise UsageError("--label must be NAME=VALUE")
        wanted[name] = value
    return wanted


def fit(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """True where an agent has all the labels that are wanted."""
    return all(labels.get(name) == value for name, value in wanted.items())
