"""The SMTP channel: the suite all channels pass, and what only SMTP has."""

import asyncio
import email.policy
import json
import socket
import ssl
import sys
import threading
from asyncio.subprocess import PIPE
from base64 import b64encode
from collections import deque
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from typing import ClassVar

import pytest
import trustme
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from postroom.compose import Composed
from postroom.config.structs import SmtpChannel
from postroom.message import Address, Attachment, Mail
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
from postroom.secret import Secret
from tests import smtpd
from tests.channels.conformance import (
    BAD_RECIPIENT,
    CANARY,
    MAILS,
    SCENARIOS,
    ChannelConformance,
    Expected,
    Mark,
    Seen,
    attempt,
    order_for,
)
from tests.smtpd import EXTENSIONS, Smtpd
from workers.channels import smtp
from workers.channels.seam import Order
from workers.channels.smtp import SmtpRelay
from workers.channels.smtp_reply import GarbageError, Reply, ReplyParser
from workers.channels.smtp_session import SmtpTimeouts
from workers.channels.smtp_stream import Loss, LostError, SmtpStream
from workers.channels.smtp_table import TABLE, End, judge
from workers.channels.smtp_transaction import stuffed

QUICK = SmtpTimeouts(
    resolve=1, connect=1, greeting=0.3, command=0.3, data_init=0.3, data_block=0.3, data_done=0.5, quit=0.2
)
LOGIN = {"username": "emailapikey", "password": Secret("open sesame")}
GARBAGE = f"raw \x00\xff {CANARY} <html>\r\n"

SCRIPTS = {
    "refused": {"MAIL": f"550 5.1.7 {CANARY}"},
    "one_refused_of_three": {f"RCPT:{BAD_RECIPIENT}": f"550 5.1.1 {CANARY} <{BAD_RECIPIENT}>"},
    "deferred": {"DOT": f"451 4.3.0 {CANARY}"},
    "throttled": {"MAIL": f"421 4.7.0 {CANARY}"},
    "bad_credentials": {"AUTH": f"535 5.7.8 {CANARY}"},
    "timeout_before_mark": {"RCPT": "hang"},
    "reset_before_mark": {"DATA": "reset"},
    "timeout_after_mark": {"DOT": "accept hang"},
    "reset_after_mark": {"DOT": "accept reset"},
    "drop_after_mark": {"DOT": "accept drop"},
    "lost_after_mark": {"DOT": "reset"},
    "garbage_after_mark": {"DOT": f"accept {GARBAGE}"},
    "empty_answer": {"DOT": "accept raw \r\n"},
    "huge_answer": {"DOT": "accept raw 250-" + "a" * 1_000_000},
    "slow_answer": {"DOT": "slow 0.1"},
    **{f"hang_{point}": {point: "hang"} for point in ("CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA")},
    "hang_DOT": {"DOT": "accept hang"},
}


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def relay_to(server: Smtpd, **options) -> SmtpRelay:
    """A relay to the server with short timeouts; options are those of the configuration."""
    given = {"name": "relay", "host": "127.0.0.1", "port": server.port, "tls": "none"} | options
    return SmtpRelay(SmtpChannel(**given), timeouts=QUICK)


async def submit_to(server: Smtpd, mail: Mail = MAILS["plain"], mark: Mark | None = None, **options):
    """One attempt over a relay to the server."""
    return await attempt(relay_to(server, **options), order_for(mail), mark or Mark())


