"""Redis by URL (`postroom.ledger.redis_url`)."""

import pytest
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from postroom.config.rules import find_faults
from postroom.config.structs import Config, Redis
from postroom.ledger.redis_url import find_url_problem, open_pool


@pytest.mark.parametrize(
    "url",
    [
        "redis://h", "redis://u:p@h:6379/0", "rediss://h:6380/1?ssl_ca_certs=/x", "unix:///tmp/r.sock",
        "redis+sentinel://a:26379,b,c:1/mail", "rediss+sentinel://u:p@a,b/mail/2?sentinel_password=x", "redis+sentinel://[::1]:26379/mail",
    ],
)  # fmt: skip
def test_right_urls(url):
    """One server, a socket, TLS, sentinels."""
    assert find_url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://x", "must start with"), ("h:6379", "must start with"), ("redis://h:port", "host and port"),
        ("redis+sentinel://", "must name hosts"), ("redis+sentinel://a:1", "must name sentinels"),
        ("redis+sentinel://a:99999/mail", "hosts and ports"), ("redis+sentinel://u:secret@a:b/mail", "hosts and ports"),
    ],
)  # fmt: skip
def test_wrong_urls_are_told_without_their_password(url, words):
    """What is wrong is said in words that hold nothing of the URL."""
    problem = find_url_problem(url)
    assert words in problem
    assert "secret" not in problem


async def test_a_sentinel_url_says_everything():
    """Sentinels with their ports and credentials, service, database, TLS, and the primary's own credentials."""
    url = "rediss+sentinel://user:pass@a:1,b/mail/3?ssl_ca_certs=/ca.pem&sentinel_username=s&sentinel_password=t"
    pool = open_pool(url, socket_connect_timeout=2.0, max_connections=7)
    assert isinstance(pool, SentinelConnectionPool)
    assert ("mail", 7, SentinelManagedSSLConnection) == (
        pool.service_name,
        pool.max_connections,
        pool.connection_class,
    )
    told = pool.connection_kwargs
    assert ("user", "pass", 3, "/ca.pem", 2.0) == tuple(
        told[k] for k in ("username", "password", "db", "ssl_ca_certs", "socket_connect_timeout")
    )
    asked = [client.connection_pool.connection_kwargs for client in pool.sentinel_manager.sentinels]
    assert [("a", 1), ("b", 26379)] == [(k["host"], k["port"]) for k in asked]
    assert {("s", "t")} == {(k["username"], k["password"]) for k in asked}


@pytest.mark.parametrize("url", ["redis+cluster://a,b:7001", "rediss+cluster://u:p@a/0?ssl_ca_certs=/x"])
def test_a_cluster_needs_another_redis_for_the_rounds(url):
    """It is a right URL, and with it `arq_url` is asked for, which may be no cluster either."""
    assert find_url_problem(url) is None
    for arq_url, faulty in ((None, True), (url, True), ("redis://beside", False)):
        found = find_faults(Config(redis=Redis(url=url, arq_url=arq_url)))
        assert faulty is ("/redis/arq_url" in [fault.pointer for fault in found])


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://a/3", "redis+cluster://a:x"])
def test_wrong_cluster_urls(url):
    """No hosts, a database, a port that is none."""
    assert find_url_problem(url)
