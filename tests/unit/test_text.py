"""The characters that single lines and bodies may hold."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.text import find_forbidden, find_forbidden_in_body


@pytest.mark.parametrize(
    ("character", "expected"),
    [
        ("\x00", "a control character (U+0000)"),
        ("\t", "a control character (U+0009)"),
        ("\n", "a line break (U+000A)"),
        ("\r", "a line break (U+000D)"),
        ("\x1b", "a control character (U+001B)"),
        ("\x7f", "a control character (U+007F)"),
        ("\x85", "a control character (U+0085)"),
        ("\u2028", "a line break (U+2028)"),
        ("\u2029", "a line break (U+2029)"),
        ("\u202a", "a bidirectional override or isolate (U+202A)"),
        ("\u202e", "a bidirectional override or isolate (U+202E)"),
        ("\u2066", "a bidirectional override or isolate (U+2066)"),
        ("\u2069", "a bidirectional override or isolate (U+2069)"),
        ("\ud800", "a lone surrogate (U+D800)"),
        ("\udfff", "a lone surrogate (U+DFFF)"),
    ],
)
def test_forbidden_in_a_line(character, expected):
    """A character that could end a line, hide or reverse text is named wherever it stands."""
    assert expected == find_forbidden(f"Grüße {character} 📬")


@pytest.mark.parametrize(
    "text", ["", "plain", "Grüße", "שלום", "a\u200fb", "👩‍👩‍👧", "a\u00a0b\u3000c", "a\u00adb"]
)
def test_allowed_in_a_line(text):
    """Text of every script is allowed, with the joiners and marks it needs."""
    assert find_forbidden(text) is None


@pytest.mark.parametrize("character", ["\x00", "\x08", "\x0b", "\x0c", "\x1b", "\ud800"])
def test_forbidden_in_a_body(character):
    """A body holds no control character beyond TAB and line ends."""
    assert find_forbidden_in_body(f"a{character}") is not None


def test_allowed_in_a_body():
    """TAB and line ends of every kind are welcome in a body."""
    assert find_forbidden_in_body("a\tb\r\nc\nd\re\u2028\u202e") is None


@given(st.text(st.characters(), max_size=20))
@settings(max_examples=200, deadline=None)
def test_an_accepted_line_is_one_line(text):
    """Text that passes is UTF-8, and one line to everyone who counts them."""
    if find_forbidden(text) is None:
        assert len(text.splitlines()) <= 1
        assert text == text.encode().decode()
