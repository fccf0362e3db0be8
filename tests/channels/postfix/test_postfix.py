"""What a real Postfix makes of our mail: it takes all of it, stores each once, and changes no byte."""

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trustme

from postroom.compose import Composed, Wire, compose
from postroom.config.structs import SmtpChannel
from postroom.message import Address, Attachment, Content, Mail
from postroom.outcome import Cause, ChannelFault, Deferred, Refused, Sent
from postroom.secret import Secret
from tests.channels.conformance import Mark, attempt, coming, order_for
from tests.channels.postfix.judge import PASSWORD, USER, Postfix, why_not
from tests.stack import QUICK, Stack, sample
from workers.channels.smtp import SmtpRelay

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.skipif(WHY_NOT is not None, reason=f"!!! THE POSTFIX JUDGE DID NOT SIT: {WHY_NOT} !!!"),
    pytest.mark.timeout(180),
]
MAILS = 500
WORDS = (
    "order",
    "Größe",
    "注文",
    "Привет",
    "a.b",
    ".",
    "..",
    ".dot",
    "=?utf-8?q?x?=",
    "From ",
    "\t",
    "🎩",
    "x" * 300,
)
# What Postfix puts in front of a mail it stores: fields, each perhaps on several lines.
ADDED = re.compile(rb"\A(?:(?:Return-Path|X-Original-To|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)+")


def generate(number: int, dice: random.Random) -> Mail:
    """Make up a mail: any script, dots at line starts, long lines, every kind of line end, files."""

    def text() -> str:
        lines = (" ".join(dice.choices(WORDS, k=dice.randrange(6))) for _ in range(dice.randrange(1, 30)))
        return dice.choice(("\n", "\r\n", "\r")).join([*lines, "z" * dice.choice((0, 998, 2000))])

    def word() -> str:
        return dice.choice(("Ada", "Ада", "Ada, Lovelace", 'A "B" C', "注文 ✓", ""))

    files = tuple(
        Attachment(
            dice.choice(("a.pdf", "Rechnung März.pdf", "注文.txt")),
            "application/pdf",
            dice.randbytes(dice.randrange(1, 5000)),
        )
        for _ in range(dice.choice((0, 0, 1, 3)))
    )
    subject = f"{number} " + dice.choice(("plain", "Größe", "注文 " * 30, "=?x?=", "a" * 200))
    return Mail(
        id=f"orders-{number:026d}",
        message_id=f"<{number}@shop.example>",
        date=1_700_000_000.0 + number,
        sender=Address("orders@shop.example", word()),
        to=(Address(f"m{number}@example.com", word()),),
        content=Content(subject, text=text(), html=dice.choice((None, f"<p>{text()}</p>"))),
        attachments=files,
    )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> tuple[trustme.CA, str]:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return authority, str(path)


@pytest.fixture(scope="module")
def postfix(certificates) -> Iterator[Postfix]:
    with Postfix(certificates[0]) as judge:
        yield judge


@pytest.fixture
def relay(postfix: Postfix, certificates):
    """Return a maker of relays to the judge."""
    postfix.forget()

    def make(tls: str, password: str = PASSWORD) -> SmtpRelay:
        port = postfix.implicit if tls == "implicit" else postfix.starttls
        return SmtpRelay(
            SmtpChannel(
                name="judge",
                host="127.0.0.1",
                port=port,
                tls=tls,
                username=USER,
                password=Secret(password),
                ca_file=certificates[1],
            )
        )

    return make


