"""The journal of changes: what was different before the trouble began. One short stream for the whole installation."""

import asyncio
from typing import Any

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.typing import FilteringBoundLogger

from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.keys import CHANGES_KEY
from postroom.ledger.refusals import unreachable

KEPT = 2000
VALUE_LIMIT = 200


class Change(Struct, frozen=True):
    """One entry: when (ms since the epoch, Redis's clock), what kind, and its data."""

    at: int
    kind: str
    data: dict[str, str]


class Journal:
    """Starts, configurations, templates, pauses, breakers and operators' acts, of all processes, in one order.

    Kinds: `process.started` (service, version, config_hash), `config.reloaded` (service, config_hash),
    `template.published` (template, template_version, caller), `agent.paused`, `agent.resumed`, `agent.preferred`,
    `operator.acted` (verb and filter), `breaker.opened`, `breaker.closed` (agent, channel, cause).
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def note(self, kind: str, **data: object) -> None:
        """Write an entry; about the last 2,000 are kept. Data that is None or empty is left out.

        Raises:
            LedgerUnavailableError: it was not written, or perhaps not: say so in the log and go on.
        """
        fields: dict[Any, Any] = {"kind": kind}
        fields |= {name: str(value)[:VALUE_LIMIT] for name, value in data.items() if value not in (None, "")}
        try:
            await self._client.xadd(CHANGES_KEY, fields, maxlen=KEPT, approximate=True)
        except (RedisError, OSError) as error:
            raise unreachable(error) from error

    async def since(self, ms: int) -> list[Change]:
        """Return the entries since a moment, in ms since the epoch, oldest first.

        Raises:
            LedgerUnavailableError: Redis does not answer.
        """
        try:
            rows = await self._client.xrange(CHANGES_KEY, min=str(max(0, ms)))
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return [_read(entry_id, fields) for entry_id, fields in rows]


class Notes:
    """Notes entries beside whatever is going on: what comes of it is nobody's business but the log's."""

    def __init__(self, journal: Journal, log: FilteringBoundLogger) -> None:
        self._journal = journal
        self._log = log
        self._pending: set[asyncio.Task[None]] = set()

    def __call__(self, kind: str, **data: object) -> None:
        """Note an entry soon: see `Journal` for the kinds."""
        task = asyncio.create_task(self._note(kind, data))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def aclose(self) -> None:
        """Wait for what is under way; each entry is bounded by its client's own time."""
        await asyncio.gather(*self._pending)

    async def _note(self, kind: str, data: dict[str, object]) -> None:
        try:
            await self._journal.note(kind, **data)
        except LedgerUnavailableError:
            self._log.warning("journal.unwritten", kind=kind)


def _read(entry_id: bytes, fields: dict[bytes, bytes]) -> Change:
    data = {name.decode(): value.decode() for name, value in fields.items()}
    return Change(int(entry_id.partition(b"-")[0]), data.pop("kind", ""), data)
