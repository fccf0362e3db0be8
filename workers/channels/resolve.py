"""Looking up host names, each in a thread of its own.

The event loop's resolver shares one small thread pool with everybody, so a few relays whose name servers hang would
stop all others from connecting. A thread here belongs to one look-up; it is a daemon, so that one that hangs
does not keep the process from ending either.
"""

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Sequence
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

Entry = tuple[Any, Any, int, str, tuple[Any, ...]]


async def look_up(host: str, port: int, family: int = socket.AF_UNSPEC) -> Sequence[Entry]:
    """Return what `socket.getaddrinfo` finds; raises what it raises (OSError, UnicodeError)."""
    if _is_address(host):  # nobody is asked for it, so it needs no thread
        return socket.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[Entry]] = loop.create_future()

    def settle(entries: Sequence[Entry] | None, error: Exception | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(entries or ())

    def ask() -> None:
        entries: Sequence[Entry] | None = None
        failed: Exception | None = None
        try:
            entries = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, entries, failed)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    return await found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class ThreadResolver(AbstractResolver):
    """`look_up` for aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host; raises OSError where there are none."""
        try:
            entries = await look_up(host, port, family)
        except UnicodeError as error:
            raise OSError("not a host name") from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=proto,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, proto, _, address in entries
        ]

    async def close(self) -> None:
        """Nothing is kept."""
