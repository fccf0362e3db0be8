"""Postmark's HTTP API as a channel: one POST to `/email` a message (https://postmarkapp.com/developer)."""

import asyncio
import re
from typing import Any, Literal

import msgspec
from msgspec import Struct
from yarl import URL

from postroom.config.structs import PostmarkChannel
from postroom.failpoint import reach
from postroom.message import Address, Attachment
from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
    ChannelFault,
    Commit,
    Deferred,
    Phase,
    RecipientOutcome,
    Refused,
    Sent,
    Submission,
    Submitted,
)
from workers.channels.http_pool import (
    TIMEOUTS,
    HttpAnswer,
    HttpPool,
    Lost,
    Timeouts,
    checked_url,
    connect_fault,
    look_at,
)
from workers.channels.probing import not_looked_at
from workers.channels.seam import Check, Order, Probe

Meaning = tuple[Cause, str] | Literal["sent", "message", "recipient", "later", "unknown"]

# What ends in which outcome. First the ErrorCode in the body, whatever the status …
CODES: dict[int, Meaning] = {
    0: "sent",
    10: (Cause.AUTH, "Postmark refused the server token: it is wrong, revoked, or an account token."),
    100: "later",  # maintenance
    300: "message",  # an invalid request; it does not say which address, if it was one
    400: (Cause.POLICY, "Postmark does not know the From address: add its sender signature or domain."),
    401: (Cause.POLICY, "The sender signature of the From address is not confirmed: confirm it."),
    402: "message",  # not JSON
    403: "message",  # JSON of another shape
    405: (Cause.QUOTA, "Postmark has no credits left for this account: buy credits, or raise the plan."),
    406: "recipient",  # all of them are inactive, after a bounce or a complaint
    409: "message",
    411: "message",  # a forbidden attachment
    412: (Cause.POLICY, "Postmark has not approved this account yet: ask for it."),
    413: (Cause.POLICY, "Postmark has blocked this account: ask its support why."),
    429: (Cause.THROTTLE, "Postmark asks to slow down: lower this agent's rate or connections."),
    1235: (Cause.POLICY, "The server has no such message stream: correct `stream`."),
}
# … then, without a code that is known, the status: (first, last, meaning).
STATUSES: tuple[tuple[int, int, Meaning], ...] = (
    (200, 299, "unknown"),
    (300, 399, (Cause.POLICY, "Postmark answered with a redirect, which is not followed: correct base_url.")),
    (401, 401, CODES[10]),
    (408, 408, "later"),
    (413, 413, "message"),
    (429, 429, CODES[429]),
    (400, 499, (Cause.POLICY, "Postmark answered an unknown error: look its code up.")),
    (500, 599, "unknown"),
)
TOO_MANY = 300  # the code it would answer to more recipients than it takes
MAX_RECIPIENTS = 50
MAX_BYTES = 10_000_000
PATH = "/email"
STRANGE = "answers, but not as Postmark does: check base_url"
ELSEWHERE = Deferred(Phase.RENDER)  # only another channel of the agent can carry it as it is

_MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class PostmarkApi:
    """The channel."""

    def __init__(self, config: PostmarkChannel, *, timeouts: Timeouts = TIMEOUTS) -> None:
        self._config = config
        self._timeouts = timeouts
        self._base = config.base_url.rstrip("/")
        self._pool = HttpPool(config.ca_file, timeouts)

    @property
    def name(self) -> str:
        """The channel's name in the configuration."""
        return self._config.name

    async def connect(self) -> "PostmarkConnection | ChannelFault":
        """Return a connection, or what is wrong with the configuration; nothing is sent yet."""
        url = checked_url(self._base + PATH)
        if isinstance(url, ChannelFault):
            return url
        return self._pool.open() or PostmarkConnection(self._pool, url, self._config)

    async def probe(self) -> Probe:
        """Look at the host, and whether it takes the token: an empty request is one it must refuse."""
        seen, fault = await look_at(self._base, self._config.ca_file, self._timeouts)
        connection = fault or await self.connect()
        if isinstance(connection, ChannelFault):
            return Probe((*seen, *not_looked_at(["token"])), connection)
        fault = _fault_of(await connection.post(b"{}"))
        return Probe(
            (*seen, Check("token", ok=fault is None, text=fault.text if fault else "accepted")), fault
        )

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()


