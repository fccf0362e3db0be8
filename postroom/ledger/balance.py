"""Conservation: accepted = what has ended + what waits, for every agent, at any moment. Drawn, and proved."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.refusals import unreachable
from postroom.ledger.scripts import load_scripts

ENDS = ("sent", "partly_sent", "failed", "expired", "cancelled", "suppressed", "unconfirmed")
SCANNED = 500  # keys asked for at a time
INSPECTED = 50  # messages one script call judges: about a millisecond of Redis's time
MOST_REMEMBERED = 100_000  # misfits; of more of them some may be counted twice
MOST_NAMED = 1000  # misfits kept by name; beyond so many they are only counted


class BalanceRow(Struct, frozen=True):
    """One agent's balance at one moment: what was accepted, where it ended (by state), and what waits."""

    agent: str
    accepted: int
    ends: dict[str, int]
    waiting: int

    @property
    def unaccounted(self) -> int:
        """What was accepted and neither ended nor waits. Anything but 0 is a defect, or a loss of Redis's data."""
        return self.accepted - sum(self.ends.values()) - self.waiting


class Misfit(Struct, frozen=True):
    """A message of which not everything the ledger holds fits together."""

    id: str
    problem: str


class Verdict(Struct):
    """What a deep look found: how many records and queued ids it saw, and what does not fit."""

    records: int = 0
    queued: int = 0
    found: int = 0
    misfits: list[Misfit] = []
    _told: set[Misfit] = set()

    def add(self, misfit: Misfit) -> None:
        """Count a misfit, once however often it is met: by its record, its content, its ref or its place."""
        if misfit in self._told:
            return
        self.found += 1
        if len(self._told) < MOST_REMEMBERED:
            self._told.add(misfit)
        if len(self.misfits) < MOST_NAMED:
            self.misfits.append(misfit)


class Balance:
    """Reads only. Raises LedgerUnavailableError where Redis does not answer."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._scripts = load_scripts()

    async def rows(self) -> list[BalanceRow]:
        """Draw the balance of all agents: one script call a partition, whatever the number of messages."""
        pipe = self._client.pipeline(transaction=False)
        for number in range(keys.PARTITIONS):
            place = keys.place_of_partition(number)
            pipe.eval(self._scripts["balance"].source.decode(), 1, place.agenda, place.prefix, "", "0", "0")
        try:
            replies = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return sorted((_read_row(row) for reply in replies for row in reply), key=lambda row: row.agent)

    async def agents(self) -> set[str]:
        """Return all agents that have or had mail, configured or not."""
        return {row.agent for row in await self.rows()}

    async def check(self, tell: Callable[[Verdict], None] = lambda _: None) -> Verdict:
        """Look at every message and every place in a queue, and name what does not fit.

        Takes memory for one batch at a time. Mail may go on meanwhile: each message is judged at one moment.
        `tell` is called now and then with what was seen so far.
        """
        verdict = Verdict()
        try:
            async for batch in _batches(self._client.scan_iter(match="pr:{p??}:[mpqr]:*", count=SCANNED)):
                await self._judge(batch, verdict)
                tell(verdict)
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return verdict

    async def _judge(self, names: list[bytes], verdict: Verdict) -> None:
        kinds: dict[bytes, list[bytes]] = {b"m": [], b"p": [], b"q": [], b"r": []}
        for name in names:
            kinds[_parts(name)[1]].append(name)
        suspects = [(_parts(name)[2], b"") for name in kinds[b"m"]]
        verdict.records += len(suspects)
        suspects += await self._without_record([(_parts(name)[2], b"") for name in kinds[b"p"]])
        suspects += await self._without_record(await self._read_refs(kinds[b"r"]))
        await self._inspect(suspects, verdict)
        for name in kinds[b"q"]:
            async for batch in _batches(self._client.zscan_iter(name, count=SCANNED)):
                verdict.queued += len(batch)
                lost = await self._without_record([(message_id, b"") for message_id, _score in batch])
                await self._inspect(lost, verdict)

    async def _read_refs(self, names: list[bytes]) -> list[tuple[bytes, bytes]]:
        """Return the ids the refs name, each with its ref."""
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.getrange(name, 0, 63)
        stored = await pipe.execute()
        found = zip(names, stored, strict=True)
        return [(value.partition(b"|")[0], _parts(name)[2]) for name, value in found if value]

    async def _without_record(self, pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return those that have no record; the others are met as records."""
        pipe = self._client.pipeline(transaction=False)
        for message_id, _ref in pairs:
            pipe.exists(keys.record_key(message_id.decode()))
        kept = await pipe.execute()
        return [pair for pair, is_kept in zip(pairs, kept, strict=True) if not is_kept]

    async def _inspect(self, suspects: list[tuple[bytes, bytes]], verdict: Verdict) -> None:
        """Let a script judge messages, each at one moment: a few at a time, by partition."""
        places: dict[keys.Place, list[bytes]] = {}
        for message_id, ref in suspects:
            place = keys.place_of(keys.agent_of(message_id.decode()))
            places.setdefault(place, []).extend((message_id, ref))
        source = self._scripts["inspect"].source.decode()
        for place, flat in places.items():
            for at in range(0, len(flat), 2 * INSPECTED):
                part: list[Any] = flat[at : at + 2 * INSPECTED]
                reply: Any = await self._client.eval(  # type: ignore[misc]  # redis-py types it for both worlds
                    source, 1, place.agenda, place.prefix, "", "0", "0", *part
                )
                for message_id, problem in reply:
                    verdict.add(Misfit(message_id.decode(), problem.decode()))


async def _batches(source: Any) -> Any:
    """Yield lists of what an async iterator gives."""
    batch = []
    async for item in source:
        batch.append(item)
        if len(batch) == SCANNED:
            yield batch
            batch = []
    if batch:
        yield batch


def _parts(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a key into its partition, its kind, and what it is about."""
    head, kind, rest = name.split(b":", 3)[1:]
    return head, kind, rest


def _read_row(row: list[Any]) -> BalanceRow:
    agent, accepted, *numbers = row
    ends = dict(zip(ENDS, numbers[:-1], strict=True))
    return BalanceRow(agent.decode(), accepted, ends, numbers[-1])
