"""Redis by URL: one server, a primary that sentinels name, or a cluster; in the clear, over TLS, or over a socket."""

from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

from postroom.ledger.topology import Topology

SENTINEL = ("redis+sentinel", "rediss+sentinel")
CLUSTER = ("redis+cluster", "rediss+cluster")
SCHEMES = ("redis", "rediss", "unix", *SENTINEL, *CLUSTER)
SENTINEL_PORT, NODE_PORT = 26379, 6379
SENTINEL_SECONDS = 1.0  # for one sentinel; the next is asked then


def find_url_problem(url: str) -> str | None:
    """Return what is wrong with a URL, in words for the configuration's author; never its password."""
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES:
        return f"must start with one of: {', '.join(f'{known}://' for known in SCHEMES)}"
    try:
        if scheme in SENTINEL:
            _read_sentinel(url)
        elif scheme in CLUSTER:
            _read_hosts(url)
        else:
            parse_url(url)
    except ValueError as error:
        return str(error) if "+" in scheme else "is not a URL: look at its host and port"
    return None


def open_pool(url: str, **options: Any) -> ConnectionPool:
    """Return a pool for the URL. With sentinels each new connection asks them for the primary.

    Raises:
        ValueError: the URL is wrong; see `find_url_problem`.
    """
    if url.partition("://")[0] not in SENTINEL:
        return ConnectionPool.from_url(url, **options)
    hosts, service, ours, theirs = _read_sentinel(url)
    timeouts = {"socket_timeout": SENTINEL_SECONDS, "socket_connect_timeout": SENTINEL_SECONDS}
    manager = Sentinel(hosts, sentinel_kwargs={**theirs, **timeouts})  # type: ignore[no-untyped-call]
    pool: ConnectionPool = SentinelConnectionPool(service, manager, **ours, **options)  # type: ignore[no-untyped-call]
    return pool


def is_cluster(url: str) -> bool:
    """True where the URL names nodes of a Redis Cluster."""
    return url.partition("://")[0] in CLUSTER


def open_topology(url: str) -> Topology:
    """Return the map of a cluster's nodes, which are asked when it is first needed.

    Raises:
        ValueError: the URL is wrong; see `find_url_problem`.
    """
    seeds, _, ours = _read_hosts(url)
    kind = SSLConnection if ours.pop("ssl", False) else Connection

    def make_pool(host: str, port: int, **options: Any) -> ConnectionPool:
        return ConnectionPool(connection_class=kind, host=host, port=port, **ours, **options)

    return Topology(seeds, make_pool)


def _read_sentinel(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any], dict[str, Any]]:
    """Return the sentinels, the service, and the options of connections to the primary and to the sentinels."""
    hosts, service, options = _read_hosts(url)
    if not service:
        raise ValueError("must name sentinels and a service: redis+sentinel://a:26379,b:26379/mymaster/0")
    theirs = {k: options.pop(f"sentinel_{k}") for k in ("username", "password") if f"sentinel_{k}" in options}
    return hosts, service, options, theirs | {k: v for k, v in options.items() if k.startswith("ssl")}


def _read_hosts(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """Return the hosts, the service where one is named, and the options of connections."""
    parts = urlsplit(url)
    credentials, _, named = parts.netloc.rpartition("@")
    scheme, _, way = parts.scheme.partition("+")
    hosts = [
        _host(name, SENTINEL_PORT if way == "sentinel" else NODE_PORT) for name in named.split(",") if name
    ]
    path = parts.path.strip("/")
    service, _, database = path.partition("/") if way == "sentinel" else ("", "", path)
    if not hosts:
        raise ValueError(f"must name hosts, such as {parts.scheme}://a.example,b.example/…")
    if way == "cluster" and database not in ("", "0"):
        raise ValueError("a Redis Cluster has no database but 0")
    single = f"{scheme}://{credentials}{'@' if credentials else ''}host:1/{database or 0}?{parts.query}"
    try:
        options: dict[str, Any] = dict(parse_url(single))
    except ValueError:
        raise ValueError("is not a URL: look at its database and options") from None
    del options["host"], options["port"]
    encrypted = options.pop("connection_class", None) is SSLConnection
    return hosts, service, options | ({"ssl": True} if encrypted else {})


def _host(name: str, otherwise: int) -> tuple[str, int]:
    host, _, port = name.rpartition(":") if not name.endswith("]") else (name, "", "")
    if not host:
        host, port = name, ""
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError("is not a URL: look at its hosts and ports")
    return host.strip("[]"), int(port or otherwise)