class SmtpHarness:
    """The scripted server and a relay that logs in over TLS."""

    overrides: ClassVar = {"refused": Expected((Refused,), 0, 0)}
    impossible: ClassVar = {}
    cancel_points: ClassVar = {
        **{f"hang_{point}": False for point in ("CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA")},
        "hang_DOT": True,
    }

    def __init__(self, context: ssl.SSLContext, ca_file: str) -> None:
        self.context, self.ca_file = context, ca_file
        self.server = Smtpd()
        self.scenario = ""

    async def start(self, scenario: str) -> SmtpRelay:
        self.scenario = scenario
        self.server = Smtpd(SCRIPTS.get(scenario), tls="starttls", context=self.context, auth=("PLAIN",))
        await self.server.__aenter__()
        if scenario == "unreachable":
            await self.stop()
        ca_file = None if scenario == "bad_certificate" else self.ca_file
        return relay_to(self.server, tls="starttls", ca_file=ca_file, **LOGIN)

    async def reached(self) -> None:
        await self.server.until(self.scenario.removeprefix("hang_"))

    async def settled(self) -> None:
        await self.server.idle()

    async def stop(self) -> None:
        if hasattr(self.server, "_server"):
            await self.server.__aexit__()

    @property
    def accepted(self) -> int:
        return len(self.server.mails)

    def seen(self) -> Seen:
        mail = self.server.mails[-1]
        parsed = BytesParser(policy=email.policy.default).parsebytes(mail.data)
        return Seen(
            mail.recipients,
            parsed["subject"],
            parsed.get_body(("plain",)).get_content(),
            [(part.get_filename(), part.get_content()) for part in parsed.iter_attachments()],
        )


class TestSmtp(ChannelConformance):
    @pytest.fixture
    async def harness(self, context, ca_file):
        harness = SmtpHarness(context, ca_file)
        yield harness
        await harness.stop()


class TestSmtpOnUvloop:
    """Workers run on uvloop, whose transports differ from asyncio's where it hurts: at their ends."""

    def run(self, harness: SmtpHarness, test) -> None:
        async def body():
            try:
                await test(harness)
            finally:
                await harness.stop()

        uvloop.run(body())

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_ends_as_the_table_says(self, context, ca_file, name):
        """Each scenario ends on uvloop as it does on asyncio."""
        suite = ChannelConformance()
        self.run(SmtpHarness(context, ca_file), lambda h: suite.test_ends_as_the_table_says(h, name))

    def test_cancelled_anywhere_before_the_mark_nothing_is_accepted(self, context, ca_file):
        """A cancellation on uvloop closes the connection as hard as on asyncio."""
        suite = ChannelConformance()
        cancelled = suite.test_cancelled_anywhere_before_the_mark_nothing_is_accepted
        self.run(SmtpHarness(context, ca_file), cancelled)


