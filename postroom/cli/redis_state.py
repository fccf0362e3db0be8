"""`postroom redis`: what the Redis behind the configured URLs says of itself. Straight at Redis."""

import asyncio
import os

from postroom.config.load import load_config
from postroom.config.structs import Redis
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.servers import judge, read_servers
from postroom.settings import read_settings


def show_redis() -> int:
    """Print what the ledger's Redis, and arq's where it is another one, are like; 1 where mail is not safe there.

    Changes nothing, and needs no right but INFO.
    """
    redis = load_config(read_settings(os.environ).config, os.environ).redis
    ledger_is_good = asyncio.run(_show("ledger", redis.url, redis, keeps_mail=True))
    if redis.arq_url is None or redis.arq_url == redis.url:
        return 0 if ledger_is_good else 1
    arq_is_good = asyncio.run(_show("arq", redis.arq_url, redis, keeps_mail=False))
    return 0 if ledger_is_good and arq_is_good else 1


async def _show(what: str, url: str, redis: Redis, *, keeps_mail: bool) -> bool:
    try:
        servers = await read_servers(url)
    except LedgerUnavailableError as error:
        print(f"{what}: does not answer: {error}")
        return False
    all_good = True
    for server in servers:
        print(f"{what} {server.name}".rstrip())
        for trait in judge(server.info, acknowledgements=redis.min_replicas_ack, keeps_mail=keeps_mail):
            print(f"  {trait.name:<18}{'ok' if trait.good else 'WRONG':<7}{trait.text}")
            all_good = all_good and trait.good
    return all_good
