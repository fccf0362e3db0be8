"""Text parts and multiparts (RFC 2045, RFC 2046): entities, each its `Content-*` fields and its bytes.

All of it is a draft, with lines that end in LF; `to_wire` ends them in CRLF, the whole message at once.
"""

import binascii
from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct

from postroom.compose.check import CRLF, ComposeError, has_short_lines

Field = tuple[str, str]  # a name, and the whole field with its line end

_BASE64_LINE = 76  # RFC 2045 §6.8
# Octets that quoted-printable leaves alone (RFC 2045 §6.7); `=` is not one of them.
_PRINTABLE = bytes({*b"\t\n", *range(0x20, 0x7F)} - {*b"="})


class Entity(Struct, frozen=True):
    """A part of a message, or the whole of it under the header."""

    fields: tuple[Field, ...]
    body: bytes


def text_part(kind: str, text: str) -> Entity:
    """Make a `text/plain` or `text/html` part (`kind`) in UTF-8; every line end becomes the same.

    It travels as it is when it is ASCII and its lines fit, else as quoted-printable or base64.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise ComposeError("the content contains a lone surrogate") from None
    if b"\r" in raw:
        raw = raw.replace(CRLF, b"\n").replace(b"\r", b"\n")
    encoding, body = _transfer(raw)
    return Entity(
        (
            ("Content-Type", f"Content-Type: {kind}; charset=utf-8\n"),
            ("Content-Transfer-Encoding", f"Content-Transfer-Encoding: {encoding}\n"),
        ),
        body,
    )


def _transfer(raw: bytes) -> tuple[str, bytes]:
    """Choose the shortest transfer encoding that is safe for these lines, which end in LF."""
    if raw.isascii() and has_short_lines(raw):
        return "7bit", raw
    # Quoted-printable adds two octets for each one it escapes, base64 one for every three.
    escaped = len(raw.translate(None, _PRINTABLE))
    if 6 * escaped <= len(raw):
        return "quoted-printable", binascii.b2a_qp(raw, istext=True)
    return "base64", base64_lines(raw.replace(b"\n", CRLF))


def base64_lines(raw: bytes) -> bytes:
    """Encode in base64 with lines of 76 characters; the last line has no end."""
    coded = binascii.b2a_base64(raw, newline=False)
    return b"\n".join([coded[at : at + _BASE64_LINE] for at in range(0, len(coded), _BASE64_LINE)])


def multipart(subtype: str, boundary: str, parts: Iterable[Entity]) -> Entity:
    """Put parts behind each other (RFC 2046 §5.1.1). `boundary` must not occur in any of them."""
    delimiter = f"--{boundary}"
    pieces: list[bytes] = []
    for part in parts:
        head = "".join([field for _, field in part.fields])
        pieces += (f"{delimiter}\n{head}\n".encode(), part.body, b"\n")
    pieces.append(f"{delimiter}--\n".encode())
    content_type = f'Content-Type: multipart/{subtype}; boundary="{boundary}"\n'
    return Entity((("Content-Type", content_type),), b"".join(pieces))


def boundary_stem(message_id: str, texts: list[Entity]) -> str:
    """Derive what all boundaries of a message begin with, equal on every attempt and in none of the texts.

    Attachments need no look: neither base64 nor quoted-printable can hold `=_`.
    """
    attempt = 0
    while True:
        seed = f"{attempt} {message_id}".encode()
        stem = f"=_{blake2b(seed, digest_size=12).hexdigest()}"
        if not any(stem.encode() in text.body for text in texts):
            return stem
        attempt += 1
