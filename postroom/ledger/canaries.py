"""What is known of the agents' canaries: kept in Redis, so that it outlives the process that sends them."""

import msgspec
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger.keys import CANARIES_KEY
from postroom.ledger.refusals import unreachable

CALLER = "postroom.canary"  # who they are from, as records name it; no configured caller can be called so


class Beat(Struct, frozen=True, array_like=True):
    """The newest canary of an agent, and the last good one. Times in ms since the epoch, by Redis's clock.

    `turn` is the number of the interval it was sent in. `id` is empty once it is known what became of it.
    """

    turn: int = 0
    id: str = ""
    accept_us: int = 0
    good_at: int = 0
    good_accept_us: int = 0
    good_sent_ms: int = 0


class Canaries:
    """Raises LedgerUnavailableError where Redis does not answer."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def read(self) -> dict[str, Beat]:
        """Return what is known, by agent; what another version wrote in another form is forgotten."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hgetall(CANARIES_KEY)
        try:
            (stored,) = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        found = {}
        for agent, value in stored.items():
            try:
                found[agent.decode()] = msgspec.msgpack.decode(value, type=Beat)
            except msgspec.MsgspecError:
                continue
        return found

    async def write(self, agent: str, beat: Beat) -> None:
        """Keep what is known of one."""
        pipe = self._client.pipeline(transaction=False)
        pipe.hset(CANARIES_KEY, mapping={agent: msgspec.msgpack.encode(beat)})
        try:
            await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
