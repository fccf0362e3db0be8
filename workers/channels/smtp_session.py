"""Opening an SMTP session: greeting, EHLO, STARTTLS, AUTH (RFC 5321 §3.1 and §3.2, RFC 3207, RFC 4954).

Credentials leave only over a verified TLS connection, or where the configuration says `insecure`.
"""

import asyncio
import base64
import socket
import ssl
from typing import Literal, NamedTuple

from msgspec import Struct

from postroom.compose import Wire
from postroom.config.structs import SmtpChannel
from postroom.outcome import Answer, Cause, ChannelFault, Phase
from postroom.secret import Secret
from postroom.zeptomail_token import normalise_token
from workers.channels.smtp_dial import PORTS, handshake_in_words
from workers.channels.smtp_reply import Reply
from workers.channels.smtp_stream import InjectedError, Loss, LostError, SmtpStream
from workers.channels.smtp_table import NO_STARTTLS, Step, judge

_LOSSES = {
    Loss.CLOSED: "the server ends the connection",
    Loss.TIMEOUT: "the server does not answer in time",
    Loss.GARBAGE: "the server does not speak SMTP: check `host`, `port` and `tls`",
    Loss.ABORTED: "the connection was given up",
}
SILENT = f"the server connects, and does not greet in time: {PORTS}"
NO_MECHANISM = "the server offers no login that Postroom speaks (PLAIN or LOGIN)"
INJECTED = "bytes in the clear follow the STARTTLS reply: somebody may be tampering with the connection"


class SmtpTimeouts(Struct, frozen=True):
    """Seconds for each wait, in the shape of RFC 5321 §4.5.3.2; `connect` includes `resolve` and TLS."""

    resolve: float = 5.0
    connect: float = 10.0
    greeting: float = 30.0
    command: float = 60.0
    data_init: float = 60.0
    data_block: float = 60.0
    data_done: float = 120.0
    quit: float = 1.0


DEFAULT_TIMEOUTS = SmtpTimeouts()
NO_EXTENSIONS = Wire(eight_bit=False, smtputf8=False)


class Features(NamedTuple):
    """What the server said it can do (its EHLO keywords), and what mail may look like for it."""

    keywords: frozenset[str] = frozenset()
    size: int = 0  # the largest mail it takes; 0: it did not say
    mechanisms: frozenset[str] = frozenset()
    wire: Wire = NO_EXTENSIONS


class Progress(Struct):
    """How far the opening of a session has come: the step it is at, or ended at, and what was seen up to there."""

    step: Literal["connect", "tls", "greeting", "ehlo", "auth"] = "connect"
    connected: bool = False
    encrypted: ssl.SSLObject | None = None
    greeted: bool = False
    features: Features | None = None  # as last offered; in the clear, where TLS did not come about


class _FaultError(Exception):
    """Ends the opening: carries the fault to `open_session`."""

    def __init__(self, fault: ChannelFault) -> None:
        super().__init__(fault)
        self.fault = fault


def credentials(config: SmtpChannel) -> tuple[str, Secret] | None:
    """Return what to log in with, or None for a relay that wants no login."""
    if config.username is None or config.password is None:
        return None
    # ZeptoMail's password is its token, and the console copies that as a whole header field.
    password = normalise_token(config.password) if config.is_zeptomail else config.password
    return config.username, password


async def open_session(
    stream: SmtpStream,
    config: SmtpChannel,
    context: ssl.SSLContext | None,
    timeouts: SmtpTimeouts,
    progress: Progress,
) -> Features | ChannelFault:
    """Make a connected stream ready for mail, noting the progress. On a fault the caller says goodbye."""
    opening = _Opening(stream, config, timeouts, progress)
    try:
        await opening.greet()
        features = await opening.hello()
        if config.tls == "starttls":
            assert context is not None
            await opening.encrypt(features, context)
            features = await opening.hello()
        login = credentials(config)
        if login is not None:
            await opening.log_in(features, *login)
    except _FaultError as stopped:
        return stopped.fault
    except LostError as lost:
        phase = Phase.AUTH if progress.step == "auth" else Phase.CONNECT
        return ChannelFault(Cause.CONNECT, phase, _loss_in_words(lost.loss, progress))
    return features


def _loss_in_words(loss: Loss, progress: Progress) -> str:
    # A server that waits for TLS from the first byte says nothing to whoever waits for its greeting.
    if loss is Loss.TIMEOUT and progress.step == "greeting" and progress.encrypted is None:
        return SILENT
    return _LOSSES[loss]


async def goodbye(stream: SmtpStream, seconds: float) -> None:
    """Say QUIT where somebody still listens, and close. Never raises for what the other side does."""
    try:
        if stream.quiet:
            stream.write(b"QUIT\r\n")
            await stream.read(seconds)
    except LostError:
        pass
    finally:
        stream.abort()
    await stream.wait_closed(seconds)


