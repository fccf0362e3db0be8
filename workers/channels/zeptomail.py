"""ZeptoMail's HTTP API as a channel: one POST a message, over one shared pool of connections."""

import asyncio
import io
import ipaddress
import re
import ssl
import time
from http import HTTPStatus

import aiohttp
from msgspec import Struct
from yarl import URL

from postroom.config.structs import ZeptomailChannel
from postroom.failpoint import reach
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
from workers.channels.resolve import ThreadResolver
from workers.channels.seam import Order
from workers.channels.zeptomail_answer import classify, read_clock
from workers.channels.zeptomail_body import MAX_ENCODED, TOO_LONG, breach, build, encode

SCHEME = "Zoho-enczapikey"
MAX_ANSWER = 256 * 1024
KEEPALIVE = 5.0  # longer invites the race with the provider closing first, which looks ambiguous
DNS_TTL = 60  # seconds a looked-up address serves
STREAM_FROM = 1024 * 1024  # a larger body goes out in pieces, so that the event loop breathes between them

_SCHEME = re.compile(rf"{SCHEME}(\s+|$)", re.IGNORECASE)
_TOKEN = re.compile(r"[!-~]+")
_PASTED = " \t\r\n\"'`"  # what a copied token comes wrapped in

_CERTIFICATE = {  # by OpenSSL's X509_V_ERR_*
    9: "is not valid yet",
    10: "has expired",
    18: "is self-signed",
    19: "comes from an authority that is not trusted",
    20: "comes from an authority that is not trusted",
    62: "belongs to another host name",
}


class Timeouts(Struct, frozen=True):
    """How long to wait, in seconds: for a connection, and for the whole exchange."""

    connect: float = 10.0
    total: float = 30.0


TIMEOUTS = Timeouts()


class ZeptomailApi:
    """The channel. Its connections share one pool; they are always ready, since HTTP has no greeting."""

    def __init__(
        self,
        config: ZeptomailChannel,
        *,
        bounce_address: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
    ) -> None:
        self._config = config
        self._bounce_address = bounce_address
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """The channel's name in the configuration."""
        return self._config.name

    async def connect(self) -> "ZeptomailConnection | ChannelFault":
        """Return a connection, or what is wrong with the configuration; nothing is sent yet."""
        token = normalise_token(self._config.token)
        if not _TOKEN.fullmatch(token.reveal()):
            return _fault(Cause.AUTH, "The ZeptoMail token is empty or holds characters that no token has.")
        url = _checked_url(self._config.base_url)
        if isinstance(url, ChannelFault):
            return url
        if self._session is None:
            try:
                self._session = _session(self._config.ca_file, self._timeouts)
            except OSError:  # ssl.SSLError is one
                return _fault(Cause.CONNECT, "ca_file cannot be read, or holds no certificate.")
        return ZeptomailConnection(self._session, url, token, self._bounce_address)

    async def aclose(self) -> None:
        """Close the pool, and with it what its connections still wait for."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class ZeptomailConnection:
    """A lane's way into the channel's pool."""

    def __init__(
        self, session: aiohttp.ClientSession, url: URL, token: Secret, bounce_address: str | None
    ) -> None:
        self._session = session
        self._url = url
        self._token = token
        self._bounce_address = bounce_address
        self._open = True

    @property
    def usable(self) -> bool:
        """False once it or its channel was closed: what one exchange loses, the pool replaces."""
        return self._open and not self._session.closed

    async def submit(self, order: Order, commit: Commit) -> Submission:
        """Submit one message; see `Connection.submit`."""
        if not self.usable:
            return _fault(Cause.CONNECT, "The channel was closed in the meantime.")
        code = breach(order.mail)
        if code is not None:
            return _refused_here(order, code)
        body = encode(build(order, self._bounce_address))
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
        try:
            response = await self._session.post(
                self._url,
                data=body if len(body) < STREAM_FROM else io.BytesIO(body),
                headers={
                    "Authorization": f"{SCHEME} {self._token.reveal()}",
                    "Content-Type": "application/json",
                    "Accept": "application/json",
                },
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return _connect_fault(error)
        # Past this point the request may have been written: whatever a hostile answer makes the HTTP
        # library raise, it must not look as if the message had not left.
        except Exception:  # noqa: BLE001
            return Submitted((Answer(Ambiguous(Phase.DONE)),) * len(order.recipients))
        reach("after_request")
        answer = await _read(response)
        fields = response.headers
        now = read_clock(fields.get("Date"), time.time())
        return classify(order, response.status, answer, fields.get("Retry-After"), now)


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


def _checked_url(base_url: str) -> URL | ChannelFault:
    try:
        url = URL(send_url(base_url))
    except ValueError:
        return _fault(Cause.CONNECT, "base_url is not a URL.")
    if not url.host or url.scheme not in ("http", "https"):
        return _fault(Cause.CONNECT, "base_url is not a URL that begins with https and names a host.")
    if url.scheme == "http" and not _is_loopback(url.host):
        return _fault(Cause.AUTH, "base_url must begin with https, or the token would travel in the clear.")
    return url


def _session(ca_file: str | None, timeouts: Timeouts) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    connector = aiohttp.TCPConnector(
        ssl=context,
        limit=0,  # the lanes are the limit
        keepalive_timeout=KEEPALIVE,
        ttl_dns_cache=DNS_TTL,
        resolver=ThreadResolver(),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),  # the provider's session cookies would tie lanes together
        timeout=aiohttp.ClientTimeout(total=timeouts.total, connect=timeouts.connect),
        headers={"User-Agent": "Postroom"},
        trust_env=False,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, or nothing of one that is too long or breaks off: the status has come all the same."""
    body = bytearray()
    whole = False
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER:
                return b""
        whole = True
        return bytes(body)
    except Exception:  # noqa: BLE001  # as in `_exchange`
        return b""
    finally:
        # An early no may have cut our request short, and half a request spoils the connection.
        if whole and response.status < HTTPStatus.BAD_REQUEST:
            response.release()
        else:
            response.close()


def _refused_here(order: Order, code: str) -> Submitted:
    answer = Answer(Refused(Phase.REQUEST, "message"), enhanced_code=code)
    return Submitted((answer,) * len(order.recipients))


def _connect_fault(error: aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) -> ChannelFault:
    """Say in our words why there was no connection."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", None)
        reason = _CERTIFICATE.get(code, "cannot be verified") if code is not None else "cannot be verified"
        return _fault(Cause.CONNECT, f"The certificate of base_url's host {reason}.")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _fault(Cause.CONNECT, "The name of base_url's host does not resolve.")
    if isinstance(error, aiohttp.ClientSSLError):
        return _fault(Cause.CONNECT, "The host of base_url does not speak TLS 1.2 or later on this port.")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _fault(Cause.CONNECT, "The host of base_url did not answer in time.")
    return _fault(Cause.CONNECT, "The host of base_url cannot be reached, or refuses connections.")


def _fault(cause: Cause, text: str) -> ChannelFault:
    return ChannelFault(cause, Phase.CONNECT, text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
