"""Is this Redis fit to hold mail? Asked at the start, and again every moment for its memory."""

import os

from msgspec import Struct
from msgspec.structs import replace
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.balance import Balance
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.refusals import unreachable
from postroom.ledger.scripts import load_scripts
from postroom.states import PRIORITY_LETTERS

FULL_SHARE = 0.85  # of maxmemory; the rest is what queued mail needs to drain
OLDEST_REDIS = (6, 2)
HELD_LOOKED_AT = 500  # messages of a queue: half a millisecond of Redis's time


class Fitness(Struct, frozen=True):
    """What a look at Redis showed."""

    evicts: str | None  # the eviction policy, where it may delete mail
    durable: bool | None  # append-only file on; None where Redis does not say
    too_old: str | None  # the version, where it is older than 6.2
    memory_share: float  # used of maxmemory, 0 where there is no limit


class QueueDepth(Struct, frozen=True):
    """One agent's waiting mail of one priority, leased mail included in `waiting` only.

    `held` of it wait for a person, or more where `held_is_least`; both only from `depth_and_held`.
    """

    agent: str
    priority: str
    waiting: int
    due: int
    oldest_due_ms: int
    held: int = 0
    held_is_least: bool = False


class Watch:
    """Looks at the ledger's Redis. Raises LedgerUnavailableError where it does not answer.

    It reads INFO only, so it needs no CONFIG, which managed services forbid.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.balance = Balance(client)

    async def now(self) -> int:
        """Return Redis's clock, in ms since the epoch: the one by which everything is recorded."""
        try:
            seconds, micros = await self._client.time()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return int(seconds) * 1000 + int(micros) // 1000

    async def fitness(self) -> Fitness:
        """Look at version, eviction policy, persistence and memory."""
        try:
            info = {**await self._client.info("memory"), **await self._client.info("persistence")}
            info |= await self._client.info("server")
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        policy = str(info.get("maxmemory_policy", "noeviction"))
        aof = info.get("aof_enabled")
        version = str(info.get("redis_version", "0"))
        limit = int(info.get("maxmemory", 0))
        return Fitness(
            evicts=None if policy == "noeviction" else policy,
            durable=None if aof is None else bool(int(aof)),
            too_old=version if read_version(version) < OLDEST_REDIS else None,
            memory_share=int(info.get("used_memory", 0)) / limit if limit else 0.0,
        )

    async def digest_key(self, own: bytes | None = None) -> tuple[bytes, bool]:
        """Return the installation's digest key, and whether Redis had none: it is new, or was emptied.

        `own` is what such a Redis gets back, so that known refs stay known to this process.
        """
        try:
            key = await self._client.get(keys.DIGEST_KEY)
            missing = not key
            if missing:  # asked first, because a full Redis refuses every SET
                await self._client.set(keys.DIGEST_KEY, own or os.urandom(32), nx=True)
                key = await self._client.get(keys.DIGEST_KEY)
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        if not key:
            raise LedgerUnavailableError("Redis lost the digest key")
        return bytes(key), missing

    async def depth(self) -> list[QueueDepth]:
        """Count the waiting mail of all agents, one script call a partition."""
        script = load_scripts()["depth"]
        pipe = self._client.pipeline(transaction=False)
        for number in range(keys.PARTITIONS):
            place = keys.place_of_partition(number)
            pipe.eval(script.source.decode(), 1, place.agenda, place.prefix, "", "0", "0")
        try:
            rows = [row for reply in await pipe.execute() for row in reply]
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return [QueueDepth(a.decode(), p.decode(), waiting, due, ms) for a, p, waiting, due, ms in rows]

    async def depth_and_held(self) -> list[QueueDepth]:
        """Count the waiting mail of all agents and what of it is held: a script call a queue that is not all due."""
        rows = await self.depth()
        asked = [n for n, row in enumerate(rows) if row.waiting > row.due]
        source = load_scripts()["held"].source.decode()
        pipe = self._client.pipeline(transaction=False)
        for n in asked:
            place, letter = keys.place_of(rows[n].agent), PRIORITY_LETTERS[rows[n].priority]
            pipe.eval(
                source, 1, place.agenda, place.prefix, rows[n].agent, "0", "0", letter, str(HELD_LOOKED_AT)
            )
        try:
            replies = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        for n, (held, more) in zip(asked, replies, strict=True):
            rows[n] = replace(rows[n], held=held, held_is_least=bool(more))
        return rows


def read_version(text: str) -> tuple[int, int]:
    """Return major and minor of a version of Redis, as INFO gives it."""
    major, minor, *_ = (*text.split("."), "0", "0")
    return int(major), int(minor)