class _Opening:
    """The steps, each of which raises `_FaultError` or `LostError` where the session cannot go on."""

    def __init__(
        self, stream: SmtpStream, config: SmtpChannel, timeouts: SmtpTimeouts, progress: Progress
    ) -> None:
        self._stream = stream
        self._config = config
        self._timeouts = timeouts
        self._progress = progress

    async def greet(self) -> None:
        self._progress.step = "greeting"
        reply = await self._stream.read(self._timeouts.greeting)
        self._require(Step.GREETING, reply, 220)
        self._progress.greeted = True

    async def hello(self) -> Features:
        """Say EHLO; HELO only where neither TLS nor a login needs EHLO's keywords."""
        self._progress.step = "ehlo"
        self._progress.features = features = await self._hello()
        return features

    async def _hello(self) -> Features:
        name = _own_name(self._stream)
        reply = await self._say(b"EHLO " + name)
        bare = self._config.tls == "none" and credentials(self._config) is None
        if bare and reply.code in (500, 501, 502, 504):
            reply = await self._say(b"HELO " + name)
            self._require(Step.EHLO, reply, 250)
            return Features()
        self._require(Step.EHLO, reply, 250)
        return _features(reply.lines[1:])

    async def encrypt(self, features: Features, context: ssl.SSLContext) -> None:
        """STARTTLS, required: without it nothing more is said, least of all credentials."""
        self._progress.step = "tls"
        if "STARTTLS" not in features.keywords:
            raise _FaultError(self._no_starttls())
        reply = await self._say(b"STARTTLS")
        if reply.code // 100 == 5:
            raise _FaultError(self._no_starttls())
        self._require(Step.STARTTLS, reply, 220)
        try:
            async with asyncio.timeout(self._timeouts.connect):
                await self._stream.start_tls(context, self._config.host)
        except InjectedError as error:
            raise _FaultError(ChannelFault(Cause.CONNECT, Phase.CONNECT, INJECTED)) from error
        except OSError as error:
            raise _FaultError(
                ChannelFault(Cause.CONNECT, Phase.CONNECT, handshake_in_words(error))
            ) from error
        self._progress.encrypted = self._stream.encrypted()

    def _no_starttls(self) -> ChannelFault:
        cause = Cause.CONNECT if credentials(self._config) is None else Cause.AUTH
        return ChannelFault(cause, Phase.CONNECT, NO_STARTTLS)

    async def log_in(self, features: Features, username: str, password: Secret) -> None:
        """AUTH PLAIN in one step (RFC 4616), else LOGIN in three."""
        self._progress.step = "auth"
        user, secret = username.encode(), password.reveal().encode()
        if "PLAIN" in features.mechanisms:
            token = base64.b64encode(b"\0" + user + b"\0" + secret)
            reply = await self._say(b"AUTH PLAIN " + token)
        elif "LOGIN" in features.mechanisms:
            reply = await self._say(b"AUTH LOGIN")
            for answer in (user, secret):
                if reply.code != 334:
                    break
                reply = await self._say(base64.b64encode(answer))
        else:
            raise _FaultError(ChannelFault(Cause.AUTH, Phase.AUTH, NO_MECHANISM))
        self._require(Step.AUTH, reply, 235)

    async def _say(self, command: bytes) -> Reply:
        self._stream.write(command + b"\r\n")
        return await self._stream.read(self._timeouts.command)

    def _require(self, step: Step, reply: Reply, wanted: int) -> None:
        if reply.code == wanted:
            return
        verdict = judge(step, reply, dialect=self._config.dialect)
        if isinstance(verdict, ChannelFault):
            raise _FaultError(verdict)
        assert not isinstance(verdict, Answer)  # no row of these steps ends a message
        raise LostError(Loss.GARBAGE)


def _own_name(stream: SmtpStream) -> bytes:
    """Return our name for EHLO: a full host name, else an address literal (RFC 5321 §4.1.3)."""
    name = socket.gethostname()
    if "." in name and name.replace(".", "").replace("-", "").isalnum() and name.isascii():
        return name.encode("ascii")
    address = stream.local_address().partition("%")[0]
    return f"[IPv6:{address}]".encode() if ":" in address else f"[{address or '127.0.0.1'}]".encode()


def _features(lines: list[str]) -> Features:
    keywords, size, mechanisms = set(), 0, set()
    for line in lines:
        keyword, *parameters = line.upper().replace("AUTH=", "AUTH ").split() or [""]
        keywords.add(keyword)
        if keyword == "AUTH":
            mechanisms.update(parameters)
        elif keyword == "SIZE" and parameters and parameters[0].isdecimal():
            size = int(parameters[0])
    wire = Wire("8BITMIME" in keywords, "SMTPUTF8" in keywords)
    return Features(frozenset(keywords), size, frozenset(mechanisms), wire)
