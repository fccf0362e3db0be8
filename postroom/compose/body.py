"""Text parts and multiparts (RFC 2045, RFC 2046): entities, each its `Content-*` fields and its bytes.

All of it is a draft, with lines that end in LF; `to_wire` ends them in CRLF, the whole message at once.
"""

import binascii
from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

from postroom.compose.check import CRLF, ComposeError, has_short_lines, seems_short

Field = tuple[str, str]  # a name, and the whole field with its line end

_BASE64_LINE = 76  # RFC 2045 §6.8
# Octets that quoted-printable leaves alone (RFC 2045 §6.7); `=` is not one of them.
_PRINTABLE = bytes({*b"\t\n", *range(0x20, 0x7F)} - {*b"="})


class Entity(Struct, frozen=True):
    """A part of a message, or the whole of it under the header."""

    fields: tuple[Field, ...]
    body: bytes
    eight_bit: bool = False  # its body is not ASCII


def text_part(kind: str, text: str, *, eight_bit: bool, guess: bool = False) -> Entity:
    """Make a `text/plain` or `text/html` part (`kind`) in UTF-8; every line end becomes the same.

    It travels as it is when its lines fit and it is ASCII, or `eight_bit` allows for more; else as quoted-printable
    or base64. With `guess` its lines are only looked at in passing.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise ComposeError("the content contains a lone surrogate") from None
    if b"\r" in raw:
        raw = raw.replace(CRLF, b"\n").replace(b"\r", b"\n")
    encoding, body = _transfer(raw, ascii_only=text.isascii(), eight_bit=eight_bit, guess=guess)
    return Entity(
        (
            ("Content-Type", f"Content-Type: {kind}; charset=utf-8\n"),
            ("Content-Transfer-Encoding", f"Content-Transfer-Encoding: {encoding}\n"),
        ),
        body,
        encoding == "8bit",
    )


def _transfer(raw: bytes, *, ascii_only: bool, eight_bit: bool, guess: bool) -> tuple[str, bytes]:
    """Choose the shortest transfer encoding that is safe for these lines, which end in LF."""
    if (ascii_only or eight_bit) and ((guess and seems_short(raw)) or has_short_lines(raw)):
        return "7bit" if ascii_only else "8bit", raw
    # Quoted-printable adds two octets for each one it escapes, base64 one for every three.
    escaped = len(raw.translate(None, _PRINTABLE))
    if 6 * escaped <= len(raw):
        return "quoted-printable", binascii.b2a_qp(raw, istext=True)
    return "base64", base64_lines(raw.replace(b"\n", CRLF))


def base64_lines(raw: bytes) -> bytes:
    """Encode in base64 with lines of 76 characters; the last line has no end."""
    coded = binascii.b2a_base64(raw, newline=False)
    return b"\n".join([coded[at : at + _BASE64_LINE] for at in range(0, len(coded), _BASE64_LINE)])


def multipart(subtype: str, boundary: str, parts: Sequence[Entity]) -> Entity:
    """Put parts behind each other (RFC 2046 §5.1.1). `boundary` must not occur in any of them."""
    delimiter = f"--{boundary}"
    pieces: list[bytes] = []
    for part in parts:
        head = "".join([field for _, field in part.fields])
        pieces += (f"{delimiter}\n{head}\n".encode(), part.body, b"\n")
    pieces.append(f"{delimiter}--\n".encode())
    fields = [("Content-Type", f'Content-Type: multipart/{subtype}; boundary="{boundary}"\n')]
    eight_bit = any(part.eight_bit for part in parts)
    if eight_bit:  # RFC 2045 §6.4: who holds eight bits says so, all the way up
        fields.append(("Content-Transfer-Encoding", "Content-Transfer-Encoding: 8bit\n"))
    return Entity(tuple(fields), b"".join(pieces), eight_bit)


def boundary_stem(message_id: str, texts: list[Entity]) -> str:
    """Derive what all boundaries of a message begin with, equal on every attempt and in none of the texts.

    Attachments need no look: base64 cannot hold `=_`.
    """
    attempt = 0
    while True:
        seed = f"{attempt} {message_id}".encode()
        stem = f"=_{blake2b(seed, digest_size=12).hexdigest()}"
        if not any(stem.encode() in text.body for text in texts):
            return stem
        attempt += 1
