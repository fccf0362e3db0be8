"""Which version of each template is current: the one published last, else the one in the folder of this process.

The guarantee: a version is in Redis before anything points at it, so whoever accepts a message with it can be sure
that every worker finds it. What is current is one hash in Redis with a counter beside it; a process that looks every
moment sees a publication within that moment, and takes it over as a whole.
"""

from collections.abc import Iterator

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from postroom.ledger import keys
from postroom.ledger.refusals import unreachable
from postroom.library import Library, Publication, UnknownTemplateError, publication_of, store_version
from postroom.templates import Template, TemplateSet

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Publication).decode


class Shelf:
    """The current templates of a process that accepts messages. Looking one up costs a dictionary's look-up."""

    def __init__(self, folder: TemplateSet, client: Redis, log: FilteringBoundLogger) -> None:
        self.library = Library(folder, client)
        self._client = client
        self._log = log
        self._folder = {template.name: template for template in folder}
        self._current = dict(self._folder)
        self._published: dict[str, Publication] = {}
        self._seen: bytes | None = None  # the counter when `_published` was read

    def get(self, name: str, version: str | None = None) -> Template | None:
        """Return the current version of a template, or another one that `fetch` has brought here."""
        current = self._current.get(name)
        if version is None or (current is not None and current.version == version):
            return current
        return self.library.known(name, version)

    def publication(self, name: str) -> Publication | None:
        """Return how the current version came to be, None where it is the folder's."""
        return self._published.get(name)

    def __iter__(self) -> Iterator[Template]:
        return iter([self._current[name] for name in sorted(self._current)])

    async def fetch(self, name: str, version: str) -> Template | None:
        """Bring a version here, so that `get` finds it; None where there is none.

        Raises:
            LedgerUnavailableError: Redis did not answer.
        """
        try:
            return self.get(name, version) or await self.library.get(name, version)
        except UnknownTemplateError:
            return None

    async def publish(self, template: Template, by: str) -> Publication:
        """Make a version current for all processes, and for this one at once.

        Raises:
            LedgerUnavailableError: Redis did not take it, or perhaps not; it may be repeated.
        """
        self.library.keep(template)
        await store_version(template, self._client, by)
        publication = publication_of(template.version, by)
        await self._point(template.name, publication)
        self._published[template.name] = publication
        self._current[template.name] = template
        return publication

    async def refresh(self, *, emptied: bool = False) -> None:
        """Take over what was published elsewhere; give an emptied Redis back what this process knows.

        Raises:
            LedgerUnavailableError: Redis did not answer.
        """
        if emptied:
            await self._restore()
        try:
            seen = await self._client.hget(keys.TEMPLATES_KEY, keys.TEMPLATES_COUNTER)  # type: ignore[misc]
            if seen == self._seen:
                return
            rows = await self._client.hgetall(keys.TEMPLATES_KEY)  # type: ignore[misc]
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        for field, value in rows.items():
            if (name := field.decode()) != keys.TEMPLATES_COUNTER:
                await self._take(name, _decode(value))
        self._seen = rows.get(keys.TEMPLATES_COUNTER.encode())

    async def _take(self, name: str, publication: Publication) -> None:
        if self._published.get(name) == publication:
            return
        template = await self.fetch(name, publication.version)
        if template is None:
            # Perhaps published by a newer Postroom, in words this one does not know: what was current stays.
            self._log.error("template.unusable", template=name, template_version=publication.version)
            return
        self._published[name] = publication
        self._current[name] = template

    async def _point(self, name: str, publication: Publication) -> None:
        """Write what is current and count it, both or neither."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(keys.TEMPLATES_KEY, name, _encode(publication))  # type: ignore[arg-type]  # bytes are fine
        pipe.hincrby(keys.TEMPLATES_KEY, keys.TEMPLATES_COUNTER, 1)
        try:
            await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error

    async def _restore(self) -> None:
        for name, publication in self._published.items():
            await store_version(self._current[name], self._client, publication.by)
            await self._point(name, publication)
