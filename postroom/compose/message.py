"""The whole message: header fields in their order, the parts in their nesting, and the final check."""

from contextlib import suppress
from typing import NamedTuple

from msgspec import Struct

from postroom.compose import header
from postroom.compose.attachment import attachment_part, is_inline
from postroom.compose.body import Entity, Field, boundary_stem, multipart, text_part
from postroom.compose.check import ComposeError, LongLineError, to_wire
from postroom.headers import is_structured, is_wellformed
from postroom.message import Address, Mail

_ID_FIELD = "X-Postroom-Id"


class Wire(NamedTuple):
    """What the bytes may hold beyond ASCII: 8BITMIME is for texts (RFC 6152), SMTPUTF8 for addresses (RFC 6531)."""

    eight_bit: bool = False
    smtputf8: bool = True


SEVEN_BIT = Wire()


class Composed(Struct, frozen=True):
    """A message ready for DATA (RFC 5321 §4.1.1.4), except that its dots are not doubled yet.

    `eight_bit` asks the channel for 8BITMIME, `smtputf8` for SMTPUTF8: an address in the header is not ASCII.
    """

    data: bytes
    eight_bit: bool
    smtputf8: bool


def compose(mail: Mail, extra: tuple[tuple[str, str], ...] = (), wire: Wire = SEVEN_BIT) -> Composed:
    """Write a mail as the bytes of a message: CRLF only, no line above 998 bytes, no trace of bcc.

    The same mail gives the same bytes on every call for the same `wire`. Where that has no SMTPUTF8, To and Cc name
    only those who can be reached by it. `extra` are header fields of the channel. Whatever could turn into a header
    field or a recipient that was not asked for raises `ComposeError`.
    """
    # All lines are looked at in the end, so looking at them before is left out where few mails need it: it is an
    # eighth of the work. Mail with attachments would be made twice where the guess was wrong.
    if not mail.attachments:
        with suppress(LongLineError):
            return _compose(mail, extra, wire, guess=True)
    return _compose(mail, extra, wire, guess=False)


def _compose(mail: Mail, extra: tuple[tuple[str, str], ...], wire: Wire, *, guess: bool) -> Composed:
    content = _content(mail, eight_bit=wire.eight_bit, guess=guess)
    fields = [
        *_header(mail, extra, smtputf8=wire.smtputf8),
        ("MIME-Version", "MIME-Version: 1.0\n"),
        *content.fields,
    ]
    head = "".join([field for _, field in fields]).encode()
    end = b"" if content.body.endswith(b"\n") else b"\n"
    draft = b"".join((head, b"\n", content.body, end))
    data = to_wire(draft, [name for name, _ in fields])
    return Composed(data, eight_bit=not data.isascii(), smtputf8=not head.isascii())


def _header(mail: Mail, extra: tuple[tuple[str, str], ...], *, smtputf8: bool) -> list[Field]:
    fields = [("From", header.author(mail.sender))]
    if mail.submitter is not None:
        fields.append(("Sender", header.mailboxes("Sender", (mail.submitter,))))
    to, cc = (mail.to, mail.cc) if smtputf8 else (_in_ascii(mail.to), _in_ascii(mail.cc))
    for name, addresses in (("Reply-To", mail.reply_to), ("To", to), ("Cc", cc)):
        if addresses:
            fields.append((name, header.mailboxes(name, addresses)))
    if mail.to and not to:
        fields.append(("To", header.TO_NOBODY))
    fields += (
        ("Subject", header.unstructured("Subject", mail.content.subject)),
        ("Date", header.date(int(mail.date))),
        ("Message-ID", header.message_id(mail.message_id)),
    )
    given = mail.headers + extra
    if not any(name.lower() == _ID_FIELD.lower() for name, _ in given):
        fields.append((_ID_FIELD, header.structured(_ID_FIELD, mail.id)))
    fields += [(name, _given(name, value)) for name, value in given]
    return fields


def _given(name: str, value: str) -> str:
    """Write a field of the caller or the channel; none of them can stand for one that Postroom writes."""
    if not is_wellformed(name):
        raise ComposeError("a header name is not well formed")
    if is_structured(name):
        return header.structured(name, value)
    if name[:2] not in ("X-", "x-"):
        raise ComposeError("a header name is not on the list of those that may be given")
    return header.unstructured(name, value)


def _in_ascii(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    return tuple([one for one in addresses if one.address.isascii()])


def _content(mail: Mail, *, eight_bit: bool, guess: bool) -> Entity:
    """Nest the parts: mixed(alternative(text, related(html, images)), attachments), each where needed."""
    html = mail.content.html
    given = (("text/plain", mail.content.text), ("text/html", html))
    texts = [
        text_part(kind, text, eight_bit=eight_bit, guess=guess) for kind, text in given if text is not None
    ]
    if not texts:
        raise ComposeError("the content has neither text nor html")
    if len(texts) == 1 and not mail.attachments:
        return texts[0]
    stem = boundary_stem(mail.message_id, texts)
    inline = [a for a in mail.attachments if html is not None and is_inline(a)]
    attached = [a for a in mail.attachments if html is None or not is_inline(a)]
    if inline:
        images = [attachment_part(a, "inline") for a in inline]
        texts[-1] = multipart("related", f"{stem}-r", (texts[-1], *images))
    root = multipart("alternative", f"{stem}-a", texts) if len(texts) > 1 else texts[0]
    if attached:
        files = [attachment_part(a, "attachment") for a in attached]
        root = multipart("mixed", f"{stem}-m", (root, *files))
    return root
