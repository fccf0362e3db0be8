"""Group commit, and what happens to it when Redis is away, full, or has forgotten the scripts."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from postroom.ledger.accept import Acceptance, Created, Exists
from postroom.ledger.clients import connection_maker
from postroom.ledger.errors import (
    LedgerError,
    LedgerFullError,
    LedgerUnavailableError,
    LedgerUnconfirmedError,
)
from postroom.ledger.limits import Pace, Stop
from postroom.ledger.pipe import MAX_BATCH, SLOW_SECONDS, ScriptPipe
from postroom.outcome import Cause, ChannelFault, Phase
from postroom.states import State
from tests.ledger.harness import AGENT, Ledger, make_offer, until


async def outcome(call):
    """Return a call's reply, or the class of its error."""
    try:
        return await call
    except LedgerError as error:
        return type(error)


async def test_concurrent_calls_travel_together(ledger):
    """Calls made at once are one flush, and those made while it is in flight go out together after it."""
    first = asyncio.gather(*(ledger.accept() for _ in range(50)))
    await until(lambda: flushing(ledger.pipe, 1), "the first are on their way")
    second = asyncio.gather(*(ledger.accept() for _ in range(50)))
    await asyncio.gather(first, second)
    assert 2 == ledger.pipe.flushes


async def test_a_group_is_bounded(ledger):
    """A flush carries a bounded number of calls, so that none waits behind thousands."""
    await asyncio.gather(*(ledger.accept() for _ in range(2 * MAX_BATCH)))
    assert 2 == ledger.pipe.flushes


@pytest.fixture
async def small_groups(redis_server):
    """A pipe of few calls a flush, and who accepts over it."""
    pipe = ScriptPipe(connection_maker(redis_server.url), deadline=5.0, batch=4)
    yield pipe, Acceptance(pipe, pipe, content_ms=60_000, message_ms=60_000)
    await pipe.aclose()


async def test_a_small_group_does_not_wait_for_more(small_groups):
    """With a small batch Redis has work before everybody has asked."""
    pipe, acceptance = small_groups
    await asyncio.gather(*(acceptance.accept(make_offer()) for _ in range(12)))
    assert 3 == pipe.flushes


async def test_after_a_slow_flush_all_that_wait_go_together(small_groups, redis_server):
    """What takes long is not the work of a few calls, so it is better waited for once."""
    pipe, acceptance = small_groups
    await acceptance.accept(make_offer())
    redis_server.pause()
    slow, began = asyncio.create_task(acceptance.accept(make_offer())), time.perf_counter()
    await until(lambda: flushing(pipe, 2), "it is on its way")
    others = asyncio.gather(*(acceptance.accept(make_offer()) for _ in range(40)))
    await until(lambda: passed(began + 2 * SLOW_SECONDS), "that was slow")
    redis_server.resume()
    await asyncio.gather(slow, others)
    assert 3 == pipe.flushes


async def test_replies_find_their_calls(ledger):
    """Each of many concurrent calls gets its own reply."""
    first = [await ledger.accept(client_ref=f"ref-{i}") for i in range(20)]
    offers = [make_offer(client_ref=f"ref-{i}") for i in range(40)]
    replies = await asyncio.gather(*(ledger.acceptance.accept(offer) for offer in offers))
    assert [offer.id for offer in first] == [reply.record.id for reply in replies[:20]]
    assert [Created] * 20 == [type(reply) for reply in replies[20:]]


async def test_scripts_forgotten_under_load_fail_nothing(ledger):
    """SCRIPT FLUSH, again and again, only makes the scripts be loaded again."""
    flusher: Redis = ledger.client
    done = asyncio.Event()

    async def forget():
        while not done.is_set():
            await flusher.script_flush()
            await asyncio.sleep(0.002)

    forgetting = asyncio.create_task(forget())
    await asyncio.gather(*(work(ledger, f"lane{i}", 15) for i in range(8)))
    done.set()
    await forgetting
    assert {"h": {}, "n": {}, "b": {}} == await ledger.queues()


async def work(ledger, lane, times):
    """Accept and send, like everybody else."""
    for _ in range(times):
        await ledger.accept()
        await ledger.send(lane=lane)


async def test_a_script_defect_fails_its_own_call_only(ledger):
    """A call that a script chokes on is told as a defect, and its neighbours in the group are not."""
    bad = ledger.delivery._pipe.call("claim", "no-key", "pr:{p00}:", AGENT, 1, 1)
    good = ledger.delivery.sweep(3)
    assert [LedgerError, []] == await asyncio.gather(outcome(bad), outcome(good))


