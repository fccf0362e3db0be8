"""What becomes of a message whose opening travelled with the dot of the one before it."""

import pytest
from msgspec import structs

from postroom.message import Address
from postroom.outcome import Ambiguous, Answer, Cause, Deferred, FenceLostError, Phase, Refused, Sent
from tests.channels.conformance import Mark, order_for
from tests.channels.relay import relay_to, until
from tests.channels.run import Coming, arrived, numbered, orders_of, outcomes, send_run, tapped, wanted
from tests.smtpd import Smtpd


async def looks_ahead_after(how: str) -> bool:
    """Send three where the second's MAIL is answered so, each once and with one mark, over two connections.

    Returns whether the channel goes on looking ahead.
    """
    async with Smtpd({"MAIL": ["ok", how, "ok"]}) as server:
        relay = relay_to(server)
        connection = await relay.connect()
        marks = [Mark() for _ in range(3)]
        ends = await send_run(connection, orders_of(3), marks)
        await connection.aclose()

    assert [Sent()] * 3 == outcomes(ends)
    assert (2, wanted(0, 1, 2)) == (server.connections, arrived(server))
    assert [1, 1, 1] == [len(mark.told) for mark in marks]
    return relay.looks_ahead


class TestTheNextFails:
    """The message whose opening travelled along."""

    @pytest.mark.parametrize(
        ("script", "outcome", "connections"),
        [
            ({"MAIL": ["ok", "451 4.3.0 later", "ok"]}, Deferred(Phase.MAIL), 1),
            ({"MAIL": ["ok", "552 5.3.4 too big", "ok"]}, Refused(Phase.MAIL, "message"), 1),
            ({"RCPT:m1@example.com": "450 4.2.1 grey"}, Deferred(Phase.RCPT), 1),
            ({"RCPT:m1@example.com": "550 5.1.1 nobody"}, Refused(Phase.RCPT), 1),
            ({"RCPT:m1@example.com": "550 no", "DATA": ["ok", "354 all the same", "ok"]}, Refused(Phase.RCPT), 1),
            ({"DATA": ["ok", "451 4.3.0 later", "ok"]}, Deferred(Phase.DATA), 1),
            ({"DATA": ["ok", "554 5.7.1 no", "ok"]}, Refused(Phase.DATA, "message"), 1),
        ],
    )  # fmt: skip
    async def test_refused(self, script, outcome, connections):
        """It ends by its own replies, without a mark, and the one behind it is sent."""
        async with Smtpd(script) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            marks = [Mark() for _ in range(3)]
            ends = await send_run(connection, orders_of(3), marks)
            await connection.aclose()

        assert [Sent(), outcome, Sent()] == outcomes(ends)
        assert (connections, wanted(0, 2), True) == (server.connections, arrived(server), relay.looks_ahead)
        assert [1, 0, 1] == [len(mark.told) for mark in marks]

    async def test_one_refused_of_three(self):
        """Which recipients the server took stands in the mark, as for a message that opened by itself."""
        async with Smtpd({"RCPT:bob@example.com": "550 5.1.1 nobody"}) as server:
            connection = await relay_to(server).connect()
            mails = [numbered(0), structs.replace(numbered(1), to=tuple(map(Address, ("ada@example.com", "bob@example.com", "cy@example.com"))))]  # fmt: skip
            marks = [Mark(), Mark()]
            ends = await send_run(connection, list(map(order_for, mails)), marks)
            await connection.aclose()

        refused = Answer(Refused(Phase.RCPT), 550, "5.1.1")
        assert [(None, refused, None)] == marks[1].told
        assert [Sent(), refused.outcome, Sent()] == [answer.outcome for answer in ends[1].answers]
        assert ["ada@example.com", "cy@example.com"] == server.mails[1].recipients

    @pytest.mark.parametrize("how", ["bye 421 4.4.2 enough", "421 enough for one connection"])
    async def test_the_server_says_goodbye_in_its_place(self, how):
        """421 in place of MAIL's reply: it goes over a new connection, free of charge, and begun again the next time."""
        assert True is await looks_ahead_after(how)

    @pytest.mark.parametrize("how", ["421 4.7.0 slow down", "bye 421 4.7.0 slow down"])
    async def test_a_server_that_asks_to_slow_down_is_heard(self, how):
        """Also where it hangs up at once: what it said last is read before its end counts."""
        async with Smtpd({"MAIL": ["ok", how, "ok"]}) as server:
            connection = await relay_to(server).connect()
            first, second = orders_of(2)
            await connection.submit(first, Mark(), Coming(second))
            if how.startswith("bye"):
                await until(lambda: connection._stream.loss is not None)
            assert connection.usable
            fault = await connection.submit(second, Mark())

        assert (Cause.THROTTLE, 1) == (fault.cause, server.connections)
        assert wanted(0) == arrived(server)

    @pytest.mark.parametrize("how", ["drop", "reset", "503 5.5.1 bad sequence of commands", "raw \x00\r\n"])
    async def test_found_dead(self, how):
        """A connection that ends before the next one's MAIL is answered is replaced free of charge, or out of step then.

        The first time this may be what the server makes of such a group, so the channel does it no more.
        """
        assert False is await looks_ahead_after(how)

    async def test_a_lane_that_hangs_up_on_a_dead_one_learns_it_too(self):
        """A lane closes what is not usable instead of submitting over it."""
        async with Smtpd({"MAIL": ["ok", "drop"]}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            first, second = orders_of(2)
            await connection.submit(first, Mark(), Coming(second))
            await until(lambda: not connection.usable)
            await connection.aclose()

        assert not relay.looks_ahead

    @pytest.mark.parametrize(
        ("script", "third"),
        [
            ({"MAIL": ["ok", "ok", "drop", "ok"]}, Sent()),
            ({"RCPT": ["ok", "ok", "drop", "ok"]}, Deferred(Phase.RCPT)),
            ({"DOT": ["ok", "ok", "drop", "ok"]}, Ambiguous(Phase.DONE)),
        ],
    )
    async def test_one_that_has_answered_a_group_before_is_only_gone(self, script, third):
        """A connection over which such a group was answered, and that ends later, says nothing against groups."""
        async with Smtpd(script) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            ends = await send_run(connection, orders_of(4)[:3])
            if not connection.usable:
                connection = await relay.connect()
            ends += await send_run(connection, orders_of(4)[3:])
            await connection.aclose()

        assert [Sent(), Sent(), third, Sent()] == outcomes(ends)
        assert (2, True) == (server.connections, relay.looks_ahead)

    @pytest.mark.parametrize("how", ["drop", "hang"])
    async def test_a_lone_dot_that_is_lost_says_nothing_of_groups(self, how):
        """What becomes of a dot by itself is about that message and its connection."""
        async with Smtpd({"DOT": how}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            ends = await send_run(connection, orders_of(1))
            await connection.aclose()

        assert ([Ambiguous(Phase.DONE)], True) == (outcomes(ends), relay.looks_ahead)

    async def test_each_connection_is_asked_anew(self):
        """Behind one name there may be several servers: that one took a group says nothing of the next."""
        async with Smtpd({"MAIL": ["ok", "ok", "drop", "ok", "drop", "ok"]}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            ends = await send_run(connection, orders_of(4))
            await connection.aclose()

        assert [Sent()] * 4 == outcomes(ends)
        assert (3, wanted(*range(4)), False) == (server.connections, arrived(server), relay.looks_ahead)

    @pytest.mark.parametrize(
        ("script", "second"),
        [
            ({"DOT": ["discard", "ok"]}, Sent()),
            ({"MAIL": ["ok", "hang", "ok"]}, Sent()),
            ({"RCPT": ["ok", "hang", "ok"]}, Deferred(Phase.RCPT)),
        ],
    )
    async def test_a_server_that_throws_away_what_comes_with_a_dot(self, script, second):
        """It costs one wait: from then on this channel's dots are alone, on all its connections."""
        async with tapped(script) as (server, tap):
            relay = relay_to(tap)
            connection = await relay.connect()
            ends = await send_run(connection, orders_of(2))
            if not connection.usable:
                await connection.aclose()
                connection = await relay.connect()
            asked = Coming(order_for(numbered(9)))
            ends.append(await connection.submit(order_for(numbered(2)), Mark(), asked))
            await connection.aclose()

            assert [Sent(), second, Sent()] == outcomes(ends)
            assert (False, 0) == (relay.looks_ahead, asked.asked)
            assert (wanted(0, 1, 2) if second == Sent() else wanted(0, 2)) == arrived(server)

    async def test_its_mark_is_refused(self):
        """Its content is out and its dot is not: nothing of it is accepted."""
        async with Smtpd() as server:
            connection = await relay_to(server).connect()
            first, second = orders_of(2)
            await connection.submit(first, Mark(), Coming(second))
            with pytest.raises(FenceLostError):
                await connection.submit(second, Mark(FenceLostError()))
            await connection.aclose()
            await server.idle()

        assert wanted(0) == arrived(server)
