"""`postroom probe`: says the right thing of each kind of agent, sends no mail, and releases breakers."""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from postroom.ledger.clients import connection_maker, reading_client
from postroom.ledger.delivery import Delivery
from postroom.ledger.limits import Stop
from postroom.ledger.pipe import ScriptPipe
from postroom.ledger.reading import Reading
from postroom.outcome import Cause, ChannelFault, Phase
from tests.fakezepto import TOKEN, FakeZepto, Script, error
from tests.nursery import NURSERY
from tests.redisd import RedisServer
from tests.smtpd import Smtpd
from workers.probe import main

SMTP = """\
[[agents.orders.channels]]
name = "relay"
kind = "smtp"
host = "{host}"
port = {port}
tls = "{tls}"
"""
LOGIN = 'username = "user"\npassword = { env = "PASSWORD" }\nca_file = "ca.pem"\n'
ZEPTO = """\
[[agents.orders.channels]]
name = "api"
kind = "zeptomail"
base_url = "{url}"
token = {{ env = "ZEPTO" }}
"""


class Command:
    """Runs the command on a configuration of one agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis_url = "redis://127.0.0.1:1/0"

    async def __call__(self, *channels: str, agent: str = "orders", seconds: float = 2, **environ: str):
        config = self.folder / "postroom.toml"
        sender = '[agents.orders]\nfrom = { address = "orders@shop.example" }\n'
        config.write_text(sender + "\n".join(channels))
        environ = {"POSTROOM_REDIS_URL": self.redis_url, "PASSWORD": "x", "ZEPTO": TOKEN, **environ}
        words = ("workers.probe", f"--config={config}", f"--timeout={seconds}", "--", agent)
        ran = await asyncio.to_thread(NURSERY.run, *words, environ={**os.environ, **environ})
        output = ran.out + ran.err
        return (
            ran.code,
            dict(re.findall(r"^  (\S+(?: token)?) +(.*?) *$", output, re.MULTILINE)),
            output,
        )


@pytest.fixture
def probe(tmp_path: Path) -> Command:
    return Command(tmp_path)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


def serving(authority: trustme.CA, **options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", **options).configure_cert(context)
    return context


def smtp(server: Smtpd, tls: str = "starttls", more: str = LOGIN) -> str:
    return SMTP.format(host="127.0.0.1", port=server.port, tls=tls) + more


@asynccontextmanager
async def blackhole() -> AsyncIterator[int]:
    """A port whose queue of connections is full: whoever else connects hears nothing at all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        await asyncio.sleep(0.05)
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
async def test_a_healthy_relay(probe: Command, authority: trustme.CA, tls: str):
    """Every step is told with what was found; nothing but the login was said, and no mail."""
    until = datetime.now(UTC) + timedelta(days=61, hours=1)
    context = serving(authority, not_after=until)
    async with Smtpd(tls=tls, context=context, auth=("PLAIN",)) as server:
        status, rows, output = await probe(smtp(server, tls))

    assert (0, "ok     accepted") == (status, rows["auth"]), output
    assert re.fullmatch(r"ok     TLSv1\.[23], certificate good for 61 days", rows["tls"])
    assert "8BITMIME" in rows["ehlo"]
    assert "1 of 1 channel(s) would take mail now. No mail was sent." in output
    assert not server.times.get("MAIL")
    assert "QUIT" == server.lines[-1]


async def test_a_wrong_password(probe: Command, authority: trustme.CA):
    """All is well up to the login; what to look at is said, with the code."""
    script = {"AUTH": "535 5.7.8 canary-7f3a"}
    async with Smtpd(script, tls="starttls", context=serving(authority), auth=("PLAIN",)) as server:
        status, rows, output = await probe(smtp(server))

    assert (1, f"ok     port {server.port} answers") == (status, rows["connect"])
    assert re.fullmatch(r"ok     TLSv1\.[23], certificate good for \d+ days", rows["tls"])
    assert "8BITMIME" in rows["ehlo"]
    assert (
        "FAILS  the server refuses the credentials: check `username` and `password` of this channel (535)"
        == rows["auth"]
    )
    assert "canary" not in output


async def test_an_expired_certificate(probe: Command, authority: trustme.CA):
    """It is the certificate, not the connection; nothing after it was looked at."""
    context = serving(authority, not_after=datetime.now(UTC) - timedelta(days=1))
    async with (
        Smtpd(tls="implicit", context=context, auth=("PLAIN",)) as server,
        FakeZepto(tls=context) as fake,
    ):
        ca = 'ca_file = "ca.pem"\n'
        status, rows, output = await probe(smtp(server, "implicit"), ZEPTO.format(url=fake.url) + ca)

    assert 1 == status
    assert 2 == output.count("FAILS  the server's certificate has expired")
    assert ("-", "-") == (rows["auth"], rows["token"])


