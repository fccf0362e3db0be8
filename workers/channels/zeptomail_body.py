"""The body of a ZeptoMail request: closed structs, because the API refuses a key it does not know."""

import msgspec
from msgspec import Struct

from postroom.files import has_refused_ending
from postroom.message import Address, Attachment, Mail
from workers.channels.seam import Order

# The provider's documented limits. Its own codes name the breach, as in an answer of its own.
MAX_ENCODED = 15 * 1024 * 1024  # it does not say before or after base64: the encoded size is the safe reading
MAX_ATTACHMENTS = 60
MAX_RECIPIENTS = 500
MAX_REPLY_TO = 40
MAX_SUBJECT = 500
MAX_NAME = 250
MAX_FILENAME = 150
TOO_MANY = "SM_127"
TOO_LONG = "SM_129"
FORBIDDEN_FILE = "TM_3501"
UNKNOWN_FILE = "UE_106"

# Fields the provider makes from the rest of the body, or reads as orders to itself.
STRUCTURAL = frozenset(
    {
        *("from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id"),
        *("mime-version", "received", "return-path", "dkim-signature"),
    }
)
STRUCTURAL_PREFIXES = ("content-", "resent-", "x-tm-")

OUR_HEADER = "X-Postroom-Id"


class Mailbox(Struct, frozen=True, omit_defaults=True):
    """An address with its display name: flat in `from` and `reply_to`, wrapped elsewhere."""

    address: str
    name: str = ""


class Recipient(Struct, frozen=True):
    """The wrapper that `to`, `cc` and `bcc` insist on."""

    email_address: Mailbox


class File(Struct, frozen=True):
    """An attachment; msgspec writes bytes as base64, and text that is base64 already as it is."""

    name: str
    mime_type: str
    content: bytes | str


class CachedFile(Struct, frozen=True):
    """An attachment that lies in the mail agent's file cache."""

    name: str
    file_cache_key: str


class InlineImage(Struct, frozen=True):
    """A part the HTML refers to as `cid:…`. It has no name: the API refuses one."""

    cid: str
    mime_type: str
    content: bytes | str


class CachedImage(Struct, frozen=True):
    """The same, in the file cache."""

    cid: str
    file_cache_key: str


class SendRequest(Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"sender": "from"}):
    """`POST /v1.1/email`, whole. Empty members are left out."""

    sender: Mailbox
    to: tuple[Recipient, ...] = ()
    cc: tuple[Recipient, ...] = ()
    bcc: tuple[Recipient, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    subject: str
    htmlbody: str = ""
    textbody: str = ""
    attachments: tuple[File | CachedFile, ...] = ()
    inline_images: tuple[InlineImage | CachedImage, ...] = ()
    track_clicks: bool  # always said: left out, the agent's setting in the console would decide
    track_opens: bool
    client_reference: str
    mime_headers: dict[str, str]
    bounce_address: str = ""


def breach(order: Order) -> str | None:
    """Return the provider's code for the first of its limits that the order breaks, before any encoding."""
    mail = order.mail
    too_many = (
        len(mail.attachments) > MAX_ATTACHMENTS
        or len(order.recipients) > MAX_RECIPIENTS
        or len(mail.reply_to) > MAX_REPLY_TO
    )
    if too_many:
        return TOO_MANY
    names = (mail.sender, *mail.to, *mail.cc, *mail.bcc, *mail.reply_to)
    too_long = (
        len(mail.content.subject) > MAX_SUBJECT
        or any(len(box.name) > MAX_NAME for box in names)
        or any(len(file.name) > MAX_FILENAME for file in mail.attachments)
        or sum(file.encoded_size for file in mail.attachments) > MAX_ENCODED
    )
    if too_long:
        return TOO_LONG
    if any(has_refused_ending(file.name) for file in mail.attachments):
        return FORBIDDEN_FILE
    return None


def build(order: Order, bounce_address: str | None = None, keys: dict[str, str] | None = None) -> SendRequest:
    """Build the request for the recipients of the order, each in its own kind.

    `keys` are the provider's names of files in its cache, by their ids; the others are attached.
    """
    known = keys or {}
    mail = order.mail
    chosen = named(order)
    to, cc, bcc = (
        tuple(_wrap(box) for kind, box in chosen if kind == wanted) for wanted in ("to", "cc", "bcc")
    )
    html = mail.content.html or ""
    return SendRequest(
        sender=_mailbox(mail.sender),
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=tuple(_mailbox(box) for box in mail.reply_to),
        subject=mail.content.subject,
        htmlbody=html,
        textbody=mail.content.text or "",
        attachments=tuple(_file(one, known) for one in mail.attachments if one.cid is None),
        inline_images=tuple(_image(one.cid, one, known) for one in mail.attachments if one.cid is not None),
        track_clicks=mail.track_clicks and bool(html),  # the provider tracks in HTML only
        track_opens=mail.track_opens and bool(html),
        client_reference=mail.id,
        mime_headers=_headers(mail),
        bounce_address=order.bounce_address or bounce_address or "",
    )


def named(order: Order) -> tuple[tuple[str, Address], ...]:
    """Return the kind and the address of each recipient of the order."""
    mail = order.mail
    kinds = ("to",) * len(mail.to) + ("cc",) * len(mail.cc) + ("bcc",) * len(mail.bcc)
    boxes = mail.to + mail.cc + mail.bcc
    return tuple((kinds[index], boxes[index]) for index in order.recipients)


def encode(request: SendRequest) -> bytes:
    """Encode the request as the JSON that goes onto the wire."""
    return msgspec.json.encode(request)


def _mailbox(box: Address) -> Mailbox:
    return Mailbox(box.address, box.name)


def _wrap(box: Address) -> Recipient:
    return Recipient(_mailbox(box))


def _file(file: Attachment, keys: dict[str, str]) -> File | CachedFile:
    key = file.provider_key or keys.get(file.file)
    return CachedFile(file.name, key) if key else File(file.name, _bare(file.content_type), _content(file))


def _image(cid: str, file: Attachment, keys: dict[str, str]) -> InlineImage | CachedImage:
    key = file.provider_key or keys.get(file.file)
    return CachedImage(cid, key) if key else InlineImage(cid, _bare(file.content_type), _content(file))


def _content(file: Attachment) -> bytes | str:
    return file.encoded.replace(b"\n", b"").decode() if file.encoded else file.data


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0]


def _headers(mail: Mail) -> dict[str, str]:
    kept = {name: value for name, value in mail.headers if _ours_to_send(name.lower())}
    return {**kept, OUR_HEADER: mail.id}


def _ours_to_send(name: str) -> bool:
    ours = name == OUR_HEADER.lower()  # said once, by `_headers`
    return not ours and name not in STRUCTURAL and not name.startswith(STRUCTURAL_PREFIXES)