async def test_five_hundred_mails_are_stored_once_with_equal_bytes(postfix: Postfix, relay):
    """Whatever a mail holds, what lies in the mailbox is what was composed, line by line and byte by byte.

    Mails without files are begun with the dot of the one before.
    """
    dice = random.Random(6)
    mails = {mail.id: mail for mail in (generate(number, dice) for number in range(MAILS))}

    async def carry(tls: str, part: list[Mail]) -> None:
        channel = relay(tls)
        connection = await channel.connect()
        assert not isinstance(connection, ChannelFault), connection
        orders = list(map(order_for, part))
        for number, (mail, order) in enumerate(zip(part, orders, strict=True)):
            ended = await connection.submit(order, Mark(), coming(orders[number + 1 :]))
            assert not isinstance(ended, ChannelFault), ended
            assert [Sent] == [type(answer.outcome) for answer in ended.answers], (mail.id, ended)
        await connection.aclose()
        assert channel.looks_ahead
        await channel.aclose()

    everything = list(mails.values())
    lanes = [("implicit" if lane % 2 else "starttls", everything[lane::4]) for lane in range(4)]
    await asyncio.gather(*(carry(*lane) for lane in lanes))

    stored = await asyncio.to_thread(postfix.stored, MAILS)
    found = {}
    for raw in stored:
        data = ADDED.sub(b"", raw)
        identity = re.search(rb"^X-Postroom-Id: (\S+)$", data, re.MULTILINE)[1].decode()
        assert identity not in found, "stored twice"
        found[identity] = data
    assert mails.keys() == found.keys()
    for identity, mail in mails.items():
        assert compose(mail, wire=Wire(eight_bit=True)).data.replace(b"\r\n", b"\n") == found[identity], (
            identity
        )


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
async def test_each_recipient_has_its_own_answer(postfix: Postfix, relay, tls: str):
    """Taken, refused and put off in one transaction: each recipient ends by its own reply."""
    mail = generate(1, random.Random(1))
    people = ("good@example.com", "nobody@example.com", "later@example.com", "else@example.com")
    mail = msgspec.structs.replace(mail, to=tuple(map(Address, people)))
    ended = await attempt(relay(tls), order_for(mail), Mark())

    assert [Sent, Refused, Deferred, Sent] == [type(answer.outcome) for answer in ended.answers]
    assert [(250, "2.0.0"), (550, "5.1.1"), (450, "4.2.1"), (250, "2.0.0")] == [
        (answer.reply_code, answer.enhanced_code) for answer in ended.answers
    ]
    assert 2 == len(await asyncio.to_thread(postfix.stored, 2))


async def test_the_judge_is_strict(relay):
    """A bare newline, of which ours have none, would be refused: the verdict on the others means something."""
    channel = relay("implicit")
    channel.compose = lambda *_: Composed(b"Subject: x\n\nbare\r\n", eight_bit=False, smtputf8=False)
    ended = await attempt(channel, order_for(generate(1, random.Random(1))), Mark())

    assert not isinstance(ended, ChannelFault)
    assert [Sent] != [type(answer.outcome) for answer in ended.answers]


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
async def test_a_wrong_password_is_the_channels_fault(relay, tls: str):
    """Postfix's own refusal of a login stops the channel."""
    fault = await relay(tls, "wrong").connect()

    assert (Cause.AUTH, 535, "5.7.8") == (fault.cause, fault.reply_code, fault.enhanced_code)


async def test_a_probe_names_what_postfix_offers(relay):
    """The probe passes, and tells Postfix's extensions."""
    probe = await relay("starttls").probe()

    assert probe.fault is None
    assert {"PIPELINING", "8BITMIME", "SMTPUTF8"} <= set(
        {c.name: c.text for c in probe.checks}["ehlo"].split()
    )


async def test_a_wrong_password_stops_the_channel_and_not_the_message(
    postfix: Postfix, certificates, folder: Path
):
    """The message waits with the reason, and goes out, once, when the password is right."""
    postfix.forget()
    (folder / "password").write_text("wrong\n")
    channel = f"""\
[[agents.orders.channels]]
name = "judge"
kind = "smtp"
host = "127.0.0.1"
port = {postfix.starttls}
tls = "starttls"
username = "{USER}"
password = {{ file = "password" }}
ca_file = "{certificates[1]}"
"""
    async with Stack(folder, 1, worker=QUICK, channels=channel) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        message_id = await stack.accept(sample("judged"))

        async def waits() -> bool:
            reason = (await stack.get(message_id)).get("reason") or {}
            return reason.get("code") == "channel_auth"

        await stack.until(waits, "the channel stands still")
        message = await stack.get(message_id)
        assert ("queued", []) == (message["state"], message["attempts"])
        (folder / "password").write_text(f"{PASSWORD}\n")
        await stack.until_all_finished([message_id])
        assert "sent" == (await stack.get(message_id))["state"]
    assert 1 == len(await asyncio.to_thread(postfix.stored, 1))