async def test_a_blackholed_host(probe: Command):
    """Silence is told as such, after the time that was given, for either kind of channel."""
    async with blackhole() as port:
        relay = SMTP.format(host="127.0.0.1", port=port, tls="none")
        status, rows, output = await probe(relay, ZEPTO.format(url=f"https://127.0.0.1:{port}"), seconds=0.5)

    assert (1, 2) == (status, output.count("connect       FAILS  the server does not answer in time")), output
    assert "-" == rows["tls"]


@pytest.mark.parametrize(("host", "port"), [("a..b", 25), ("127.0.0.1", 1)])
async def test_a_wrong_host_or_port(probe: Command, host: str, port: int):
    """A name that leads nowhere and a closed port are two different things."""
    status, rows, _ = await probe(SMTP.format(host=host, port=port, tls="none"))

    assert 1 == status
    if port == 1:
        assert "FAILS  the server refuses the connection: check `host` and `port`" == rows["connect"]
    else:
        assert rows["resolve"].startswith("FAILS  the name is not known")


async def test_tokens(probe: Command):
    """Each token is told on its own, and an empty request is all that was sent."""
    async with FakeZepto() as fake:
        both = ZEPTO.format(url=fake.url) + 'second_token = { env = "SECOND" }\n'
        good = await probe(ZEPTO.format(url=fake.url))
        mixed = await probe(both, SECOND="wrong")
        bad = await probe(ZEPTO.format(url=fake.url), ZEPTO="wrong")
        fake.play(Script(403, error("TM_3601", "SERR_156")))
        fake._token = "checked before the script"
        accepted = fake.accepted

    assert (0, "ok     accepted") == (good[0], good[1]["token"])
    assert (0, "ok     accepted") == (mixed[0], mixed[1]["token"])
    assert mixed[1]["second token"].startswith("FAILS  ZeptoMail refused the token")
    assert (1, True) == (bad[0], bad[1]["token"].startswith("FAILS  ZeptoMail refused the token"))
    assert [] == accepted


async def test_a_page_in_html_is_not_zeptomail(probe: Command):
    """Another server behind base_url is told as that."""
    async with FakeZepto() as fake:
        status, rows, _ = await probe(ZEPTO.format(url=f"{fake.url}/elsewhere"))

    assert (1, True) == (status, rows["token"].startswith("FAILS"))


async def test_an_unknown_agent_names_the_known_ones(probe: Command):
    """A wrong name is no traceback."""
    status, _, output = await probe(SMTP.format(host="a", port=1, tls="none"), agent="oders")

    assert (1, "postroom: no agent is called oders; there are: orders\n") == (status, output)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "601"])
def test_a_timeout_that_is_none_is_no_fault_of_the_agent(capsys: pytest.CaptureFixture[str], seconds: str):
    """It is wrong usage, whichever way the command is begun: no channel is looked at, and none is slandered."""
    with pytest.raises(SystemExit) as caught:
        main([f"--timeout={seconds}", "orders"])

    assert 2 == caught.value.code
    assert "argument --timeout: must be a number from 0.1 to 600\n" in capsys.readouterr().err


async def test_a_probe_that_passes_releases_the_breaker(probe: Command, redis_server: RedisServer):
    """While it fails the channel stands still; once it passes, waiting mail flows at once."""
    probe.redis_url = redis_server.url
    pipe = ScriptPipe(connection_maker(redis_server.url), deadline=5)
    delivery = Delivery(pipe, lease_ms=1000, content_ms=1000, message_ms=1000)
    client = reading_client(redis_server.url)
    fault, hour = ChannelFault(Cause.AUTH, Phase.AUTH, "refused", 535), 3_600_000
    await delivery.stop_channel(
        "orders", "relay", fault, channels=("relay",), stop=Stop(1, 1000, hour, hour), connections=1
    )

    async def standing() -> tuple[bool, bool]:
        found = await Reading(client).standing("orders")
        return "relay" in found.faults, found.stopped

    async with Smtpd({"CONNECT": ["554 5.7.1 no", "ok"]}) as server:
        relay = SMTP.format(host="127.0.0.1", port=server.port, tls="none")
        first = (await probe(relay))[0], await standing()
        status, rows, _ = await probe(relay)

    assert (1, (True, True)) == first
    assert (0, "ok     released: mail flows again") == (status, rows["breaker"])
    assert (False, False) == await standing()
    await pipe.aclose()
    await client.aclose()
