"""Template versions in Redis: every process publishes its own, so that a worker finds what a message is pinned to.

Versions never change and are small; they have no end of life, since mail may wait for a month.
"""

import asyncio
import time
from collections.abc import Iterable

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.refusals import unreachable
from postroom.templates import Template, TemplatesError

KEPT = 200  # versions that a process remembers beside those of its folder
KEPT_PUBLICATIONS = 100  # of one template
BY_FOLDER = ""


class UnknownTemplateError(Exception):
    """A message is pinned to a version that nobody has any more."""


class Publication(Struct, frozen=True, array_like=True):
    """A version that was made current: when, in ms since the epoch, and by which caller (none: a folder had it)."""

    version: str
    at: int
    by: str = BY_FOLDER


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Publication).decode


def publication_of(version: str, by: str) -> Publication:
    """Return the record of a publication that happens now; its time is for people, and decides nothing."""
    return Publication(version, round(time.time() * 1000), by)


class Library:
    """Finds templates by name and version. Versions never change, so what was found once is kept for a while."""

    def __init__(self, templates: Iterable[Template], client: Redis) -> None:
        self._client = client
        self._own = {(t.name, t.version): t for t in templates}
        self._fetched: dict[tuple[str, str], Template] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[Template]] = {}

    def known(self, name: str, version: str) -> Template | None:
        """Return the template if this process has it already."""
        key = (name, version)
        return self._own.get(key) or self._fetched.get(key)

    async def get(self, name: str, version: str) -> Template:
        """Return the template.

        Raises:
            UnknownTemplateError: neither this process nor the ledger has the version.
            LedgerUnavailableError: Redis did not answer.
        """
        return self.known(name, version) or await self._fetch_once((name, version))

    def keep(self, template: Template) -> None:
        """Remember a template; of many, the ones that came last."""
        self._fetched[template.name, template.version] = template
        while len(self._fetched) > KEPT:
            del self._fetched[next(iter(self._fetched))]

    async def _fetch_once(self, key: tuple[str, str]) -> Template:
        """Fetch a version for everybody who asks for it meanwhile: a new one meets many lanes at once."""
        task = self._fetching.get(key)
        if task is None:
            task = self._fetching[key] = asyncio.create_task(self._fetch(*key))
            task.add_done_callback(lambda done: self._fetched_one(key, done))
        return await asyncio.shield(task)

    def _fetched_one(self, key: tuple[str, str], done: asyncio.Task[Template]) -> None:
        del self._fetching[key]
        if not done.cancelled() and done.exception() is None:
            self.keep(done.result())

    async def _fetch(self, name: str, version: str) -> Template:
        try:
            source = await self._client.get(keys.template_key(name, version))
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        if source is None:
            raise UnknownTemplateError(name)
        try:
            # It was judged before it got there; compiling takes a while all the same.
            return await asyncio.to_thread(Template.from_source, name, source)
        except TemplatesError as error:
            raise UnknownTemplateError(name) from error


async def publish_templates(templates: Iterable[Template], client: Redis) -> list[Template]:
    """Put template versions where every worker finds them, and return those nobody had put there. May be repeated.

    Raises:
        LedgerUnavailableError: Redis did not take them.
    """
    return [template for template in templates if await store_version(template, client, BY_FOLDER)]


async def store_version(template: Template, client: Redis, by: str) -> bool:
    """Put one version where every worker finds it; true where nobody had put it there.

    Raises:
        LedgerUnavailableError: Redis did not take it.
    """
    key = keys.template_key(template.name, template.version)
    try:
        if not await client.set(key, template.source(), nx=True):
            return False
        history = keys.template_history_key(template.name)
        await client.lpush(history, _encode(publication_of(template.version, by)))  # type: ignore[misc]
        await client.ltrim(history, 0, KEPT_PUBLICATIONS - 1)  # type: ignore[misc]
    except (RedisError, OSError) as error:
        raise unreachable(error) from error
    return True


async def versions_of(name: str, client: Redis) -> list[Publication]:
    """Return the versions that a template has had, the newest first.

    Raises:
        LedgerUnavailableError: Redis did not answer.
    """
    try:
        rows = await client.lrange(keys.template_history_key(name), 0, -1)  # type: ignore[misc]
    except (RedisError, OSError) as error:
        raise unreachable(error) from error
    return [_decode(row) for row in rows]
