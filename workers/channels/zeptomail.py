"""ZeptoMail's HTTP API as a channel: one POST a message, over one shared pool of connections.

zeptomail_table   which answer ends in which outcome
zeptomail_said    what can be read out of an answer
zeptomail_answer  the two brought together
zeptomail_body    the request, and the provider's limits
http_pool         the connections
"""

import asyncio
import re
import time

from msgspec import Struct
from yarl import URL

from postroom.config.structs import ZeptomailChannel
from postroom.failpoint import reach
from postroom.log import get_logger
from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
    ChannelFault,
    Commit,
    Phase,
    Refused,
    Submission,
    Submitted,
)
from postroom.secret import Secret
from workers.channels.http_pool import (
    TIMEOUTS,
    HttpAnswer,
    HttpPool,
    Lost,
    Timeouts,
    checked_url,
    connect_fault,
)
from workers.channels.seam import Order
from workers.channels.zeptomail_answer import classify
from workers.channels.zeptomail_body import MAX_ENCODED, TOO_LONG, breach, build, encode
from workers.channels.zeptomail_said import Said, read

SCHEME = "Zoho-enczapikey"

_SCHEME = re.compile(rf"{SCHEME}(\s+|$)", re.IGNORECASE)
_TOKEN = re.compile(r"[!-~]+")
_PASTED = " \t\r\n\"'`"  # what a copied token comes wrapped in
_UNLIKELY = "The ZeptoMail token is empty or holds characters that no token has."


class ZeptomailApi:
    """The channel. Its connections share one pool; they are always ready, since HTTP has no greeting."""

    def __init__(
        self,
        config: ZeptomailChannel,
        *,
        bounce_address: str | None = None,
        own_domain: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        """`own_domain` is that of the agent's From: one of another domain is its caller's choice."""
        self._config = config
        self._terms = _Terms(bounce_address, own_domain)
        self._pool = HttpPool(config.ca_file, timeouts)
        given = (config.token, *([config.second_token] if config.second_token else []))
        self._tokens = Tokens(config.name, tuple(map(normalise_token, given)))

    @property
    def name(self) -> str:
        """The channel's name in the configuration."""
        return self._config.name

    async def connect(self) -> "ZeptomailConnection | ChannelFault":
        """Return a connection, or what is wrong with the configuration; nothing is sent yet."""
        if not self._tokens.are_plausible():
            return ChannelFault(Cause.AUTH, Phase.CONNECT, _UNLIKELY)
        url = checked_url(send_url(self._config.base_url))
        if isinstance(url, ChannelFault):
            return url
        return self._pool.open() or ZeptomailConnection(self._pool, url, self._tokens, self._terms)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()


class _Terms(Struct, frozen=True):
    """What the agent's configuration says to every request."""

    bounce_address: str | None
    own_domain: str | None


class Tokens:
    """One or two send tokens of an agent: the one that worked last goes first."""

    def __init__(self, channel: str, tokens: tuple[Secret, ...]) -> None:
        self._channel = channel
        self.in_order = tokens

    def are_plausible(self) -> bool:
        """True where each of them could be a token."""
        return all(_TOKEN.fullmatch(token.reveal()) for token in self.in_order)

    def prefer(self, token: Secret) -> None:
        """Let this one go first from now on: the other was refused."""
        if self.in_order[0] is not token:
            self.in_order = (token, *(other for other in self.in_order if other is not token))
            remedy = "the other token works: revoke or replace the one that ZeptoMail refuses"
            get_logger().warning("channel.token_refused", channel=self._channel, remedy=remedy)


class ZeptomailConnection:
    """A lane's way into the channel's pool."""

    def __init__(self, pool: HttpPool, url: URL, tokens: Tokens, terms: _Terms) -> None:
        self._pool = pool
        self._url = url
        self._tokens = tokens
        self._terms = terms
        self._open = True

    @property
    def usable(self) -> bool:
        """False once it or its channel was closed: what one exchange loses, the pool replaces."""
        return self._open and not self._pool.closed

    async def submit(self, order: Order, commit: Commit) -> Submission:
        """Submit one message; see `Connection.submit`."""
        if not self.usable:
            return connect_fault("The channel was closed in the meantime.")
        code = breach(order)
        if code is not None:
            return _refused_here(order, code)
        began = time.perf_counter()
        body = encode(build(order, self._terms.bounce_address))
        if order.stages is not None:
            order.stages.compose = time.perf_counter() - began
        if len(body) > MAX_ENCODED:
            return _refused_here(order, TOO_LONG)
        await commit((None,) * len(order.recipients))
        reach("after_mark")
        try:
            return await self._exchange(order, body)
        except asyncio.CancelledError:
            self._open = False
            raise

    async def aclose(self) -> None:
        """Give the lane's place back. The pool closes what stays idle."""
        self._open = False

    async def _exchange(self, order: Order, body: bytes) -> Submission:
        answer = await self._post(body)
        if isinstance(answer, ChannelFault):
            return answer
        if isinstance(answer, Lost):
            return Submitted((Answer(Ambiguous(Phase.DONE)),) * len(order.recipients))
        heard, said = answer
        return classify(order, heard.status, said, heard.retry_after, own_domain=self._terms.own_domain)

    async def _post(self, body: bytes) -> tuple[HttpAnswer, Said] | ChannelFault | Lost:
        """POST, and once more with the second token where the first one was refused, and for nothing else."""
        *others, last = self._tokens.in_order
        for token in others:
            answer = await self._post_with(token, body)
            if not (isinstance(answer, tuple) and _is_bad_token(*answer)):
                return answer
        answer = await self._post_with(last, body)
        if isinstance(answer, tuple) and not _is_bad_token(*answer):
            self._tokens.prefer(last)
        return answer

    async def _post_with(self, token: Secret, body: bytes) -> tuple[HttpAnswer, Said] | ChannelFault | Lost:
        answer = await self._pool.post(self._url, body, headers(token))
        return (answer, read(answer.body)) if isinstance(answer, HttpAnswer) else answer


def headers(token: Secret, content_type: str = "application/json") -> dict[str, str]:
    """Return the header fields of a request."""
    return {
        "Authorization": f"{SCHEME} {token.reveal()}",
        "Content-Type": content_type,
        "Accept": "application/json",
    }


def normalise_token(token: Secret) -> Secret:
    """Strip what comes along when a token is copied: blanks, quotes, and the scheme's name, once or twice."""
    text = token.reveal().strip(_PASTED)
    while (found := _SCHEME.match(text)) is not None:
        text = text[found.end() :].strip(_PASTED)
    return Secret(text)


def send_url(base_url: str) -> str:
    """Join the base URL, however it was written, and the path of the one call."""
    base = base_url.rstrip("/").removesuffix("/v1.1/email").removesuffix("/v1.1").rstrip("/")
    return f"{base}/v1.1/email"


def _is_bad_token(answer: HttpAnswer, said: Said) -> bool:
    return answer.status == 401 and "SERR_157" in said.details


def _refused_here(order: Order, code: str) -> Submitted:
    answer = Answer(Refused(Phase.REQUEST, "message"), enhanced_code=code)
    return Submitted((answer,) * len(order.recipients))
