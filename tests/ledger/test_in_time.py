"""How long a call may take, and what it says of a Redis that hangs, hangs up, or refuses who we are."""

import asyncio
import time

import pytest

from postroom.ledger.accept import Created
from postroom.ledger.clients import connection_maker, reading_client
from postroom.ledger.connection import is_alive
from postroom.ledger.errors import LedgerError, LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.pipe import ScriptPipe
from postroom.ledger.reading import Reading
from postroom.ledger.refusals import NO_RIGHT, REFUSES_WRITES, STRANGER, UNANSWERED
from postroom.ledger.watch import Watch
from tests.ledger.harness import Ledger, make_offer, until
from tests.proxy import Proxy
from tests.redisd import RedisServer

SWEEP = ("sweep", "pr:{p00}:agenda", "pr:{p00}:", "", 0, 0, 1)


async def told(call):
    """Return the error of a call."""
    with pytest.raises(LedgerError) as caught:
        await call
    return caught.value


async def timed(call):
    """Return the class of a call's error, and its seconds."""
    begun = time.monotonic()
    error = await told(call)
    return type(error), time.monotonic() - begun


async def test_no_call_takes_longer_than_its_time(own_ledger: Ledger, redis_server: RedisServer):
    """Frozen: whoever waits behind a dying connection has that much less for a new one, and is told so in time."""
    await own_ledger.accept()
    redis_server.pause()
    calls = []
    for _ in range(8):
        calls.append(asyncio.create_task(timed(own_ledger.acceptance.accept(make_offer()))))
        await asyncio.sleep(0.25)
    (first, *_), *_ = found = await asyncio.gather(*calls)
    redis_server.resume()
    assert LedgerUnconfirmedError == first
    assert {LedgerUnavailableError} == {kind for kind, _ in found[1:]}
    # A deadline is a second here; those behind took nearly two before.
    assert max(seconds for _, seconds in found) < 1.5, found


async def test_who_waits_behind_a_dead_connection_has_time_for_a_new_one(redis_server: RedisServer):
    """Only the call that was sent is in doubt; one made later is recorded over another connection."""
    async with Proxy(redis_server.path) as proxy:
        ledger = Ledger(proxy.redis_url, deadline=2.0)
        await ledger.accept()
        proxy.stall("down")
        first = asyncio.create_task(told(ledger.acceptance.accept(make_offer())))
        await asyncio.sleep(1.0)
        second = asyncio.create_task(ledger.acceptance.accept(make_offer()))
        assert isinstance(await first, LedgerUnconfirmedError)
        proxy.resume()
        assert isinstance(await second, Created)
        await ledger.aclose()


async def test_a_read_takes_no_longer_than_its_time(redis_server: RedisServer):
    """With the try that follows it, and the new connection for that."""
    client = reading_client(redis_server.url, timeout=1.0)
    reading = Reading(client)
    offer = make_offer()
    assert await reading.message(offer.id) is None
    redis_server.pause()
    for call in (lambda: reading.message(offer.id), Watch(client).now):
        kind, seconds = await timed(call())
        assert (LedgerUnavailableError, True) == (kind, seconds < 1.9), seconds
    redis_server.resume()
    assert await reading.message(offer.id) is None
    await client.aclose()


async def test_a_new_connection_that_is_never_answered_is_told_as_such(redis_server: RedisServer):
    """Also where redis-py's own time for its greeting ends before ours: it calls that a lost connection."""
    client = reading_client(redis_server.url, timeout=0.2)
    client.seconds = 30.0
    redis_server.pause()
    error = await told(Watch(client).now())
    redis_server.resume()
    assert (LedgerUnavailableError, UNANSWERED) == (type(error), str(error))
    await client.aclose()


@pytest.fixture
def user(redis_server: RedisServer):
    """A user of Redis, and the URL with its password."""
    redis_server.command("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
    return f"unix://app:secret@{redis_server.path}"


async def test_a_connection_that_is_gone_is_not_written_to(user, redis_server: RedisServer):
    """A call that finds it ended goes over a new one; nobody hears that it may have been recorded."""
    pipe = ScriptPipe(connection_maker(user), deadline=5.0)
    for _ in range(3):
        assert [] == await pipe.call(*SWEEP)
        await hung_up(pipe, redis_server)
    await pipe.aclose()


async def hung_up(pipe, redis_server):
    """Have Redis end the user's connections, and wait until the pipe's end has heard of it."""
    redis_server.command("CLIENT", "KILL", "USER", "app")
    connection = pipe._connection

    async def heard():
        return not is_alive(connection)

    await until(heard, "the connection has ended")


async def test_a_password_that_is_refused_is_unavailable(user, redis_server: RedisServer):
    """Nothing was done, for calls and reads alike, and the error says whom Redis refuses."""
    pipe, client = ScriptPipe(connection_maker(user), deadline=5.0), reading_client(user)
    assert [] == await pipe.call(*SWEEP)
    await Watch(client).now()
    redis_server.command("ACL", "SETUSER", "app", "resetpass", ">other")
    await hung_up(pipe, redis_server)
    for call in (lambda: pipe.call(*SWEEP), lambda: pipe.call(*SWEEP), Watch(client).now):
        error = await told(call())
        assert (LedgerUnavailableError, STRANGER) == (type(error), str(error))
    redis_server.command("ACL", "SETUSER", "app", ">secret")
    assert [] == await pipe.call(*SWEEP)
    await client.aclose()
    await pipe.aclose()


async def test_a_right_that_is_missing_is_told(user, redis_server: RedisServer):
    """A command refused as a whole did nothing; one refused inside of a script came after others."""
    ledger = Ledger(user)
    await ledger.accept()
    redis_server.command("ACL", "SETUSER", "app", "-hset", "-set")
    error = await told(ledger.acceptance.accept(make_offer()))
    assert (LedgerUnconfirmedError, NO_RIGHT) == (type(error), str(error))
    redis_server.command("ACL", "SETUSER", "app", "resetkeys", "~other:*")
    for call in (ledger.acceptance.cancel, ledger.reading.message):
        error = await told(call(make_offer().id))
        assert (LedgerUnavailableError, NO_RIGHT) == (type(error), str(error))
    await ledger.aclose()


async def test_a_read_that_writes_is_told_what_refuses_it(own_ledger: Ledger, redis_server: RedisServer):
    """Beside the scripts too, whether Redis is full or lacks its replicas is no matter of reaching it."""
    redis_server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    error = await told(own_ledger.watch.digest_key())
    assert (LedgerUnavailableError, REFUSES_WRITES) == (type(error), str(error))
