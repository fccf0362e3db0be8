"""Files of Postroom's cache in ZeptoMail's own: uploaded once for a mail agent, then referred to by their key.

Whatever goes wrong with an upload costs nothing but speed: the file is attached instead.
"""

import asyncio
from base64 import b64decode
from urllib.parse import quote

import msgspec
from msgspec import Struct

from postroom.file_header import can_name, is_key, is_name, room_beside
from postroom.message import Attachment
from workers.channels.seam import FileKeys
from workers.channels.zeptomail_client import ZeptomailClient

WAIT_SECONDS = 10.0  # for an upload that another lane or worker is making
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
        found, older = {}, set()
        for file in wanted.values():
            key = await self._keys.get(file.file)
            if key:
                older.add(file.file)
            else:
                key = await self._give(self._keys, file)
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

    async def _give(self, keys: FileKeys, file: Attachment) -> str | None:
        if not await keys.begin(file.file):
            return await _await_other(keys, file.file)
        key = None
        try:
            key = await self._upload(file)
        finally:
            await keys.end(file.file, key)
        return key

    async def _upload(self, file: Attachment) -> str | None:
        path = f"/v1.1/files?name={quote(file.name, safe='')}"
        kind = file.content_type.partition(";")[0]
        answer = await self._client.post(path, b64decode(file.encoded), kind)
        if not isinstance(answer, tuple) or not 200 <= answer[0].status < 300:
            return None
        return file_key_of(answer[0].body)


async def _await_other(keys: FileKeys, file: str) -> str | None:
    """Wait for an upload that was begun elsewhere."""
    loop = asyncio.get_running_loop()
    until = loop.time() + WAIT_SECONDS
    while loop.time() < until:
        key = await keys.get(file)
        if key != "":
            return key
        await asyncio.sleep(POLL_SECONDS)
    return None


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
