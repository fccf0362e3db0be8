"""The composition root of a worker process: opened from top to bottom, closed in the other order."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from postroom import __version__, rounds
from postroom.config.live import LiveConfig
from postroom.config.units import milliseconds, seconds
from postroom.exporter import Exporter
from postroom.heart import Heart
from postroom.ledger.changes import Journal, Notes
from postroom.ledger.clients import end_tasks, open_pipe, reading_client
from postroom.ledger.delivery import Delivery
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.files import FileContents
from postroom.ledger.reading import Reading
from postroom.ledger.watch import Watch
from postroom.library import Library, publish_templates
from postroom.log import get_logger
from postroom.metrics import CarrierMetrics
from postroom.settings import Settings
from postroom.startup import settle
from postroom.supervise import supervise
from postroom.telemetry import Telemetry
from postroom.templates import TemplateSet
from postroom.tracing import open_tracing
from workers.account import Account
from workers.attempt import Attempt
from workers.bell import Bell
from workers.carrier import Carrier
from workers.upkeep import Sweep, keep_renewing

PIPE_SECONDS = 5.0
STEADY_SECONDS = (
    30.0  # an arq worker that ran so long has seen the end of the trouble that ended the one before
)
# Connecting (10 s) and the answer to the dot (120 s) are the longest a message in hand can take.
DRAIN_SECONDS = 130.0
FLUSH_SECONDS = 10.0
PUBLISH_SECONDS = 5.0
FILES_BYTES = 64 * 1024 * 1024  # of cached files that a worker keeps in memory
RESTART_PAUSES = (0.1, 0.5, 1.0)  # nobody fetches rounds meanwhile


class WorkerProcess:
    """One worker process, from start to SIGTERM."""

    def __init__(self, settings: Settings, live: LiveConfig, templates: TemplateSet) -> None:
        self._settings = settings
        self._live = live
        self._config = live.current  # as the process started; what reloads is in the carrier's hands
        self._templates = templates
        self._log: FilteringBoundLogger = get_logger().bind()  # once, and not with each line
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Deliver until SIGTERM or SIGINT; then finish the message in hand, give the rest back, and return."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        registry = CollectorRegistry()
        metrics = CarrierMetrics(registry)
        async with AsyncExitStack() as stack:
            client = reading_client(self._config.redis.url)
            stack.push_async_callback(client.aclose)
            arq = rounds.rounds_pool(self._config.redis.arq_url or self._config.redis.url)
            stack.push_async_callback(arq.aclose)
            heart = Heart()
            exporter = Exporter(client, Watch(client), lambda: self._live.current.agents, metrics.shared)
            telemetry = Telemetry(
                registry,
                address=(self._settings.host, self._settings.metrics_port),
                refresh=exporter.refresh,
                ready=lambda: not self._stopping.is_set(),
                heart=heart,
            )
            await stack.enter_async_context(telemetry)
            tracing = open_tracing(self._settings, "worker")
            carrier, bell = self._build_carrier(client, arq, Account(metrics, self._log, tracing))
            exporting = self._begin("export", exporter.keep_asking)
            await self._serve(carrier, bell, heart, client, arq)
            if tracing is not None:
                await tracing.aclose()
            await end_tasks(exporting)
            await exporter.give_up()
        self._log.info("service.stopped")

    def _build_carrier(self, client: Redis, arq: rounds.RoundsPool, account: Account) -> tuple[Carrier, Bell]:
        config, metrics = self._config, account.metrics
        pipe = open_pipe(
            config.redis.url,
            deadline=PIPE_SECONDS,
            replicas=config.redis.min_replicas_ack,
            observe=metrics.pipes.observer("work"),
        )
        metrics.lanes_limit.set(config.worker.max_lanes)
        delivery = Delivery(
            pipe,
            lease_ms=milliseconds(config.worker.lease),
            content_ms=milliseconds(config.retention.content),
            message_ms=milliseconds(config.retention.message),
        )
        reading = Reading(client)
        library, files = Library(self._templates, client), FileContents(client, FILES_BYTES)
        attempt = Attempt(delivery, reading, library, files, self._log)
        # Its own client: a read that waits for a ring must not have the time limit of the others.
        bell = Bell(reading_client(config.redis.url, timeout=None))
        notes = Notes(Journal(client), self._log)
        carrier = Carrier(config, delivery, reading, attempt, bell, arq, notes, account)
        self._live.subscribe(carrier.apply)
        self._live.subscribe(
            lambda _: notes("config.reloaded", service="worker", config_hash=self._live.digest)
        )
        return carrier, bell

    async def _serve(
        self, carrier: Carrier, bell: Bell, heart: Heart, client: Redis, arq: rounds.RoundsPool
    ) -> None:
        sweep = Sweep(carrier, carrier.delivery, client, arq, seconds(self._config.worker.sweep), heart)
        background = [
            self._begin("publish", lambda: publish(self._templates, client, carrier.notes)),
            self._begin("bell", bell.listen),
            self._begin("renew", lambda: keep_renewing(carrier, carrier.delivery, heart)),
        ]
        fetching = asyncio.create_task(self._keep_fetching(carrier, arq))
        sweeping = self._begin("sweep", sweep.keep_sweeping)
        watching = self._begin("reload", lambda: self._live.keep_watching(carrier.metrics.config))
        self._log.info(
            "service.started",
            metrics_port=self._settings.metrics_port,
            config_hash=self._live.digest,
            generation=self._live.generation,
        )
        carrier.notes("process.started", service="worker", version=__version__, config_hash=self._live.digest)
        settle()
        await self._stopping.wait()
        self._log.info("service.draining", lanes=carrier.lanes)
        heart.rest("sweep")
        await end_tasks(sweeping, watching)
        carrier.drain()
        await fetching
        await carrier.ended(DRAIN_SECONDS)
        left = await carrier.outbox.flush(FLUSH_SECONDS)
        if left:
            self._log.error("outcomes.unwritten", count=left)
        heart.rest("renew")
        await end_tasks(*background)
        await carrier.notes.aclose()
        await carrier.aclose()
        await bell.aclose()
        await carrier.delivery.aclose()

    def _begin(self, name: str, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(supervise(name, work, self._log))

    async def _keep_fetching(self, carrier: Carrier, arq: rounds.RoundsPool) -> None:
        """Fetch rounds with an arq worker, and with another one whenever it gives up."""
        failures, told = 0, set[str]()
        job_seconds = carrier.round_seconds + DRAIN_SECONDS + 60
        while not self._stopping.is_set():
            begun = time.monotonic()
            worker = rounds.RoundsWorker(arq, carrier.deliver, job_seconds=job_seconds)
            running = asyncio.create_task(worker.run())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                await worker.stop(DRAIN_SECONDS)
                await end_tasks(running, stopping)
                return
            await end_tasks(stopping)
            if time.monotonic() - begun >= STEADY_SECONDS:
                told.clear()
            error = type(running.exception()).__name__
            if error not in told:
                told.add(error)
                self._log.warning("arq.restarted", error=error)
            # Rounds that are running go on: they belong to the carrier, not to arq's worker.
            carrier.adopt(worker.abandon())
            await asyncio.sleep(RESTART_PAUSES[min(failures, len(RESTART_PAUSES) - 1)])
            failures += 1


async def publish(templates: TemplateSet, client: Redis, notes: Notes) -> None:
    """Publish this process's template versions, again and again until Redis has them."""
    while True:
        try:
            new = await publish_templates(templates, client)
        except LedgerUnavailableError:
            await asyncio.sleep(PUBLISH_SECONDS)
        else:
            for template in new:
                notes("template.published", template=template.name, template_version=template.version)
            return
