"""The file cache: what callers upload once and use in many messages, and what providers call their copies.

A file is stored once, in a slot of its own. Beside the messages that use it each partition counts them, in the same
scripts that begin and end messages. `collect` drops a file when its lifetime is over and no partition needs it:
whatever dies on the way, a file goes too late and never too early.
"""

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Iterable
from typing import cast

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.keys import (
    PARTITIONS,
    file_key,
    place_of_file,
    place_of_file_slot,
    place_of_partition,
    provider_key,
    upload_rest_key,
)
from postroom.ledger.pipe import Pipe
from postroom.ledger.refusals import unreachable

ACCEPT_MS = 600_000  # a file that was found for an accept stays so long; the accept itself has seconds
LOOK_AGAIN_MS = 600_000
COLLECTED_AT_ONCE = 100
UPLOAD_MS = 30_000  # who uploads a file to a provider has so long before another one tries
REST_MS = 60_000  # after an upload that failed
NO_UPLOAD = ","  # instead of a provider's key, which never is this: the file is to be attached
PROVIDER_MS = 30 * 24 * 3600 * 1000
AWAY = (RedisError, OSError, LedgerUnavailableError)  # the last where no node of a cluster answers


class StoredFile(Struct, frozen=True):
    """A file of the cache without its bytes; `until` in ms since the epoch is when no new message may use it."""

    id: str
    content_type: str
    size: int
    until: int


def file_id(caller: str, content_type: str, data: bytes) -> str:
    """Return the id of a caller's file: the same bytes as the same type are the same file."""
    digest = hashlib.sha256(f"{caller}\0{content_type}\0".encode() + data).digest()
    return base64.urlsafe_b64encode(digest[:18]).decode()


class Files:
    """The cache as callers and their messages see it."""

    def __init__(self, pipe: Pipe, large: Pipe) -> None:
        self._pipe = pipe
        self._large = large

    async def keep(
        self, file: StoredFile, caller: str, lines: bytes, lifetime_ms: int
    ) -> tuple[StoredFile, bool]:
        """Keep a file's base64 lines, and return it with its end and whether it is new.

        Raises:
            LedgerUnavailableError, LedgerUnconfirmedError, LedgerFullError: send it again.
        """
        place = place_of_file(file.id)
        created, until = await self._large.call(
            "keep_file", place.agenda, place.prefix, "", 0, 0,
            file.id, caller, file.content_type, file.size, lines, lifetime_ms,
        )  # fmt: skip
        return StoredFile(file.id, file.content_type, file.size, until), bool(created)

    async def touch(self, caller: str, ids: Iterable[str]) -> dict[str, StoredFile]:
        """Return those of the files that are the caller's and usable, kept until an accept now can hold them.

        Raises:
            LedgerUnavailableError, LedgerUnconfirmedError, LedgerFullError: nothing is known.
        """
        wanted = list(dict.fromkeys(ids))
        found = await asyncio.gather(*(self._touch(caller, file) for file in wanted))
        return {file.id: file for file in found if file is not None}

    async def _touch(self, caller: str, file: str) -> StoredFile | None:
        place = place_of_file(file)
        reply = await self._pipe.call(
            "touch_file", place.agenda, place.prefix, "", 0, 0, file, caller, ACCEPT_MS
        )
        return StoredFile(file, reply[0].decode(), reply[1], reply[2]) if reply else None


async def collect_files(pipe: Pipe, client: Redis) -> int:
    """Drop files that are over and that no message needs; return how many.

    Raises:
        LedgerError: not all was looked at.
    """
    dropped = 0
    for number in range(PARTITIONS):
        place = place_of_file_slot(number)
        over = await _over(client, place.agenda)
        if over:
            needed = await _needed(pipe, over)
            flat = [value for file in over for value in (file, int(file in needed))]
            dropped += await pipe.call(
                "drop_files", place.agenda, place.prefix, "", 0, 0, LOOK_AGAIN_MS, *flat
            )
    return dropped


