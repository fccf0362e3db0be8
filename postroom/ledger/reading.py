"""Reading the ledger: messages by id and by ref, payloads, blobs, channel faults. Changes nothing."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.codec import decode_payload
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.record import Record, read_record
from postroom.message import Payload


class StoredFault(Struct, frozen=True):
    """A channel that stands still: until when it is not tried, since when, and why. Times in ms."""

    till: int
    since: int
    times: int
    cause: str
    reply_code: str
    enhanced_code: str
    text: str


class StoredMessage(Struct, frozen=True):
    """A record with its payload, which is None once the content is dropped, and what holds up its agent.

    `arrival_us` is the theoretical arrival time of the agent's rate; `now` is Redis's clock in ms.
    """

    record: Record
    payload: Payload | None
    faults: dict[str, StoredFault]
    arrival_us: int = 0
    now: int = 0


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
        pipe.get(keys.bucket_key(agent))
        pipe.time()
        try:
            fields, stored, faults, arrival, (seconds, micros) = await pipe.execute()
        except (RedisError, OSError) as error:
            raise LedgerUnavailableError("cannot reach Redis") from error
        if not fields:
            return None
        return StoredMessage(
            record=read_record(message_id, agent, fields),
            payload=_read_payload(stored),
            faults=_read_faults(faults),
            arrival_us=int(arrival or 0),
            now=seconds * 1000 + micros // 1000,
        )

    async def find(self, refs: Iterable[tuple[str, str]]) -> list[str]:
        """Return the ids kept under these (agent, ref digest) pairs, in their order."""
        pipe = self._client.pipeline(transaction=False)
        for agent, ref in refs:
            pipe.get(keys.ref_key(agent, ref))
        try:
            found = await pipe.execute()
        except (RedisError, OSError) as error:
            raise LedgerUnavailableError("cannot reach Redis") from error
        return [value.partition(b"|")[0].decode() for value in found if value]

    async def blobs(self, message_id: str, count: int) -> list[bytes | None]:
        """Return the bytes of a message's attachments."""
        try:
            names = [keys.blob_key(message_id, index) for index in range(count)]
            return list(await self._client.mget(names)) if names else []
        except (RedisError, OSError) as error:
            raise LedgerUnavailableError("cannot reach Redis") from error

    async def faults(self, agent: str) -> dict[str, StoredFault]:
        """Return the faults of an agent's channels by name, `till` counted from now by Redis's clock."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(keys.faults_key(agent))
        pipe.time()
        try:
            fields, (seconds, micros) = await pipe.execute()
        except (RedisError, OSError) as error:
            raise LedgerUnavailableError("cannot reach Redis") from error
        now = seconds * 1000 + micros // 1000
        return {
            name: msgspec.structs.replace(fault, till=fault.till - now)
            for name, fault in _read_faults(fields).items()
        }


def _read_payload(stored: bytes | None) -> Payload | None:
    """Return the payload, or None where it is dropped; or damaged, which the worker that meets it tells of."""
    try:
        return decode_payload(stored) if stored else None
    except ValueError:
        return None


def _read_faults(fields: dict[bytes, bytes]) -> dict[str, StoredFault]:
    faults = {}
    for channel, value in fields.items():
        till, since, times, cause, code, enhanced, text = value.decode().split("|", 6)
        faults[channel.decode()] = StoredFault(int(till), int(since), int(times), cause, code, enhanced, text)
    return faults