class TestTls:
    async def test_without_starttls_no_credentials_are_sent(self):
        """A server that does not offer STARTTLS hears EHLO and QUIT, and no credentials."""
        async with Smtpd(auth=("PLAIN",)) as server:
            fault = await submit_to(server, tls="starttls", **LOGIN)
            await server.idle()

        assert Cause.AUTH == fault.cause
        assert ["EHLO", "QUIT"] == [line.split()[0] for line in server.lines]

    async def test_without_starttls_and_credentials_the_fault_is_the_connection(self):
        """Without credentials a missing STARTTLS is a fault of the connection."""
        async with Smtpd() as server:
            fault = await submit_to(server, tls="starttls")

        assert Cause.CONNECT == fault.cause

    @pytest.mark.parametrize("reply", ["454 4.7.0 not now", "502 5.5.1 no", "raw \x16\x03\x01\r\n"])
    async def test_a_refused_starttls_sends_no_credentials(self, context, reply):
        """Whatever a server answers instead of 220, nothing but QUIT follows in the clear."""
        async with Smtpd({"STARTTLS": reply}, tls="starttls", context=context, auth=("PLAIN",)) as server:
            fault = await submit_to(server, tls="starttls", **LOGIN)
            await server.idle()

        assert isinstance(fault, ChannelFault)
        assert {"EHLO", "STARTTLS", "QUIT"} >= {line.split()[0] for line in server.lines}

    @pytest.mark.parametrize("extra", ["250 injected\r\n", "250-half a line"])
    async def test_bytes_after_the_starttls_reply_are_refused(self, context, ca_file, extra):
        """Replies injected in the clear never become replies of the encrypted session."""
        script = {"STARTTLS": f"raw 220 go\r\n{extra}"}
        async with Smtpd(script, tls="starttls", context=context, auth=("PLAIN",)) as server:
            fault = await submit_to(server, tls="starttls", ca_file=ca_file, **LOGIN)
            await server.idle()

        assert Cause.CONNECT == fault.cause
        assert "tampering" in fault.text
        assert ["EHLO", "STARTTLS"] == [line.split()[0] for line in server.lines]

    async def test_implicit_tls(self, context, ca_file):
        """Implicit TLS encrypts from the first byte and then speaks as usual."""
        async with Smtpd(tls="implicit", context=context, auth=("PLAIN",)) as server:
            ended = await submit_to(server, tls="implicit", ca_file=ca_file, **LOGIN)
            await server.idle()

        assert Submitted((Answer(Sent(), 250, "2.0.0"),)) == ended
        assert 1 == len(server.mails)

    async def test_ehlo_is_said_again_after_starttls(self, context, ca_file):
        """What the server offered in the clear counts for nothing once TLS is on."""
        async with Smtpd(tls="starttls", context=context, auth=("PLAIN",)) as server:
            await submit_to(server, tls="starttls", ca_file=ca_file, **LOGIN)

        assert ["EHLO", "STARTTLS", "EHLO", "AUTH"] == [line.split()[0] for line in server.lines[:4]]

    @pytest.mark.parametrize("tls", ["implicit", "starttls"])
    async def test_an_untrusted_certificate_is_named(self, context, tls):
        """A certificate of an unknown authority ends the connection before any credentials."""
        async with Smtpd(tls=tls, context=context, auth=("PLAIN",)) as server:
            fault = await submit_to(server, tls=tls, **LOGIN)
            await server.idle()

        assert Cause.CONNECT == fault.cause
        assert "the server's certificate is signed by an unknown authority" == fault.text
        assert "AUTH" not in "".join(server.lines)

    async def test_a_certificate_of_another_host_is_named(self, authority, ca_file):
        """A valid certificate for another name is no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("other.example").configure_cert(context)
        async with Smtpd(tls="implicit", context=context) as server:
            fault = await submit_to(server, tls="implicit", ca_file=ca_file)

        assert "the server's certificate belongs to another IP address" == fault.text

    async def test_an_expired_certificate_is_named(self, authority, ca_file):
        """An expired certificate is refused, and the fault says so."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        yesterday = datetime.now(UTC) - timedelta(days=1)
        authority.issue_cert("127.0.0.1", not_after=yesterday).configure_cert(context)
        async with Smtpd(tls="implicit", context=context) as server:
            fault = await submit_to(server, tls="implicit", ca_file=ca_file)

        assert "the server's certificate has expired" == fault.text

    async def test_an_unreadable_ca_file_is_a_fault(self):
        """A wrong path in the configuration stops the channel, not the worker."""
        async with Smtpd() as server:
            fault = await submit_to(server, tls="implicit", ca_file="/nowhere/ca.pem")

        assert "the certificates in `ca_file` cannot be read" == fault.text

    async def test_plain_text_to_a_tls_port_is_a_fault(self):
        """Crossed ports end in a fault that names the two pairs."""
        async with Smtpd() as server:
            fault = await submit_to(server, tls="implicit")

        assert Cause.CONNECT == fault.cause
        assert "465 goes with implicit" in fault.text


