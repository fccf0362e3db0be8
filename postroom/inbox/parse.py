"""Taking a mail apart. Nothing here raises: of a broken mail, what can be read is read.

The parser of the standard library has raised most kinds of exception on hostile input over the years, so
every access that may parse is guarded broadly, and falls back to the bytes as they are.
"""

from collections.abc import Callable, Iterator
from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from typing import Any, TypeVar

from postroom.inbox.mail import Head, Parsed, Part

T = TypeVar("T")

ID_HEADERS = ("X-Postroom-Id", "X-TM-CLIENT-REF")  # the second is the field ZeptoMail hands through
HEADER_BYTES = 262_144  # the header of a mail is looked for in so many bytes
PARSE_ERRORS = (
    MessageError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def head(raw: bytes) -> Head:
    """Read what the list shows, without looking at the body."""
    message = BytesHeaderParser(policy=policy.default).parsebytes(_header_bytes(raw))
    ids = (_value(message, name).strip() for name in ID_HEADERS)
    return Head(
        subject=_value(message, "Subject"),
        author=_value(message, "From"),
        cc=_addresses(message, "Cc"),
        postroom_id=next(filter(None, ids), None),
    )


def parse(raw: bytes) -> Parsed:
    """Take the whole mail apart."""
    message = BytesParser(policy=policy.default).parsebytes(raw)
    text: str | None = None
    html: str | None = None
    parts: list[Part] = []
    for leaf in _leaves(message):
        kind = leaf.get_content_type()
        readable = kind == "text/plain" or kind.startswith("multipart/")  # a multipart without its parts
        if text is None and readable and not _is_attached(leaf):
            text = _text(leaf)
        elif html is None and kind == "text/html" and not _is_attached(leaf):
            html = _text(leaf)
        else:
            parts.append(_part(leaf, len(parts)))
    return Parsed(
        subject=_value(message, "Subject"),
        author=_value(message, "From"),
        to=_addresses(message, "To"),
        cc=_addresses(message, "Cc"),
        headers=_headers(message),
        text=text,
        html=html,
        parts=tuple(parts),
    )


def clean(text: str) -> str:
    """Return text that any encoder takes: raw bytes read as UTF-8, no lone surrogates, no NUL."""
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = text.encode("utf-8", "replace")
    return encoded.decode("utf-8", "replace").replace("\0", "\ufffd")


def _header_bytes(raw: bytes) -> bytes:
    start = raw[:HEADER_BYTES]
    ends = [end for end in (start.find(b"\r\n\r\n"), start.find(b"\n\n")) if end >= 0]
    return start[: min(ends)] if ends else start


def _guarded(read: Callable[[], T], default: T) -> T:
    try:
        return read()
    except PARSE_ERRORS:
        return default


def _unparsed(message: EmailMessage, name: str) -> str:
    wanted = name.lower()
    return next((str(value) for key, value in message.raw_items() if key.lower() == wanted), "")


def _value(message: EmailMessage, name: str) -> str:
    """Return a header field decoded, or as it stands, or empty when there is none."""
    return _decoded(name, _unparsed(message, name))


def _decoded(name: str, value: str) -> str:
    line = "".join(value.splitlines())
    if line.isascii() and "=?" not in line:
        return clean(line)  # nothing is encoded, and the parser takes longer than everything else here
    return clean(_guarded(lambda: str(policy.default.header_fetch_parse(name, line)), line))


def _addresses(message: EmailMessage, name: str) -> tuple[str, ...]:
    def read() -> list[str]:
        fields: list[Any] = message.get_all(name, [])
        return [str(address) for one in fields for address in one.addresses]

    found: list[str] = _guarded(read, [])
    return tuple(map(clean, found or filter(None, [_unparsed(message, name)])))


def _headers(message: EmailMessage) -> tuple[tuple[str, str], ...]:
    """Return all fields in their order, each decoded by itself so that a broken one spoils no other."""
    return tuple((clean(name), _decoded(name, str(value))) for name, value in message.raw_items())


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    """Yield the parts that are not multiparts. A mail inside a mail is one part."""
    stack: list[Any] = [message]
    while stack:
        part = stack.pop()
        if part.get_content_maintype() == "multipart" and part.is_multipart():
            stack.extend(reversed(part.get_payload()))
        else:
            yield part


def _is_attached(part: EmailMessage) -> bool:
    return _guarded(part.is_attachment, False) or bool(_guarded(part.get_filename, None))


def _data(part: EmailMessage) -> bytes:
    if part.is_multipart():
        inner: Any = part.get_payload()
        return _guarded(lambda: b"\r\n".join(one.as_bytes(policy=policy.SMTP) for one in inner), b"")
    return _guarded(lambda: bytes(part.get_payload(decode=True) or b""), b"")


def _text(part: EmailMessage) -> str:
    data = _data(part)
    charset = _guarded(part.get_content_charset, None) or "utf-8"
    decoded = _guarded(lambda: data.decode(charset, "replace"), None)
    return clean(data.decode("utf-8", "replace") if decoded is None else decoded)


def _part(part: EmailMessage, index: int) -> Part:
    name = _guarded(part.get_filename, None)
    if not name:
        name = f"part-{index}.{_suffix(part)}"
    cid = _value(part, "Content-ID").strip().strip("<>")
    return Part(name=clean(name), content_type=part.get_content_type(), data=_data(part), cid=cid or None)


def _suffix(part: EmailMessage) -> str:
    known = {"text/plain": "txt", "message/rfc822": "eml", "image/jpeg": "jpg", "image/svg+xml": "svg"}
    kind = part.get_content_type()
    subtype = part.get_content_subtype()
    return known.get(kind, subtype if subtype.isalnum() and subtype.isascii() else "bin")
