"""Which characters text may hold: single lines (subject, names, header values, file names) and bodies."""

import re

# C0 with TAB, DEL and C1, the two separators that some programs take for line ends, the bidi embeddings,
# overrides and isolates (which let a name read backwards), and surrogates, which no UTF-8 can carry.
_FORBIDDEN_IN_LINE = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\\ud800-\\udfff]"
)
_FORBIDDEN_IN_BODY = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff]")


def find_forbidden(text: str) -> str | None:
    """Name the first character that a single line must not hold, or return None when there is none."""
    if text.isprintable():  # every forbidden character is unprintable, and this costs a tenth of the search
        return None
    return _name(_FORBIDDEN_IN_LINE.search(text))


def find_forbidden_in_body(text: str) -> str | None:
    """Name the first character that a text or html body must not hold, or return None when there is none.

    Line ends of every kind and TAB are welcome; the composer normalises the former.
    """
    return _name(_FORBIDDEN_IN_BODY.search(text))


def _name(found: re.Match[str] | None) -> str | None:
    if found is None:
        return None
    point = ord(found[0])
    if 0xD800 <= point <= 0xDFFF:
        kind = "a lone surrogate"
    elif point in (0x0A, 0x0D, 0x2028, 0x2029):
        kind = "a line break"
    elif point > 0x9F:
        kind = "a bidirectional override or isolate"
    else:
        kind = "a control character"
    return f"{kind} (U+{point:04X})"
