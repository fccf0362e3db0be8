"""The dot of one message that has the next one's MAIL, RCPTs and DATA along."""

import pytest
import uvloop
from msgspec import structs

from postroom.compose import ComposeError
from postroom.message import Address
from postroom.outcome import Answer, Deferred, Phase, Refused, Sent
from tests.channels.conformance import MAILS, Mark, order_for
from tests.channels.relay import QUICK, relay_to, until
from tests.channels.run import Coming, a_moment, arrived, orders_of, outcomes, send_run, tapped, wanted
from tests.smtpd import Smtpd
from workers.channels.smtp import SmtpRelay
from workers.stages import Stages

GREEDY = ("SIZE 20000000", "8BITMIME", "SMTPUTF8")  # without PIPELINING


class TestOneWrite:
    async def test_the_dot_and_the_next_opening_are_one_piece(self):
        """The dot, MAIL, RCPT and DATA are written at once; the last message's dot is alone."""
        async with tapped() as (server, tap):
            connection = await relay_to(tap).connect()
            ends = await send_run(connection, orders_of(3), [Mark(until=a_moment) for _ in range(3)])
            await connection.aclose()

            grouped = [piece for piece in tap.pieces if piece.startswith(b".\r\n") and len(piece) > 3]
            assert [Sent()] * 3 == outcomes(ends)
            assert wanted(0, 1, 2) == arrived(server)
            assert [3, 3] == [piece.count(b"\r\n") - 1 for piece in grouped]
            assert all(
                piece.startswith(b".\r\nMAIL FROM:") and piece.endswith(b"DATA\r\n") for piece in grouped
            )
            assert b".\r\n" in tap.pieces

    def test_a_long_run_on_uvloop_too(self):
        """Forty messages go over one connection, in order, each with its own content, mark and answer."""

        async def run():
            async with Smtpd() as server:
                connection = await relay_to(server).connect()
                marks = [Mark() for _ in range(40)]
                ends = await send_run(connection, orders_of(40), marks)
                await connection.aclose()
                return server, marks, ends

        server, marks, ends = uvloop.run(run())

        assert (1, [Sent()] * 40) == (server.connections, outcomes(ends))
        assert wanted(*range(40)) == arrived(server)
        assert [[(None,)]] * 40 == [mark.told for mark in marks]

    async def test_over_tls(self, context, ca_file):
        """The same inside TLS."""
        async with Smtpd(tls="starttls", context=context) as server:
            connection = await relay_to(server, tls="starttls", ca_file=ca_file).connect()
            ends = await send_run(connection, orders_of(5))
            await connection.aclose()

        assert ([Sent()] * 5, 1) == (outcomes(ends), server.connections)
        assert wanted(*range(5)) == arrived(server)

    async def test_nothing_is_composed_twice_and_each_keeps_its_times(self):
        """What is made ahead is made once; its time is its own, and not the one's before it."""
        calls = []

        def compose(mail, headers, wire):
            calls.append(mail)
            return plain(mail, headers, wire)

        async with Smtpd() as server:
            relay = relay_to(server)
            plain = relay.compose
            connection = await SmtpRelay(relay.config, timeouts=QUICK, compose=compose).connect()
            orders = [structs.replace(order, stages=Stages()) for order in orders_of(3)]
            await send_run(connection, orders)
            await connection.aclose()

        assert [order.mail for order in orders] == calls
        assert all(order.stages.compose > 0 for order in orders)
        assert [True, True, False] == [order.stages.ahead > 0 for order in orders]

    @pytest.mark.parametrize(
        ("said", "whole", "connections"),
        [("ok", True, 1), ("raw 354 go\r\n250 what?\r\n", True, 2), ("raw 354 go\r\n25", False, 2)],
    )
    async def test_only_what_waits_for_its_reply_is_expected(self, said, whole, connections):
        """Replies that come before they are read leave the connection usable; anything more does not."""
        async with Smtpd({"DATA": ["ok", said, "ok"]}) as server:
            connection = await relay_to(server).connect()
            first, second = orders_of(2)
            await connection.submit(first, Mark(), Coming(second))
            count = 4 if connections == 2 and whole else 3
            stream = connection._stream
            await until(lambda: len(stream._replies) == count and stream._parser.pending != whole)
            assert (connections == 1) == connection.usable
            ended = await connection.submit(second, Mark())
            await connection.aclose()

        assert ([Sent()], connections) == (outcomes([ended]), server.connections)
        assert wanted(0, 1) == arrived(server)

    async def test_part_of_a_reply_leaves_it_usable(self):
        """The first bytes of an answer that is waited for are nothing unasked."""
        async with Smtpd({"RCPT": ["ok", "raw 250-2.1.5 so\r\n250"], "DATA": ["ok", "freeze"]}) as server:
            connection = await relay_to(server).connect()
            first, second = orders_of(2)
            await connection.submit(first, Mark(), Coming(second))
            await until(lambda: connection._stream._parser.pending)

            assert connection.usable
            await connection.aclose()

    async def test_a_server_that_speaks_before_the_second_dot_is_heard(self):
        """What is said in the midst of a body ends that message without its dot, and without its mark."""
        async with Smtpd({"BODY": ["slow 0", "452 4.3.1 full"]}) as server:
            connection = await relay_to(server).connect()
            marks = [Mark(until=a_moment), Mark(until=a_moment)]
            first, second = orders_of(2)
            await connection.submit(first, marks[0], Coming(second))
            ended = await connection.submit(second, marks[1])
            await connection.aclose()

        assert Answer(Deferred(Phase.BODY), 452, "4.3.1") == ended.answers[0]
        assert wanted(0) == arrived(server)