class TestLogin:
    async def test_plain(self):
        """AUTH PLAIN carries user and password in one base64 token (RFC 4616)."""
        async with Smtpd(auth=("LOGIN", "PLAIN")) as server:
            await submit_to(server, insecure=True, **LOGIN)

        assert "AUTH PLAIN " + b64encode(b"\0emailapikey\0open sesame").decode() == server.lines[1]

    async def test_login(self):
        """AUTH LOGIN answers two prompts."""
        async with Smtpd(auth=("LOGIN", "XOAUTH2")) as server:
            ended = await submit_to(server, insecure=True, **LOGIN)

        assert Sent() == ended.answers[0].outcome
        said = ["AUTH LOGIN", b64encode(b"emailapikey").decode(), b64encode(b"open sesame").decode()]
        assert said == server.lines[1:4]

    async def test_no_known_mechanism(self):
        """A server with other mechanisms only gets no credentials."""
        async with Smtpd(auth=("XOAUTH2",)) as server:
            fault = await submit_to(server, insecure=True, **LOGIN)
            await server.idle()

        assert (Cause.AUTH, Phase.AUTH) == (fault.cause, fault.phase)
        assert ["EHLO", "QUIT"] == [line.split()[0] for line in server.lines]

    async def test_credentials_without_tls_need_the_word_insecure(self):
        """With tls = "none" and credentials nothing is even connected."""
        async with Smtpd(auth=("PLAIN",)) as server:
            fault = await submit_to(server, **LOGIN)

        assert Cause.AUTH == fault.cause
        assert 0 == server.connections

    @pytest.mark.parametrize(
        ("reply", "cause"),
        [
            ("535 5.7.8 no", Cause.AUTH),
            ("534 5.7.9 weak", Cause.AUTH),
            ("530 5.7.0 starttls first", Cause.AUTH),
            ("500 what", Cause.AUTH),
            ("454 4.7.0 later", Cause.THROTTLE),
            ("421 4.7.0 too many", Cause.THROTTLE),
            ("451 4.3.0 down", Cause.CONNECT),
            ("250 what", Cause.CONNECT),
            ("drop", Cause.CONNECT),
        ],
    )
    async def test_refused(self, reply, cause):
        """Each refused login is the channel's fault, with its code and without its words."""
        async with Smtpd({"AUTH": reply}, auth=("PLAIN",)) as server:
            fault = await submit_to(server, insecure=True, **LOGIN)

        assert (cause, Phase.AUTH) == (fault.cause, fault.phase)

    async def test_zeptomail_535_names_what_it_may_mean(self):
        """ZeptoMail answers 535 for spent credits and blocked accounts too, and the fault says so."""
        async with Smtpd({"AUTH": "535 Authentication Failed"}, auth=("PLAIN",)) as server:
            fault = await submit_to(server, insecure=True, provider="zeptomail", **LOGIN)

        assert Cause.AUTH == fault.cause
        assert "credits used up" in fault.text


