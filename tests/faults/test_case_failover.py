"""Case 16: a failover to a replica that was behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_delivered, until
from tests.proxy import Proxy
from tests.redisd import RedisServer
from tests.stack import Stack, free_port, sample

pytestmark = pytest.mark.timeout(SECONDS)
PATIENT = 'lease = "4s"\nlinger = "500ms"\nsweep = "200ms"\nround = "5s"'
AHEAD = 3.0  # seconds until mail is due that was accepted before the replica falls behind


class Pair:
    """A master and its replica. Processes reach the master through `front`, the replica follows it through `link`."""

    def __init__(self, folder: Path, master_port: int, link: Proxy, front: Proxy) -> None:
        self.port = free_port()
        (folder / "b").mkdir()
        options = ("--port", str(self.port), "--repl-diskless-sync-delay", "0")
        self.replica = RedisServer(folder / "b", *options, "--replicaof", "127.0.0.1", str(link.port))
        self.master_port, self.link, self.front = master_port, link, front

    async def follow(self) -> None:
        """Start the replica and wait until it has all."""
        await asyncio.to_thread(self.replica.start)
        await until(self._is_up, "the replica has all")

    def _is_up(self) -> bool:
        return b"master_link_status:up" in self.replica.command("INFO", "replication")

    def fall_behind(self) -> None:
        """Freeze the replica, and let nothing more on its way to it."""
        self.link.stall()
        self.replica.pause()

    async def fail_over(self, master: RedisServer) -> None:
        """Kill the master, promote the replica as it is, and let the old master follow it."""
        await asyncio.to_thread(master.kill)
        self.link.reset()
        self.replica.resume()
        assert self.replica.command("REPLICAOF", "NO", "ONE").startswith(b"+OK")
        self.front.target = self.replica.path
        self.front.reset()
        await asyncio.to_thread(master.start, "--replicaof", "127.0.0.1", str(self.port))


@asynccontextmanager
async def replicated(
    folder: Path, receiver: Receiver, acknowledgements: int
) -> AsyncIterator[tuple[Stack, Pair]]:
    """A stack on a master with a replica, with an API and two workers."""
    master_port = free_port()
    more = f"[redis]\nmin_replicas_ack = {acknowledgements}"
    stack = Stack(folder, receiver.port, worker=PATIENT, more=more)
    stack.redis = RedisServer(folder, "--port", str(master_port), "--repl-diskless-sync-delay", "0")
    async with Proxy(("127.0.0.1", master_port)) as link, Proxy(stack.redis.path) as front, stack:
        pair = Pair(folder, master_port, link, front)
        try:
            await pair.follow()
            stack.redis_url = front.redis_url
            await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
            yield stack, pair
        finally:
            for name in list(stack.processes):
                await stack.end(name)
            pair.replica.kill()


async def accept_ahead(stack: Stack, count: int) -> list[str]:
    """Have messages accepted that are due a little later."""
    due = (datetime.now(UTC) + timedelta(seconds=AHEAD)).isoformat()
    return [await stack.accept(sample(f"ahead-{number}", send_at=due)) for number in range(count)]


async def test_case_16_failover_to_a_lagging_replica(folder: Path):
    """`min_replicas_ack = 1`: 503 for what the replica has not, nothing is sent meanwhile; every 202 arrives once."""
    async with Receiver() as receiver, replicated(folder, receiver, 1) as (stack, pair):
        ids = [await stack.accept(sample(f"before-{number}")) for number in range(10)]
        await stack.until_all_finished(ids)
        ids += await accept_ahead(stack, 5)
        pair.fall_behind()
        status, problem, headers = await stack.post(sample("lagging"))
        assert (503, "acceptance_unconfirmed") == (status, problem["code"])
        assert int(headers["retry-after"]) > 0
        await asyncio.sleep(AHEAD + 0.5)  # mail is due, and the mark that sending it needs cannot be kept
        assert 10 == len(receiver.mails)
        errors = [await stack.metrics(stack.worker_metrics[name]) for name in ("one", "two")]
        assert sum(each.get('postroom_redis_errors_total{kind="unconfirmed"}', 0) for each in errors) > 0
        await pair.fail_over(stack.redis)
        ids += [await stack.accept(sample("lagging")), await stack.accept(sample("after"))]
        await assert_delivered(stack, receiver, ids)
        assert dict.fromkeys(ids, 1) == receiver.copies()


async def test_case_16_failover_without_acknowledgements(folder: Path):
    """`min_replicas_ack = 0`: what the replica has not is forgotten, and sent again at most once for each lost mark."""
    async with Receiver() as receiver, replicated(folder, receiver, 0) as (stack, pair):
        ids = await accept_ahead(stack, 5)
        pair.fall_behind()
        lost = await stack.accept(sample("lost"))
        await receiver.until_mails(6)
        await stack.until_all_finished([*ids, lost])
        await pair.fail_over(stack.redis)
        await stack.until(lambda: _gone(stack, lost), "the promoted replica has never heard of it")
        messages = await stack.until_all_finished(ids)
        assert {"sent"} == {message["state"] for message in messages.values()}
        assert {lost: 1, **dict.fromkeys(ids, 2)} == receiver.copies()


async def _gone(stack: Stack, message_id: str) -> bool:
    async with stack.session.get(f"{stack.url}/v1/messages/{message_id}") as response:
        return response.status == 404