class TestNotAhead:
    """When the next message waits until its turn."""

    @pytest.mark.parametrize(
        ("options", "settings"),
        [
            ({"extensions": GREEDY}, {}),
            ({}, {"messages_per_connection": 1}),
            ({}, {"idle": "0s"}),
        ],
        ids=["no pipelining", "used up", "never idle"],
    )
    async def test_the_next_is_not_asked_for(self, options, settings):
        """Without PIPELINING, or where the connection ends with this message, nothing is made ahead."""
        async with Smtpd(**options) as server:
            connection = await relay_to(server, **settings).connect()
            first, second = orders_of(2)
            coming = Coming(second)
            await connection.submit(first, Mark(), coming)
            await connection.aclose()

        assert (0, 1) == (coming.asked, sum(line.startswith("MAIL") for line in server.lines))

    @pytest.mark.parametrize("script", [{"RCPT": "550 5.1.1 no"}, {"DATA": "451 no"}, {"MAIL": "451 no"}])
    async def test_nor_by_one_that_has_no_dot(self, script):
        """A message that gets no as far as its content looks at nothing behind it."""
        async with Smtpd(script) as server:
            connection = await relay_to(server).connect()
            first, second = orders_of(2)
            coming = Coming(second)
            await connection.submit(first, Mark(), coming)
            await connection.aclose()

        assert 0 == coming.asked

    async def test_share_of_a_connection(self):
        """The last message that a connection may carry is begun with the dot before it, and none after it."""
        async with Smtpd() as server:
            connection = await relay_to(server, messages_per_connection=2).connect()
            orders = orders_of(3)
            await connection.submit(orders[0], Mark(), Coming(orders[1]))
            assert connection.usable
            last = Coming(orders[2])
            await connection.submit(orders[1], Mark(), last)
            assert (False, 0) == (connection.usable, last.asked)
            await connection.aclose()

        assert (2, 2) == (sum(line.startswith("MAIL") for line in server.lines), len(server.mails))

    @pytest.mark.parametrize("mail", ["attachment", "cached", "non_ascii_recipient"])
    async def test_what_cannot_be_begun_is_sent_at_its_turn(self, mail):
        """A mail with attachments, or one whose recipients the server cannot take, does not travel with a dot."""
        mails = MAILS | {
            "non_ascii_recipient": structs.replace(MAILS["plain"], to=(Address("ä@example.com"),))
        }
        async with Smtpd(extensions=("PIPELINING", "8BITMIME")) as server:
            connection = await relay_to(server).connect()
            first, second = order_for(MAILS["plain"]), order_for(mails[mail])
            await connection.submit(first, Mark(), Coming(second))
            begun = sum(line.startswith("MAIL") for line in server.lines)
            ended = await connection.submit(second, Mark())
            await connection.aclose()

        assert 1 == begun
        refused = mail == "non_ascii_recipient"
        assert (Refused if refused else Sent) is type(ended.answers[0].outcome)
        assert (1, 1 if refused else 2) == (server.connections, len(server.mails))

    async def test_a_mail_that_cannot_be_composed_fails_at_its_own_turn(self):
        """The message before it is sent, and what is wrong comes out where it is told."""

        def compose(mail, headers, wire):
            if mail.to[0].address.startswith("m1"):
                raise ComposeError("no")
            return plain(mail, headers, wire)

        async with Smtpd() as server:
            relay = relay_to(server)
            plain = relay.compose
            connection = await SmtpRelay(relay.config, timeouts=QUICK, compose=compose).connect()
            first, second, third = orders_of(3)
            ended = await connection.submit(first, Mark(), Coming(second))
            with pytest.raises(ComposeError):
                await connection.submit(second, Mark(), Coming(third))
            last = await connection.submit(third, Mark())
            await connection.aclose()

        assert ([Sent(), Sent()], 1) == (outcomes([ended, last]), server.connections)
        assert wanted(0, 2) == arrived(server)

    async def test_there_may_be_none(self):
        """A lane that has nothing more says so, and the dot is alone."""
        async with Smtpd() as server:
            connection = await relay_to(server).connect()
            ended = await connection.submit(orders_of(1)[0], Mark(), Coming(None))
            assert connection.usable
            await connection.aclose()

        assert [Sent()] == outcomes([ended])
        assert "QUIT" in server.lines


