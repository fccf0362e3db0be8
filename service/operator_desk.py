"""The operator's desk: what the admin routes work with, and the record of every act, in log, metrics and journal."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from postroom.config.live import LiveConfig
from postroom.config.structs import Config
from postroom.config.units import milliseconds
from postroom.ending import account_end
from postroom.errors import Code, RefusedError
from postroom.ledger.changes import Journal
from postroom.ledger.clients import open_pipe
from postroom.ledger.ends import Ended
from postroom.ledger.operating import Operating
from postroom.metrics import EdgeMetrics
from service.admin_edge import Call
from service.desk import Desk

LEDGER_SECONDS = 5.0
WHO_LIMIT = 64
TOLD_AT_ONCE = 10  # ended messages: a third of a millisecond


class Told(Struct, frozen=True, kw_only=True):
    """An act as it is recorded: names, counts and the reason, never an address."""

    verb: str
    as_user: str
    reason: str
    agent: str | None = None
    message_id: str | None = None
    channel: str | None = None
    until: str | None = None
    template: str | None = None
    of_caller: str | None = None
    accepted_before: str | None = None
    skip_scheduled: bool | None = None
    act: str | None = None
    done: int | None = None
    too_late: int | None = None
    finished: bool | None = None


class OperatorDesk:
    """Beside the callers' desk, over a pipe of its own: no act of an operator is in an accept's group."""

    def __init__(self, desk: Desk, live: LiveConfig, metrics: EdgeMetrics, log: FilteringBoundLogger) -> None:
        self._live = live
        self.reading = desk.reading
        self.watch = desk.watch
        self.client = desk.client
        self.ring = desk.ring
        self.journal = Journal(desk.client)
        self.notes = desk.notes
        self._metrics = metrics
        self._log = log
        config = live.current
        url, replicas = config.redis.url, config.redis.min_replicas_ack
        self._pipe = open_pipe(url, deadline=LEDGER_SECONDS, replicas=replicas)
        self.operating = Operating(
            self._pipe,
            content_ms=milliseconds(config.retention.content),
            message_ms=milliseconds(config.retention.message),
        )

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._live.current

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Close the pipe at the end."""
        try:
            yield
        finally:
            await self._pipe.aclose()

    async def agents(self) -> set[str]:
        """Return all agents there are: configured ones, and those that have or had mail."""
        return {*self.config.agents, *await self.watch.balance.agents()}

    async def check_agent(self, name: str) -> str:
        """Return the name of an agent there is.

        Raises:
            RefusedError: there is none of this name.
        """
        if name not in self.config.agents and name not in await self.agents():
            raise RefusedError(Code.NOT_FOUND, "No agent has this name, and none of this name has mail.")
        return name

    def tell(self, call: Call, told: Told, kind: str = "") -> None:
        """Record an act, with who did it: in the log always, in the journal as `kind` where it is given."""
        identity = call.identity
        self._log.info(
            "operator.acted",
            request_id=call.request_id,
            caller=identity.name,
            token_id=identity.token.id,
            as_user=told.as_user or None,
            verb=told.verb,
            agent=told.agent,
            message_id=told.message_id,
            channel=told.channel,
            until=told.until,
            template=told.template,
            of_caller=told.of_caller,
            accepted_before=told.accepted_before,
            skip_scheduled=told.skip_scheduled,
            act=told.act,
            done=told.done,
            too_late=told.too_late,
            finished=told.finished,
            reason=told.reason or None,
        )
        if kind:
            self.notes(kind, caller=identity.name, **msgspec.structs.asdict(told))

    async def account(self, ended: Iterable[Ended]) -> None:
        """Count and log messages that an operator's act has ended, or settled; whoever waits goes on in between."""
        for number, one in enumerate(ended, 1):
            account_end(self._metrics, self._log, one, operator=True)
            if number % TOLD_AT_ONCE == 0:
                await asyncio.sleep(0)


def who_of(call: Call, as_user: str) -> str:
    """Return who acts, as callers may read it: the token's caller, and the name the command line gave."""
    return (f"{as_user} ({call.identity.name})" if as_user else call.identity.name)[:WHO_LIMIT]
