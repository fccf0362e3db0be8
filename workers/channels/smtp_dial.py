"""From a host name to a connected, for implicit TLS also encrypted, stream."""

import asyncio
import errno
import ssl

from workers.channels.resolve import look_up
from workers.channels.smtp_stream import InjectedError, SmtpStream

PORTS = "check `port` and `tls` (465 goes with implicit, 587 with starttls)"
ADDRESSES_SECONDS = 30.0  # how long a look-up is good

# OpenSSL's X509_V_ERR_* numbers, in words that say what is wrong with the certificate.
_CERTIFICATE = {
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself",
    19: "is signed by an unknown authority",
    20: "is signed by an unknown authority",
    21: "is signed by an unknown authority",
    62: "belongs to another host name",
    64: "belongs to another IP address",
}
_ERRNO = {
    errno.ECONNREFUSED: "the server refuses the connection: check `host` and `port`",
    errno.EHOSTUNREACH: "the server cannot be reached from here",
    errno.ENETUNREACH: "the server cannot be reached from here",
    errno.ECONNRESET: "the server ends the connection at once",
}


class DialError(Exception):
    """No connection. The text is ours and says what a person can do.

    `tls`: it is about TLS and not about the network; `connected`: the server was reached.
    """

    def __init__(self, text: str, *, tls: bool = False, connected: bool = False) -> None:
        super().__init__(text)
        self.tls, self.connected = tls, connected


class Addresses:
    """The addresses of one relay, remembered for 30 s and looked up once at a time.

    A relay whose name server hangs occupies one thread, however many lanes want to connect.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._known: tuple[str, ...] = ()
        self._good_until = 0.0
        self._lookup: asyncio.Future[tuple[str, ...]] | None = None

    async def get(self, seconds: float) -> tuple[str, ...]:
        """Return the addresses in the resolver's order.

        Raises:
            DialError: there are none, or none was found in time.
        """
        now = asyncio.get_running_loop().time()
        if self._known and now < self._good_until:
            return self._known
        if self._lookup is None:
            self._lookup = asyncio.ensure_future(self._look_up())
        lookup = self._lookup
        await asyncio.wait({lookup}, timeout=seconds)
        if not lookup.done() or lookup.cancelled():
            raise DialError("looking up the server's name takes too long: check the resolver")
        if self._lookup is lookup:
            self._lookup = None
        if not lookup.result():
            raise DialError("the server's name is not known: check `host`")
        self._known, self._good_until = lookup.result(), now + ADDRESSES_SECONDS
        return self._known

    def forget(self) -> None:
        """Look up again next time: nothing answered at the known addresses."""
        self._good_until = 0.0

    def close(self) -> None:
        """Stop waiting for the resolver."""
        if self._lookup is not None:
            self._lookup.cancel()

    async def _look_up(self) -> tuple[str, ...]:
        try:
            found = await look_up(self._host, self._port)
        except (OSError, UnicodeError):  # UnicodeError: not a host name at all
            return ()
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


async def dial(
    addresses: tuple[str, ...],
    port: int,
    *,
    host: str,
    context: ssl.SSLContext | None,
    seconds: float,
) -> SmtpStream:
    """Connect to the first address that answers; a context makes it implicit TLS for `host`.

    Raises:
        DialError: none did within `seconds`; each address gets an even share of what is left.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    failure = DialError(in_words(TimeoutError()))
    for tried, address in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - tried)
        stream: SmtpStream | None = None
        try:
            async with asyncio.timeout(share):
                _, stream = await loop.create_connection(SmtpStream, address, port)
                if context is not None:
                    await stream.start_tls(context, host)
        except InjectedError:  # it speaks before the handshake, and in the clear
            failure = DialError(handshake_in_words(ssl.SSLError()), tls=True, connected=True)
        except OSError as error:  # TimeoutError and ssl.SSLError are OSErrors
            reached = stream is not None
            text = handshake_in_words(error) if reached else in_words(error)
            failure = DialError(text, tls=reached, connected=reached)
        else:
            return stream
    raise failure


def trust(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that verifies chain and name, with TLS 1.2 at least.

    Raises:
        DialError: `ca_file` cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise DialError("the certificates in `ca_file` cannot be read", tls=True) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def in_words(error: OSError) -> str:
    """Say why connecting or encrypting failed, without anything the other side wrote."""
    if isinstance(error, ssl.SSLError):
        return handshake_in_words(error)
    if isinstance(error, TimeoutError):
        return "the server does not answer in time"
    return _ERRNO.get(error.errno or 0, "the server cannot be reached")


def handshake_in_words(error: OSError) -> str:
    """Say why a server that was reached could not be spoken to over TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate {_CERTIFICATE.get(error.verify_code, 'cannot be verified')}"
    if isinstance(error, TimeoutError):
        return f"the server does not answer the TLS handshake in time: {PORTS}"
    return f"the TLS handshake fails: {PORTS}"
