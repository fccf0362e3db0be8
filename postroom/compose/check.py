"""What is never sent: controls in header input on the way in, and malformed bytes on the way out.

The second check trusts nothing of the composer. It reads the finished bytes as a receiver does, line by line,
and holds them against the list of header fields that were meant to be there.
"""

from collections.abc import Sequence

from postroom.text import find_forbidden

MAX_LINE_BYTES = 998  # RFC 5322 §2.1.1, without the CRLF
CRLF = b"\r\n"


class ComposeError(ValueError):
    """The mail cannot be composed safely. The reason names no value of the mail."""


def require_line(text: str, what: str) -> None:
    """Refuse text that does not belong into a header field, whoever should have seen it before."""
    forbidden = find_forbidden(text)
    if forbidden is not None:
        raise ComposeError(f"{what} contains {forbidden}")


def check_composed(data: bytes, names: Sequence[str]) -> None:
    """Refuse bytes that are not one message with exactly the header fields `names`, in that order."""
    _check_line_ends(data)
    _check_line_lengths(data)
    blank = data.find(b"\r\n\r\n")
    if blank < 0:
        raise ComposeError("no blank line ends the header")
    _check_names(data[:blank], names)


def _check_line_ends(data: bytes) -> None:
    pairs = data.count(CRLF)
    if data.count(b"\n") != pairs or data.count(b"\r") != pairs:
        raise ComposeError("a CR or LF stands alone")
    if not data.endswith(CRLF):
        raise ComposeError("the last line has no end")
    if b"\0" in data:
        raise ComposeError("a NUL is in the message")


def _check_line_lengths(data: bytes) -> None:
    """Jump from line end to line end, always to the farthest in reach; without one the line is too long."""
    reach = MAX_LINE_BYTES + len(CRLF)
    start, end = 0, len(data)
    while start < end:
        last = data.rfind(CRLF, start, start + reach)
        if last < 0:
            raise ComposeError(f"a line is longer than {MAX_LINE_BYTES} bytes")
        start = last + len(CRLF)


def _check_names(head: bytes, names: Sequence[str]) -> None:
    lines = head.split(CRLF)
    found = [line.partition(b":")[0] for line in lines if not line.startswith((b" ", b"\t"))]
    if found != [name.encode() for name in names]:
        raise ComposeError("the header fields are not the ones put in")
    # Some readers take a line of spaces for the end of the header.
    if lines[0].startswith((b" ", b"\t")) or not all(map(bytes.strip, lines)):
        raise ComposeError("a header line is blank")
