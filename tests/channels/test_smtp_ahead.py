"""The dot of one message that has the next one's MAIL, RCPTs and DATA along."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop
from msgspec import structs

from postroom.compose import ComposeError
from postroom.message import Address, Mail
from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
    ChannelFault,
    DayUsedUpError,
    Deferred,
    FenceLostError,
    Phase,
    Refused,
    Sent,
    TooLateError,
)
from tests.channels.conformance import MAILS, Mark, cancel, order_for
from tests.channels.relay import QUICK, relay_to, until
from tests.smtpd import Smtpd
from workers.channels.seam import Order
from workers.channels.smtp import SmtpRelay
from workers.channels.smtp_connection import SmtpConnection
from workers.stages import Stages

GREEDY = ("SIZE 20000000", "8BITMIME", "SMTPUTF8")  # without PIPELINING


def numbered(number: int) -> Mail:
    """A mail with a recipient and a text of its own."""
    mail = MAILS["plain"]
    content = structs.replace(mail.content, text=f"number {number}")
    return structs.replace(mail, to=(Address(f"m{number}@example.com"),), content=content)


def orders_of(count: int) -> list[Order]:
    return [order_for(numbered(number)) for number in range(count)]


class Coming:
    """What a lane would send next; remembers how often it was asked."""

    def __init__(self, order: Order | None) -> None:
        self.order, self.asked = order, 0

    async def __call__(self) -> Order | None:
        self.asked += 1
        return self.order


async def send_run(connection: SmtpConnection, orders: Sequence[Order], marks: Sequence[Mark] = ()) -> list:
    """Submit one after the other as a lane does; return what became of each."""
    ends = []
    for number, order in enumerate(orders):
        ahead = Coming(orders[number + 1]) if number + 1 < len(orders) else None
        ends.append(await connection.submit(order, marks[number] if marks else Mark(), ahead))
    return ends


def outcomes(ends: Sequence) -> list:
    """The outcome of each message's only recipient, or the cause of a fault."""
    return [e.cause if isinstance(e, ChannelFault) else e.answers[0].outcome for e in ends]


def arrived(server: Smtpd) -> list[tuple[str, str]]:
    """Whom each mail was for, and what it says, in the order of arrival."""
    return [(m.recipients[0], m.data.decode().rpartition("\r\n\r\n")[2].strip()) for m in server.mails]


def wanted(*numbers: int) -> list[tuple[str, str]]:
    return [(f"m{number}@example.com", f"number {number}") for number in numbers]


class Tap:
    """Stands before a server and keeps what comes, in the pieces it came in."""

    def __init__(self, server: Smtpd) -> None:
        self.server, self.pieces, self.port = server, [], 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        below, above = await asyncio.open_connection("127.0.0.1", self.server.port)

        async def back() -> None:
            while data := await below.read(65536):
                writer.write(data)
            writer.close()

        task = asyncio.create_task(back())
        with suppress(OSError):
            while data := await reader.read(65536):
                self.pieces.append(data)
                above.write(data)
        above.close()
        await asyncio.wait({task})
        writer.transport.abort()


@asynccontextmanager
async def tapped(script=None, **options) -> AsyncIterator[tuple[Smtpd, Tap]]:
    """A scripted server behind a tap; a relay to the tap is `relay_to(tap)`."""
    async with Smtpd(script, **options) as server:
        tap = Tap(server)
        listener = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
        tap.port = listener.sockets[0].getsockname()[1]
        try:
            yield server, tap
        finally:
            listener.close()
            await server.idle()


async def a_moment() -> None:
    await asyncio.sleep(0.01)


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

    async def test_only_what_waits_for_the_reply_is_read_ahead(self):
        """Replies that came before they are read leave the connection usable; one too many does not."""
        for said, usable, connections in (
            (["ok"], True, 1),
            (["ok", "raw 354 go\r\n250 what?\r\n"], False, 2),
        ):
            async with Smtpd({"DATA": [*said, "ok"]}) as server:
                connection = await relay_to(server).connect()
                first, second = orders_of(2)
                await connection.submit(first, Mark(), Coming(second))
                await until(lambda c=connection, s=said: len(c._stream._replies) == 2 + len(s))
                assert usable == connection.usable
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
        async with Smtpd({"MAIL": ["ok", how, "ok"]}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            marks = [Mark() for _ in range(3)]
            ends = await send_run(connection, orders_of(3), marks)
            await connection.aclose()

        assert [Sent()] * 3 == outcomes(ends)
        assert (2, wanted(0, 1, 2), True) == (server.connections, arrived(server), relay.looks_ahead)
        assert [1, 1, 1] == [len(mark.told) for mark in marks]

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
        async with Smtpd({"MAIL": ["ok", how, "ok"]}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            marks = [Mark() for _ in range(3)]
            ends = await send_run(connection, orders_of(3), marks)
            await connection.aclose()

        assert [Sent()] * 3 == outcomes(ends)
        assert (2, wanted(0, 1, 2), False) == (server.connections, arrived(server), relay.looks_ahead)
        assert [1, 1, 1] == [len(mark.told) for mark in marks]

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

    async def test_a_lone_dot_that_is_lost_says_nothing_of_groups(self):
        """The last of a run was begun with the dot before it; what becomes of its own dot is about itself."""
        async with Smtpd({"DOT": ["ok", "drop"]}) as server:
            relay = relay_to(server)
            connection = await relay.connect()
            ends = await send_run(connection, orders_of(2))
            await connection.aclose()

        assert ([Sent(), Ambiguous(Phase.DONE)], True) == (outcomes(ends), relay.looks_ahead)

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