async def test_a_cancelled_waiter_takes_only_its_own_call_along(own_ledger, redis_server):
    """Callers that hang up while Redis is slow stop neither the flusher nor anybody else's call."""
    await own_ledger.accept()
    redis_server.pause()
    sent = asyncio.create_task(own_ledger.acceptance.accept(make_offer()))
    await until(lambda: flushing(own_ledger.pipe, 2), "the first is on its way")
    waiters = [asyncio.create_task(own_ledger.acceptance.accept(make_offer())) for _ in range(20)]
    await asyncio.sleep(0)
    for waiter in (sent, *waiters[::2]):
        waiter.cancel()
    await asyncio.sleep(0)
    redis_server.resume()
    replies = await asyncio.gather(*waiters, return_exceptions=True)
    assert [asyncio.CancelledError] * 10 == [type(reply) for reply in replies[::2]]
    assert [Created] * 10 == [type(reply) for reply in replies[1::2]]
    # What only waited when its caller went away is never sent; what was on its way is there.
    assert 1 + 11 == len((await own_ledger.queues())["n"])
    await own_ledger.accept()


async def flushing(pipe, number):
    return pipe.flushes >= number


async def passed(moment):
    return time.perf_counter() > moment


async def test_silence_is_unconfirmed_for_its_group_and_over_afterwards(own_ledger, redis_server):
    """Where Redis does not answer in time nobody knows; repeated with the same ref it is one message."""
    await own_ledger.accept(client_ref="warm")
    redis_server.pause()
    offers = [make_offer(client_ref=f"ref-{i}") for i in range(5)]
    replies = await asyncio.gather(*(outcome(own_ledger.acceptance.accept(offer)) for offer in offers))
    redis_server.resume()
    # The first call went out alone; those behind it found the connection dropped and no other to be had.
    assert LedgerUnconfirmedError == replies[0]
    assert set(replies) <= {LedgerUnconfirmedError, LedgerUnavailableError}
    for i in range(5):
        reply = await own_ledger.acceptance.accept(make_offer(client_ref=f"ref-{i}"))
        assert isinstance(reply, Created | Exists)
    assert 6 == len((await own_ledger.queues())["n"])


async def test_a_dead_redis_is_told_and_a_new_one_found(own_ledger, redis_server):
    """Killed: the call under way is unconfirmed, later ones surely did nothing; started again: all is well."""
    offer = await own_ledger.accept()
    redis_server.kill()
    first = await outcome(own_ledger.acceptance.accept(make_offer()))
    assert first in (LedgerUnconfirmedError, LedgerUnavailableError)
    later = [make_offer() for _ in range(3)]
    replies = await asyncio.gather(*(outcome(own_ledger.acceptance.accept(o)) for o in later))
    assert [LedgerUnavailableError] * 3 == replies
    redis_server.start()
    await own_ledger.accept()
    assert offer.id in (await own_ledger.queues())["n"]
    assert 2 == len((await own_ledger.claim()).messages)


async def test_a_connection_lost_in_the_middle_is_unconfirmed(own_ledger, redis_server):
    """Redis's own process dies with the group in its hands: nobody may be told that nothing happened."""
    await own_ledger.accept()
    redis_server.pause()
    calls = [asyncio.create_task(outcome(own_ledger.acceptance.accept(make_offer()))) for _ in range(4)]
    await until(lambda: flushing(own_ledger.pipe, 2), "the first of them is on its way")
    assert redis_server.process is not None
    redis_server.process.kill()
    replies = await asyncio.gather(*calls)
    assert LedgerUnconfirmedError == replies[0]
    redis_server.process.wait()
    redis_server.start()
    await own_ledger.accept()


async def test_a_closed_pipe_has_answered_everybody(ledger):
    """Closing waits for what is under way."""
    calls = [asyncio.create_task(ledger.acceptance.accept(make_offer())) for _ in range(3)]
    await asyncio.sleep(0)
    await ledger.pipe.aclose()
    assert [Created] * 3 == [type(await call) for call in calls]


async def test_nothing_listens_is_unavailable(folder):
    """Without a Redis every call surely did nothing, however often it is made."""
    pipe = ScriptPipe(connection_maker(f"unix://{folder}/none.sock"), deadline=1.0)
    for _ in range(3):
        assert LedgerUnavailableError == await outcome(pipe.call("sweep", "k", "pr:{p00}:", "", 0, 0, 1))
    await pipe.aclose()


@pytest.mark.parametrize(
    ("command", "undo"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("CONFIG", "SET", "min-replicas-to-write", "0")),
    ],
)
async def test_a_redis_that_refuses_writes_is_unavailable(own_ledger, redis_server, command, undo):
    """A replica, and a primary without its replicas, surely recorded nothing."""
    redis_server.command(*command)
    assert LedgerUnavailableError == await outcome(own_ledger.acceptance.accept(make_offer()))
    redis_server.command(*undo)
    await own_ledger.accept()


