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
    """An attachment without its bytes, which lie in a blob of the ledger under the same position."""

    name: str
    content_type: str
    size: int
    cid: str | None = None


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored request, version 1. Dropped a while after the end of the message's life."""

    v: int = 1
    message_id: str  # the header field, with its angle brackets; equal over all attempts
    sender: Address
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
    def kinds(self) -> tuple[str, ...]:
        """`to`, `cc` or `bcc` of each recipient, in the order of their index."""
        return ("to",) * len(self.to) + ("cc",) * len(self.cc) + ("bcc",) * len(self.bcc)


class Attachment(Struct, frozen=True):
    """An attachment with its bytes, as composed or given to a provider's API."""

    name: str
    content_type: str
    data: bytes
    cid: str | None = None


class Mail(Struct, frozen=True, kw_only=True):
    """Everything a composer or a provider's API needs to know of one message, rendered.

    `headers` are the caller's own, already checked; whoever writes the mail out adds `X-Postroom-Id`. `date` is
    seconds since the epoch, fixed at acceptance like the Message-ID: every attempt composes the same bytes.
    """

    id: str
    message_id: str
    date: float
    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    content: Content
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    track_opens: bool = False
    track_clicks: bool = False
