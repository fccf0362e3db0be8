"""Encoded words (RFC 2047): text beyond ASCII, or text that looks encoded already, in a header field."""

import binascii
import re

MAX_WORD = 75  # RFC 2047 §2
_FRAME = len("=?utf-8?q??=")
_LEAST_ROOM = _FRAME + 16  # any single character fits, four octets written as `=F0=9F=93=AC` too

# RFC 2047 §5 (3): what may stand for itself in an encoded word wherever it is used, in a phrase too.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ "
_NOT_PLAIN = re.compile(rb"[^A-Za-z0-9!*+/ -]")
_CONTINUATION = b"89AB"  # first hex digit of the octets 80-BF, which never begin a character
_ESCAPES = [b"=%02X" % octet for octet in range(256)]


def encode_words(text: str, room: int = MAX_WORD) -> list[str]:
    """Split text into encoded words, in Q or B, whichever is shorter; the first one is to fit into `room`.

    Each word stands alone: none ends inside a character, as RFC 2047 §5 demands. Readers drop the white space
    between two encoded words, so the text's own spaces are all inside.
    """
    room = max(_LEAST_ROOM, min(room, MAX_WORD))
    raw = text.encode()
    escaped = len(raw.translate(None, _PLAIN))
    if len(raw) + 2 * escaped <= (len(raw) + 2) // 3 * 4:
        return _split_q(raw, room - _FRAME)
    return _split_b(raw, room - _FRAME)


def _split_b(raw: bytes, room: int) -> list[str]:
    words = []
    start = 0
    while start < len(raw):
        end = start + room // 4 * 3
        while end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
        chunk = binascii.b2a_base64(raw[start:end], newline=False).decode()
        words.append(f"=?utf-8?b?{chunk}?=")
        start, room = end, MAX_WORD - _FRAME
    return words


def _split_q(raw: bytes, room: int) -> list[str]:
    coded = _NOT_PLAIN.sub(lambda found: _ESCAPES[found[0][0]], raw).replace(b" ", b"_")
    words = []
    start = 0
    while start < len(coded):
        end = _character_end(coded, start + room)
        words.append(f"=?utf-8?q?{coded[start:end].decode()}?=")
        start, room = end, MAX_WORD - _FRAME
    return words


def _character_end(coded: bytes, end: int) -> int:
    """Step back from `end` until neither an escape nor the octets of one character are cut in two."""
    if end >= len(coded):
        return len(coded)
    if coded[end - 1 : end] == b"=":
        end -= 1
    elif coded[end - 2 : end - 1] == b"=":
        end -= 2
    while coded[end : end + 1] == b"=" and coded[end + 1] in _CONTINUATION:
        end -= 3
    return end
