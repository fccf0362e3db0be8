"""The desk: what the routes work with, opened when the process starts and closed when it ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from structlog.typing import FilteringBoundLogger

from postroom import rounds
from postroom.config.structs import Config
from postroom.config.units import milliseconds
from postroom.errors import Code, RefusedError
from postroom.heart import Heart
from postroom.ledger.accept import Acceptance
from postroom.ledger.changes import Journal, Notes
from postroom.ledger.clients import end_tasks, open_pipe, reading_client
from postroom.ledger.digests import Digests
from postroom.ledger.errors import LedgerFullError, LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.files import Files
from postroom.ledger.reading import Reading
from postroom.ledger.watch import FULL_SHARE, Watch
from postroom.library import publish_templates
from postroom.metrics import EdgeMetrics
from postroom.origin import Origin
from postroom.outage import Outage
from postroom.shelf import Shelf
from postroom.supervise import supervise
from postroom.templates import TemplateSet
from service.accept import Accepted, AcceptMessage, storage_full, unavailable
from service.account import Account
from service.auth import Identity
from service.rehearse import DryRunView, rehearse
from service.schema import Decoded
from service.upload import KeepFile

ACCEPT_SECONDS = 2.0
ACCEPTS_TOGETHER = 16  # more of them, and the API stands idle while Redis works, and the other way round
LOOK_SECONDS = 0.25
AGENTS_SECONDS = 5.0


class Desk:
    """The accepting side of Postroom: the ledger's clients, the use case, and an eye on Redis."""

    def __init__(
        self, config: Config, templates: TemplateSet, metrics: EdgeMetrics, log: FilteringBoundLogger
    ) -> None:
        self.retention = config.retention.message
        self.metrics = metrics
        self.account = Account(metrics, log)
        self.draining = False
        self.heart = Heart()
        self.redis_ok: bool | None = None  # not looked yet
        self._log = log
        self._folder = templates
        self._published = self._emptied = False
        self._outage = Outage(log)
        url, replicas = config.redis.url, config.redis.min_replicas_ack
        self._pipes = [
            open_pipe(
                url,
                deadline=ACCEPT_SECONDS,
                replicas=replicas,
                batch=ACCEPTS_TOGETHER,
                observe=metrics.pipes.observer(op),
            )
            for op in ("accept", "accept_large")
        ]
        self.client = reading_client(url)
        self.reading = Reading(self.client)
        self.notes = Notes(Journal(self.client), log)
        self.watch = Watch(self.client)
        self.shelf = Shelf(templates, self.client, log)
        self._arq: rounds.RoundsPool = rounds.rounds_pool(config.redis.arq_url or url)
        self._digests: Digests | None = None
        self._agents: set[str] | None = None  # not asked yet
        self._agents_at = 0.0
        self._refusal: RefusedError | None = unavailable()
        self._ringing: set[asyncio.Task[bool]] = set()
        retention = config.retention
        self.acceptance = Acceptance(
            *self._pipes,
            content_ms=milliseconds(retention.content),
            message_ms=milliseconds(retention.message),
        )
        files = Files(*self._pipes)
        self.keep_file = KeepFile(files, config.files)
        self._accept = AcceptMessage(self.shelf, self.acceptance, files, self.digests, self.ring)
        self.cancel = self.acceptance.cancel

    async def accept(self, identity: Identity, decoded: Decoded, origin: Origin) -> Accepted:
        """Accept a request; see `AcceptMessage`."""
        try:
            return await self._accept(identity, decoded, origin)
        except RefusedError as refused:
            if refused.code == Code.CONFLICT:
                self.metrics.replays.labels(identity.name, "conflict").inc()
            raise

    async def rehearse(self, identity: Identity, decoded: Decoded, origin: Origin) -> DryRunView:
        """Say what would become of a request; nothing of it is recorded."""
        offer, agent = await self._accept.rehearse(identity, decoded, origin)
        return await asyncio.to_thread(rehearse, decoded.request, offer, agent, self.shelf)

    async def agents(self) -> set[str]:
        """Return all agents that have or had mail, as of a few seconds ago: to ask costs as much as many accepts."""
        now = time.monotonic()
        if self._agents is None or now - self._agents_at >= AGENTS_SECONDS:
            self._agents, self._agents_at = await self.watch.balance.agents(), now
        return self._agents

    def digests(self) -> Digests:
        """Return the digest key's maker; refuses while Redis has not been seen yet."""
        if self._digests is None:
            raise unavailable()
        return self._digests

    def check_room(self) -> None:
        """Refuse new mail where the last look at Redis found it full, evicting, or never found it at all."""
        if self._refusal is not None:
            raise self._refusal

    async def lapse(self, message_id: str) -> bool:
        """End a message whose time is up, as well as Redis lets us; True where this call ended it."""
        try:
            ended = await self.acceptance.lapse(message_id)
        except (LedgerUnavailableError, LedgerUnconfirmedError):
            return False
        if ended is None:
            return False
        self.account.ended(ended)
        return True

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the desk open: look at Redis now and again every moment, close everything at the end."""
        await self._look()
        looking = asyncio.create_task(supervise("look", self._keep_looking, self._log))
        try:
            yield
        finally:
            self.draining = True
            self.heart.rest("look")
            await end_tasks(looking)
            await asyncio.gather(*self._ringing, return_exceptions=True)
            await self.notes.aclose()
            for pipe in self._pipes:
                await pipe.aclose()
            await self.client.aclose()
            await self._arq.aclose()

    def ring(self, agent: str) -> None:
        """Ring for a round beside the answer: a ring that fails changes no 202, for the sweep rings too."""
        task = asyncio.create_task(rounds.ring(self._arq, agent))
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()
            self.heart.beat("look")

    async def _look(self) -> None:
        """See whether Redis is there, keeps what it is given, and has room; and keep in it what must be there."""
        try:
            fitness = await self.watch.fitness()
            prepared = await self._prepare()
        except LedgerUnavailableError as error:
            self._mark(ok=False)
            self._outage.failed(error)
            # With the key known, accepting goes on trying: each answer is then the truth about that call.
            if self._digests is None:
                self._refusal = unavailable()
            return
        self._mark(ok=True)
        self._outage.over()
        if fitness.evicts:
            if self._refusal is None:
                self._log.error("redis.evicts", policy=fitness.evicts)
            self._refusal = unavailable()
        elif fitness.memory_share >= FULL_SHARE or not prepared:
            self._refusal = storage_full()
        else:
            self._refusal = None

    async def _prepare(self) -> bool:
        """Put into Redis what must be there before the first 202, and again where it was emptied; False: it is full."""
        own = self._digests.key if self._digests else None
        try:
            key, emptied = await self.watch.digest_key(own)
            if key != own:
                self._digests = Digests(key)
            self._emptied = self._emptied or emptied
            self._published = self._published and not emptied
            await self._publish_templates()
            await self.shelf.refresh(emptied=self._emptied)
        except LedgerFullError:
            return False
        self._emptied = False
        return True

    async def _publish_templates(self) -> None:
        """Publish where that was not done: every worker must find a version."""
        if not self._published:
            for template in await publish_templates(self._folder, self.client):
                self.notes("template.published", template=template.name, template_version=template.version)
            self._published = True

    def _mark(self, *, ok: bool) -> None:
        self.metrics.redis_up.set(ok)
        self.redis_ok = ok
