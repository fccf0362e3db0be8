"""Connections to Redis that are lost while nobody looks, on the event loop the processes run on."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop
from redis.exceptions import RedisError

from postroom.ledger.clients import connection_maker, reading_client
from postroom.rounds import rounds_pool
from tests.proxy import Proxy
from tests.redisd import RedisServer

TIMES = 42


async def outcomes(call: Callable[[], Awaitable[object]], proxy: Proxy) -> Counter[str]:
    """Call again and again, each time after a reset at another moment; count what came of it."""
    seen: Counter[str] = Counter()
    for number in range(TIMES):
        try:
            await call()
            seen["answered"] += 1
        except (RedisError, OSError):
            seen["lost"] += 1
        except Exception as error:  # noqa: BLE001
            seen[type(error).__name__] += 1
        proxy.reset()
        for _ in range(number % 7):
            await asyncio.sleep(0)
        if number % 3 == 0:
            await asyncio.sleep(0.002)
    return seen


def test_a_reset_is_an_outage_and_never_something_else(redis_server: RedisServer):
    """Whatever the moment, who speaks to Redis gets an answer or an error of Redis's; a pooled read gets its answer."""

    async def everybody() -> dict[str, Counter[str]]:
        async with Proxy(Path(redis_server.path)) as proxy:
            reading, arq = reading_client(proxy.redis_url), rounds_pool(proxy.redis_url)
            single = connection_maker(proxy.redis_url)()

            async def by_hand() -> None:
                try:
                    await single.connect()
                    await single.send_packed_command(single.pack_commands([("PING",)]), check_health=False)
                    await single.read_response()
                except Exception:
                    await single.disconnect(nowait=True)
                    raise

            calls = {"reading": reading.ping, "arq": arq.ping, "single": by_hand}
            seen = {name: await outcomes(call, proxy) for name, call in calls.items()}
            await asyncio.gather(
                reading.aclose(), arq.aclose(close_connection_pool=True), single.disconnect()
            )
            return seen

    seen = uvloop.run(everybody())
    assert {"answered": TIMES} == seen["reading"] == seen["arq"]
    assert set(seen["single"]) <= {"answered", "lost"}
