"""The body of `POST /v1/messages`: its structs, and decoding it strictly with all faults at once."""

from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from postroom.decode import Fault, convert, join
from postroom.errors import Code, RefusedError

MAX_DEPTH = 32
MAX_RECIPIENTS = 50
MAX_METADATA = 20
FAULTS_DETAIL = "See errors for each field and what is wrong with it."
STAND_IN = [{"address": "nobody@example.com"}]  # for recipients that could not be read
MONTH_SECONDS = 30 * 24 * 3600

ClientRef = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9._:/-]+\Z",
        description="The caller's own name for this message; the same ref with the same content is the same "
        "message. It is logged in the clear: keep personal data out of it.",
    ),
]
CollapseKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9._:/-]+\Z",
        description="The newest message of this caller, agent, key and recipient wins: older ones that still wait are "
        "`cancelled` with the reason `superseded`. It is never logged.",
    ),
]
AddressText = Annotated[str, Meta(min_length=3, max_length=320)]
NameText = Annotated[str, Meta(max_length=250)]


class _Body(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of all parts: unknown fields are refused."""


class Mailbox(_Body, frozen=True, kw_only=True):
    """An address and, optionally, a display name."""

    address: AddressText
    name: NameText | None = None


class TemplateChoice(_Body, frozen=True, kw_only=True):
    """A template and its variables."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    variables: dict[str, Any] = {}
    locale: Annotated[str, Meta(max_length=35, pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{2,8})*\Z")] | None = (
        None
    )
    version: Annotated[str, Meta(max_length=64)] | None = None


class GivenContent(_Body, frozen=True, kw_only=True):
    """Content without a template: subject, and html or text or both."""

    subject: Annotated[str, Meta(min_length=1, max_length=500)]
    html: Annotated[str, Meta(min_length=1, max_length=2_000_000)] | None = None
    text: Annotated[str, Meta(min_length=1, max_length=2_000_000)] | None = None


class GivenAttachment(_Body, frozen=True, kw_only=True):
    """A file: its bytes in base64 as `content`, or the key of an upload as `file`, or what the provider calls it.

    Exactly one of the three. With `cid` the html can show it.
    """

    name: Annotated[str, Meta(min_length=1, max_length=150)]
    content_type: (
        Annotated[
            str,
            Meta(
                max_length=127,
                description="Required beside `content`; else the upload's own, or the provider's.",
            ),
        ]
        | None
    ) = None
    content: str | None = None
    file: (
        Annotated[
            str,
            Meta(min_length=1, max_length=64, description="A key that `POST /v1/files` gave this caller."),
        ]
        | None
    ) = None
    provider_key: (
        Annotated[
            str,
            Meta(
                pattern=r"^[!-+\--9;-~]{1,256}\Z",
                description="The key of a file that was uploaded in the provider's own console.",
            ),
        ]
        | None
    ) = None
    cid: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,100}\Z")] | None = None


