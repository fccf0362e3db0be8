"""Numbers on a command line, as types for argparse: what is none, or out of bounds, is told and ends with status 2."""

from argparse import ArgumentTypeError
from collections.abc import Callable

LAST_PORT = 65535
LONGEST_WHOLE = 9  # digits


def number(least: float, most: float) -> Callable[[str], float]:
    """Return the type of a finite number between two bounds, both included."""

    def read(text: str) -> float:
        try:
            given = float(text)
        except ValueError:
            given = float("nan")
        if not least <= given <= most:  # `nan` is neither
            raise ArgumentTypeError(f"must be a number from {least:g} to {most:g}")
        return given

    return read


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return the type of a whole number between two bounds, both included."""

    def read(text: str) -> int:
        plain = text.isascii() and text.isdigit() and len(text) <= LONGEST_WHOLE
        if not plain or not least <= int(text) <= most:
            raise ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return int(text)

    return read


patience = number(0.1, 600)  # seconds, for each step of somebody who looks on
