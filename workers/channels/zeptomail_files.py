"""Files of Postroom's cache in ZeptoMail's own: uploaded once for a mail agent, then referred to by their key.

Whatever goes wrong with an upload costs nothing but speed: the file is attached instead, and after a failure for a
while by all workers, so that mail does not wait for a cache that hangs.
"""

import asyncio
from base64 import b64decode
from urllib.parse import quote

import msgspec
from msgspec import Struct

from postroom.file_header import can_name, is_key, is_name, room_beside
from postroom.ledger.files import NO_UPLOAD
from postroom.message import Attachment
from postroom.outcome import ChannelFault
from workers.channels.http_pool import Lost
from workers.channels.seam import FileKeys
from workers.channels.zeptomail_answer import fault_of
from workers.channels.zeptomail_client import Heard, ZeptomailClient

# For an upload; after so long a mail begins no further one, nor waits for another lane's.
UPLOAD_SECONDS = 3.0
POLL_SECONDS = 0.05


class Referred(Struct, frozen=True):
    """Keys of a mail's files by their ids, and those of them that were not uploaded just now."""

    keys: dict[str, str] = {}
    older: frozenset[str] = frozenset()


NOTHING = Referred()


class ZeptomailFiles:
    """One mail agent's file cache."""

    def __init__(self, client: ZeptomailClient, keys: FileKeys | None) -> None:
        """Without `keys` nothing can be remembered, so every file is attached."""
        self._client = client
        self._keys = keys

    async def refer(self, files: tuple[Attachment, ...]) -> Referred:
        """Return the provider's keys of those files that have one, or can be given one."""
        wanted = {one.file: one for one in files if one.file}
        if not wanted or self._keys is None or self._client.open() is not None:
            return NOTHING
        until = asyncio.get_running_loop().time() + UPLOAD_SECONDS
        found, older = {}, set()
        for file in wanted.values():
            key = await self._keys.get(file.file)
            if key == NO_UPLOAD:
                continue
            if key:
                older.add(file.file)
            else:
                key = await self._give(self._keys, file, until, begun=key is not None)
            if key:
                found[file.file] = key
        return Referred(found, frozenset(older))

    async def forget(self, referred: Referred) -> None:
        """Forget keys that the provider does not know: the next `refer` uploads the files again."""
        if self._keys is not None:
            for file in referred.older:
                await self._keys.forget(file, referred.keys[file])

    async def aclose(self) -> None:
        """Close the client."""
        await self._client.aclose()

    async def _give(self, keys: FileKeys, file: Attachment, until: float, *, begun: bool) -> str | None:
        """Upload the file, unless that was begun elsewhere; past `until` the mail takes no more time for it."""
        if asyncio.get_running_loop().time() >= until:
            return None
        if begun or not await keys.begin(file.file):
            return await _await_other(keys, file.file, until)
        key = None
        try:
            key = await self._upload(keys, file)
        finally:
            await keys.end(file.file, key)
        return key

    async def _upload(self, keys: FileKeys, file: Attachment) -> str | None:
        """Upload the file and return its key. A failure is remembered, so that no other mail waits for it."""
        path = f"/v1.1/files?name={quote(file.name, safe='')}"
        kind = file.content_type.partition(";")[0]
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                answer = await self._client.post(path, b64decode(file.encoded), kind)
        except TimeoutError:
            answer = Lost()
        key = _key_in(answer)
        if key is None:
            await keys.rest(file.file if _is_of_file(answer) else None)
        return key


async def _await_other(keys: FileKeys, file: str, until: float) -> str | None:
    """Wait for an upload that was begun elsewhere."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        key = await keys.get(file)
        if key != "":
            return None if key == NO_UPLOAD else key
        await asyncio.sleep(POLL_SECONDS)
    return None


def _key_in(answer: Heard | ChannelFault | Lost) -> str | None:
    if not isinstance(answer, tuple) or not 200 <= answer[0].status < 300:
        return None
    return file_key_of(answer[0].body)


def _is_of_file(answer: Heard | ChannelFault | Lost) -> bool:
    """True where the provider refused this file; anything else would meet every upload."""
    if not isinstance(answer, tuple) or not 400 <= answer[0].status < 500:
        return False
    return fault_of(answer[0].status, answer[1], None) is None


def file_key_of(body: bytes) -> str | None:
    """Return the key in the answer to an upload, where it is one that may stand in a request and in a header."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    key = document.get("file_cache_key") if isinstance(document, dict) else None
    return key if isinstance(key, str) and is_key(key) else None


def in_header(files: tuple[Attachment, ...], keys: dict[str, str]) -> tuple[str, tuple[Attachment, ...]]:
    """Return the value of X-TM-FILE-KEY, and the files it does not name, which are to be attached.

    What only the provider has cannot be attached, so it has the room first, and goes without its name where that is
    tight. Where the field cannot name all of that, it names nothing.
    """
    if not can_name(files):
        return "", files
    room = room_beside(files)
    entries: dict[int, str] = {}
    for index, file in sorted(enumerate(files), key=lambda pair: not pair[1].provider_key):
        entry = _entry(file, keys, room)
        if entry:
            entries[index] = entry
            room -= len(entry) - len(file.provider_key) + (0 if file.provider_key else 1)
    attached = tuple(file for index, file in enumerate(files) if index not in entries)
    return ",".join(entries[index] for index in sorted(entries)), attached


def _entry(file: Attachment, keys: dict[str, str], room: int) -> str:
    """Return what names the file; nothing where it is to be attached. A bare `provider_key` has its room already."""
    if file.provider_key:
        whole = f"{file.provider_key}:{file.name}"
        return whole if is_name(file.name) and len(file.name) < room else file.provider_key
    key = keys.get(file.file, "")
    whole = f"{key}:{file.name}"
    fits = file.cid is None and is_key(key) and is_name(file.name) and len(whole) < room
    return whole if fits else ""
