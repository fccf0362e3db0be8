"""What probes of all HTTP APIs do in the same way: name, connection and TLS, and how an empty request is answered."""

import asyncio
import ssl
from http import HTTPStatus

from postroom.outcome import Cause, ChannelFault, Phase
from workers.channels.http_pool import HttpAnswer, Timeouts, checked_url, connect_fault, tls_context
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


def unless_refused(
    answer: HttpAnswer, provider: str, code: str | None, *, later: bool = False
) -> ChannelFault | None:
    """Return the fault of an answer to an empty request, which a provider that took the token refuses with a 4xx.

    For answers that name no fault of their own. `code` is the provider's, where there is one; `later`: it says no more
    than that it cannot judge the request now.
    """
    status = answer.status
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT or later:
        text = f"answers, but is in trouble (status {status}): wait, or look at the provider's status page"
    elif status < HTTPStatus.BAD_REQUEST:
        text = f"answers an empty request with status {status}, not as {provider} does: check base_url"
    else:
        return None
    return ChannelFault(Cause.CONNECT, Phase.REQUEST, text, status, code, answer.retry_after)


def _not_connected(name: Check, error: OSError) -> tuple[tuple[Check, ...], ChannelFault]:
    text = in_words(error)
    fault = connect_fault(text)
    if isinstance(error, ssl.SSLError):
        return (name, Check("connect", ok=True), Check("tls", ok=False, text=text)), fault
    return (name, Check("connect", ok=False, text=text), *not_looked_at(("tls",))), fault
