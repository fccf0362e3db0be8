"""ZeptoMail's HTTP API as a channel: one POST a message.

zeptomail_table   which answer ends in which outcome
zeptomail_said    what can be read out of an answer
zeptomail_answer  the two brought together
zeptomail_body    the request, and the provider's limits
zeptomail_files   the mail agent's file cache
zeptomail_client  base URL, tokens, connections
"""

import asyncio
import time

from msgspec import Struct

from postroom.config.structs import ZeptomailChannel
from postroom.failpoint import reach
from postroom.outcome import Ambiguous, ChannelFault, Commit, Deferred, Phase, Refused, Submission
from workers.channels import zeptomail_probe
from workers.channels.http_pool import TIMEOUTS, Lost, Timeouts, connect_fault
from workers.channels.seam import Ahead, FileKeys, Order, Probe
from workers.channels.zeptomail_answer import classify
from workers.channels.zeptomail_body import MAX_ENCODED, TOO_LONG, UNKNOWN_FILE, breach, build, encode
from workers.channels.zeptomail_client import Heard, ZeptomailClient
from workers.channels.zeptomail_files import Referred, ZeptomailFiles

EMAIL = "/v1.1/email"
REFUSED_HERE = Refused(Phase.REQUEST, "message")  # it is over a limit of ZeptoMail's, so it is not asked


class _Terms(Struct, frozen=True):
    """What the agent's configuration says to every request."""

    bounce_address: str | None
    own_domain: str | None


class ZeptomailApi:
    """The channel. Its connections share one pool; they are always ready, since HTTP has no greeting."""

    def __init__(
        self,
        config: ZeptomailChannel,
        *,
        agent: str,
        bounce_address: str | None = None,
        own_domain: str | None = None,
        keys: FileKeys | None = None,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        """`agent` is its name, `own_domain` that of its From: one of another domain is its caller's choice."""
        self._config = config
        self._terms = _Terms(bounce_address, own_domain)
        self._client = ZeptomailClient(config, timeouts, agent=agent)
        self._files = ZeptomailFiles(self._client, keys)

    @property
    def name(self) -> str:
        """The channel's name in the configuration."""
        return self._config.name

    async def connect(self) -> "ZeptomailConnection | ChannelFault":
        """Return a connection, or what is wrong with the configuration; nothing is sent yet."""
        return self._client.open() or ZeptomailConnection(self._client, self._files, self._terms)

    async def probe(self) -> Probe:
        """Look at the host, and whether it takes the token."""
        return await zeptomail_probe.probe(self._client, EMAIL)

    async def aclose(self) -> None:
        """Close the pool."""
        await self._client.aclose()


class ZeptomailConnection:
    """A lane's way into the channel's pool."""

    def __init__(self, client: ZeptomailClient, files: ZeptomailFiles, terms: _Terms) -> None:
        self._client = client
        self._files = files
        self._terms = terms
        self._open = True

    @property
    def usable(self) -> bool:
        """False once it or its channel was closed: what one exchange loses, the pool replaces."""
        return self._open and not self._client.closed

    async def submit(self, order: Order, commit: Commit, ahead: Ahead | None = None) -> Submission:  # noqa: ARG002
        """Submit one message; see `Connection.submit`."""
        if not self.usable:
            return connect_fault("The channel was closed in the meantime.")
        if order.mail.submitter is not None:
            # Only an SMTP channel of the agent could carry it as it is, and it left the file meanwhile.
            return order.all_end(Deferred(Phase.RENDER))
        code = breach(order)
        if code is not None:
            return order.all_end(REFUSED_HERE, enhanced_code=code)
        began = time.perf_counter()
        try:
            referred = await self._files.refer(order.mail.attachments)
            body = self._encode(order, referred)
            if order.stages is not None:
                order.stages.compose = time.perf_counter() - began
            if len(body) > MAX_ENCODED:
                return order.all_end(REFUSED_HERE, enhanced_code=TOO_LONG)
            await commit((None,) * len(order.recipients))
            reach("after_mark")
            return self._judge(order, await self._exchange(order, body, referred))
        except asyncio.CancelledError:
            self._open = False
            raise

    async def aclose(self) -> None:
        """Give the lane's place back. The pool closes what stays idle."""
        self._open = False

    def _encode(self, order: Order, referred: Referred) -> bytes:
        return encode(build(order, self._terms.bounce_address, referred.keys))

    async def _exchange(self, order: Order, body: bytes, referred: Referred) -> Heard | ChannelFault | Lost:
        """POST, and once more with files uploaded anew where ZeptoMail has forgotten one, which is a sure no."""
        answer = await self._client.post(EMAIL, body)
        if not (referred.older and isinstance(answer, tuple) and UNKNOWN_FILE in answer[1].details):
            return answer
        await self._files.forget(referred)
        anew = await self._files.refer(order.mail.attachments)
        return await self._client.post(EMAIL, self._encode(order, anew))

    def _judge(self, order: Order, answer: Heard | ChannelFault | Lost) -> Submission:
        if isinstance(answer, ChannelFault):
            return answer
        if isinstance(answer, Lost):
            return order.all_end(Ambiguous(Phase.DONE))
        heard, said = answer
        return classify(order, heard.status, said, heard.retry_after, own_domain=self._terms.own_domain)
