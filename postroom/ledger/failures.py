"""Messages that ended badly and are still kept: found by looking through the records, a part at a time."""

import time

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.canaries import CALLER
from postroom.ledger.record import Record, read_record
from postroom.ledger.refusals import unreachable
from postroom.states import State

LOOKED_AT = 1000  # keys a step; between steps others have their turn
BADLY = (State.FAILED, State.EXPIRED, State.PARTLY_SENT)


class Wanted(Struct, frozen=True, kw_only=True):
    """Which of them: everything that is given must fit. Times in ms since the epoch, of the message's end.

    Canaries are not among them unless their caller is named: an alert of their own tells of those.
    """

    states: tuple[State, ...] = (State.FAILED,)
    agent: str = ""
    template: str = ""
    caller: str = ""
    since: int = 0
    until: int = 0

    def fits(self, message_id: str, fields: list[bytes | None]) -> bool:
        """True for a message that is wanted; `fields` are its record's state, end, template and caller."""
        state, ended, template, caller = ((value or b"").decode() for value in fields)
        return (
            state in self.states
            and self.agent in ("", keys.agent_of(message_id))
            and self.template in ("", template.partition("@")[0])
            and (self.caller == caller or (not self.caller and caller != CALLER))
            and self.since <= int(ended or 0)
            and (not self.until or int(ended or 0) < self.until)
        )


class Failure(Struct, frozen=True):
    """One of them; `kept`: its content is, so that it can be tried again."""

    record: Record
    kept: bool


class Page(Struct, frozen=True):
    """What a while of looking found, and where to go on: None at the end."""

    found: tuple[Failure, ...]
    cursor: int | None


class Failures:
    """Reads only. Raises LedgerUnavailableError where Redis does not answer."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def page(self, wanted: Wanted, cursor: int, *, seconds: float, most: int) -> Page:
        """Look for so long, or until there are `most` or a few more. A message may be shown twice."""
        until = time.monotonic() + seconds
        match = f"{keys.place_of(wanted.agent).prefix}m:{wanted.agent}-*" if wanted.agent else "pr:{p??}:m:*"
        found: list[Failure] = []
        try:
            while True:
                cursor, names = await self._client.scan(cursor, match=match, count=LOOKED_AT)
                found += await self._look_at([name.decode().split(":", 3)[3] for name in names], wanted)
                if cursor == 0 or len(found) >= most or time.monotonic() > until:
                    return Page(tuple(found), cursor or None)
        except (RedisError, OSError) as error:
            raise unreachable(error) from error

    async def _look_at(self, ids: list[str], wanted: Wanted) -> list[Failure]:
        if not ids:
            return []
        pipe = self._client.pipeline(transaction=False)
        for message_id in ids:
            pipe.hmget(keys.record_key(message_id), ["s", "fa", "t", "d"])
        rows = zip(ids, await pipe.execute(), strict=True)
        fitting = [message_id for message_id, fields in rows if wanted.fits(message_id, fields)]
        if not fitting:
            return []
        pipe = self._client.pipeline(transaction=False)
        for message_id in fitting:
            pipe.hgetall(keys.record_key(message_id))
            pipe.exists(keys.payload_key(message_id))
        replies = await pipe.execute()
        return [
            Failure(read_record(message_id, keys.agent_of(message_id), fields), bool(kept))
            for message_id, fields, kept in zip(fitting, replies[::2], replies[1::2], strict=True)
            if fields
        ]
