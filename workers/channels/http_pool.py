"""What every channel over an HTTP API needs: one pool of connections, one POST, and an answer that is a value.

No cookies, no redirects, no retries, no proxy of the environment, TLS 1.2 at least. What the other side says never
raises here: what was surely not sent is a `ChannelFault`, what may have been is `Lost`.
"""

import codecs
import io
import ipaddress
import re
import ssl
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp
from msgspec import Struct
from yarl import URL

from postroom.failpoint import reach
from postroom.outcome import Cause, ChannelFault, Phase
from workers.channels.resolve import ThreadResolver

MAX_ANSWER = 256 * 1024
MAX_RETRY_AFTER = 24 * 3600.0
KEEPALIVE = 5.0  # longer invites the race with the provider closing first, which looks ambiguous
DNS_TTL = 60  # seconds a looked-up address serves
STREAM_FROM = 1024 * 1024  # a larger body goes out in pieces, so that the event loop breathes between them

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


class HttpAnswer(Struct, frozen=True):
    """A status that came, and what came behind it: nothing of a body that is too long or breaks off."""

    status: int
    body: bytes
    retry_after: float | None = None  # seconds, by the other side's own clock


class Lost(Struct, frozen=True):
    """The request may have been read, and no status came."""


class HttpPool:
    """One channel's connections."""

    def __init__(self, ca_file: str | None, timeouts: Timeouts = TIMEOUTS) -> None:
        self._ca_file = ca_file
        self._timeouts = timeouts
        self._session: aiohttp.ClientSession | None = None

    @property
    def closed(self) -> bool:
        """True before `open` and after `aclose`."""
        return self._session is None or self._session.closed

    def open(self) -> ChannelFault | None:
        """Make the pool ready; nothing is sent yet."""
        if self._session is None:
            try:
                self._session = _session(self._ca_file, self._timeouts)
            except OSError:  # ssl.SSLError is one
                return connect_fault("ca_file cannot be read, or holds no certificate.")
        return None

    async def post(self, url: URL, body: bytes, headers: dict[str, str]) -> HttpAnswer | ChannelFault | Lost:
        """POST once, and return what came of it. Raises nothing but a cancellation."""
        session = self._session
        if session is None or session.closed:
            return connect_fault("The channel was closed in the meantime.")
        try:
            response = await session.post(
                url,
                data=body if len(body) < STREAM_FROM else io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return connect_fault(_in_words(error))
        # Past this point the request may have been written: whatever a hostile answer makes the HTTP
        # library raise, it must not look as if the message had not left.
        except Exception:  # noqa: BLE001
            return Lost()
        reach("after_request")
        answer = await _read(response)
        asked, date = response.headers.get("Retry-After"), response.headers.get("Date")
        wait = None if asked is None else parse_retry_after(asked, read_clock(date, time.time()))
        return HttpAnswer(response.status, answer, wait)

    async def aclose(self) -> None:
        """Close the pool, and with it what its connections still wait for."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def checked_url(url: str) -> URL | ChannelFault:
    """Return the URL, or why no secret may travel there."""
    try:
        parsed = URL(url)
    except ValueError:
        return connect_fault("base_url is not a URL.")
    if not parsed.host or parsed.scheme not in ("http", "https"):
        return connect_fault("base_url is not a URL that begins with https and names a host.")
    if parsed.scheme == "http" and not _is_loopback(parsed.host):
        text = "base_url must begin with https, or the token would travel in the clear."
        return ChannelFault(Cause.AUTH, Phase.CONNECT, text)
    return parsed


def connect_fault(text: str) -> ChannelFault:
    """Return the fault of a channel that nothing could be sent over."""
    return ChannelFault(Cause.CONNECT, Phase.CONNECT, text)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds to wait, from either form of the header (RFC 9110, 10.2.3), at most a day."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value), MAX_RETRY_AFTER)
    until = _read_date(value)
    return None if until is None else min(max(until - now, 0.0), MAX_RETRY_AFTER)


def read_clock(date: str | None, local: float) -> float:
    """Return the provider's clock by the `Date` of its answer, or the local one where that says nothing."""
    told = None if date is None else _read_date(date)
    return local if told is None else told


def _read_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return the rules of TLS for every HTTP API. Raises OSError where `ca_file` is no use."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _session(ca_file: str | None, timeouts: Timeouts) -> aiohttp.ClientSession:
    context = tls_context(ca_file)
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
        return bytes(body).removeprefix(codecs.BOM_UTF8)  # to be ignored before JSON (RFC 8259 §8.1)
    except Exception:  # noqa: BLE001  # as in `post`
        return b""
    finally:
        # An early no may have cut our request short, and half a request spoils the connection.
        if whole and response.status < HTTPStatus.BAD_REQUEST:
            response.release()
        else:
            response.close()


def _in_words(error: aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) -> str:
    """Say in our words why there was no connection."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        code = getattr(error.certificate_error, "verify_code", None)
        reason = _CERTIFICATE.get(code, "cannot be verified") if code is not None else "cannot be verified"
        return f"The certificate of base_url's host {reason}."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "The name of base_url's host does not resolve."
    if isinstance(error, aiohttp.ClientSSLError):
        return "The host of base_url does not speak TLS 1.2 or later on this port."
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return "The host of base_url did not answer in time."
    return "The host of base_url cannot be reached, or refuses connections."


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
