"""The SMTP channel: a relay spoken to over warm, pipelined, authenticated connections.

smtp_dial        host name → connected stream
smtp_session     greeting, EHLO, STARTTLS, AUTH
smtp_connection  one mail after the other, each begun with the dot of the one before it
smtp_envelope    what can be said to this server
smtp_transaction MAIL, RCPT…, DATA, body, commit mark, dot
smtp_table       which reply ends in which outcome
smtp_zeptomail   what is said to ZeptoMail's relay only
"""

import asyncio
import ssl
from collections.abc import Callable

from postroom.compose import Composed, Wire
from postroom.compose import compose as compose_mail
from postroom.config.structs import SmtpChannel
from postroom.message import Mail
from postroom.outcome import Cause, ChannelFault, Phase
from workers.channels import smtp_probe
from workers.channels.probing import check_name
from workers.channels.seam import Probe
from workers.channels.smtp_connection import SmtpConnection
from workers.channels.smtp_dial import Addresses, DialError, dial, trust
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
from workers.channels.zeptomail_files import ZeptomailFiles

INSECURE = "credentials are not sent without TLS: set `tls`, or `insecure = true` if you mean it"

Compose = Callable[[Mail, tuple[tuple[str, str], ...], Wire], Composed]


class SmtpRelay:
    """A `Channel` to one relay.

    Where its server proves deaf to what travels with a dot, it does so no more for as long as the channel is open.
    """

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
        self.looks_ahead = True  # so that a dot has the next message's opening along
        self._context: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        """The channel's name in the configuration."""
        return self.config.name

    async def connect(self) -> SmtpConnection | ChannelFault:
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
