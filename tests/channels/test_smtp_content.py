"""What goes over the wire: dots, sizes, eight bits, international addresses, header fields of providers."""

from email.parser import BytesParser
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from postroom.message import Address, Content
from postroom.outcome import (
    Answer,
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
from tests.channels.relay import QUICK, composing, relay_to, submit_to
from tests.smtpd import Smtpd
from workers.channels.smtp import SmtpRelay
from workers.channels.smtp_transaction import stuffed


class TestContent:
    async def test_dots_are_stuffed(self):
        """Lines that begin with a dot arrive as they were composed, a lone dot too."""
        data = b"Subject: x\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n"
        async with Smtpd() as server:
            ended = await attempt(composing(server, data), order_for(MAILS["plain"]), Mark())

        assert Sent() == ended.answers[0].outcome
        assert [data] == [mail.data for mail in server.mails]

    async def test_a_first_dot_is_stuffed(self):
        """A dot at the very beginning is doubled like any other."""
        async with Smtpd() as server:
            await attempt(composing(server, b".a: b\r\n\r\nc\r\n"), order_for(MAILS["plain"]), Mark())

        assert [b".a: b\r\n\r\nc\r\n"] == [mail.data for mail in server.mails]

    @given(st.lists(st.sampled_from([b".", b"..", b".a", b"a.", b"", b"\t."]), min_size=1))
    def test_no_content_ends_itself(self, lines):
        """Whatever the lines, none but ours is a lone dot, and the receiver reads them as they were."""
        wire = stuffed(b"".join(line + b"\r\n" for line in lines)).split(b"\r\n")[:-1]

        assert b"." not in wire
        assert lines == [line.removeprefix(b".") for line in wire]

    async def test_what_the_composer_raises_comes_out_before_a_byte(self):
        """A mail that cannot be composed costs no word to the server, and the connection lives."""

        def refuse(mail, *_):
            raise ValueError(mail.id)

        async with Smtpd() as server:
            relay = SmtpRelay(relay_to(server).config, timeouts=QUICK, compose=refuse)
            connection = await relay.connect()
            with pytest.raises(ValueError, match="orders-"):
                await connection.submit(order_for(MAILS["plain"]), Mark())
            assert connection.usable
            await connection.aclose()

        assert ["EHLO", "QUIT"] == [line.split()[0] for line in server.lines]

    async def test_size_is_told_and_kept(self):
        """SIZE announces the bytes of the mail; what the server would refuse is not even begun."""
        async with Smtpd(extensions=("SIZE 50",)) as server:
            fits = await attempt(composing(server, b"a: b\r\n\r\nc\r\n"), order_for(MAILS["plain"]), Mark())
            too_big = await submit_to(server)

        assert Sent() == fits.answers[0].outcome
        assert "MAIL FROM:<orders@shop.example> SIZE=11" in server.lines
        assert Submitted((Answer(Refused(Phase.MAIL, "message"), None, "5.3.4"),)) == too_big
        assert 1 == server.times["MAIL"]

    async def test_eight_bit_needs_8bitmime(self):
        """Eight-bit content says BODY=8BITMIME, and is refused where the server does not offer it."""
        data = "a: b\r\n\r\ngrüße\r\n".encode()
        async with Smtpd() as server:
            await attempt(composing(server, data, eight_bit=True), order_for(MAILS["plain"]), Mark())
            server.extensions = ()
            refused = await attempt(
                composing(server, data, eight_bit=True), order_for(MAILS["plain"]), Mark()
            )

        assert [data] == [mail.data for mail in server.mails]
        assert "BODY=8BITMIME" in server.lines[1]
        assert Submitted((Answer(Refused(Phase.MAIL, "message"), None, "5.6.3"),)) == refused

    @pytest.mark.parametrize(("extensions", "expected"), [(("8BITMIME",), "8bit"), ((), "quoted-printable")])
    async def test_eight_bits_travel_where_they_are_taken(self, extensions, expected):
        """Text beyond ASCII goes as it is with 8BITMIME, and encoded without; it is the same text."""
        text = "Die Größe ist leider falsch, danke"
        mail = structs.replace(MAILS["plain"], content=Content("s", text))
        async with Smtpd(extensions=extensions) as server:
            await submit_to(server, mail)

        (received,) = server.mails
        parsed = BytesParser(policy=default).parsebytes(received.data)
        assert (expected, text) == (parsed["Content-Transfer-Encoding"], parsed.get_content().strip())
        assert (expected == "8bit") == ("BODY=8BITMIME" in server.lines[1])

    async def test_a_replaced_connection_gets_what_it_takes(self):
        """A dead warm connection is replaced by one to a server with less: the mail is composed for that one."""
        mail = structs.replace(MAILS["plain"], content=Content("s", "Größe"))
        async with Smtpd({"MAIL": ["ok", "drop", "ok"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(mail), Mark())
            server.extensions = ()
            ended = await connection.submit(order_for(mail), Mark())
            await connection.aclose()

        assert [Sent] == [type(answer.outcome) for answer in ended.answers]
        assert [False, True] == [received.data.isascii() for received in server.mails]

    @pytest.mark.parametrize(
        ("provider", "expected"),
        [
            ("zeptomail", ["orders-01JD8X0000000000000000000", "true", "false"]),
            ("generic", [None, None, None]),
        ],
    )
    async def test_zeptomails_own_header_fields(self, provider, expected):
        """A ZeptoMail relay is told our id and what to track; no other relay is."""
        mail = structs.replace(MAILS["plain"], track_opens=True)
        async with Smtpd() as server:
            await submit_to(server, mail, provider=provider)

        parsed = BytesParser().parsebytes(server.mails[0].data)
        names = ("X-TM-CLIENT-REF", "X-TM-OPEN-TRACK", "X-TM-CLICK-TRACK")
        assert expected == [parsed[name] for name in names]


class TestInternationalAddresses:
    MAIL = structs.replace(
        MAILS["plain"], to=(Address("ada@example.com"),), bcc=(Address("jörg@example.com"),)
    )

    async def test_offered(self):
        """With SMTPUTF8 the address goes out as it is, announced at MAIL."""
        async with Smtpd() as server:
            ended = await submit_to(server, self.MAIL)

        assert [Sent, Sent] == [type(answer.outcome) for answer in ended.answers]
        assert server.lines[1].endswith(" SMTPUTF8")
        assert [["ada@example.com", "jörg@example.com"]] == [mail.recipients for mail in server.mails]

    async def test_not_offered(self):
        """Without SMTPUTF8 that recipient alone is refused, and never named to the server."""
        async with Smtpd(extensions=("PIPELINING",)) as server:
            ended = await submit_to(server, self.MAIL)

        refused = Answer(Refused(Phase.RCPT), None, "5.6.7")
        assert Submitted((Answer(Sent(), 250, "2.0.0"), refused)) == ended
        assert "SMTPUTF8" not in server.lines[1]
        assert [["ada@example.com"]] == [mail.recipients for mail in server.mails]

    async def test_not_offered_and_in_the_header(self):
        """One of To or Cc is refused alone as well: the header that the others get does not name him."""
        mail = structs.replace(MAILS["plain"], cc=(Address("jörg@example.com"),))
        async with Smtpd(extensions=("PIPELINING", "8BITMIME")) as server:
            ended = await submit_to(server, mail)

        assert Submitted((Answer(Sent(), 250, "2.0.0"), Answer(Refused(Phase.RCPT), None, "5.6.7"))) == ended
        (received,) = server.mails
        parsed = BytesParser().parsebytes(received.data)
        assert ("Ada Lovelace <ada@example.com>", None) == (parsed["To"], parsed["Cc"])

    @pytest.mark.parametrize("place", ["sender", "reply_to"])
    async def test_not_offered_and_nothing_can_be_left_out(self, place):
        """A From or a Reply-To beyond ASCII cannot go through a server without SMTPUTF8 at all."""
        box = Address("jörg@shop.example")
        mail = structs.replace(MAILS["plain"], **{place: box if place == "sender" else (box,)})
        async with Smtpd(extensions=("PIPELINING",)) as server:
            ended = await submit_to(server, mail)

        assert Submitted((Answer(Refused(Phase.MAIL, "message"), None, "5.6.7"),)) == ended
        assert 0 == server.times.get("MAIL", 0)

    @pytest.mark.parametrize(
        "address", ["a b@example.com", "a>\r\nRCPT TO:<c@example.com", "a\u2028@example.com"]
    )
    async def test_an_address_that_could_end_the_line_is_never_said(self, address):
        """The last line before the wire: such a recipient is refused, the others are sent."""
        data = b"a: b\r\n\r\nc\r\n"
        mail = structs.replace(MAILS["plain"], bcc=(Address(address),))
        async with Smtpd() as server:
            ended = await attempt(composing(server, data), order_for(mail), Mark())

        assert Answer(Refused(Phase.RCPT), None, "5.1.3") == ended.answers[1]
        assert [["ada@example.com"]] == [sent.recipients for sent in server.mails]
