"""What a probe of any HTTP API looks at before it says a word: name, connection, TLS."""

import asyncio
import ssl

from postroom.outcome import ChannelFault
from workers.channels.http_pool import Timeouts, checked_url, connect_fault, tls_context
from workers.channels.probing import check_name, not_looked_at, tls_check
from workers.channels.seam import Check
from workers.channels.smtp_dial import in_words


async def look_at(
    url: str, ca_file: str | None, timeouts: Timeouts
) -> tuple[tuple[Check, ...], ChannelFault | None]:
    """Resolve the host of a base URL, connect and shake hands, and tell how that went."""
    parsed = checked_url(url)
    if isinstance(parsed, ChannelFault):
        return (Check("resolve", ok=False, text=parsed.text), *not_looked_at(("connect", "tls"))), parsed
    host, port = str(parsed.host), parsed.port or 443
    name = await check_name(host, port, timeouts.connect)
    if not name.ok:
        return (name, *not_looked_at(("connect", "tls"))), connect_fault(name.text)
    try:
        context = tls_context(ca_file) if parsed.scheme == "https" else None
        async with asyncio.timeout(timeouts.connect):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except OSError as error:  # ssl.SSLError and TimeoutError are
        return _not_connected(name, error)
    encrypted = writer.get_extra_info("ssl_object")
    tls = (
        tls_check(encrypted)
        if encrypted
        else Check("tls", ok=True, text="none: for tests on this machine only")
    )
    writer.transport.abort()
    return (name, Check("connect", ok=True, text=f"port {port} answers"), tls), None


def _not_connected(name: Check, error: OSError) -> tuple[tuple[Check, ...], ChannelFault]:
    text = in_words(error)
    fault = connect_fault(text)
    if isinstance(error, ssl.SSLError):
        return (name, Check("connect", ok=True), Check("tls", ok=False, text=text)), fault
    return (name, Check("connect", ok=False, text=text), *not_looked_at(("tls",))), fault
