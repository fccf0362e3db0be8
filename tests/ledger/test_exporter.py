"""Who tells of what is the same for all processes (`postroom.exporter`)."""

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from postroom.config.structs import Agent, From
from postroom.exporter import Exporter
from postroom.ledger.clients import reading_client
from postroom.ledger.watch import Watch
from postroom.shared_metrics import SharedMetrics
from tests.proxy import Proxy

AGENT = Agent(sender=From("orders@shop.example"), channels=(), owner="team-shop", labels={"business": "shop"})


class Process:
    """What a process has of it."""

    def __init__(self, client, hold_ms=500):
        self.registry = CollectorRegistry()
        metrics = SharedMetrics(self.registry)
        self.exporter = Exporter(client, Watch(client), lambda: {"orders": AGENT}, metrics, hold_ms=hold_ms)

    async def scrape(self):
        await self.exporter.refresh()
        return generate_latest(self.registry).decode()


@pytest.fixture
def processes(ledger):
    """Three processes that share the ledger's Redis."""
    return [Process(ledger.client) for _ in range(3)]


async def telling(processes):
    """Return which of them tell of the shared things."""
    return [n for n, process in enumerate(processes) if "postroom_exporter{" in await process.scrape()]


async def test_one_process_tells_and_goes_on_telling(processes):
    """Whoever asked first has the role, and keeps it as long as it is scraped or asks."""
    assert [0] == await telling(processes)
    for _ in range(4):
        await asyncio.sleep(0.2)
        assert [0] == await telling(processes)


async def test_a_dead_one_is_followed(processes):
    """Its lease runs out, and another one tells; when it comes back it finds that out and is silent."""
    assert [0] == await telling(processes)
    deadline = time.monotonic() + 5
    while [1] != await telling(processes[1:2]) and not processes[1].exporter.has_role:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert [1] == await telling(processes)


async def test_one_that_ends_leaves_the_role_at_once(processes):
    """A rolling update leaves no gap."""
    assert [0] == await telling(processes)
    await processes[0].exporter.give_up()
    assert [0] == await telling(processes[1:])
    assert "postroom_agent_info{" not in generate_latest(processes[0].registry).decode()


async def test_it_tells_whose_an_agent_is_and_what_stands_over_it(processes):
    """Owner, pause, and Redis's own state are there."""
    text = await processes[0].scrape()
    assert 'postroom_agent_info{agent="orders",owner="team-shop",retry_profile="standard"} 1.0' in text
    assert 'postroom_agent_label{agent="orders",label="business",value="shop"} 1.0' in text
    assert 'postroom_redis_memory_ratio{redis="ledger"} 0.0' in text
    assert "postroom_agent_paused{" not in text


async def test_one_tells_of_a_full_redis(own_ledger, redis_server):
    """Its holder gone while Redis takes no write, another takes the role and keeps it: who else would say so."""
    redis_server.command("CONFIG", "SET", "maxmemory", "100kb")
    processes = [Process(own_ledger.client) for _ in range(3)]
    for _ in range(2):
        assert [0] == await telling(processes)
    await processes[0].exporter.give_up()
    assert [0] == await telling(processes[:0:-1])
    ratio = 'postroom_redis_memory_ratio{redis="ledger"} '
    (line,) = [line for line in (await processes[2].scrape()).splitlines() if line.startswith(ratio)]
    assert float(line.removeprefix(ratio)) > 1


async def test_one_that_is_cut_off_tells_no_more(own_ledger, redis_server):
    """Another has the role by then, and what this one saw last would be told for ever beside it."""
    async with Proxy(redis_server.path) as proxy:
        client = reading_client(proxy.redis_url, timeout=0.1)
        cut_off = Process(client)
        assert [0] == await telling([cut_off])
        proxy.stall()
        deadline = time.monotonic() + 10
        while [] != await telling([cut_off]):
            assert time.monotonic() < deadline
        assert "postroom_agent_info{" not in generate_latest(cut_off.registry).decode()
        assert [0] == await telling([Process(own_ledger.client)])
        proxy.resume()
        assert [] == await telling([cut_off])
        await client.aclose()