class TestAnotherOne:
    """A message that was begun and is not the next."""

    @pytest.mark.parametrize("same", [False, True], ids=["another", "an equal one"])
    async def test_another_order_never_goes_into_its_transaction(self, same):
        """Only the very order that was begun goes on; any other gets a new connection, and it is as if never begun."""
        async with Smtpd() as server:
            relay = relay_to(server)
            connection = await relay.connect()
            first, second, third = orders_of(3)
            other = structs.replace(second) if same else third
            ends = [await connection.submit(first, Mark(), Coming(second))]
            ends.append(await connection.submit(other, Mark(), Coming(second)))
            ends.append(await connection.submit(second, Mark()))
            await connection.aclose()

        assert [Sent()] * 3 == outcomes(ends)
        assert (2, wanted(0, 1 if same else 2, 1)) == (server.connections, arrived(server))
        assert relay.looks_ahead

    async def test_also_before_the_other_is_looked_at(self):
        """One that comes to nothing before a byte of it is said ends the open transaction all the same."""
        async with Smtpd() as server:
            connection = await relay_to(server).connect()
            first, second = orders_of(2)
            theirs = structs.replace(MAILS["attachment"].attachments[0], data=b"", provider_key="key")
            other = order_for(structs.replace(MAILS["plain"], attachments=(theirs,)))
            await connection.submit(first, Mark(), Coming(second))
            ended = await connection.submit(other, Mark())
            assert not connection.usable
            await server.idle()

        assert ([Deferred(Phase.RENDER)], wanted(0)) == (outcomes([ended]), arrived(server))

    async def test_closing_says_nothing_into_an_open_transaction(self):
        """No QUIT that the server would take for content; what was begun is gone with the connection."""
        async with tapped() as (server, tap):
            relay = relay_to(tap)
            connection = await relay.connect()
            first, second = orders_of(2)
            await connection.submit(first, Mark(), Coming(second))
            await until(lambda: len(connection._stream._replies) == 3)
            await connection.aclose()
            await server.idle()

            assert b"QUIT" not in b"".join(tap.pieces)
            assert (wanted(0), True) == (arrived(server), relay.looks_ahead)
