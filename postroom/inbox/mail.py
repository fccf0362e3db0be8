"""What the inbox keeps of a mail, and what it tells about one."""

from msgspec import Struct, field


class Arrival(Struct, frozen=True):
    """A mail as it came over SMTP: the envelope and the bytes."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes


class Head(Struct, frozen=True, kw_only=True):
    """What the list shows of a mail's header."""

    subject: str = ""
    author: str = ""
    cc: tuple[str, ...] = ()
    postroom_id: str | None = None


class Entry(Struct, frozen=True, kw_only=True):
    """One line of the list. `to` are the envelope's recipients, so it names the blind copies too."""

    id: int
    at: str
    author: str = field(name="from")
    to: tuple[str, ...]
    cc: tuple[str, ...]
    subject: str
    postroom_id: str | None
    client_ref: str | None
    size: int
    url: str


class Page(Struct, frozen=True, kw_only=True):
    """The newest entries that match, how many match in all, and the newest id of the whole inbox."""

    messages: tuple[Entry, ...]
    total: int
    newest: int


class Stored(Struct, frozen=True):
    """Everything kept of one mail."""

    entry: Entry
    sender: str
    raw: bytes


class Query(Struct, frozen=True, kw_only=True):
    """Which mails to list. Texts match whatever their case.

    `to` is one whole recipient, `client_ref` the exact reference, `subject` a part of the subject, and
    `text` a part of anything the list shows.
    """

    to: str | None = None
    client_ref: str | None = None
    subject: str | None = None
    text: str | None = None
    after: int = 0
    before: int | None = None
    limit: int = 100


class Part(Struct, frozen=True):
    """A part of a mail that is neither its text nor its HTML."""

    name: str
    content_type: str
    data: bytes
    cid: str | None


class Parsed(Struct, frozen=True, kw_only=True):
    """A mail taken apart, as far as it could be."""

    subject: str
    author: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    headers: tuple[tuple[str, str], ...]
    text: str | None
    html: str | None
    parts: tuple[Part, ...]
