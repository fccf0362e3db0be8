"""Postmark's HTTP API as a channel: one POST to `/email` a message (https://postmarkapp.com/developer).

The request, and Postmark's limits, are in `postmark_body`.
"""

import asyncio
import re
from typing import Literal

import msgspec
from msgspec import Struct
from yarl import URL

from postroom.config.structs import PostmarkChannel
from postroom.failpoint import reach
from postroom.outcome import (
    Ambiguous,
    Cause,
    ChannelFault,
    Commit,
    Deferred,
    Phase,
    RecipientOutcome,
    Refused,
    Sent,
    Submission,
)
from workers.channels.http_pool import (
    TIMEOUTS,
    HttpAnswer,
    HttpPool,
    Lost,
    Timeouts,
    checked_url,
    connect_fault,
)
from workers.channels.http_probe import look_at, unless_refused
from workers.channels.postmark_body import breaks_a_limit, build
from workers.channels.probing import not_looked_at
from workers.channels.seam import Ahead, Check, Order, Probe

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
PATH = "/email"
STRANGE = "answers, but not as Postmark does: check base_url"

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

    async def submit(self, order: Order, commit: Commit, ahead: Ahead | None = None) -> Submission:  # noqa: ARG002
        """Submit one message; see `Connection.submit`."""
        if not self.usable:
            return connect_fault("The channel was closed in the meantime.")
        if order.mail.submitter is not None or any(file.provider_key for file in order.mail.attachments):
            # Only another channel of the agent could carry it as it is, and it left the file meanwhile.
            return order.all_end(Deferred(Phase.RENDER))
        if breaks_a_limit(order):
            return order.all_end(Refused(Phase.REQUEST, "message"), enhanced_code=str(TOO_MANY))
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

    @property
    def shown(self) -> str | None:
        """The code as logs and timelines have it."""
        return None if self.code is None else str(self.code)


def classify(order: Order, answer: HttpAnswer | ChannelFault | Lost) -> Submission:
    """Tell how the order ended, by the tables above."""
    if isinstance(answer, ChannelFault):
        return answer
    if isinstance(answer, Lost):
        return order.all_end(Ambiguous(Phase.DONE))
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
    return order.all_end(outcomes[meaning], answer.status, said.shown)


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
    fault = unless_refused(answer, "Postmark", said.shown, later=meaning == "later")
    return connect_fault(STRANGE) if fault is None and said.code is None else fault


def _fault(meaning: tuple[Cause, str], answer: HttpAnswer, said: Said) -> ChannelFault:
    return ChannelFault(meaning[0], Phase.REQUEST, meaning[1], answer.status, said.shown, answer.retry_after)
