"""The use case: publish a template, or point at an older version of it. Nothing here knows HTTP."""

import asyncio
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from postroom.decode import Fault, convert, join
from postroom.errors import Code, RefusedError
from postroom.explain import moment
from postroom.ledger.errors import LedgerUnavailableError
from postroom.library import Publication, versions_of
from postroom.templates import Template, TemplateFault, TemplatesError
from postroom.templates.judging import judge_apart
from postroom.templates.schema import variables_schema
from service.accept import unavailable
from service.auth import Identity
from service.desk import Desk
from service.schema import FAULTS_DETAIL

MAX_FILES = 200
MAX_BYTES = 2_000_000


class PublishRequest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What `PUT /v1/templates/{name}` takes: the files of a new version, or an older version. Exactly one of them."""

    files: Annotated[dict[str, str], Meta(min_length=1, max_length=MAX_FILES)] | None = None
    version: Annotated[str, Meta(pattern=r"^[0-9a-f]{12}\Z")] | None = None


class TemplateSummary(Struct, frozen=True, kw_only=True):
    """A template at its current version. `published_at` and `published_by` are null where a folder has it."""

    name: str
    version: str
    owner: str
    description: str
    locales: list[str]
    agents: list[str] | None
    published_at: str | None
    published_by: str | None


class TemplateDetail(TemplateSummary, frozen=True, kw_only=True):
    """The same with its variables as JSON Schema, its delivery defaults and a request that sends it."""

    variables: dict[str, Any]
    delivery: dict[str, Any]
    example: dict[str, Any]


class TemplateList(Struct, frozen=True):
    """All templates."""

    templates: list[TemplateSummary]


class VersionView(Struct, frozen=True):
    """One version that a template has had."""

    version: str
    current: bool
    stored_at: str | None
    stored_by: str | None


class VersionList(Struct, frozen=True):
    """The versions of a template, the newest first."""

    versions: list[VersionView]


class VersionFiles(Struct, frozen=True):
    """The files that a version is made of; shared ones are named `_shared/…`."""

    name: str
    version: str
    files: dict[str, str]


class TemplateDesk:
    """Shows and publishes templates. One is judged at a time: it takes a process of its own."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._judging = asyncio.Lock()

    def all(self) -> TemplateList:
        """Return every template."""
        return TemplateList([TemplateSummary(**self._summary(template)) for template in self._desk.shelf])

    def one(self, name: str, identity: Identity) -> TemplateDetail:
        """Return one template, with an example for this caller; refuses where there is none of this name."""
        template = self._current(name)
        return TemplateDetail(
            **self._summary(template),
            variables=variables_schema(template.variables, template.shown),
            delivery={k: v for k, v in msgspec.structs.asdict(template.delivery).items() if v is not None},
            example=example_request(template, identity.caller.agents),
        )

    async def versions(self, name: str) -> VersionList:
        """Return the versions that a template has had."""
        current = self._current(name).version
        try:
            found = await versions_of(name, self._desk.client)
        except LedgerUnavailableError:
            raise unavailable() from None
        return VersionList(
            [VersionView(p.version, p.version == current, moment(p.at), p.by or None) for p in found]
        )

    async def files(self, name: str, version: str) -> VersionFiles:
        """Return the files of one version."""
        try:
            template = await self._desk.shelf.fetch(name, version)
        except LedgerUnavailableError:
            raise unavailable() from None
        if template is None:
            raise RefusedError(Code.NOT_FOUND, "The template has no such version.")
        return VersionFiles(name, version, template.files)

    async def publish(self, identity: Identity, name: str, body: bytes) -> TemplateDetail:
        """Judge and publish new files, or make an older version current again.

        Raises:
            RefusedError: 403 for a caller without the template's agents, 422 with every fault, 503 for Redis.
        """
        request = _decode(body)
        template = await self._new(name, request.files) if request.files else await self._old(name, request)
        for judged in (self._desk.shelf.get(name), template):
            if judged is not None and not set(judged.agents or ()) <= set(identity.caller.agents):
                detail = "The template belongs to agents that are not among the caller's."
                raise RefusedError(Code.AGENT_NOT_ALLOWED, detail)
        try:
            await self._desk.shelf.publish(template, identity.name)
        except LedgerUnavailableError:
            raise unavailable() from None
        self._desk.notes(
            "template.published", template=name, template_version=template.version, caller=identity.name
        )
        return self.one(name, identity)

    async def _new(self, name: str, files: dict[str, str]) -> Template:
        if sum(map(len, files.values())) > MAX_BYTES:
            raise _refuse([TemplateFault(name, "", 1, f"longer than {MAX_BYTES} characters together")])
        async with self._judging:
            faults = await asyncio.to_thread(judge_apart, name, files)
        if faults:
            raise _refuse(faults)
        try:
            return await asyncio.to_thread(Template, name, files)
        except TemplatesError as error:
            raise _refuse(error.faults) from None

    async def _old(self, name: str, request: PublishRequest) -> Template:
        try:
            template = await self._desk.shelf.fetch(name, request.version or "")
        except LedgerUnavailableError:
            raise unavailable() from None
        if template is None:
            faults = [Fault("/version", "is not a version of the template")]
            raise RefusedError(Code.UNKNOWN_TEMPLATE, FAULTS_DETAIL, faults=faults)
        return template

    def _current(self, name: str) -> Template:
        template = self._desk.shelf.get(name)
        if template is None:
            raise RefusedError(Code.NOT_FOUND, "There is no template of this name.")
        return template

    def _summary(self, template: Template) -> dict[str, Any]:
        publication: Publication | None = self._desk.shelf.publication(template.name)
        return {
            "name": template.name,
            "version": template.version,
            "owner": template.owner,
            "description": template.description,
            "locales": list(template.locales),
            "agents": None if template.agents is None else list(template.agents),
            "published_at": moment(publication.at) if publication else None,
            "published_by": publication.by if publication else None,
        }


def example_request(template: Template, agents: tuple[str, ...]) -> dict[str, Any]:
    """Return a body of `POST /v1/messages` that sends the template's examples, through one of these agents."""
    allowed = agents if template.agents is None else template.agents
    usable = [agent for agent in allowed if agent in agents]
    return {
        "client_ref": f"{template.name}-1",
        "agent": next(iter([*usable, *allowed]), "orders"),
        "to": [{"address": "ada@example.com", "name": "Ada Lovelace"}],
        "template": {"name": template.name, "variables": template.examples, "locale": template.locales[0]},
    }


def _decode(body: bytes) -> PublishRequest:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RefusedError(Code.MALFORMED_JSON, "The body could not be read as JSON in UTF-8.") from None
    request, faults = convert(value, PublishRequest)
    if request is not None and (request.files is None) == (request.version is None):
        faults = [Fault("", "needs exactly one of files and version")]
    if request is None or faults:
        raise RefusedError(Code.INVALID_REQUEST, FAULTS_DETAIL, faults=faults)
    return request


def _refuse(faults: list[TemplateFault]) -> RefusedError:
    """Name each fault by its file and line. They tell the template's author about the author's own words."""
    named = [Fault(join("/files", f.file), f"line {f.line}: {f.message}") for f in faults[:100]]
    return RefusedError(Code.INVALID_TEMPLATE, FAULTS_DETAIL, faults=named)