async def _over(client: Redis, key: str) -> list[str]:
    try:
        seconds, _ = await client.time()
        found = await client.zrangebyscore(key, "-inf", seconds * 1000, start=0, num=COLLECTED_AT_ONCE)
    except (RedisError, OSError) as error:
        raise unreachable(error) from error
    return [file.decode() for file in found]


async def _needed(pipe: Pipe, files: list[str]) -> set[str]:
    places = [place_of_partition(number) for number in range(PARTITIONS)]
    calls = (pipe.call("held_files", p.agenda, p.prefix, "", 0, 0, *files) for p in places)
    rows = await asyncio.gather(*calls)
    return {file for row in rows for file, held in zip(files, row, strict=True) if held}


class FileContents:
    """Reads files for a worker, and keeps the last ones in memory: ten thousand mails with one file read it once."""

    def __init__(self, client: Redis, most_bytes: int) -> None:
        self._client = client
        self._most = most_bytes
        self._size = 0
        self._known: dict[str, bytes] = {}
        self._asked: dict[str, asyncio.Task[bytes | None]] = {}

    async def lines(self, file: str) -> bytes | None:
        """Return a file's base64 lines, or None where it is gone.

        Raises:
            LedgerUnavailableError: Redis did not answer.
        """
        if (known := self._known.pop(file, None)) is not None:
            self._known[file] = known  # the one used last goes last
            return known
        if file not in self._asked:
            task = self._asked[file] = asyncio.create_task(self._read(file))
            task.add_done_callback(lambda _: self._asked.pop(file, None))
        return await asyncio.shield(self._asked[file])

    async def _read(self, file: str) -> bytes | None:
        try:
            found: bytes | None = await cast(
                "Awaitable[bytes | None]", self._client.hget(file_key(file), "b")
            )
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        if found is not None:
            self._keep(file, found)
        return found

    def _keep(self, file: str, lines: bytes) -> None:
        self._size += len(lines)
        self._known[file] = lines
        while self._size > self._most and self._known:
            first = next(iter(self._known))
            self._size -= len(self._known.pop(first))


class ProviderKeys:
    """What one channel's provider calls its copies of cached files. Every call does its best and never raises.

    Without it a file is attached, which is only slower.
    """

    def __init__(self, client: Redis, agent: str, channel: str) -> None:
        self._client = client
        self._agent = agent
        self._channel = channel

    async def get(self, file: str) -> str | None:
        """Return the provider's key, or None where there is none.

        Empty while somebody uploads the file, and NO_UPLOAD for a minute after an upload that failed.
        """
        names = [self._key(file), *(upload_rest_key(self._agent, self._channel, one) for one in (file, ""))]
        try:
            key, *rests = await self._client.mget(names)
        except AWAY:
            return None
        if not key and any(rest is not None for rest in rests):
            return NO_UPLOAD
        return None if key is None else str(key, "utf-8")

    async def begin(self, file: str) -> bool:
        """Announce an upload, and return whether it is ours to make."""
        try:
            return bool(await self._client.set(self._key(file), "", nx=True, px=UPLOAD_MS))
        except AWAY:
            return False

    async def end(self, file: str, key: str | None) -> None:
        """Tell what came of an upload."""
        try:
            if key is None:
                await self._client.delete(self._key(file))
            else:
                await self._client.set(self._key(file), key, px=PROVIDER_MS)
        except AWAY:
            return  # the announcement runs out by itself

    async def rest(self, file: str | None) -> None:
        """Have this file attached for a minute, or all that the provider has not yet, by all workers."""
        try:
            await self._client.set(upload_rest_key(self._agent, self._channel, file or ""), "", px=REST_MS)
        except AWAY:
            return

    async def forget(self, file: str, key: str) -> None:
        """Forget a key that the provider does not know any more, unless somebody has a newer one already."""
        if await self.get(file) == key:
            await self.end(file, None)

    def _key(self, file: str) -> str:
        return provider_key(self._agent, self._channel, file)
