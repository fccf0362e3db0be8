"""What comes before the first mail: TLS, the login, the greeting, host names."""

import asyncio
import socket
import ssl
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest

from postroom.config.structs import SmtpChannel
from postroom.outcome import (
    Answer,
    Cause,
    ChannelFault,
    Phase,
    Sent,
    Submitted,
)
from postroom.secret import Secret
from tests.channels.conformance import (
    MAILS,
    Mark,
    attempt,
    order_for,
)
from tests.channels.relay import LOGIN, QUICK, relay_to, submit_to
from tests.smtpd import Smtpd
from workers.channels.smtp import SmtpRelay
from workers.channels.smtp_session import SmtpTimeouts


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

    @pytest.mark.parametrize("tls", ["implicit", "starttls"])
    async def test_the_host_is_named_in_the_handshake(self, context, ca_file, tls):
        """SNI carries the configured host, so that a server with many names shows the right certificate."""
        named = []
        context.sni_callback = lambda _, name, __: named.append(name)
        async with Smtpd(tls=tls, context=context) as server:
            await submit_to(server, tls=tls, host="localhost", ca_file=ca_file)

        assert ["localhost"] == named

    @pytest.mark.parametrize("tls", ["implicit", "starttls"])
    @pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
    async def test_tls_below_1_2_is_no_tls(self, context, ca_file, tls):
        """A server that speaks nothing newer than TLS 1.1 gets no credentials."""
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        async with Smtpd(tls=tls, context=context, auth=("PLAIN",)) as server:
            fault = await submit_to(server, tls=tls, ca_file=ca_file, **LOGIN)
            await server.idle()

        assert Cause.CONNECT == fault.cause
        assert "AUTH" not in "".join(server.lines)

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

    @pytest.mark.parametrize("password", ["x", "kurz-ä", "p" * 400])
    async def test_a_password_of_any_length(self, password):
        """Short generated passwords and long tokens travel alike."""
        async with Smtpd(auth=("PLAIN",)) as server:
            await submit_to(server, insecure=True, username="emailappsmtp.1a2b", password=Secret(password))

        token = b64encode(f"\0emailappsmtp.1a2b\0{password}".encode()).decode()
        assert f"AUTH PLAIN {token}" == server.lines[1]

    @pytest.mark.parametrize(
        ("provider", "sent"), [("zeptomail", "abc.DEF="), ("generic", '"Zoho-enczapikey abc.DEF="')]
    )
    async def test_a_pasted_token_is_zeptomails_password(self, provider, sent):
        """The scheme and quotes that its console copies along are taken off; elsewhere a password is as it is."""
        pasted = Secret('"Zoho-enczapikey abc.DEF="')
        async with Smtpd(auth=("PLAIN",)) as server:
            await submit_to(server, insecure=True, provider=provider, username="emailapikey", password=pasted)

        assert (
            f"AUTH PLAIN {b64encode(f'{chr(0)}emailapikey{chr(0)}{sent}'.encode()).decode()}"
            == server.lines[1]
        )

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
