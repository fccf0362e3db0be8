"""Template versions in Redis: every process publishes its own, so that a worker finds what a message is pinned to.

Versions never change and are small; they have no end of life, since mail may wait for a month.
"""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.errors import LedgerUnavailableError
from postroom.templates import Template, TemplatesError, TemplateSet


class UnknownTemplateError(Exception):
    """A message is pinned to a version that nobody has any more."""


class Library:
    """Finds templates by name and version. Versions never change, so what was found once is kept."""

    def __init__(self, templates: TemplateSet, client: Redis) -> None:
        self._client = client
        self._known = {(t.name, t.version): t for t in templates}

    async def get(self, name: str, version: str) -> Template:
        """Return the template.

        Raises:
            UnknownTemplateError: neither this process nor the ledger has the version.
            LedgerUnavailableError: Redis did not answer.
        """
        found = self._known.get((name, version))
        if found is None:
            found = self._known[name, version] = await self._fetch(name, version)
        return found

    async def _fetch(self, name: str, version: str) -> Template:
        try:
            source = await self._client.get(keys.template_key(name, version))
        except (RedisError, OSError) as error:
            raise LedgerUnavailableError("cannot reach Redis") from error
        if source is None:
            raise UnknownTemplateError(name)
        try:
            return Template.from_source(name, source)
        except TemplatesError as error:
            raise UnknownTemplateError(name) from error


async def publish_templates(templates: TemplateSet, client: Redis) -> list[Template]:
    """Put template versions where every worker finds them, and return those nobody had put there. May be repeated.

    Raises:
        LedgerUnavailableError: Redis did not take them.
    """
    new = []
    try:
        for template in templates:
            key = keys.template_key(template.name, template.version)
            if await client.set(key, template.source(), nx=True):
                new.append(template)
    except (RedisError, OSError) as error:
        raise LedgerUnavailableError("cannot reach Redis") from error
    return new
