"""The desk: what the routes work with, opened when the process starts and closed when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from structlog.typing import FilteringBoundLogger

from postroom import rounds
from postroom.config.change import Change
from postroom.config.structs import Config
from postroom.config.units import milliseconds
from postroom.ending import account_end
from postroom.errors import Code, RefusedError
from postroom.heart import Heart
from postroom.ledger.accept import Acceptance, Offer
from postroom.ledger.changes import Journal, Notes
from postroom.ledger.clients import end_tasks, open_pipe, reading_client
from postroom.ledger.digests import Digests
from postroom.ledger.ends import Ended
from postroom.ledger.errors import LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.files import Files
from postroom.ledger.keys import agent_of
from postroom.ledger.reading import Reading
from postroom.ledger.record import Record
from postroom.ledger.watch import FULL_SHARE, Watch
from postroom.library import publish_templates
from postroom.metrics import Children, EdgeMetrics
from postroom.origin import Origin
from postroom.shelf import Shelf
from postroom.states import State
from postroom.supervise import supervise
from postroom.templates import TemplateSet
from service.accept import Accepted, AcceptMessage, storage_full, unavailable
from service.auth import Identity
from service.rehearse import DryRunView, rehearse
from service.schema import Decoded
from service.upload import KeepFile

ACCEPT_SECONDS = 2.0
LOOK_SECONDS = 0.25


class Desk:
    """The accepting side of Postroom: the ledger's clients, the use case, and an eye on Redis."""

    def __init__(
        self, config: Config, templates: TemplateSet, metrics: EdgeMetrics, log: FilteringBoundLogger
    ) -> None:
        self.retention = config.retention.message
        self.metrics = metrics
        self._counted = Children(metrics.accepted)
        self.draining = False
        self.heart = Heart()
        self.redis_ok: bool | None = None  # not looked yet
        self._log = log
        self._folder = templates
        self._published = False
        url, replicas = config.redis.url, config.redis.min_replicas_ack
        self._pipes = [
            open_pipe(
                url,
                deadline=ACCEPT_SECONDS,
                replicas=replicas,
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

    def apply(self, change: Change) -> None:
        """Forget what was counted of agents that are configured no longer."""
        for agent in change.removed:
            self._counted.forget(agent, at=1)

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

    def digests(self) -> Digests:
        """Return the digest key's maker; refuses while Redis has not been seen yet."""
        if self._digests is None:
            raise unavailable()
        return self._digests

    def check_room(self) -> None:
        """Refuse new mail where the last look at Redis found it full, evicting, or never found it at all."""
        if self._refusal is not None:
            raise self._refusal

    def account_file(self, caller: str, *, size: int, new: bool, request_id: str) -> None:
        """Count and log an upload."""
        self.metrics.files.labels(caller, "kept" if new else "known").inc()
        self._log.info("file.kept", request_id=request_id, caller=caller, size=size, new=new)

    def account(self, accepted: Accepted, origin: Origin) -> None:
        """Count and log an acceptance."""
        if accepted.created is None:
            self._account_replay(accepted.record, origin)
            return
        offer = accepted.offer
        assert offer is not None
        self._counted[offer.caller, offer.agent, offer.priority].inc()
        # Spelt out rather than bound: binding makes a logger for each message.
        self._log.info(
            "message.accepted",
            request_id=origin.request_id,
            trace_id=origin.trace_id,
            caller=offer.caller,
            agent=offer.agent,
            message_id=offer.id,
            client_ref=offer.client_ref,
            priority=offer.priority,
            recipients=len(offer.payload.recipients),
            template=offer.payload.template.name if offer.payload.template else None,
        )
        if accepted.created.braked:
            self._account_braked(offer, first=accepted.created.storm_began)
        for ended in accepted.created.superseded:
            self._account_end(ended, superseded_by=offer.id, ended_by_request=origin.request_id)

    def _account_replay(self, record: Record | None, origin: Origin) -> None:
        assert record is not None
        self.metrics.replays.labels(record.caller, "replay").inc()
        self._log.info(
            "message.replayed",
            request_id=origin.request_id,
            trace_id=origin.trace_id,
            caller=record.caller,
            agent=record.agent,
            message_id=record.id,
            client_ref=record.client_ref,
        )

    def _account_braked(self, offer: Offer, *, first: bool) -> None:
        self.metrics.storm_braked.labels(offer.agent).inc()
        if first:
            template = offer.payload.template
            self._log.warning(
                "storm.braked",
                agent=offer.agent,
                caller=offer.caller,
                template=template.name if template else None,
                message_id=offer.id,
            )

    def _account_end(self, ended: Ended, **why: Any) -> None:
        account_end(self.metrics, self._log, ended, **why)

    async def lapse(self, message_id: str) -> bool:
        """End a message whose time is up, as well as Redis lets us; True where this call ended it."""
        try:
            ended = await self.acceptance.lapse(message_id)
        except (LedgerUnavailableError, LedgerUnconfirmedError):
            return False
        if ended is None:
            return False
        self._account_end(ended)
        return True

    def account_cancelled(self, ended: Ended, request_id: str) -> None:
        """Count and log a message that was called back, as what it ended: an earlier attempt may have reached some."""
        if ended.state == State.CANCELLED:
            self.metrics.cancelled.labels(ended.caller, agent_of(ended.id)).inc()
        self._account_end(ended, ended_by_request=request_id)

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
        """See whether Redis is there, keeps what it is given, and has room; and keep the digest key in it."""
        try:
            fitness = await self.watch.fitness()
            own = self._digests.key if self._digests else None
            key, emptied = await self.watch.digest_key(own)
            self._published = self._published and not emptied
            await self._publish_templates()
            await self.shelf.refresh(emptied=emptied)
        except LedgerUnavailableError:
            self._mark(ok=False)
            # With the key known, accepting goes on trying: each answer is then the truth about that call.
            if self._digests is None:
                self._refusal = unavailable()
            return
        self._mark(ok=True)
        if key != own:
            self._digests = Digests(key)
        if fitness.evicts:
            if self._refusal is None:
                self._log.error("redis.evicts", policy=fitness.evicts)
            self._refusal = unavailable()
        elif fitness.memory_share >= FULL_SHARE:
            self._refusal = storage_full()
        else:
            self._refusal = None

    async def _publish_templates(self) -> None:
        """Publish before the first 202, and again into an emptied Redis: every worker must find a version."""
        if not self._published:
            for template in await publish_templates(self._folder, self.client):
                self.notes("template.published", template=template.name, template_version=template.version)
            self._published = True

    def _mark(self, *, ok: bool) -> None:
        self.metrics.redis_up.set(ok)
        if ok and self.redis_ok is False:
            self._log.info("redis.recovered")
        elif not ok and self.redis_ok is not False:
            self._log.warning("redis.unavailable")
        self.redis_ok = ok
