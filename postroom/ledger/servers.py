"""What the servers behind a Redis URL say of themselves, and what of it must not be so.

It reads INFO only, which a user with few rights may.
"""

from typing import Any, cast

from msgspec import Struct
from redis.exceptions import RedisError

from postroom.ledger.clients import reading_client
from postroom.ledger.cluster import ClusterClient
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.redis_url import is_cluster
from postroom.ledger.watch import FULL_SHARE, OLDEST_REDIS, read_version

MEGABYTE = 1e6


class Server(Struct, frozen=True):
    """One primary, and its INFO. `name` is empty where the URL leads to a single one."""

    name: str
    info: dict[str, Any]


class Trait(Struct, frozen=True):
    """One thing about a server, in words, and whether mail is safe with it."""

    name: str
    good: bool
    text: str


async def read_servers(url: str) -> list[Server]:
    """Ask the primary that a URL leads to, or all of a cluster.

    Raises:
        LedgerUnavailableError: it does not answer; `str` of it says how, in the words of Redis or its client.
    """
    client = reading_client(url)
    try:
        if is_cluster(url):
            infos = await cast(ClusterClient, client).infos()
            return [Server(f"{host}:{port}", info) for (host, port), info in infos.items()]
        return [Server("", await client.info())]
    except (RedisError, OSError) as error:
        raise LedgerUnavailableError(str(error) or type(error).__name__) from error
    finally:
        await client.aclose()


def judge(info: dict[str, Any], *, acknowledgements: int = 0, keeps_mail: bool = True) -> list[Trait]:
    """Say what a server is like. `acknowledgements` are the replicas that accepts wait for.

    A server that keeps no mail, arq's own, may evict and needs no file.
    """
    traits = [_version(info), _role(info), _memory(info)]
    if keeps_mail:
        traits += [_eviction(info), _file(info), _replicas(info, acknowledgements)]
    return traits


def _version(info: dict[str, Any]) -> Trait:
    version = str(info.get("redis_version", "0"))
    hours = int(info.get("uptime_in_seconds", 0)) / 3600
    return Trait("version", read_version(version) >= OLDEST_REDIS, f"{version}, up {hours:.1f} h")


def _role(info: dict[str, Any]) -> Trait:
    role = str(info.get("role", "unknown"))
    loads = int(info.get("loading", 0)) != 0
    return Trait("role", role == "master" and not loads, role + (", loading its data" if loads else ""))


def _memory(info: dict[str, Any]) -> Trait:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit == 0:
        return Trait("memory", True, f"{used / MEGABYTE:.1f} MB; no maxmemory is set, and nothing warns")
    text = f"{used / MEGABYTE:.1f} MB of {limit / MEGABYTE:.1f} MB ({used / limit:.0%})"
    return Trait(
        "memory", used / limit <= FULL_SHARE, f"{text}; from {FULL_SHARE:.0%} on new mail is refused"
    )


def _eviction(info: dict[str, Any]) -> Trait:
    policy = str(info.get("maxmemory_policy", "noeviction"))
    return Trait("eviction", policy == "noeviction", policy)


def _file(info: dict[str, Any]) -> Trait:
    on = info.get("aof_enabled")
    if on is None:
        return Trait("append-only file", True, "it does not say")
    if not int(on):
        return Trait("append-only file", False, "off: a restart of Redis loses all mail")
    status = str(info.get("aof_last_write_status", "ok"))
    return Trait("append-only file", status == "ok", f"on, last write {status}")


def _replicas(info: dict[str, Any], wanted: int) -> Trait:
    known = int(info.get("connected_slaves", 0))
    rows = [row for n in range(known) if isinstance(row := info.get(f"slave{n}"), dict)]
    online = sum(row.get("state") == "online" for row in rows) if rows else known
    text = f"{online} online of {known}" + (f", {wanted} must acknowledge" if wanted else "")
    return Trait("replicas", online >= wanted, text)
