"""What becomes of a message whose dot has the opening of the next one along."""

import asyncio

import pytest

from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
    DayUsedUpError,
    Deferred,
    FenceLostError,
    Phase,
    Refused,
    Sent,
    TooLateError,
)
from tests.channels.conformance import Mark, cancel, order_for
from tests.channels.relay import relay_to, until
from tests.channels.run import (
    Coming,
    a_moment,
    arrived,
    numbered,
    orders_of,
    outcomes,
    send_run,
    tapped,
    wanted,
)
from tests.smtpd import Smtpd
from workers.channels.seam import Order


class TestTheFirstFails:
    """The message whose dot has another one's opening along."""

    @pytest.mark.parametrize(
        ("reply", "outcome"),
        [("451 4.3.0 later", Deferred(Phase.DONE)), ("552 5.3.4 no", Refused(Phase.DONE, "message"))],
    )
    async def test_refused_after_its_dot(self, reply, outcome):
        """The first ends by its own reply, and the next goes on over the same connection."""
        async with Smtpd({"DOT": [reply, "ok"]}) as server:
            connection = await relay_to(server).connect()
            ends = await send_run(connection, orders_of(3))
            await connection.aclose()

        assert [outcome, Sent(), Sent()] == outcomes(ends)
        assert (1, wanted(1, 2)) == (server.connections, arrived(server))

    @pytest.mark.parametrize(
        ("reply", "first"), [("421 4.3.2 bye", Deferred(Phase.DONE)), ("454 slow", Cause.THROTTLE)]
    )
    async def test_refused_together_with_the_connection(self, reply, first):
        """421 and faults give the connection up; the next was not accepted, and goes over a new one."""
        async with Smtpd({"DOT": [reply, "ok"]}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            one, two = orders_of(2)
            ends = [await connection.submit(one, Mark(), Coming(two))]
            assert not connection.usable
            ends.append(await connection.submit(two, Mark()))
            await connection.aclose()

        assert [first, Sent()] == outcomes(ends)
        assert (2, wanted(1), True) == (server.connections, arrived(server), relay.looks_ahead)

    @pytest.mark.parametrize("how", ["drop", "reset", "hang"])
    async def test_lost_after_its_dot(self, how):
        """It is ambiguous, as ever; the next was surely not accepted and costs a new connection, no attempt.

        A server that is lost over the first such group may not like it: the channel does it no more.
        """
        async with Smtpd({"DOT": [f"accept {how}", "ok"]}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            marks = [Mark() for _ in range(3)]
            ends = await send_run(connection, orders_of(3), marks)
            await connection.aclose()

        assert [Ambiguous(Phase.DONE), Sent(), Sent()] == outcomes(ends)
        assert (2, wanted(0, 1, 2), False) == (server.connections, arrived(server), relay.looks_ahead)
        assert [1, 1, 1] == [len(mark.told) for mark in marks]

    @pytest.mark.parametrize("reply", ["500 5.5.1 what?", "502 no", "503 5.5.1 bad sequence of commands"])
    async def test_refused_for_its_company(self, reply):
        """A server that complains of commands after the dot does not mean the mail: it is put off, and goes alone then."""
        async with tapped({"DOT": [reply, "ok"]}) as (server, tap):
            relay = relay_to(tap)
            connection = await relay.connect()
            ends = await send_run(connection, orders_of(2))
            ends.append(
                await connection.submit(order_for(numbered(0)), Mark(), Coming(order_for(numbered(2))))
            )
            await connection.aclose()

            assert [Deferred(Phase.DONE), Sent(), Sent()] == outcomes(ends)
            assert (False, wanted(1, 0)) == (relay.looks_ahead, arrived(server))
            assert 4 == b"".join(tap.pieces).count(b"MAIL FROM")

    async def test_by_itself_it_is_refused_by_the_same_reply(self):
        """Without company such a reply is about the mail, as ever."""
        async with Smtpd({"DOT": "503 5.5.1 no"}) as server:
            connection = await relay_to(server).connect()
            ended = await connection.submit(orders_of(1)[0], Mark(), Coming(None))
            await connection.aclose()

        assert [Refused(Phase.DONE, "message")] == outcomes([ended])

    @pytest.mark.parametrize(
        "error", [FenceLostError(), TooLateError(), DayUsedUpError(), RuntimeError("the ledger is away")]
    )
    async def test_without_its_mark_nothing_of_the_next_is_said(self, error):
        """A refused mark keeps the dot back, and with it what would have travelled along."""
        async with tapped() as (server, tap):
            connection = await relay_to(tap).connect()
            first, second = orders_of(2)
            with pytest.raises(type(error)):
                await connection.submit(first, Mark(error, until=a_moment), Coming(second))
            assert not connection.usable
            await server.idle()
            assert 1 == b"".join(tap.pieces).count(b"MAIL FROM")
        assert [] == arrived(server)

    async def test_cancelled_before_its_dot_nothing_of_the_next_is_said(self):
        """A lane that is cancelled while the mark is written leaves nothing behind."""
        async with tapped() as (server, tap):
            connection = await relay_to(tap).connect()
            first, second = orders_of(2)
            mark = Mark(hang=True)
            task = asyncio.create_task(connection.submit(first, mark, Coming(second)))
            await asyncio.wait_for(mark.reached.wait(), 5)
            await cancel(task)
            await connection.aclose()
            await server.idle()

            assert 1 == b"".join(tap.pieces).count(b"MAIL FROM")
        assert [] == server.mails

    @pytest.mark.parametrize("mark", [Mark(until=a_moment), None], ids=["after the mark", "before it"])
    async def test_interrupted_before_its_dot(self, mark):
        """A server that speaks in the midst of the body gets neither the dot nor the next message's opening."""
        async with tapped({"BODY": ["452 4.3.1 full", "slow 0"]}) as (server, tap):
            connection = await relay_to(tap).connect()
            first, second = orders_of(2)
            told = mark or Mark()

            async def ahead() -> Order:
                if mark is None:  # the server speaks while the next one is made
                    await until(lambda: not connection._stream.quiet)
                return second

            ended = await connection.submit(first, told, ahead)
            assert not connection.usable
            await server.idle()
            assert 1 == b"".join(tap.pieces).count(b"MAIL FROM")
            assert Answer(Deferred(Phase.BODY), 452, "4.3.1") == ended.answers[0]
            assert (0 if mark is None else 1) == len(told.told)
            last = await connection.submit(second, Mark())
            await connection.aclose()

        assert ([Sent()], wanted(1)) == (outcomes([last]), arrived(server))

    async def test_cancelled_after_its_dot(self):
        """Only the one whose dot is out may have been accepted."""
        async with Smtpd({"DOT": "accept hang"}) as server:
            connection = await relay_to(server).connect()
            first, second = orders_of(2)
            task = asyncio.create_task(connection.submit(first, Mark(), Coming(second)))
            await server.until("DOT")
            await cancel(task)
            await connection.aclose()
            await server.idle()

        assert wanted(0) == arrived(server)
