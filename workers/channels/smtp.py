"""The SMTP channel: a relay spoken to over warm, pipelined, authenticated connections.

smtp_dial        host name → connected stream
smtp_session     greeting, EHLO, STARTTLS, AUTH
smtp_envelope    what can be said to this server
smtp_transaction MAIL, RCPT…, DATA, body, commit mark, dot
smtp_table       which reply ends in which outcome
smtp_zeptomail   what is said to ZeptoMail's relay only
"""

import asyncio
import ssl
import time
from collections.abc import Callable

from postroom.address import domain_of
from postroom.compose import Composed, Wire
from postroom.compose import compose as compose_mail
from postroom.config.structs import SmtpChannel
from postroom.config.units import seconds
from postroom.message import Mail
from postroom.outcome import (
    Cause,
    ChannelFault,
    Commit,
    Deferred,
    Phase,
    Submission,
)
from workers.channels import smtp_probe
from workers.channels.probing import check_name
from workers.channels.seam import Order, Probe
from workers.channels.smtp_dial import Addresses, DialError, dial, trust
from workers.channels.smtp_envelope import envelope_for
from workers.channels.smtp_session import (
    DEFAULT_TIMEOUTS,
    Features,
    Progress,
    SmtpTimeouts,
    credentials,
    goodbye,
    open_session,
)
from workers.channels.smtp_stream import SmtpStream
from workers.channels.smtp_table import Step
from workers.channels.smtp_transaction import StaleError, Transaction
from workers.channels.smtp_zeptomail import may_lack_a_file, provider_headers, refer
from workers.channels.zeptomail_files import NOTHING, ZeptomailFiles

WARM_SECONDS = 1.0  # an unused connection may be found dead, free of charge, after so long

INSECURE = "credentials are not sent without TLS: set `tls`, or `insecure = true` if you mean it"

Compose = Callable[[Mail, tuple[tuple[str, str], ...], Wire], Composed]


class SmtpRelay:
    """A `Channel` to one relay."""

    def __init__(
        self,
        config: SmtpChannel,
        *,
        bounce_address: str | None = None,
        own_domain: str | None = None,
        files: ZeptomailFiles | None = None,
        timeouts: SmtpTimeouts = DEFAULT_TIMEOUTS,
        compose: Compose = compose_mail,
    ) -> None:
        """`own_domain` is that of the agent's From: one of another domain is its caller's choice.

        `files` are the file cache of the ZeptoMail agent that the relay sends for; without, cached files are attached.
        """
        self.config = config
        self.bounce_address = bounce_address
        self.own_domain = own_domain
        self.files = files
        self.timeouts = timeouts
        self.compose = compose
        self._addresses = Addresses(config.host, config.port)
        self._context: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        """The channel's name in the configuration."""
        return self.config.name

    async def connect(self) -> "SmtpConnection | ChannelFault":
        """Open a connection that is ready for MAIL, or say why there is none."""
        session = await self.open()
        return session if isinstance(session, ChannelFault) else SmtpConnection(self, *session)

    async def open(self, progress: Progress | None = None) -> tuple[SmtpStream, Features] | ChannelFault:
        """Dial and log in, noting the progress; a connection also comes here to replace a dead stream."""
        config, progress = self.config, progress or Progress()
        if config.tls == "none" and credentials(config) is not None and not config.insecure:
            progress.step = "auth"
            return ChannelFault(Cause.AUTH, Phase.AUTH, INSECURE)
        try:
            stream = await self._dial()
        except DialError as error:
            progress.step, progress.connected = "tls" if error.tls else "connect", error.connected
            return ChannelFault(Cause.CONNECT, Phase.CONNECT, str(error))
        progress.connected, progress.encrypted = True, stream.encrypted()
        try:
            features = await open_session(stream, config, self._context, self.timeouts, progress)
            if isinstance(features, ChannelFault):
                await goodbye(stream, self.timeouts.quit)
                return features
        except BaseException:
            stream.abort()
            raise
        return stream, features

    async def probe(self) -> Probe:
        """Open a session up to the point where mail would begin, and leave."""
        name, progress = (
            await check_name(self.config.host, self.config.port, self.timeouts.resolve),
            Progress(),
        )
        if not name.ok:
            return smtp_probe.unknown(name)
        session = await self.open(progress)
        if isinstance(session, ChannelFault):
            return smtp_probe.told(name, progress, self.config, session)
        await goodbye(session[0], self.timeouts.quit)
        return smtp_probe.told(name, progress, self.config)

    async def aclose(self) -> None:
        """Stop looking up names."""
        self._addresses.close()
        if self.files is not None:
            await self.files.aclose()

    async def _dial(self) -> SmtpStream:
        config, timeouts = self.config, self.timeouts
        deadline = asyncio.get_running_loop().time() + timeouts.connect
        if config.tls != "none" and self._context is None:
            self._context = trust(config.ca_file)
        addresses = await self._addresses.get(timeouts.resolve)
        try:
            return await dial(
                addresses,
                config.port,
                host=config.host,
                context=self._context if config.tls == "implicit" else None,
                seconds=deadline - asyncio.get_running_loop().time(),
            )
        except DialError:
            self._addresses.forget()
            raise


