"""Files of Postroom's cache in ZeptoMail's own: uploaded once for a mail agent, then referred to by their key.

Whatever goes wrong with an upload costs nothing but speed: the file is attached instead.
"""

import asyncio
import re
from base64 import b64decode
from urllib.parse import quote

import msgspec
from msgspec import Struct

from postroom.message import Attachment
from workers.channels.seam import FileKeys
from workers.channels.zeptomail_client import ZeptomailClient

WAIT_SECONDS = 10.0  # for an upload that another lane or worker is making
POLL_SECONDS = 0.05
MAX_HEADER = 900  # characters of X-TM-FILE-KEY: it has no place to be folded at

# Printable, without the comma and the colon that part keys and names in the header.
_PLAIN = r"[!-+\--9;-~]"
_KEY = re.compile(rf"{_PLAIN}{{1,256}}")
_PLAIN_NAME = re.compile(rf"{_PLAIN}+(?: {_PLAIN}+)*")


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
    return key if isinstance(key, str) and _KEY.fullmatch(key) else None


def in_header(files: tuple[Attachment, ...], keys: dict[str, str]) -> tuple[str, tuple[Attachment, ...]]:
    """Return the value of X-TM-FILE-KEY, and the files it cannot name, which are to be attached.

    A name with a comma or a colon in it has no escape there, and an inline image would lose its cid.
    """
    named: list[str] = []
    attached: list[Attachment] = []
    for file in files:
        entry = _entry(file, keys)
        if entry is not None and sum(map(len, named)) + len(named) + len(entry) <= MAX_HEADER:
            named.append(entry)
        else:
            attached.append(file)
    return ",".join(named), tuple(attached)


def _entry(file: Attachment, keys: dict[str, str]) -> str | None:
    key = file.provider_key or (keys.get(file.file) if file.cid is None else None)
    plain = _PLAIN_NAME.fullmatch(file.name) is not None and "=?" not in file.name
    if key and plain:
        return f"{key}:{file.name}"
    return file.provider_key or None
