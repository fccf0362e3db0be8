"""SMTP replies as they come off the wire (RFC 5321 §4.2), cut out of a stream of bytes.

What the other side wrote may echo addresses, so a reply never prints its text and nothing above the channel
gets to see more than its codes.
"""

import re
from collections import deque

MAX_LINE_BYTES = 4096  # RFC 5321 §4.5.3.1.5 says 512; real servers go beyond it, none beyond this
MAX_REPLY_BYTES = 65536
# Replies of one line that are remembered of a connection: servers say the same again and again.
MOST_KNOWN = 8

# RFC 3463 §2: class, subject and detail, at the start of the text.
_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?![\w.])")


class GarbageError(Exception):
    """The bytes are not an SMTP reply. What follows them cannot be trusted to be in step either."""


class Reply:
    """One whole reply: its code and the text of its lines."""

    __slots__ = ("_enhanced", "_texts", "code")

    def __init__(self, code: int, texts: tuple[bytes, ...]) -> None:
        self.code = code
        self._texts = texts
        self._enhanced: str | None = ""  # not looked for yet

    @property
    def enhanced(self) -> str | None:
        """The enhanced code (RFC 3463), where the reply has one of its own class."""
        if self._enhanced == "":
            found = _ENHANCED.match(self._texts[0])
            is_own = found is not None and found[1][0] == ord(str(self.code)[0])
            self._enhanced = found[1].decode("ascii") if found and is_own else None
        return self._enhanced

    @property
    def lines(self) -> list[str]:
        """The text line by line, any byte made printable, for EHLO's keywords and a provider's own words."""
        return [text.decode("ascii", "backslashreplace") for text in self._texts]

    def __repr__(self) -> str:
        return f"Reply({self.code})"


class ReplyParser:
    """Takes bytes as they arrive and gives whole replies."""

    __slots__ = ("_buffer", "_code", "_known", "_size", "_texts")

    def __init__(self) -> None:
        self._buffer = b""
        self._known: dict[bytes, Reply] = {}
        self._code = 0  # of the reply whose lines are being collected; 0 between replies
        self._size = 0
        self._texts: list[bytes] = []

    @property
    def pending(self) -> bool:
        """True when bytes have arrived that are not a whole reply yet."""
        return bool(self._buffer or self._texts)

    def feed(self, data: bytes, replies: deque[Reply]) -> None:
        """Append the replies that `data` completes.

        Raises:
            GarbageError: the bytes are not SMTP, or a line or a reply is longer than any server's.
        """
        lines = (self._buffer + data if self._buffer else data).split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            self._take(line.removesuffix(b"\r"), replies)
        if len(self._buffer) > MAX_LINE_BYTES:
            raise GarbageError

    def _take(self, line: bytes, replies: deque[Reply]) -> None:
        """Add one line: `250-text` goes on, `250 text` and a bare `250` end the reply."""
        if (known := self._known.get(line)) is not None and not self._code:
            replies.append(known)
            return
        separator = line[3:4]
        self._size += len(line)
        code = _code(line)
        if separator not in _SEPARATORS or self._code not in (0, code) or self._size > MAX_REPLY_BYTES:
            raise GarbageError
        if separator == b"-":
            self._code = code
            self._texts.append(line[4:])
            return
        reply = Reply(code, (*self._texts, line[4:]))
        replies.append(reply)
        if self._texts:
            self._texts.clear()
        elif len(self._known) < MOST_KNOWN:
            self._known[line] = reply
        self._code = self._size = 0


_SEPARATORS = (b" ", b"", b"-")


def _code(line: bytes) -> int:
    """Return the reply code of a line of at most 4,096 bytes (RFC 5321 §4.2: 2yz to 5yz)."""
    digits = line[:3]
    if len(line) > MAX_LINE_BYTES or len(digits) != 3 or not digits.isdigit() or not b"2" <= digits < b"6":
        raise GarbageError
    return int(digits)
