"""What stands over many agents at once."""

from collections.abc import Iterable

from redis.asyncio import Redis
from redis.exceptions import RedisError

from postroom.ledger import keys
from postroom.ledger.refusals import unreachable
from postroom.ledger.standing import Standing, read_standing

ASKED_AT_ONCE = 200


async def read_standings(client: Redis, agents: Iterable[str]) -> dict[str, Standing]:
    """Return what stands over each of the agents.

    Raises:
        LedgerUnavailableError: Redis does not answer.
    """
    names, found = list(agents), {}
    for at in range(0, len(names), ASKED_AT_ONCE):
        part = names[at : at + ASKED_AT_ONCE]
        pipe = client.pipeline(transaction=False)
        pipe.time()
        for agent in part:
            pipe.hgetall(keys.halt_key(agent))
            pipe.hgetall(keys.faults_key(agent))
        try:
            (seconds, micros), *hashes = await pipe.execute()
        except (RedisError, OSError) as error:
            raise unreachable(error) from error
        now = seconds * 1000 + micros // 1000
        for agent, halt, faults in zip(part, hashes[::2], hashes[1::2], strict=True):
            found[agent] = read_standing(halt, faults, now)
    return found


async def count_lanes(client: Redis, agents: Iterable[str]) -> dict[str, int]:
    """Return how many connections each of the agents has, over all workers.

    Raises:
        LedgerUnavailableError: Redis does not answer.
    """
    names = list(agents)
    try:
        seconds, micros = await client.time()
        pipe = client.pipeline(transaction=False)
        for agent in names:
            pipe.zcount(keys.lanes_key(agent), seconds * 1000 + micros // 1000, "+inf")
        return dict(zip(names, await pipe.execute(), strict=True))
    except (RedisError, OSError) as error:
        raise unreachable(error) from error