class PostmarkConnection:
    """A lane's way into the channel's pool."""

    def __init__(self, pool: HttpPool, url: URL, config: PostmarkChannel) -> None:
        self._pool, self._url, self._config = pool, url, config
        self._open = True

    @property
    def usable(self) -> bool:
        """False once it or its channel was closed."""
        return self._open and not self._pool.closed

    async def submit(self, order: Order, commit: Commit) -> Submission:
        """Submit one message; see `Connection.submit`."""
        if not self.usable:
            return connect_fault("The channel was closed in the meantime.")
        if order.mail.submitter is not None or any(file.provider_key for file in order.mail.attachments):
            return _all(order, ELSEWHERE)
        if len(order.recipients) > MAX_RECIPIENTS or _size(order) > MAX_BYTES:
            return _all(order, Refused(Phase.REQUEST, "message"), code=TOO_MANY)
        body = msgspec.json.encode(build(order, self._config.stream))
        await commit((None,) * len(order.recipients))
        reach("after_mark")
        try:
            return classify(order, await self.post(body))
        except asyncio.CancelledError:
            self._open = False
            raise

    async def post(self, body: bytes) -> HttpAnswer | ChannelFault | Lost:
        """POST with the server token."""
        token = self._config.token.reveal().strip()
        headers = {
            "X-Postmark-Server-Token": token,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        return await self._pool.post(self._url, body, headers)

    async def aclose(self) -> None:
        """Give the lane's place back. The pool closes what stays idle."""
        self._open = False


class Said(Struct, frozen=True):
    """What can be read out of an answer; its texts echo addresses and are left."""

    code: int | None = msgspec.field(name="ErrorCode", default=None)
    message_id: str = msgspec.field(name="MessageID", default="")


def classify(order: Order, answer: HttpAnswer | ChannelFault | Lost) -> Submission:
    """Tell how the order ended, by the tables above."""
    if isinstance(answer, ChannelFault):
        return answer
    if isinstance(answer, Lost):
        return _all(order, Ambiguous(Phase.DONE))
    said = _read(answer.body)
    meaning = _meaning(answer, said)
    if isinstance(meaning, tuple):
        return _fault(meaning, answer, said)
    outcomes: dict[str, RecipientOutcome] = {
        "sent": Sent(said.message_id if _MESSAGE_ID.fullmatch(said.message_id) else ""),
        "message": Refused(Phase.REQUEST, "message"),
        "recipient": Refused(Phase.REQUEST, "recipient"),
        "later": Deferred(Phase.REQUEST, answer.retry_after),
        "unknown": Ambiguous(Phase.DONE),
    }
    return _all(order, outcomes[meaning], answer.status, said.code)


def build(order: Order, stream: str) -> dict[str, Any]:
    """Build the request for the recipients of the order, each in its own kind; what is empty is left out."""
    mail = order.mail
    kinds = ("To",) * len(mail.to) + ("Cc",) * len(mail.cc) + ("Bcc",) * len(mail.bcc)
    people = mail.to + mail.cc + mail.bcc
    chosen = {kind: [people[i] for i in order.recipients if kinds[i] == kind] for kind in ("To", "Cc", "Bcc")}
    body = {
        "From": _boxes([mail.sender]),
        **{kind: _boxes(boxes) for kind, boxes in chosen.items()},
        "ReplyTo": _boxes(mail.reply_to),
        "Subject": mail.content.subject,
        "HtmlBody": mail.content.html,
        "TextBody": mail.content.text,
        "TrackOpens": mail.track_opens,
        "TrackLinks": "HtmlAndText" if mail.track_clicks else "None",
        "MessageStream": stream,
        "Headers": [{"Name": n, "Value": v} for n, v in (*mail.headers, ("X-Postroom-Id", mail.id))],
        "Attachments": [_file(file) for file in mail.attachments],
    }
    return {name: value for name, value in body.items() if value not in ("", None, [])}


def _boxes(boxes: list[Address] | tuple[Address, ...]) -> str:
    return ", ".join(map(_box, boxes))


def _box(box: Address) -> str:
    name = box.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{box.address}>' if name else box.address


def _file(file: Attachment) -> dict[str, Any]:
    content: bytes | str = file.encoded.replace(b"\n", b"").decode() if file.encoded else file.data
    told = {"Name": file.name, "ContentType": file.content_type, "Content": content}
    return told if file.cid is None else {**told, "ContentID": f"cid:{file.cid}"}


def _size(order: Order) -> int:
    return sum(file.encoded_size for file in order.mail.attachments)


def _read(body: bytes) -> Said:
    try:
        return msgspec.json.decode(body, type=Said)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Said()


def _meaning(answer: HttpAnswer, said: Said) -> Meaning:
    known = CODES.get(said.code) if said.code is not None else None
    # A yes is a 2xx with a code that says so, and a no is never one.
    if known is not None and (known == "sent") == (answer.status // 100 == 2):
        return known
    return next((meaning for first, last, meaning in STATUSES if first <= answer.status <= last), "unknown")


def _fault_of(answer: HttpAnswer | ChannelFault | Lost) -> ChannelFault | None:
    if isinstance(answer, ChannelFault):
        return answer
    if isinstance(answer, Lost):
        return connect_fault("the host ends the connection, or does not answer in time")
    said = _read(answer.body)
    meaning = _meaning(answer, said)
    if isinstance(meaning, tuple):
        return _fault(meaning, answer, said)
    return connect_fault(STRANGE) if said.code is None else None


def _fault(meaning: tuple[Cause, str], answer: HttpAnswer, said: Said) -> ChannelFault:
    code = None if said.code is None else str(said.code)
    return ChannelFault(meaning[0], Phase.REQUEST, meaning[1], answer.status, code, answer.retry_after)


def _all(
    order: Order, outcome: RecipientOutcome, status: int | None = None, code: int | None = None
) -> Submitted:
    answer = Answer(outcome, status, None if code is None else str(code))
    return Submitted((answer,) * len(order.recipients))
