"""Bearer tokens: who calls, and whether the token holds now."""

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from datetime import UTC, datetime

from msgspec import Struct

from postroom.config.change import Change
from postroom.config.rules import read_time
from postroom.config.structs import Caller, Config, Token
from postroom.config.units import per_second
from postroom.errors import Code, RefusedError
from service.limit import RateLimit

LONGEST_TOKEN = 512
NOBODY = "0" * 64
REFUSED = "Send one Authorization header field: Bearer and a token of this caller."


class Identity(Struct, frozen=True):
    """A caller, known by one of its tokens, and the configuration that its whole request is judged by."""

    config: Config
    name: str
    caller: Caller
    token: Token
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    limit: RateLimit | None


class Authenticator:
    """Looks tokens up by their SHA-256, so that none is ever stored or compared as it is."""

    def __init__(self, config: Config) -> None:
        self._limits: dict[str, RateLimit] = {}
        self._by_digest: dict[str, Identity] = {}
        self._take(config, kept={})

    def apply(self, change: Change) -> None:
        """Know the callers of a reloaded configuration from the next request on; an unchanged rate counts on."""
        unchanged = {
            name: limit
            for name, limit in self._limits.items()
            if name in change.new.callers and change.new.callers[name].rate == change.old.callers[name].rate
        }
        self._take(change.new, kept=unchanged)

    def _take(self, config: Config, *, kept: dict[str, RateLimit]) -> None:
        limits = {
            name: kept.get(name) or RateLimit(per_second(caller.rate))
            for name, caller in config.callers.items()
            if caller.rate
        }
        by_digest = {}
        for name, caller in config.callers.items():
            networks = tuple(ipaddress.ip_network(n) for n in caller.networks)
            for token in caller.tokens:
                by_digest[token.sha256] = Identity(config, name, caller, token, networks, limits.get(name))
        self._limits, self._by_digest = limits, by_digest

    def authenticate(self, authorization: Iterable[bytes], peer: str | None) -> Identity:
        """Return who calls.

        Raises:
            RefusedError: 401, the same for every reason; or 403 where the caller's network is another one.
        """
        identity = self._look_up(list(authorization))
        if identity is None or not _holds_now(identity.token):
            raise RefusedError(Code.UNAUTHENTICATED, REFUSED)
        if identity.networks and not _inside(peer, identity.networks):
            raise RefusedError(Code.NETWORK_NOT_ALLOWED, "The caller's networks do not include this address.")
        return identity

    def _look_up(self, fields: list[bytes]) -> Identity | None:
        token = b""
        if len(fields) == 1:
            scheme, _, rest = fields[0].partition(b" ")
            if scheme.lower() == b"bearer" and 0 < len(rest) <= LONGEST_TOKEN:
                token = rest.strip()
        digest = hashlib.sha256(token).hexdigest()
        identity = self._by_digest.get(digest)
        # Compared in constant time, and for unknown tokens too, so that time tells nothing.
        known = hmac.compare_digest(digest, identity.token.sha256 if identity else NOBODY)
        return identity if known and token else None


def _holds_now(token: Token) -> bool:
    if not token.not_before and not token.expires:
        return True
    now = datetime.now(UTC)
    begins = read_time(token.not_before) if token.not_before else None
    ends = read_time(token.expires) if token.expires else None
    return (begins is None or begins <= now) and (ends is None or now < ends)


def _inside(peer: str | None, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    """Judge the address of the peer itself: forwarded-for header fields can be written by anybody."""
    try:
        address = ipaddress.ip_address(peer or "")
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in networks)
