"""Calls of ZeptoMail's API with a mail agent's token, over one shared pool of connections."""

import re

from yarl import URL

from postroom.config.structs import ZeptomailChannel
from postroom.log import get_logger
from postroom.outcome import Cause, ChannelFault, Phase
from postroom.secret import Secret
from postroom.zeptomail_token import SCHEME, normalise_token
from workers.channels.http_pool import TIMEOUTS, HttpAnswer, HttpPool, Lost, Timeouts, checked_url
from workers.channels.http_probe import look_at
from workers.channels.seam import Check
from workers.channels.zeptomail_said import Said, read

UNLIKELY = "The ZeptoMail token is empty or holds characters that no token has."

_TOKEN = re.compile(r"[!-~]+")

Heard = tuple[HttpAnswer, Said]


class ZeptomailClient:
    """One mail agent's way to the API: a base URL, a pool, and one or two tokens, the one that worked last in front."""

    def __init__(self, config: ZeptomailChannel, timeouts: Timeouts = TIMEOUTS, *, agent: str) -> None:
        """`agent` is the name that a refused token is told under."""
        self._agent, self._channel = agent, config.name
        self._base = base_of(config.base_url)
        self._ca_file, self._timeouts = config.ca_file, timeouts
        self._pool = HttpPool(config.ca_file, timeouts)
        given = (config.token, *([config.second_token] if config.second_token else []))
        self.given = tuple(map(normalise_token, given))
        self.tokens = self.given  # in the order in which they are tried

    @property
    def closed(self) -> bool:
        """True before `open` and after `aclose`."""
        return self._pool.closed

    def open(self) -> ChannelFault | None:
        """Make it ready, or return what is wrong with the configuration; nothing is sent yet."""
        if not all(_TOKEN.fullmatch(token.reveal()) for token in self.tokens):
            return ChannelFault(Cause.AUTH, Phase.CONNECT, UNLIKELY)
        url = checked_url(self._base)
        return url if isinstance(url, ChannelFault) else self._pool.open()

    async def post(
        self, path: str, body: bytes, content_type: str = "application/json"
    ) -> Heard | ChannelFault | Lost:
        """POST, and once more with the second token where the first one was refused, and for nothing else."""
        *others, last = self.tokens
        for token in others:
            answer = await self.post_with(token, path, body, content_type)
            if not (isinstance(answer, tuple) and is_bad_token(*answer)):
                return answer
        answer = await self.post_with(last, path, body, content_type)
        if others and isinstance(answer, tuple) and not is_bad_token(*answer):
            self._prefer(last)
        return answer

    async def post_with(
        self, token: Secret, path: str, body: bytes, content_type: str = "application/json"
    ) -> Heard | ChannelFault | Lost:
        """POST with this token."""
        url = URL(self._base + path, encoded=True)
        headers = {
            "Authorization": f"{SCHEME} {token.reveal()}",
            "Content-Type": content_type,
            "Accept": "application/json",
        }
        answer = await self._pool.post(url, body, headers)
        return (answer, read(answer.body)) if isinstance(answer, HttpAnswer) else answer

    async def look(self) -> tuple[tuple[Check, ...], ChannelFault | None]:
        """Resolve, connect and shake hands."""
        return await look_at(self._base, self._ca_file, self._timeouts)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._pool.aclose()

    def _prefer(self, token: Secret) -> None:
        self.tokens = (token, *(other for other in self.tokens if other is not token))
        remedy = "the other token works: revoke or replace the one that ZeptoMail refuses"
        log = get_logger()
        log.warning("channel.token_refused", agent=self._agent, channel=self._channel, remedy=remedy)


def base_of(base_url: str) -> str:
    """Return the base URL, however it was written, without slash, version and path of a call."""
    return base_url.rstrip("/").removesuffix("/v1.1/email").removesuffix("/v1.1").rstrip("/")


def is_bad_token(answer: HttpAnswer, said: Said) -> bool:
    """True where the token was refused, which ZeptoMail says with a status that it has for other things too."""
    return answer.status == 401 and "SERR_157" in said.details