class TestGreeting:
    @pytest.mark.parametrize(
        ("script", "cause"),
        [
            ({"CONNECT": "421 4.3.2 busy"}, Cause.THROTTLE),
            ({"CONNECT": "450 later"}, Cause.CONNECT),
            ({"CONNECT": "554 5.7.1 your address is listed"}, Cause.POLICY),
            ({"CONNECT": "250 hello"}, Cause.CONNECT),
            ({"CONNECT": "raw HTTP/1.1 400 Bad Request\r\n"}, Cause.CONNECT),
            ({"CONNECT": "hang"}, Cause.CONNECT),
            ({"CONNECT": "drop"}, Cause.CONNECT),
            ({"EHLO": "421 4.7.0 slow down"}, Cause.THROTTLE),
            ({"EHLO": "550 5.7.1 not you"}, Cause.POLICY),
            ({"EHLO": "reset"}, Cause.CONNECT),
        ],
    )
    async def test_before_mail_all_is_the_channels_fault(self, script, cause):
        """Nothing that goes wrong before MAIL is a failure of the message."""
        async with Smtpd(script) as server:
            mark = Mark()
            fault = await submit_to(server, mark=mark)

        assert (cause, Phase.CONNECT, []) == (fault.cause, fault.phase, mark.told)

    async def test_helo_serves_where_ehlo_does_not(self):
        """An ancient relay without TLS and login is spoken to with HELO, step by step."""
        async with Smtpd({"EHLO": "502 5.5.1 no"}) as server:
            ended = await submit_to(server)

        assert Sent() == ended.answers[0].outcome
        assert "HELO" == server.lines[1].split()[0]
        assert f"MAIL FROM:<{MAILS['plain'].sender.address}>" == server.lines[2]

    async def test_an_unknown_host_is_a_fault(self):
        """A name that does not resolve is the channel's fault."""
        config = SmtpChannel(name="relay", host="a..b", port=25, tls="none")
        fault = await SmtpRelay(config, timeouts=QUICK).connect()

        assert (
            ChannelFault(Cause.CONNECT, Phase.CONNECT, "the server's name is not known: check `host`")
            == fault
        )

    async def test_a_hanging_resolver_is_asked_once(self, monkeypatch):
        """However many lanes connect, one look-up is under way, and each waits no longer than its bound."""
        asked, over = [], threading.Event()

        def hang(*args, **_):
            asked.append(args)
            over.wait()
            return []

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        config = SmtpChannel(name="relay", host="relay.example", port=25, tls="none")
        relay = SmtpRelay(config, timeouts=SmtpTimeouts(resolve=0.05))
        faults = await asyncio.gather(*(relay.connect() for _ in range(5)), relay.connect())
        await relay.aclose()
        over.set()

        assert [Cause.CONNECT] * 6 == [fault.cause for fault in faults]
        assert 1 == len(asked)

    async def test_many_hanging_resolvers_hold_up_nobody(self, monkeypatch):
        """While a hundred relays' name servers hang, another one is found at once."""
        over, real = threading.Event(), socket.getaddrinfo

        def hang(host, *args, **options):
            if host == "hang.example":
                over.wait()
                return []
            return real(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", hang)
        config = SmtpChannel(name="relay", host="hang.example", port=25, tls="none")
        hanging = [SmtpRelay(config, timeouts=SmtpTimeouts(resolve=30)) for _ in range(100)]
        waiting = asyncio.gather(*(relay.connect() for relay in hanging))
        async with Smtpd() as server, asyncio.timeout(5):
            ended = await attempt(relay_to(server, host="localhost"), order_for(MAILS["plain"]), Mark())
        over.set()
        await waiting
        for relay in hanging:
            await relay.aclose()

        assert Sent() == ended.answers[0].outcome

    async def test_the_next_address_is_tried(self, monkeypatch):
        """A relay whose first address is dead is reached at its second one, looked up once in 30 s."""
        asked = []

        async def look_up():
            asked.append("once")
            return ("127.0.0.2", "127.0.0.1")

        async with Smtpd() as server:
            relay = relay_to(server, host="localhost")
            monkeypatch.setattr(relay._addresses, "_look_up", look_up)
            for _ in range(2):
                ended = await attempt(relay, order_for(MAILS["plain"]), Mark())
                assert Sent() == ended.answers[0].outcome

        assert 1 == len(asked)


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
            verdict = judge(step, reply(code.ljust(3, "9"), said), zeptomail=provider == "zeptomail")
            kind = verdict.cause if isinstance(verdict, ChannelFault) else type(verdict.outcome)
            assert {End.DEFER: Deferred, End.REFUSE: Refused}.get(end, end) == kind, (code, enhanced)
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

        def refuse(mail, _):
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

    async def test_a_header_that_needs_it_refuses_the_message(self):
        """An international address in the header cannot go through a server without SMTPUTF8 at all."""
        mail = structs.replace(MAILS["plain"], cc=(Address("jörg@example.com"),))
        async with Smtpd(extensions=("PIPELINING",)) as server:
            ended = await submit_to(server, mail)

        assert Submitted((Answer(Refused(Phase.MAIL, "message"), None, "5.6.7"),) * 2) == ended
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


class TestWarmConnections:
    @pytest.mark.parametrize("how", ["drop", "reset", "421 4.4.2 idle", "421 enough for one connection"])
    async def test_found_dead_is_replaced_free_of_charge(self, how):
        """A used connection that is dead when the next mail comes is replaced, and the mail is sent once."""
        async with Smtpd({"MAIL": ["ok", how, "ok"]}) as server:
            connection = await relay_to(server).connect()
            marks = [Mark(), Mark()]
            ends = [await connection.submit(order_for(MAILS["plain"]), mark) for mark in marks]
            await connection.aclose()

        assert [Sent(), Sent()] == [ended.answers[0].outcome for ended in ends]
        assert (2, 2) == (server.connections, len(server.mails))
        assert [1, 1] == [len(mark.told) for mark in marks]

    async def test_closed_while_idle_is_replaced_free_of_charge(self):
        """A connection that the server gave up between two mails still submits, over a new one."""
        async with Smtpd({"DOT": ["accept raw 250 ok\r\n421 4.4.2 bye\r\n", "ok"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            ended = await connection.submit(order_for(MAILS["plain"]), Mark())
            await connection.aclose()

        assert Sent() == ended.answers[0].outcome
        assert 2 == server.connections

    async def test_an_unused_one_that_idled_is_replaced_too(self, monkeypatch):
        """A connection that waited for its first mail may be found dead as well."""
        monkeypatch.setattr(smtp, "WARM_SECONDS", -1.0)
        async with Smtpd({"MAIL": ["drop", "ok"]}) as server:
            ended = await submit_to(server)

        assert (Sent(), 2) == (ended.answers[0].outcome, server.connections)

    async def test_a_replacement_that_fails_is_the_channels_fault(self):
        """When no new connection can be had, the message goes back untouched."""
        async with Smtpd({"MAIL": ["ok", "drop"], "CONNECT": ["ok", "421 4.7.0 enough"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            mark = Mark()
            fault = await connection.submit(order_for(MAILS["plain"]), mark)

        assert (Cause.THROTTLE, []) == (fault.cause, mark.told)

    async def test_it_is_replaced_once(self):
        """A server that drops every MAIL gets two tries, then the message is Deferred."""
        async with Smtpd({"MAIL": ["ok", "drop"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            ended = await connection.submit(order_for(MAILS["plain"]), Mark())

        assert Submitted((Answer(Deferred(Phase.MAIL)),)) == ended
        assert 2 == server.connections

    async def test_a_throttled_warm_connection_is_not_replaced(self):
        """421 4.7.x is about our pace, on a warm connection too."""
        async with Smtpd({"MAIL": ["ok", "421 4.7.0 slow down"]}) as server:
            connection = await relay_to(server).connect()
            await connection.submit(order_for(MAILS["plain"]), Mark())
            fault = await connection.submit(order_for(MAILS["plain"]), Mark())

        assert (Cause.THROTTLE, 1) == (fault.cause, server.connections)

    async def test_something_said_unasked_makes_it_unusable(self):
        """A connection out of step is given up, even though the mail before it was sent."""
        async with Smtpd({"DOT": "accept raw 250 ok\r\n250 ok\r\n"}) as server:
            connection = await relay_to(server).connect()
            ended = await connection.submit(order_for(MAILS["plain"]), Mark())

            assert (Sent(), False) == (ended.answers[0].outcome, connection.usable)
            await connection.aclose()

    async def test_it_retires(self, monkeypatch):
        """A connection is used up after its share of messages, and too old after 30 s without work."""
        monkeypatch.setattr(smtp, "MAX_MESSAGES", 2)
        async with Smtpd() as server:
            connection = await relay_to(server).connect()
            usable = []
            for _ in range(2):
                await connection.submit(order_for(MAILS["plain"]), Mark())
                usable.append(connection.usable)
            monkeypatch.setattr(smtp, "MAX_MESSAGES", 9)
            usable.append(connection.usable)
            monkeypatch.setattr(smtp, "IDLE_SECONDS", 0.0)
            usable.append(connection.usable)
            await connection.aclose()

        assert [True, False, True, False] == usable

    @pytest.mark.parametrize("how", ["drop", "reset", "hang", "500 no", "raw \x00\r\n"])
    async def test_closing_never_raises(self, how):
        """QUIT is said once, and whatever the server makes of it the connection is closed."""
        async with Smtpd({"QUIT": how}) as server:
            connection = await relay_to(server).connect()
            await connection.aclose()
            await connection.aclose()
            await server.idle()

        assert 1 == server.lines.count("QUIT")


class TestStream:
    async def test_a_slow_line_is_no_timeout(self):
        """As long as some of the body leaves within each timeout, the wait goes on; then it ends."""
        sizes = [9, 7, 5, 5]
        stream = SmtpStream()
        stream.connection_made(StubTransport(sizes))
        stream.pause_writing()

        with pytest.raises(LostError) as lost:
            await stream.drain(0.01)

        assert (Loss.TIMEOUT, []) == (lost.value.loss, sizes)

    async def test_a_flood_of_replies_is_garbage(self):
        """Replies nobody asked for do not fill the memory."""
        stream = SmtpStream()
        stream.data_received(b"250 ok\r\n" * 300)

        assert Loss.GARBAGE == stream.loss


class StubTransport(asyncio.Transport):
    """Has so many bytes left each time it is asked."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.sizes = sizes

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.sizes.pop(0)

    def abort(self) -> None:
        pass


class TestScriptedServer:
    async def test_as_a_process(self):
        """The scripted server also runs on its own: its port first, its counters for each line asked."""
        script = json.dumps({"DOT": "accept drop"})
        process = await asyncio.create_subprocess_exec(
            sys.executable, smtpd.__file__, "--script", script, stdin=PIPE, stdout=PIPE
        )
        config = SmtpChannel(
            name="relay", host="127.0.0.1", port=int(await process.stdout.readline()), tls="none"
        )
        ended = await attempt(SmtpRelay(config), order_for(MAILS["plain"]), Mark())
        process.stdin.write(b"\n")
        counters = json.loads(await process.stdout.readline())
        process.stdin.close()

        assert (Ambiguous(Phase.DONE), 0) == (ended.answers[0].outcome, await process.wait())
        assert (1, 1) == (counters["accepted"], counters["connections"])


class TestReplyParser:
    @pytest.mark.parametrize("size", [1, 2, 7, 100])
    def test_replies_come_in_any_pieces(self, size):
        """However the bytes are cut, the same replies come out."""
        wire = b"250-2.1.0 a\r\n250 b\r\n354\r\n550 5.1.1 c\n"
        parser, replies = ReplyParser(), deque()
        for start in range(0, len(wire), size):
            parser.feed(wire[start : start + size], replies)

        assert [(250, "2.1.0"), (354, None), (550, "5.1.1")] == [(r.code, r.enhanced) for r in replies]
        assert (["2.1.0 a", "b"], False) == (replies[0].lines, parser.pending)

    @pytest.mark.parametrize(
        "wire",
        [
            b"\r\n",
            b"25\r\n",
            b"250_a\r\n",
            b"\xb2\xb2\xb2 a\r\n",
            b"150 a\r\n",
            b"650 a\r\n",
            b"250-a\r\n251 b\r\n",
            b"250 " + b"a" * 5000 + b"\r\n",
            b"a" * 5000,
            b"250-aaaa\r\n" * 10_000,
        ],
        ids=lambda wire: repr(wire[:12]),
    )
    def test_nonsense_is_garbage(self, wire):
        """What is not a reply, or longer than any, is refused and not stored."""
        with pytest.raises(GarbageError):
            ReplyParser().feed(wire, deque())

    def test_a_reply_never_prints_its_text(self):
        """A reply may echo addresses, so its repr has none of its text."""
        replies = deque()
        ReplyParser().feed(f"550 5.1.1 {CANARY}\r\n".encode(), replies)

        assert "Reply(550)" == repr(replies[0])


async def until(condition) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # it is the event loop's own progress that is awaited
            await asyncio.sleep(0)


def reply(code: str, text: str) -> Reply:
    """A one-line reply."""
    return Reply(int(code), (text.encode(),))


def composing(server: Smtpd, data: bytes, *, eight_bit: bool = False) -> SmtpRelay:
    """A relay whose composer gives these bytes."""
    composed = Composed(data, eight_bit=eight_bit, smtputf8=False)
    return SmtpRelay(relay_to(server).config, timeouts=QUICK, compose=lambda *_: composed)


def big_mail(size: int) -> Mail:
    """A mail with an attachment of so many bytes."""
    return structs.replace(MAILS["plain"], attachments=(Attachment("a.bin", "application/pdf", bytes(size)),))
