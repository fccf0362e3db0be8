"""A message as the ledger stores it: what was asked for, checked and resolved, without its state."""

from typing import Any

from msgspec import Struct


class Address(Struct, frozen=True, array_like=True, omit_defaults=True):
    """A mailbox: the wire form of the address (domain as an A-label) and a display name."""

    address: str
    name: str = ""


class TemplateUse(Struct, frozen=True, array_like=True):
    """Which template, pinned to the version that accepted the variables."""

    name: str
    version: str
    variables: dict[str, Any]
    locale: str | None = None


class Content(Struct, frozen=True, array_like=True):
    """What a reader sees: given by the caller as it is, or rendered from a template."""

    subject: str
    text: str | None = None
    html: str | None = None


class AttachmentRef(Struct, frozen=True, array_like=True):
    """An attachment without its bytes.

    They lie in the file cache under the id `file`, or at the provider under `provider_key`, or else in a blob of the
    message: the first of those in its blob 0, and so on.
    """

    name: str
    content_type: str
    size: int
    cid: str | None = None
    file: str = ""
    provider_key: str = ""


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored request, version 1. Dropped a while after the end of the message's life."""

    v: int = 1
    message_id: str  # the header field, with its angle brackets; equal over all attempts
    sender: Address  # the author, who stands in From
    submitter: Address | None = None  # who stands in Sender, where that is somebody else
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    template: TemplateUse | None = None
    content: Content | None = None
    headers: dict[str, str] = {}
    attachments: tuple[AttachmentRef, ...] = ()
    metadata: dict[str, str] = {}
    track_opens: bool = False
    track_clicks: bool = False
    request_id: str = ""
    traceparent: str = ""  # the caller's own (W3C Trace Context)
    accept_us: int = 0  # from the request's first byte until it went to the ledger, in microseconds

    @property
    def recipients(self) -> tuple[Address, ...]:
        """All recipients, in the order of their index: to, cc, bcc."""
        return self.to + self.cc + self.bcc

    @property
    def files(self) -> tuple[str, ...]:
        """The ids of the cached files it uses, each once."""
        if not self.attachments:
            return ()
        return tuple(dict.fromkeys(ref.file for ref in self.attachments if ref.file))

    @property
    def kinds(self) -> tuple[str, ...]:
        """`to`, `cc` or `bcc` of each recipient, in the order of their index."""
        return ("to",) * len(self.to) + ("cc",) * len(self.cc) + ("bcc",) * len(self.bcc)


class Attachment(Struct, frozen=True):
    """An attachment as composed or given to a provider's API: its bytes, or the provider's own name for them.

    One of the file cache comes as the base64 lines that were made when it was uploaded, and its `data` is empty.
    """

    name: str
    content_type: str
    data: bytes
    cid: str | None = None
    file: str = ""  # its id in the file cache
    encoded: bytes = b""
    provider_key: str = ""

    @property
    def encoded_size(self) -> int:
        """How many bytes it has in base64; 0 where only the provider has it."""
        return len(self.encoded) or -(-len(self.data) // 3) * 4


class Mail(Struct, frozen=True, kw_only=True):
    """Everything a composer or a provider's API needs to know of one message, rendered.

    `headers` are the caller's own, already checked; whoever writes the mail out adds `X-Postroom-Id`. `date` is
    seconds since the epoch, fixed at acceptance like the Message-ID: every attempt composes the same bytes.
    """

    id: str
    message_id: str
    date: float
    sender: Address  # the author, who stands in From
    submitter: Address | None = None  # who stands in Sender
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    content: Content
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    track_opens: bool = False
    track_clicks: bool = False
