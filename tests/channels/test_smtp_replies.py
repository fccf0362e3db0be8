"""Which reply of an SMTP server ends in what, at every step and for every recipient."""

import pytest

from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
    ChannelFault,
    Deferred,
    FenceLostError,
    Phase,
    Refused,
    Sent,
    Submitted,
)
from tests.channels.conformance import (
    MAILS,
    Mark,
    attempt,
    order_for,
)
from tests.channels.relay import big_mail, relay_to, reply, submit_to, until
from tests.smtpd import EXTENSIONS, Smtpd
from workers.channels.seam import Order
from workers.channels.smtp_table import TABLE, End, judge

KINDS = {End.DEFER: Deferred, End.REFUSE: Refused, End.SENDER: Cause.POLICY}


class TestReplies:
    """MAIL, RCPT, DATA and the dot: which reply ends in what."""

    @pytest.mark.parametrize("extensions", [EXTENSIONS, ()], ids=["pipelined", "step by step"])
    @pytest.mark.parametrize(
        ("script", "expected"),
        [
            ({"MAIL": "451 4.3.0 x"}, Answer(Deferred(Phase.MAIL), 451, "4.3.0")),
            ({"MAIL": "552 5.3.4 x"}, Answer(Refused(Phase.MAIL, "message"), 552, "5.3.4")),
            ({"MAIL": "501 5.1.7 x"}, Answer(Refused(Phase.MAIL, "message"), 501, "5.1.7")),
            ({"RCPT": "450 4.2.0 x"}, Answer(Deferred(Phase.RCPT), 450, "4.2.0")),
            ({"RCPT": "451 4.7.1 x"}, Answer(Deferred(Phase.RCPT), 451, "4.7.1")),
            ({"RCPT": "550 5.1.1 x"}, Answer(Refused(Phase.RCPT), 550, "5.1.1")),
            ({"RCPT": "550 no code"}, Answer(Refused(Phase.RCPT), 550, None)),
            ({"RCPT": "552 5.2.2 full"}, Answer(Deferred(Phase.RCPT), 552, "5.2.2")),
            ({"RCPT": "252 2.1.5 x"}, Answer(Sent(), 250, "2.0.0")),
            ({"RCPT": "251 2.1.5 x"}, Answer(Sent(), 250, "2.0.0")),
            ({"DATA": "451 4.3.0 x"}, Answer(Deferred(Phase.DATA), 451, "4.3.0")),
            ({"DATA": "554 5.6.0 x"}, Answer(Refused(Phase.DATA, "message"), 554, "5.6.0")),
            ({"DATA": "250 what"}, Answer(Deferred(Phase.DATA))),
            ({"MAIL": "354 what"}, Answer(Deferred(Phase.MAIL))),
            ({"RCPT": "raw \x00\r\n"}, Answer(Deferred(Phase.RCPT))),
            ({"DOT": "250 no code"}, Answer(Sent(), 250, None)),
            ({"DOT": "250 4.0.0 odd"}, Answer(Sent(), 250, None)),
            ({"DOT": "250 2.6.0 a\nb\nc"}, Answer(Sent(), 250, "2.6.0")),
            ({"DOT": "451 4.7.1 x"}, Answer(Deferred(Phase.DONE), 451, "4.7.1")),
            ({"DOT": "421 4.3.2 x"}, Answer(Deferred(Phase.DONE), 421, "4.3.2")),
            ({"DOT": "552 5.7.1 virus"}, Answer(Refused(Phase.DONE, "message"), 552, "5.7.1")),
            ({"DOT": "accept 251 odd"}, Answer(Ambiguous(Phase.DONE))),
            ({"DOT": "accept 354 odd"}, Answer(Ambiguous(Phase.DONE))),
            ({"DOT": "accept raw 250-2.0.0 a\r\n251 b\r\n"}, Answer(Ambiguous(Phase.DONE))),
            ({"DOT": "accept raw 999 odd\r\n"}, Answer(Ambiguous(Phase.DONE))),
        ],
        ids=str,
    )
    async def test_ends_the_message(self, script, expected, extensions):
        """The first digit decides; the answer carries the codes, not the words."""
        async with Smtpd(script, extensions=extensions) as server:
            ended = await submit_to(server)

        assert Submitted((expected,)) == ended

    @pytest.mark.parametrize("extensions", [EXTENSIONS, ()], ids=["pipelined", "step by step"])
    @pytest.mark.parametrize(
        ("script", "cause"),
        [
            ({"MAIL": "421 4.7.0 x"}, Cause.THROTTLE),
            ({"MAIL": "421 x"}, Cause.THROTTLE),
            ({"MAIL": "450 4.7.1 too fast"}, Cause.THROTTLE),
            ({"MAIL": "454 4.7.0 x"}, Cause.THROTTLE),
            ({"MAIL": "452 4.3.2 x"}, Cause.THROTTLE),
            ({"MAIL": "530 5.7.0 x"}, Cause.AUTH),
            ({"MAIL": "535 5.7.8 x"}, Cause.AUTH),
            ({"MAIL": "550 not verified"}, Cause.POLICY),
            ({"MAIL": "553 5.7.1 sender not owned"}, Cause.POLICY),
            ({"MAIL": "554 5.7.1 x"}, Cause.POLICY),
            ({"MAIL": "503 5.5.1 x"}, Cause.POLICY),
            ({"RCPT": "421 4.7.0 x"}, Cause.THROTTLE),
            ({"RCPT": "530 5.7.0 x"}, Cause.AUTH),
            ({"DATA": "421 x"}, Cause.THROTTLE),
            ({"DOT": "454 Throttling failure"}, Cause.THROTTLE),
        ],
        ids=str,
    )
    async def test_stops_the_channel(self, script, cause, extensions):
        """What is about our pace, login or sender leaves the message untouched and the connection closed."""
        async with Smtpd(script, extensions=extensions) as server:
            connection = await relay_to(server).connect()
            fault = await connection.submit(order_for(MAILS["plain"]), Mark())

            assert (cause, False) == (fault.cause, connection.usable)
            await connection.aclose()
        assert 0 == len(server.mails)

    @pytest.mark.parametrize("point", ["MAIL", "RCPT", "DOT"])
    async def test_zeptomail_says_relaying_disallowed(self, point):
        """ZeptoMail's unverified sender is told by its words, at any step and with any code."""
        async with Smtpd({point: "552 Relaying disallowed as orders@shop.example"}) as server:
            fault = await submit_to(server, provider="zeptomail")

        assert (Cause.POLICY, 552) == (fault.cause, fault.reply_code)
        assert "verify its domain" in fault.text

    async def test_a_reply_before_the_dot_ends_without_the_dot(self):
        """A server that refuses while it still reads is believed, and never gets the dot."""
        async with Smtpd({"BODY": "552 5.3.4 too big"}) as server:
            connection = await relay_to(server).connect()
            mark = Mark(until=lambda: until(lambda: not connection.usable))
            ended = await connection.submit(order_for(MAILS["plain"]), mark)
            await server.idle()

        assert Submitted((Answer(Refused(Phase.BODY, "message"), 552, "5.3.4"),)) == ended
        assert (0, 0) == (len(server.mails), server.times.get("DOT", 0))
        assert not connection.usable

    async def test_a_reply_while_the_body_leaves_ends_without_the_mark(self):
        """A server that refuses a long body early is heard before the rest is sent and marked."""
        async with Smtpd({"BODY": "552 5.3.4 too big"}) as server:
            mark = Mark()
            ended = await submit_to(server, big_mail(12_000_000), mark)

        assert Submitted((Answer(Refused(Phase.BODY, "message"), 552, "5.3.4"),)) == ended
        assert ([], []) == (mark.told, server.mails)

    async def test_a_refused_mark_closes_hard(self):
        """When the fence is lost nothing more is said: no dot, no QUIT that would become content."""
        async with Smtpd() as server:
            connection = await relay_to(server).connect()
            with pytest.raises(FenceLostError):
                await connection.submit(order_for(MAILS["plain"]), Mark(FenceLostError()))
            await server.idle()

            assert not connection.usable
        assert "DATA" == server.lines[-1]

    @pytest.mark.parametrize(
        "reply", ["421 4.3.2 bye", "accept raw 250 ok\r\nnonsense\r\n", "accept 251 odd"]
    )
    async def test_a_connection_out_of_step_is_given_up(self, reply):
        """After 421 or nonsense at the dot the connection takes no more mail."""
        async with Smtpd({"DOT": reply}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())

            assert not connection.usable
            await connection.aclose()

    @pytest.mark.parametrize("extensions", [EXTENSIONS, ()], ids=["pipelined", "step by step"])
    @pytest.mark.parametrize(
        "script", [{"MAIL": ["451 4.3.0 x", "ok"]}, {"DATA": ["451 4.3.0 x", "ok"]}], ids=str
    )
    async def test_the_next_mail_finds_a_clean_session(self, script, extensions):
        """A message deferred before its content leaves nothing of itself on the connection."""
        async with Smtpd(script, extensions=extensions) as server:
            connection = await relay_to(server).connect()
            ends = [await connection.submit(order_for(MAILS["plain"]), Mark()) for _ in range(2)]
            await connection.aclose()

        assert [Deferred, Sent] == [type(ended.answers[0].outcome) for ended in ends]
        assert (1, 1) == (server.connections, len(server.mails))

    async def test_lost_while_the_mark_is_written_is_deferred(self):
        """A connection that died before the dot was written has surely not accepted, mark or not."""
        async with Smtpd({"BODY": "reset"}) as server:
            connection = await relay_to(server).connect()
            mark = Mark(until=lambda: until(lambda: not connection.usable))
            ended = await connection.submit(order_for(MAILS["plain"]), mark)

        assert Submitted((Answer(Deferred(Phase.BODY)),)) == ended
        assert 1 == len(mark.told)

    async def test_a_server_that_stops_reading_times_out_before_the_mark(self):
        """A body that does not leave within the block timeout is Deferred without a mark."""
        async with Smtpd({"BODY": "freeze"}) as server:
            big = big_mail(12_000_000)
            mark = Mark()
            ended = await submit_to(server, big, mark)

        assert Submitted((Answer(Deferred(Phase.BODY)),)) == ended
        assert [] == mark.told


