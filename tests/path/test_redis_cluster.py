"""The ledger on a Redis Cluster, with arq's queue on a Redis beside it."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
import pytest_asyncio
from redis.crc import key_slot

from postroom.ledger.keys import place_of
from tests.desk import OPERATOR, postroom
from tests.fakezepto import TOKEN as ZEPTO_TOKEN
from tests.fakezepto import FakeZepto
from tests.faults.mail import SECONDS, Receiver, assert_delivered, scaled
from tests.redises import Cluster, Servers
from tests.stack import QUICK, Stack, agent_toml, channel, sample

pytestmark = [pytest.mark.timeout(SECONDS), pytest.mark.asyncio(loop_scope="module")]
NAMES = [f"team-{n}" for n in range(12)]
ZEPTO = """\
[[agents.zepto.channels]]
name = "api"
kind = "zeptomail"
token = {{ file = "zepto-token" }}
base_url = "{url}"
"""


class Clustered(NamedTuple):
    """Three primaries with a replica each, a stack on them, and what takes its mail."""

    cluster: Cluster
    stack: Stack
    receiver: Receiver
    fake: FakeZepto


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def clustered() -> AsyncIterator[Clustered]:
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="pr")))
        servers = opened.enter_context(Servers(folder))
        cluster, beside = Cluster(servers), servers.start()
        (folder / "zepto-token").write_text(ZEPTO_TOKEN)
        async with Receiver() as receiver, FakeZepto() as fake:
            agents = {name: agent_toml(name, channel(name, receiver.port)) for name in NAMES}
            agents["zepto"] = agent_toml("zepto", ZEPTO.format(url=fake.url))
            more = f'{OPERATOR}[breaker]\nshortest = "60s"\n[redis]\nmin_replicas_ack = 1\narq_url = "redis://127.0.0.1:{beside.port}/0"'
            async with Stack(folder, receiver.port, worker=QUICK, agents=agents, more=more) as stack:
                stack.redis_url = cluster.url
                await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
                yield Clustered(cluster, stack, receiver, fake)


async def test_a_cluster_loses_nothing_through_a_slot_move_and_a_failover(clustered: Clustered):
    """A partition is moved under load; then, in a long run, its primary is killed."""
    cluster, stack, receiver, _ = clustered
    begin, kill, total = scaled((40, None, 120), (200, 600, 900))
    slot = key_slot(place_of("orders").agenda.encode())
    accepted: list[str] = []
    refused = {"moving": 0, "failing": 0, "": 0}
    stage, move, struck_at, returned, n = "", None, 0.0, False, 0
    source = cluster.primary_of(slot)
    target = next(node for node in cluster.nodes[:3] if node is not source)
    while len(accepted) < total or stage or (kill and not struck_at):
        n += 1
        status, body, _ = await stack.post(
            sample(f"m-{n}", agent="orders" if n % 2 else NAMES[n % len(NAMES)])
        )
        if status in (200, 202):
            accepted.append(body["id"])
        else:
            assert body["code"] in ("unavailable", "acceptance_unconfirmed"), body
            refused[stage] += 1
        if len(accepted) >= begin and move is None:
            stage, move = (
                "moving",
                asyncio.create_task(asyncio.to_thread(cluster.move, slot, target, 0.005)),
            )
        if stage == "moving" and move.done():
            assert move.result() > begin
            assert target is cluster.primary_of(slot)
            stage = ""
        if kill and len(accepted) >= kill and not stage and not struck_at:
            stage, struck_at = "failing", time.monotonic()
            target.signal(signal.SIGKILL)
        if stage == "failing":
            assert time.monotonic() - struck_at < 40
            await asyncio.sleep(0.02)
            alive = [node for node in cluster.nodes if node is not target]
            # Without a replica the new primary answers 503, as it must; the old one comes back as one.
            if not returned and cluster.primary_of(slot, alive) in alive:
                target.start()
                returned = True
            if returned and status == 202 and n % 2:
                stage = ""
    messages = await assert_delivered(stack, receiver, accepted, 40)
    print("accepted, refused:", len(messages), refused)  # noqa: T201
    assert not kill or refused["failing"] > 0
    assert "Everything that was accepted is accounted for." in await postroom(stack, "ledger", "check")
    assert "No mail is waiting." in await postroom(stack, "queue")
    assert "Nothing has failed" in await postroom(stack, "failed", "list")
    assert "15 agents, 0 not working; 0 wait" in await postroom(stack, "top", "--once")


async def test_a_file_lies_in_another_slot_than_its_messages(clustered: Clustered):
    """Uploaded by a caller, and once to the provider; two messages name it."""
    _, stack, _, fake = clustered
    headers = {"Content-Type": "application/pdf"}
    async with stack.session.post(f"{stack.url}/v1/files", data=b"%PDF-1.7", headers=headers) as answer:
        assert 201 == answer.status
        key = (await answer.json())["key"]
    files = [{"name": "prices.pdf", "file": key}]
    ids = [await stack.accept(sample(f"file-{n}", agent="zepto", attachments=files)) for n in range(2)]
    messages = await stack.until_all_finished(ids)
    assert {"sent"} == {message["state"] for message in messages.values()}
    assert [b"%PDF-1.7"] == [data for _, _, data in fake.files.values()]
    named = [{"name": "prices.pdf", "file_cache_key": next(iter(fake.files))}]
    assert [named] * 2 == [one.body["attachments"] for one in fake.accepted]


async def test_a_probe_releases_a_breaker_in_a_cluster(clustered: Clustered):
    """A channel whose token was refused stands still, is mended, and a probe that passes lets its mail flow."""
    _, stack, _, fake = clustered
    fake._token = "another one"
    waiting = await stack.accept(sample("refused", agent="zepto"))

    async def stopped() -> bool:
        return ((await stack.get(waiting)).get("reason") or {}).get("code") == "channel_auth"

    await stack.until(stopped, "its token is refused")
    assert "token         FAILS" in await postroom(stack, "probe", "zepto", status=1)
    fake._token = ZEPTO_TOKEN
    told = await postroom(stack, "probe", "zepto")
    assert "token         ok" in told
    assert "breaker       ok     released: mail flows again" in told
    assert "sent" == (await stack.until_finished(waiting, 5))["state"]


async def test_the_command_line_tells_of_each_primary(clustered: Clustered):
    """`postroom redis` asks all of them, and arq's server beside them."""
    told = await postroom(clustered.stack, "redis")
    assert 3 == told.count("\nledger 127.0.0.1:") + told.startswith("ledger 127.0.0.1:")
    assert 4 == told.count("role              ok     master")
    assert "\narq\n" in told