class MessageRequest(_Body, frozen=True, kw_only=True):
    """A message to send. Exactly one of `template` and `content`."""

    client_ref: ClientRef | None = None
    agent: Annotated[str, Meta(min_length=1, max_length=32)]
    to: Annotated[tuple[Mailbox, ...], Meta(min_length=1, max_length=MAX_RECIPIENTS)]
    cc: Annotated[tuple[Mailbox, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    bcc: Annotated[tuple[Mailbox, ...], Meta(max_length=MAX_RECIPIENTS)] = ()
    reply_to: Annotated[tuple[Mailbox, ...], Meta(max_length=10)] = ()
    template: TemplateChoice | None = None
    content: GivenContent | None = None
    from_: Mailbox | None = msgspec.field(name="from", default=None)
    sender: (
        Annotated[
            Mailbox,
            Meta(
                description="Who sends it on behalf of `from`, of the agent's domains as well. Over SMTP only."
            ),
        ]
        | None
    ) = None
    headers: Annotated[dict[str, str], Meta(max_length=50)] = {}
    attachments: Annotated[tuple[GivenAttachment, ...], Meta(max_length=10)] = ()
    metadata: Annotated[dict[str, Annotated[str, Meta(max_length=256)]], Meta(max_length=MAX_METADATA)] = {}
    track_opens: bool | None = None
    track_clicks: bool | None = None
    on_ambiguous: Literal["retry", "hold"] | None = None
    send_at: Annotated[datetime, Meta(tz=True)] | None = None
    deliver_within: Annotated[int, Meta(ge=1, le=MONTH_SECONDS)] | None = None
    deliver_before: Annotated[datetime, Meta(tz=True)] | None = None
    priority: Literal["high", "normal", "bulk"] | None = None
    collapse_key: CollapseKey | None = None


# The contract's numbers of the fields that make two requests under one ref the same. They are stored, so a
# number is never given to another field. `metadata` may differ.
FIELD_NUMBERS: dict[str, int] = {
    "to": 1,
    "cc": 2,
    "bcc": 3,
    "reply_to": 4,
    "template": 5,
    "content": 6,
    "from_": 7,
    "headers": 8,
    "attachments": 9,
    "track_opens": 10,
    "track_clicks": 11,
    "on_ambiguous": 12,
    "send_at": 13,
    "deliver_within": 14,
    "deliver_before": 15,
    "priority": 16,
    "collapse_key": 17,
    "sender": 18,
}
FIELD_NAMES = {number: name.rstrip("_") for name, number in FIELD_NUMBERS.items()}
_DEFAULTS = {f.name: f.default for f in msgspec.structs.fields(MessageRequest)} | {
    f.name: f.default_factory() for f in msgspec.structs.fields(MessageRequest) if callable(f.default_factory)
}

_USUAL = ("to", "template")
_RARE = tuple(name for name in FIELD_NUMBERS if name not in _USUAL)
_rare_values = attrgetter(*_RARE)
_RARE_DEFAULTS = tuple(_DEFAULTS[name] for name in _RARE)
_decoder = msgspec.json.Decoder(MessageRequest)
_encoder = msgspec.json.Encoder(order="deterministic")


class Decoded(Struct, frozen=True):
    """A request with the faults found so far; it lacks the fields that have them, and is never accepted then."""

    request: MessageRequest
    faults: list[Fault] = []

    def concerns_known(self, fault: Fault) -> bool:
        """True for a fault that only follows from a field having been left out."""
        left_out = {_field(known) for known in self.faults}
        if not fault.pointer:
            return bool(left_out & {"template", "content"})
        return _field(fault) in left_out


def decode_request(body: bytes) -> Decoded:
    """Decode a body strictly.

    Raises:
        RefusedError: 400 where it is not JSON or nested too deeply; 422 where so little of it is right that
            nothing more can be said about it.
    """
    try:
        decoded = Decoded(_decoder.decode(body))
    except msgspec.ValidationError:
        decoded = _decode_what_is_right(_decode_plain(body))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise _malformed() from None
    except RecursionError:
        raise _too_deep() from None
    template = decoded.request.template
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and template is not None:
        _check_depth(template.variables)
    return decoded


def _decode_what_is_right(data: object) -> Decoded:
    """Decode without the fields that have faults, so that the others are judged too and told in one answer."""
    request, faults = convert(data, MessageRequest)
    if request is not None:
        return Decoded(request)
    left_out = {_field(fault) for fault in faults}
    if isinstance(data, dict) and "" not in left_out:
        kept = {name: value for name, value in data.items() if join("", name)[1:] not in left_out}
        request, _ = convert({"agent": "", "to": STAND_IN, **kept}, MessageRequest)
    if request is None or "agent" in left_out:
        raise RefusedError(Code.INVALID_REQUEST, FAULTS_DETAIL, faults=faults)
    return Decoded(request, faults)


def _field(fault: Fault) -> str:
    return fault.pointer.split("/", 2)[1] if fault.pointer else ""


def field_values(request: MessageRequest) -> dict[int, bytes]:
    """Return the fields that were given, by their number, in a form that equal requests share."""
    # Of what is rare there is nearly always nothing: seen at once, that costs half of what it does field by field.
    names = _USUAL if _rare_values(request) == _RARE_DEFAULTS else FIELD_NUMBERS
    given = [(name, value) for name in names if (value := getattr(request, name)) != _DEFAULTS[name]]
    return {FIELD_NUMBERS[name]: _encoder.encode(value) for name, value in given}


def _decode_plain(body: bytes) -> object:
    try:
        data: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        raise _malformed() from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth(data)
    return data


def _check_depth(data: object) -> None:
    """Refuse what is nested deeper than a template could want; level by level, so depth costs no stack."""
    level = [data]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise _too_deep()


def _malformed() -> RefusedError:
    return RefusedError(Code.MALFORMED_JSON, "The body could not be read as JSON in UTF-8.")


def _too_deep() -> RefusedError:
    return RefusedError(Code.TOO_DEEP, f"Objects and lists may be nested {MAX_DEPTH} deep.")