async def test_replicas_that_do_not_answer_are_unconfirmed(shared_redis, ledger):
    """Where a replica must have it before the 202, a record without one is not yet a promise."""
    waiting = ScriptPipe(connection_maker(shared_redis.url), deadline=2.0, replicas=1)
    calls = [waiting.call("sweep", "pr:{p00}:agenda", "pr:{p00}:", "", 0, 0, 5) for _ in range(2)]
    replies = await asyncio.gather(*(outcome(call) for call in calls))
    assert [LedgerUnconfirmedError] * 2 == replies
    await waiting.aclose()
    assert [] == await ledger.delivery.sweep(0)


@pytest.fixture
async def full(own_ledger: Ledger, redis_server):
    """A Redis that has no memory left, with ten messages in it; most of them were queued before."""
    for _ in range(10):
        await own_ledger.accept(blobs=(b"x",))
    await own_ledger.claim(0)
    assert redis_server.command("CONFIG", "SET", "maxmemory", "100kb") == b"+OK\r\n"
    return own_ledger


async def test_a_full_redis_takes_no_new_message(full):
    """Accept is refused as full, leaves nothing behind, and goes on being refused."""
    for _ in range(2):
        offer = make_offer()
        assert LedgerFullError == await outcome(full.acceptance.accept(offer))
        assert await full.reading.message(offer.id) is None
    assert 10 == len((await full.queues())["n"])


async def test_a_full_redis_still_answers_for_what_it_has(full):
    """A replay needs no memory."""
    known = await full.client.keys("pr:*:r:*")
    assert 10 == len(known)
    offer = make_offer(ref=known[0].decode().rpartition(":")[2])
    assert isinstance(await full.acceptance.accept(offer), Exists)


async def test_a_full_redis_drains(full):
    """Claim, mark, finish, release, renew, sweep and the channels' faults all work without memory."""
    first = await full.claim(2)
    held = [(message.id, message.fence) for message in first.messages]
    assert 2 == len(held)
    assert [] == (await full.delivery.renew(AGENT, ["lane"], held))[1]
    assert 2 == (await full.delivery.release(AGENT, held, pace=Pace(interval_us=1, burst=9), lane="lane"))[0]
    await full.client.delete(*(await full.client.keys("pr:*:rung:*")) or ["nothing"])
    sweeps = [await full.delivery.sweep(partition) for partition in range(16)]
    assert [AGENT] == [agent for agents in sweeps for agent in agents]
    fault = ChannelFault(Cause.CONNECT, Phase.CONNECT, "cannot be reached")
    stopped = await full.delivery.stop_channel(
        AGENT, "relay", fault, channels=("relay",), stop=Stop(1, 1000, 50, 60_000), connections=10
    )
    assert (50, "opened") == stopped
    await until(lambda: full.delivery.mend_channel(AGENT, "relay"), "the stop is over")
    for codes in ("d", *"s" * 10):
        held = await full.claim_one()
        assert 1 == await full.advance(held)
        expected = State.SENT if codes == "s" else State.QUEUED
        assert expected == (await full.finish(held, codes)).state
    assert {"h": {}, "n": {}, "b": {}} == await full.queues()


async def test_a_full_redis_that_forgot_the_scripts_drains(full):
    """Loading scripts is taken too."""
    await full.client.script_flush()
    await full.send()


async def test_room_is_found_again(full, redis_server):
    """As soon as there is memory, accept goes on."""
    assert LedgerFullError == await outcome(full.acceptance.accept(make_offer()))
    redis_server.command("CONFIG", "SET", "maxmemory", "0")
    await full.accept()


async def test_the_digest_key_is_found_in_a_full_redis(own_ledger, redis_server):
    """An API that starts, or looks, while Redis is full knows the key that is there."""
    key, _ = await own_ledger.watch.digest_key()
    redis_server.command("CONFIG", "SET", "maxmemory", "100kb")
    assert (key, False) == await own_ledger.watch.digest_key()


async def test_calls_behind_a_broken_one_are_answered(ledger):
    """A call that cannot even be sent fails with its group; what waits behind it goes out."""
    first = asyncio.create_task(ledger.acceptance.accept(make_offer()))
    await asyncio.sleep(0)
    bad = [asyncio.create_task(outcome(ledger.pipe.call("sweep", "\ud800"))) for _ in range(MAX_BATCH)]
    behind = asyncio.create_task(ledger.acceptance.accept(make_offer()))
    await first
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    done, _ = await asyncio.wait({behind}, timeout=0.3)
    for task in (*bad, behind):
        task.cancel()
    await asyncio.gather(*bad, behind, return_exceptions=True)
    assert {behind} == done
