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


class LongLineError(ComposeError):
    """A line is longer than may be sent."""


def require_line(text: str, what: str) -> None:
    """Refuse text that does not belong into a header field, whoever should have seen it before."""
    forbidden = find_forbidden(text)
    if forbidden is not None:
        raise ComposeError(f"{what} contains {forbidden}")


def to_wire(draft: bytes, names: Sequence[str]) -> bytes:
    """Turn a draft, whose lines end in LF, into the bytes of one message with exactly the header fields `names`.

    A draft with a CR or a NUL in it is refused, and every LF becomes a CRLF here and nowhere else: so no CR and no LF
    stands alone in what is returned. Looking at drafts is cheap, since single bytes are found much faster than pairs.

    Raises:
        LongLineError: a line is too long.
        ComposeError: it is not such a message for another reason.
    """
    if b"\r" in draft or b"\0" in draft:
        raise ComposeError("a CR or a NUL is in the message")
    if not draft.endswith(b"\n"):
        raise ComposeError("the last line has no end")
    if not has_short_lines(draft):
        raise LongLineError(f"a line is longer than {MAX_LINE_BYTES} bytes")
    blank = draft.find(b"\n\n")
    if blank < 0:
        raise ComposeError("no blank line ends the header")
    _check_names(draft[:blank], names)
    return draft.replace(b"\n", CRLF)


def has_short_lines(draft: bytes) -> bool:
    """True where no line is longer than `MAX_LINE_BYTES`. The last line may lack its end.

    Jumps from line end to line end, always to the farthest in reach.
    """
    start, end = 0, len(draft)
    while end - start > MAX_LINE_BYTES:
        last = draft.rfind(b"\n", start, start + MAX_LINE_BYTES + 1)
        if last < 0:
            return False
        start = last + 1
    return True


def seems_short(text: bytes) -> bool:
    """True where a look at its middle finds no line that is too long: a guess, for texts that are checked later."""
    middle = len(text) // 2
    return text.find(b"\n", middle, middle + MAX_LINE_BYTES + 1) >= 0


def _check_names(head: bytes, names: Sequence[str]) -> None:
    lines = head.split(b"\n")
    found = [line.partition(b":")[0] for line in lines if not line.startswith((b" ", b"\t"))]
    if found != [name.encode() for name in names]:
        raise ComposeError("the header fields are not the ones put in")
    # Some readers take a line of spaces for the end of the header.
    if lines[0].startswith((b" ", b"\t")) or not all(map(bytes.strip, lines)):
        raise ComposeError("a header line is blank")