class TestTable:
    @pytest.mark.parametrize("provider", ["generic", "zeptomail"])
    @pytest.mark.parametrize("step", TABLE)
    def test_every_row_decides_something(self, step, provider):
        """No row stands in the shadow of an earlier one."""
        for code, enhanced, end, text in TABLE[step]:
            said = "" if enhanced in ("", "none") else f"{enhanced}.0.0"[:5]
            if provider == "zeptomail" and code == "535":
                continue  # ZeptoMail's own row says more
            verdict = judge(step, reply(code.ljust(3, "9"), said), dialect=provider)
            kind = verdict.cause if isinstance(verdict, ChannelFault) else type(verdict.outcome)
            assert KINDS.get(end, end) == kind, (code, enhanced)
            assert text == getattr(verdict, "text", "")

    @pytest.mark.parametrize("step", TABLE)
    def test_success_is_never_a_failure(self, step):
        """2yz and 3yz are in no row: a reply out of step is told as such."""
        assert [None] * 3 == [judge(step, reply(code, "")) for code in ("200", "250", "354")]


class TestRecipients:
    @pytest.mark.parametrize("extensions", [EXTENSIONS, ()], ids=["pipelined", "step by step"])
    async def test_each_has_its_own_answer(self, extensions):
        """Taken, deferred and refused stand side by side, and the mark knows them."""
        script = {"RCPT": ["250 2.1.5 ok", "450 4.2.1 later", "550 5.1.1 no"]}
        async with Smtpd(script, extensions=extensions) as server:
            mark = Mark()
            ended = await submit_to(server, MAILS["three"], mark)

        known = (None, Answer(Deferred(Phase.RCPT), 450, "4.2.1"), Answer(Refused(Phase.RCPT), 550, "5.1.1"))
        assert [known] == mark.told
        assert Submitted((Answer(Sent(), 250, "2.0.0"), *known[1:])) == ended
        assert [["ada@example.com"]] == [mail.recipients for mail in server.mails]

    async def test_only_those_taken_become_ambiguous(self):
        """A recipient refused at RCPT stays refused when the answer to the dot is lost."""
        script = {"RCPT": ["250 2.1.5 ok", "550 5.1.1 no"], "DOT": "accept drop"}
        async with Smtpd(script) as server:
            ended = await submit_to(server, MAILS["three"])

        assert [Ambiguous, Refused, Refused] == [type(answer.outcome) for answer in ended.answers]

    @pytest.mark.parametrize("extensions", [EXTENSIONS, ()], ids=["pipelined", "step by step"])
    async def test_all_refused_leaves_the_connection_clean(self, extensions):
        """After all recipients were refused the same connection takes the next message."""
        async with Smtpd({"RCPT": ["550 5.1.1 no", "ok"]}, extensions=extensions) as server:
            connection = await relay_to(server).connect()
            first, second = Mark(), Mark()
            refused = await connection.submit(order_for(MAILS["plain"]), first)
            sent = await connection.submit(order_for(MAILS["plain"]), second)
            await connection.aclose()

        assert Submitted((Answer(Refused(Phase.RCPT), 550, "5.1.1"),)) == refused
        assert Submitted((Answer(Sent(), 250, "2.0.0"),)) == sent
        assert (0, 1, 1, 1) == (len(first.told), len(second.told), len(server.mails), server.connections)

    async def test_354_after_all_were_refused_gets_a_lone_dot(self):
        """RFC 2920: the lone dot ends it without a mark, the answers of RCPT stand, the connection lives."""
        script = {"RCPT": ["550 5.1.1 no", "ok"], "DATA": ["354 go on", "ok"]}
        async with Smtpd(script) as server:
            connection = await relay_to(server).connect()
            mark = Mark()
            refused = await connection.submit(order_for(MAILS["plain"]), mark)
            usable = connection.usable
            sent = await connection.submit(order_for(MAILS["plain"]), Mark())
            await connection.aclose()

        assert Submitted((Answer(Refused(Phase.RCPT), 550, "5.1.1"),)) == refused
        assert ([], True, Sent()) == (mark.told, usable, sent.answers[0].outcome)
        assert (1, 1) == (len(server.mails), server.connections)

    async def test_no_dot_for_a_server_that_refused_mail_and_goes_on(self):
        """A server that refuses MAIL but takes RCPT and DATA gets no dot: that could be an empty mail."""
        script = {"MAIL": "552 5.3.4 no", "RCPT": "250 yes", "DATA": "354 yes"}
        async with Smtpd(script) as server:
            ended = await submit_to(server)
            await server.idle()

        assert Submitted((Answer(Refused(Phase.MAIL, "message"), 552, "5.3.4"),)) == ended
        assert (0, 0) == (len(server.mails), server.times.get("DOT", 0))

    async def test_the_bounce_address_is_the_envelope_sender(self):
        """MAIL FROM is the order's bounce address, else the relay's, else the From address."""
        async with Smtpd() as server:
            relay = relay_to(server)
            relay.bounce_address = "agent@bounce.example"
            order = order_for(MAILS["plain"])
            await attempt(relay, order, Mark())
            await attempt(relay, Order(order.mail, order.recipients, "order@bounce.example"), Mark())
            await submit_to(server)

        senders = ["agent@bounce.example", "order@bounce.example", "orders@shop.example"]
        assert senders == [mail.sender for mail in server.mails]
