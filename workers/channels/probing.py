"""What probes of all channels look at in the same way: names, TLS and certificates."""

import asyncio
import ssl
import time
from collections.abc import Sequence

from workers.channels.resolve import look_up
from workers.channels.seam import Check

SOON_DAYS = 14
DAY_SECONDS = 86400


async def check_name(host: str, port: int, seconds: float) -> Check:
    """Look a host name up."""
    try:
        found = await asyncio.wait_for(look_up(host, port), seconds)
    except TimeoutError:
        return Check("resolve", ok=False, text="looking up the name takes too long: check the resolver")
    except (OSError, UnicodeError):
        return Check("resolve", ok=False, text="the name is not known: check the host in the configuration")
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    return Check("resolve", ok=True, text=f"{addresses[0]}{more}")


def tls_check(encrypted: ssl.SSLObject | ssl.SSLSocket) -> Check:
    """Tell the TLS version, and how long the certificate is good for."""
    until = str((encrypted.getpeercert() or {}).get("notAfter", ""))
    version = encrypted.version() or "TLS"
    if not until:
        return Check("tls", ok=True, text=version)
    days = int((ssl.cert_time_to_seconds(until) - time.time()) // DAY_SECONDS)
    soon = ": have it renewed" if days < SOON_DAYS else ""
    return Check("tls", ok=True, text=f"{version}, certificate good for {days} days{soon}")


def not_looked_at(names: Sequence[str]) -> tuple[Check, ...]:
    """Return checks that an earlier failure made pointless."""
    return tuple(Check(name, ok=None) for name in names)
