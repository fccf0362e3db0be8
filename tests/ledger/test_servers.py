"""What `postroom redis` finds about the servers behind a URL."""

import pytest

from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.servers import judge, read_servers

GOOD = {
    "redis_version": "7.2.4", "uptime_in_seconds": 7200, "role": "master", "loading": 0, "used_memory": 40_000_000,
    "maxmemory": 400_000_000, "maxmemory_policy": "noeviction", "aof_enabled": 1, "aof_last_write_status": "ok",
    "connected_slaves": 2, "slave0": {"state": "online"}, "slave1": {"state": "wait_bgsave"},
}  # fmt: skip


def wrong(info, **options):
    return {trait.name: trait.text for trait in judge(info, **options) if not trait.good}


def test_a_good_server_is_told_of_in_six_lines():
    """Every line says the number behind it."""
    assert {
        "version": "7.2.4, up 2.0 h",
        "role": "master",
        "memory": "40.0 MB of 400.0 MB (10%); from 85% on new mail is refused",
        "eviction": "noeviction",
        "append-only file": "on, last write ok",
        "replicas": "1 online of 2, 1 must acknowledge",
    } == {trait.name: trait.text for trait in judge(GOOD, acknowledgements=1)}
    assert {} == wrong(GOOD, acknowledgements=1)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"redis_version": "6.0.16"}, "version"), ({"role": "slave"}, "role"), ({"loading": 1}, "role"),
        ({"used_memory": 350_000_000}, "memory"), ({"maxmemory_policy": "allkeys-lru"}, "eviction"),
        ({"aof_enabled": 0}, "append-only file"), ({"aof_last_write_status": "err"}, "append-only file"),
    ],
)  # fmt: skip
def test_what_mail_is_not_safe_with_is_wrong(changes, name):
    """Each by itself."""
    assert {name} == wrong(GOOD | changes).keys()


def test_replicas_count_where_accepts_wait_for_them():
    """One that is not online acknowledges nothing."""
    assert {"replicas"} == wrong(GOOD, acknowledgements=2).keys()


def test_a_server_of_the_rounds_alone_may_forget():
    """arq's Redis may evict, and needs no file."""
    assert {} == wrong(GOOD | {"maxmemory_policy": "allkeys-lru", "aof_enabled": 0}, keeps_mail=False)


async def test_a_real_server_says_all_of_it(shared_redis):
    """By the names that INFO really has."""
    (server,) = await read_servers(shared_redis.url)
    assert ("", {}) == (server.name, wrong(server.info))
    assert {"uptime_in_seconds", "aof_last_write_status", "connected_slaves", "loading"} <= server.info.keys()


@pytest.mark.parametrize(
    "url", ["redis://u:pass-word_1@127.0.0.1:1/0", "redis+sentinel://u:pass-word_1@127.0.0.1:1/mail/0", "redis+cluster://u:pass-word_1@127.0.0.1:1"],
)  # fmt: skip
async def test_one_that_does_not_answer_is_told_without_its_password(url):
    """However it is named."""
    with pytest.raises(LedgerUnavailableError) as raised:
        await read_servers(url)
    assert str(raised.value)
    assert "pass-word_1" not in str(raised.value)
