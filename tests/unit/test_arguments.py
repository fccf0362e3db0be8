"""Numbers on the command line: each option has its bounds, and what is none or beyond them ends with status 2."""

import argparse

import pytest

from postroom.cli.main import build_parser
from postroom.inbox.__main__ import _parser as inbox_parser

NO_TIMES = ("0", "-1", "nan", "inf", "-inf", "1e-3", "600.1", "1e300", "abc", "")
NO_PORTS = ("-1", "1.5", "1_000", "\u0661", " 80", "9" * 5000, "abc", "")
PROBE, TOP, REPLAY = ("probe", "orders", "--timeout"), ("top", "--interval"), ("failed", "replay", "--rate")
DEV, PREVIEW = ("dev", "--port"), ("templates", "preview", ".", "--port")
HTTP, SMTP = ("--http-port",), ("--smtp-port",)


def parser_of(words: tuple[str, ...]) -> argparse.ArgumentParser:
    return inbox_parser() if words in (HTTP, SMTP) else build_parser()


@pytest.mark.parametrize(
    ("words", "texts", "bounds"),
    [
        (PROBE, NO_TIMES, "a number from 0.1 to 600"),
        (TOP, ("0", "-1", "nan", "inf", "1e12", "abc"), "a number from 0.1 to 3600"),
        (REPLAY, ("0", "-1", "nan", "inf", "1e-300", "1e300", "abc"), "a number from 0.01 to 10000"),
        (DEV, ("0", "65533", *NO_PORTS), "a whole number from 1 to 65532"),
        (PREVIEW, ("65536", *NO_PORTS), "a whole number from 0 to 65535"),
        (HTTP, ("65536", *NO_PORTS), "a whole number from 0 to 65535"),
        (SMTP, ("65536", *NO_PORTS), "a whole number from 0 to 65535"),
    ],
)
def test_a_number_that_cannot_be_is_told_with_its_bounds(capsys, words, texts, bounds):
    """Status 2, the option and what it takes, before anything is begun."""
    *before, option = words
    for text in texts:
        with pytest.raises(SystemExit) as caught:
            parser_of(words).parse_args([*before, f"{option}={text}"])
        assert 2 == caught.value.code
        assert f"argument {option}: must be {bounds}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (PROBE, ("0.1", "10", "2.5", "600")),
        (TOP, ("0.1", "1e1", "3600")),
        (REPLAY, ("0.01", "20", "10000")),
        (DEV, ("1", "8080", "65532")),
        (PREVIEW, ("0", "65535")),
        (HTTP, ("0", "65535")),
    ],
)
def test_a_number_within_its_bounds_is_taken(words, texts):
    """Both bounds are included."""
    *before, option = words
    for text in texts:
        given = parser_of(words).parse_args([*before, f"{option}={text}"])
        assert float(text) == getattr(given, option[2:].replace("-", "_"))
