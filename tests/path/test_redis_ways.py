"""Redis as users run it: over TLS, as a user with few rights, behind sentinels, through a failover."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.desk import OPERATOR, postroom
from tests.faults.mail import LONG, SECONDS, Receiver, assert_delivered
from tests.redises import Servers, ask, has_tls, primary_of
from tests.smtpd import Smtpd
from tests.stack import QUICK, Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
# As docs/operating.md says it: the rights that are enough.
RIGHTS = ("on", ">pass-word_1", "~pr:*", "~arq:*", "&pr:bell:*", "+@all", "-@dangerous", "-@admin", "+info")
ACKNOWLEDGED = "[redis]\nmin_replicas_ack = 1"


@pytest.fixture
def servers(folder: Path):
    """Servers that are stopped at the end."""
    with Servers(folder) as running:
        yield running


async def test_tls_and_a_user_limited_to_the_prefix_are_enough(folder: Path, smtpd: Smtpd, servers: Servers):
    """Accept, deliver, look, pause, cancel by filter, failed, top, redis: nothing needs another right."""
    if not has_tls():
        pytest.skip("THIS REDIS SPEAKS NO TLS, so that is not tested")
    users = folder / "users.acl"
    users.write_text(f"user default off\nuser postroom {' '.join(RIGHTS)}\n")
    server, authority = servers.start_with_tls("--aclfile", users)
    async with Stack(folder, smtpd.port, worker=QUICK, more=OPERATOR) as stack:
        stack.redis_url = f"rediss://postroom:pass-word_1@localhost:{server.port}/0?ssl_ca_certs={authority}"
        await asyncio.gather(stack.start_api(), stack.start_worker())
        ids = [await stack.accept(sample(f"m-{n}")) for n in range(20)]
        await stack.until_all_finished(ids)
        assert 20 == len(smtpd.mails)
        await postroom(stack, "pause", "orders", "--reason", "a test")
        held = await stack.accept(sample("held"))
        assert "1 waiting message(s)" in await postroom(stack, "cancel", "--agent", "orders")
        assert "1 message(s)" in await postroom(stack, "cancel", "--agent", "orders", "--yes")
        assert "cancelled" == (await stack.get(held))["state"]
        await postroom(stack, "resume", "orders")
        assert "orders" in await postroom(stack, "top", "--once")
        assert "Nothing has failed" in await postroom(stack, "failed", "list")
        assert "agent.paused" in await postroom(stack, "changes")
        assert "role              ok     master" in await postroom(stack, "redis")
        assert 1 == (await stack.shared_metrics())['postroom_exporter{role="shared"}']
        denied = [
            line
            for name in ("api", "worker")
            for line in stack.logs(name)
            if line["event"] == "redis.unavailable"
        ]
        assert [] == denied
        assert [] == stack.mishaps()


async def test_a_certificate_of_nobody_is_not_trusted(servers: Servers):
    """TLS is verified: without the authority nothing connects, and the API says so by refusing mail."""
    if not has_tls():
        pytest.skip("THIS REDIS SPEAKS NO TLS, so that is not tested")
    from postroom.ledger.clients import reading_client
    from postroom.ledger.errors import LedgerUnavailableError
    from postroom.ledger.watch import Watch

    server, authority = servers.start_with_tls()
    for options, works in (("", False), (f"?ssl_ca_certs={authority}", True)):
        client = reading_client(f"rediss://localhost:{server.port}/0{options}")
        try:
            assert works is bool(await Watch(client).now())
        except LedgerUnavailableError:
            assert not works
        await client.aclose()


@pytest.mark.parametrize(
    "strike", ["kill", pytest.param("freeze", marks=pytest.mark.skipif(not LONG, reason="POSTROOM_LONG=1"))]
)
async def test_a_sentinel_failover_under_load_loses_nothing_that_was_acknowledged(
    folder: Path, servers: Servers, strike
):
    """The primary dies, or hangs and comes back as somebody else's replica: what was answered 202 is sent, once."""
    primary = servers.start()
    for _ in range(2):
        servers.start("--replicaof", f"127.0.0.1 {primary.port}")
    sentinels = servers.start_sentinels(primary)
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    async with Receiver() as receiver, Stack(folder, receiver.port, worker=QUICK, more=ACKNOWLEDGED) as stack:
        stack.redis_url = f"redis+sentinel://{hosts}/mail/0"
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        accepted: list[str] = []
        refused = 0
        struck_at, moved_at = 0.0, 0.0
        n = 0
        while len(accepted) < 300 or not moved_at or time.monotonic() - moved_at < 1:
            n += 1
            status, body, _ = await stack.post(sample(f"m-{n}"))
            if status in (200, 202):
                accepted.append(body["id"])
            else:
                assert body["code"] in ("unavailable", "acceptance_unconfirmed"), body
                refused += 1
                await asyncio.sleep(0.05)
            if len(accepted) == 100 and not struck_at:
                struck_at = time.monotonic()
                primary.signal(signal.SIGKILL if strike == "kill" else signal.SIGSTOP)
            if struck_at and not moved_at and primary_of(sentinels[0]) != primary.port:
                moved_at = time.monotonic()
            assert not struck_at or time.monotonic() - struck_at < 40
        if strike == "freeze":
            primary.signal(signal.SIGCONT)
        await assert_delivered(stack, receiver, accepted, 30)
        figures = (len(accepted), refused, round(moved_at - struck_at, 1))
        print("accepted, refused, seconds until failover:", strike, *figures)  # noqa: T201
        assert refused > 0
        assert b"role:master" in ask(primary_of(sentinels[0]), "INFO", "replication")
        assert "role              ok     master" in await postroom(stack, "redis")