class SmtpConnection:
    """A `Connection`: one authenticated SMTP session, replaced under the hood when found dead."""

    def __init__(self, relay: SmtpRelay, stream: SmtpStream, features: Features) -> None:
        self._relay = relay
        self._stream, self._features = stream, features
        self._loop = asyncio.get_running_loop()
        self._messages = 0
        self._since = self._loop.time()
        self._most_messages = relay.config.messages_per_connection
        self._longest_idle = seconds(relay.config.idle)

    @property
    def usable(self) -> bool:
        """False when dead, told something unasked, idle for too long, or after its share of messages.

        Servers count too, and name their limits rudely.
        """
        idle = self._loop.time() - self._since
        fresh = self._messages < self._most_messages and idle < self._longest_idle
        return fresh and self._stream.quiet

    async def submit(self, order: Order, commit: Commit) -> Submission:
        """Compose and submit one message; what the composer raises comes out before a byte is sent."""
        relay, began = self._relay, time.perf_counter()
        mail, referred = order.mail, NOTHING
        if mail.attachments and relay.config.is_zeptomail:
            mail, referred = await refer(mail, relay.files)
        if any(file.provider_key for file in mail.attachments):
            # Only another channel of the agent knew the provider's file, and it left the file meanwhile.
            return order.all_end(Deferred(Phase.RENDER))
        composed = self._compose(mail)
        if order.stages is not None:
            order.stages.compose = time.perf_counter() - began
        try:
            try:
                ended = await self._transact(order, composed, commit)
            except StaleError:
                # Nothing was accepted and nothing was marked, so one replacement costs the message nothing.
                ended = await self._replace() or await self._transact(order, self._compose(mail), commit)
        except BaseException:
            # The mark was refused, or the lane is cancelled: without the dot the server has no mail.
            self._stream.abort()
            raise
        if isinstance(ended, ChannelFault):
            self._stream.abort()
        self._messages += 1
        self._since = self._loop.time()
        if referred.older and relay.files is not None and may_lack_a_file(ended):
            # No reply says that a key is unknown, so a refusal may mean it: the next attempt has new ones.
            await relay.files.forget(referred)
            return order.all_end(Deferred(Phase.DONE))
        return ended

    async def aclose(self) -> None:
        """QUIT and close."""
        await goodbye(self._stream, self._relay.timeouts.quit)

    def _compose(self, mail: Mail) -> Composed:
        """Compose for the server at the other end: another one behind the same name may offer something else."""
        config = self._relay.config
        return self._relay.compose(mail, provider_headers(mail, config), self._features.wire)

    async def _transact(self, order: Order, composed: Composed, commit: Commit) -> Submission:
        warm = self._messages > 0 or self._loop.time() - self._since > WARM_SECONDS
        if warm and not self._stream.quiet:
            raise StaleError
        relay, author = self._relay, order.mail.sender.address
        sender = order.bounce_address or relay.bounce_address or author
        transaction = Transaction(
            self._stream,
            self._features,
            relay.timeouts,
            dialect=relay.config.dialect,
            warm=warm,
            chosen_at=_chosen_at(relay.own_domain, author, sender),
        )
        return await transaction.run(envelope_for(order, sender, composed, self._features), commit)

    async def _replace(self) -> ChannelFault | None:
        self._stream.abort()
        session = await self._relay.open()
        if isinstance(session, ChannelFault):
            return session
        self._stream, self._features = session
        self._messages, self._since = 0, self._loop.time()
        return None


def _chosen_at(own_domain: str | None, author: str, sender: str) -> frozenset[Step]:
    """Return the steps at which a refused sender is the message's fault, since its caller chose the From domain."""
    if own_domain in (None, domain_of(author)):
        return frozenset()
    # A bounce address is the agent's own: its refusal at MAIL is never the fault of one message.
    return frozenset(Step) if sender == author else frozenset(Step) - {Step.MAIL}
