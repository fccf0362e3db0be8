"""Reading the ledger: messages by id and by ref, payloads, blobs, channel faults. Changes nothing."""

from collections.abc import Iterable

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.codec import decode_payload
from postroom.ledger.files import ProviderKeys
from postroom.ledger.record import Record, read_record
from postroom.ledger.refusals import unreachable
from postroom.ledger.standing import Standing, read_standing
from postroom.message import Payload
from postroom.states import State


class StoredMessage(Struct, frozen=True):
    """A record with its payload, which is None once the content is dropped, and what stands over its agent.

    `arrival_us` is the theoretical arrival time of the agent's rate; `day` is the beginning of the last day, in ms, on
    which recipients were counted, and how many they were. `lanes` are the agent's connections over all workers, and
    `width` is how many it may have for a while, 0 where nobody asked it to slow down.
    """

    record: Record
    payload: Payload | None
    standing: Standing = Standing()
    arrival_us: int = 0
    day: tuple[int, int] = (0, 0)
    lanes: int = 0
    width: int = 0

    @property
    def deadline(self) -> int | None:
        """When its time is up, in ms: later than at acceptance where its clock stood while its agent did."""
        deadline, halted = self.record.deadline, self.record.halted
        if deadline is None or halted is None:
            return deadline
        return deadline + max(0, self.standing.stood_still - halted)

    @property
    def tried_out(self) -> bool:
        """True where it is looked at again only when its time is up: its last attempt is over."""
        next_at, deadline = self.record.next_at, self.deadline
        if self.record.reason is None or next_at is None or deadline is None:
            return False
        return 0 < deadline <= next_at

    @property
    def overdue(self) -> bool:
        """True where its time was up at the moment of reading, and nobody has ended it yet."""
        if self.record.state != State.QUEUED or self.deadline is None:
            return False
        return 0 < self.deadline <= self.standing.now


class Reading:
    """Read-only calls. Each raises LedgerUnavailableError where Redis does not answer."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def message(self, message_id: str) -> StoredMessage | None:
        """Return a message, or None where no such id is kept."""
        agent = keys.agent_of(message_id)
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(keys.record_key(message_id))
        pipe.get(keys.payload_key(message_id))
        pipe.hgetall(keys.faults_key(agent))
        pipe.hgetall(keys.halt_key(agent))
        pipe.get(keys.bucket_key(agent))
        pipe.get(keys.day_key(agent))
        pipe.zrange(keys.lanes_key(agent), 0, -1, withscores=True)
        pipe.hget(keys.width_key(agent), "w")
        pipe.time()
        try:
            fields, stored, faults, halt, arrival, day, lanes, width, time = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        if not fields:
            return None
        now = time[0] * 1000 + time[1] // 1000
        return StoredMessage(
            record=read_record(message_id, agent, fields),
            payload=_read_payload(stored),
            standing=read_standing(halt, faults, now),
            arrival_us=int(arrival or 0),
            day=_read_day(day),
            lanes=sum(till > now for _, till in lanes),
            width=int(width or 0),
        )

    async def find(self, refs: Iterable[tuple[str, str]]) -> list[str]:
        """Return the ids kept under these (agent, ref digest) pairs, in their order."""
        pipe = self._client.pipeline(transaction=False)
        for agent, ref in refs:
            pipe.get(keys.ref_key(agent, ref))
        try:
            found = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return [value.partition(b"|")[0].decode() for value in found if value]

    async def blobs(self, message_id: str, count: int) -> list[bytes | None]:
        """Return the bytes of a message's attachments."""
        try:
            names = [keys.blob_key(message_id, index) for index in range(count)]
            return list(await self._client.mget(names)) if names else []
        except (RedisError, OSError) as error:
            raise unreachable(error) from error

    def provider_keys(self, agent: str, channel: str) -> ProviderKeys:
        """Return what a channel's provider calls its copies of cached files: only a cache beside the ledger."""
        return ProviderKeys(self._client, agent, channel)

    async def standing(self, agent: str) -> Standing:
        """Return what stands over an agent."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(keys.halt_key(agent))
        pipe.hgetall(keys.faults_key(agent))
        pipe.time()
        try:
            halt, faults, (seconds, micros) = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        return read_standing(halt, faults, seconds * 1000 + micros // 1000)


def _read_day(stored: bytes | None) -> tuple[int, int]:
    start, _, used = (stored or b"0|0").partition(b"|")
    return int(start), int(used)


def _read_payload(stored: bytes | None) -> Payload | None:
    """Return the payload, or None where it is dropped; or damaged, which the worker that meets it tells of."""
    try:
        return decode_payload(stored) if stored else None
    except ValueError:
        return None
