"""What every channel must do, whatever it speaks: subclass `ChannelConformance` and give it a harness.

    class TestSmtp(ChannelConformance):
        @pytest.fixture
        async def harness(self):
            harness = SmtpHarness()
            yield harness
            await harness.stop()

The suite knows scenarios by name, the harness makes its own other side behave so. What ends differently on
a channel for a good reason stands in its `overrides`, what cannot happen to it in `impossible`; the promises
in `check_promises` have no exceptions.
"""

import asyncio
import os
import signal
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
import pytest
from msgspec import Struct

from postroom.compose.body import base64_lines
from postroom.message import Address, Attachment, Content, Mail
from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
    ChannelFault,
    Deferred,
    FenceLostError,
    Refused,
    Sent,
    Submission,
)
from workers.channels.seam import Ahead, Channel, Order

# Every text the other side says in a scenario should hold this word: it must never show in an outcome.
CANARY = "canary-7f3a"

# The recipient that `one_refused_of_three` refuses.
BAD_RECIPIENT = "nobody@example.com"


class Seen(Struct):
    """What the other side understood of the last mail it accepted."""

    recipients: list[str]
    subject: str
    text: str
    attachments: list[tuple[str, bytes]] = []


class Expected(Struct, frozen=True):
    """How a scenario ends: one outcome type a recipient or a fault's cause, marks awaited, mails accepted."""

    ends: tuple[type, ...] | Cause
    commits: int
    accepted: int
    retry_after: float | None = None


class Scenario(Struct, frozen=True):
    """One behaviour of the other side, and its truth in one sentence."""

    truth: str
    expected: Expected
    mail: str = "plain"


class Harness(Protocol):
    """A channel with a scripted other side that counts what it accepted at its own commit point."""

    overrides: Mapping[str, Expected]  # scenarios that end otherwise here
    impossible: Mapping[str, str]  # scenario or cancel point: why it cannot happen here
    cancel_points: Mapping[str, bool]  # extra scenarios in which the other side hangs: True past the mark

    async def start(self, scenario: str) -> Channel:
        """Start the other side playing the scenario and return a channel to it (timeouts below 0.5 s)."""
        ...

    async def reached(self) -> None:
        """Wait until the other side has come to the point at which the scenario hangs."""
        ...

    async def settled(self) -> None:
        """Wait until the other side has seen the end of every connection, so that `accepted` is final."""
        ...

    async def stop(self) -> None:
        """Stop what `start` started, if anything: may be called twice, or before any start."""
        ...

    @property
    def accepted(self) -> int:
        """How many mails the other side has accepted, counted where it took responsibility."""
        ...

    def seen(self) -> Seen:
        """Return what the other side understood of the last mail it accepted."""
        ...


AUTHOR = Address("orders@shop.example", "Shop")
ADA, BOB = Address("ada@example.com", "Ada Lovelace"), Address("bob@example.com")
MAILS: dict[str, Mail] = {
    "plain": Mail(
        id="orders-01JD8X0000000000000000000",
        message_id="<01JD8X@shop.example>",
        date=1_700_000_000.0,
        sender=AUTHOR,
        to=(ADA,),
        content=Content(subject="Your order", text="Hello\n.\n..two dots\n.three\nbye"),
    ),
    "three": Mail(
        id="orders-01JD8X0000000000000000001",
        message_id="<01JD8Y@shop.example>",
        date=1_700_000_000.0,
        sender=AUTHOR,
        to=(ADA,),
        cc=(Address(BAD_RECIPIENT),),
        bcc=(BOB,),
        content=Content(subject="Your order", text="Hello"),
    ),
    "non_ascii": Mail(
        id="orders-01JD8X0000000000000000002",
        message_id="<01JD8Z@shop.example>",
        date=1_700_000_000.0,
        sender=Address("orders@shop.example", "Бюро «Заказ»"),
        to=(Address("ada@example.com", "Ада Лавлейс 🎩"),),
        content=Content(
            subject="Ваш заказ — 注文 ✓", text="Привет, Ада!\nこんにちは 🎉", html="<p>Привет</p>"
        ),
    ),
    "attachment": Mail(
        id="orders-01JD8X0000000000000000003",
        message_id="<01JD90@shop.example>",
        date=1_700_000_000.0,
        sender=AUTHOR,
        to=(ADA,),
        content=Content(subject="Your invoice", text="See the file."),
        attachments=(Attachment("Rechnung März.pdf", "application/pdf", bytes(range(256)) * 400),),
    ),
}

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 40
MAILS["cached"] = msgspec.structs.replace(
    MAILS["attachment"],
    id="orders-01JD8X0000000000000000004",
    attachments=(
        Attachment("price list.pdf", "application/pdf", b"", file="a-cached-file", encoded=base64_lines(PDF)),
    ),
)

ONE_SENT = Expected((Sent,), 1, 1)
SCENARIOS: dict[str, Scenario] = {
    "accepted": Scenario("an accepted mail is Sent, once", ONE_SENT),
    "accepted_three": Scenario(
        "one mail to three recipients is one mail on the other side",
        Expected((Sent, Sent, Sent), 1, 1),
        mail="three",
    ),
    "refused": Scenario("a refused message is Refused and not accepted", Expected((Refused,), 1, 0)),
    "one_refused_of_three": Scenario(
        "a bad recipient is Refused alone: the others are Sent",
        Expected((Sent, Refused, Sent), 1, 1),
        mail="three",
    ),
    "deferred": Scenario("try-again-later is Deferred", Expected((Deferred,), 1, 0)),
    "throttled": Scenario("slow-down stops the channel, not the message", Expected(Cause.THROTTLE, 0, 0)),
    "throttled_for_7s": Scenario(
        "slow-down with a time stops it for that time", Expected(Cause.THROTTLE, 1, 0, retry_after=7.0)
    ),
    "quota": Scenario("credits or a day used up stop the channel", Expected(Cause.QUOTA, 1, 0)),
    "blocked": Scenario("a blocked account stops the channel", Expected(Cause.POLICY, 1, 0)),
    "unreachable": Scenario("a closed port is the channel's fault", Expected(Cause.CONNECT, 0, 0)),
    "bad_credentials": Scenario("refused credentials are the channel's fault", Expected(Cause.AUTH, 0, 0)),
    "bad_certificate": Scenario("nothing is said to an untrusted server", Expected(Cause.CONNECT, 0, 0)),
    "timeout_before_mark": Scenario("silence before the mark is Deferred", Expected((Deferred,), 0, 0)),
    "reset_before_mark": Scenario("a reset before the mark is Deferred", Expected((Deferred,), 0, 0)),
    "garbage_before_mark": Scenario("nonsense before the mark is Deferred", Expected((Deferred,), 0, 0)),
    "timeout_after_mark": Scenario("accepted, then silence: Ambiguous", Expected((Ambiguous,), 1, 1)),
    "reset_after_mark": Scenario("accepted, then a reset: Ambiguous", Expected((Ambiguous,), 1, 1)),
    "drop_after_mark": Scenario("accepted, then the end: Ambiguous", Expected((Ambiguous,), 1, 1)),
    "lost_after_mark": Scenario("not accepted, then a reset: Ambiguous too", Expected((Ambiguous,), 1, 0)),
    "garbage_after_mark": Scenario("accepted, then nonsense: Ambiguous", Expected((Ambiguous,), 1, 1)),
    "html_answer": Scenario("accepted, then a page in HTML: Ambiguous", Expected((Ambiguous,), 1, 1)),
    "empty_answer": Scenario("accepted, then an empty answer: Ambiguous", Expected((Ambiguous,), 1, 1)),
    "huge_answer": Scenario("accepted, then an endless answer: Ambiguous", Expected((Ambiguous,), 1, 1)),
    "slow_answer": Scenario("a yes that comes late, but in time, is Sent", ONE_SENT),
    "non_ascii": Scenario("any script arrives as it was written", ONE_SENT, mail="non_ascii"),
    "attachment": Scenario("an attachment arrives byte by byte", ONE_SENT, mail="attachment"),
    "cached": Scenario("so does a file of the cache", ONE_SENT, mail="cached"),
}


class Mark:
    """A commit mark that remembers what it was told, and refuses if asked to."""

    def __init__(
        self,
        error: BaseException | None = None,
        *,
        hang: bool = False,
        until: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.told: list[tuple[Answer | None, ...]] = []
        self.error = error
        self.hang = hang
        self.until = until
        self.reached = asyncio.Event()

    async def __call__(self, known: tuple[Answer | None, ...]) -> None:
        self.told.append(known)
        self.reached.set()
        if self.until is not None:
            await self.until()
        if self.hang:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


def order_for(mail: Mail) -> Order:
    """An order for all recipients of the mail."""
    return Order(mail=mail, recipients=tuple(range(len(mail.to + mail.cc + mail.bcc))))


async def attempt(channel: Channel, order: Order, commit: Mark) -> Submission:
    """One attempt as a lane makes it: connect, submit, close."""
    connection = await channel.connect()
    if isinstance(connection, ChannelFault):
        return connection
    try:
        return await connection.submit(order, commit)
    finally:
        await connection.aclose()


def ends_of(ended: Submission) -> tuple[type, ...] | Cause:
    """The outcome types, or the cause of a fault: what `Expected.ends` is compared with."""
    if isinstance(ended, ChannelFault):
        return ended.cause
    return tuple(type(answer.outcome) for answer in ended.answers)


def same(expected: object, actual: object, about: object = "") -> None:
    """Assert equality with both sides shown (this module's asserts are not rewritten by pytest)."""
    assert expected == actual, f"expected {expected!r}, got {actual!r} {about}"


def check_promises(order: Order, ended: Submission, mark: Mark, accepted: int) -> None:
    """Assert what holds for every channel in every scenario, without exception."""
    assert len(mark.told) <= 1, f"the mark was awaited {len(mark.told)} times"
    assert CANARY not in repr(ended), f"what the other side said shows in {ended!r}"
    known = mark.told[0] if mark.told else (None,) * len(order.recipients)
    same(len(order.recipients), len(known), "in the mark")
    if isinstance(ended, ChannelFault):
        same(0, accepted, ended)
        return
    same(len(order.recipients), len(ended.answers), ended)
    for before, answer in zip(known, ended.answers, strict=True):
        if isinstance(answer.outcome, Sent | Ambiguous):
            same(1, len(mark.told), "marks for a mail that may have been accepted")
            assert before is None, "only a recipient the mark did not know an answer for can be sent"
        elif before is not None:
            same(before, answer, "an answer known at the mark stands")
    outcomes = [answer.outcome for answer in ended.answers]
    if any(isinstance(outcome, Sent) for outcome in outcomes):
        same(1, accepted, ended)
    elif not any(isinstance(outcome, Ambiguous) for outcome in outcomes):
        same(0, accepted, ended)


class ChannelConformance:
    """The suite. A subclass provides a `harness` fixture that yields a `Harness`."""

    @pytest.mark.parametrize("name", SCENARIOS)
    async def test_ends_as_the_table_says(self, harness: Harness, name: str):
        """Each scenario ends in its outcome, awaits the mark as often as said, and the other side agrees."""
        skip_impossible(harness, name)
        scenario = SCENARIOS[name]
        expected = harness.overrides.get(name, scenario.expected)
        channel = await harness.start(name)
        order, mark = order_for(MAILS[scenario.mail]), Mark()

        ended = await attempt(channel, order, mark)
        await channel.aclose()
        await harness.settled()

        check_promises(order, ended, mark, harness.accepted)
        same(expected.ends, ends_of(ended), ended)
        if isinstance(ended, ChannelFault):
            same(expected.retry_after, ended.retry_after, ended)
        same(expected.commits, len(mark.told), "marks")
        same(expected.accepted, harness.accepted, "accepted")

    @pytest.mark.parametrize("name", ["accepted", "non_ascii", "attachment", "cached"])
    async def test_arrives_as_written(self, harness: Harness, name: str):
        """Subject, text and attachments reach the other side as they were written."""
        channel = await harness.start(name)
        mail = MAILS[SCENARIOS[name].mail]

        await attempt(channel, order_for(mail), Mark())
        await channel.aclose()

        seen = harness.seen()
        same(mail.content.subject, seen.subject)
        same(mail.content.text, seen.text.replace("\r\n", "\n").rstrip("\n"))
        expected = [(one.name, one.data or b64decode(one.encoded)) for one in mail.attachments]
        same(expected, seen.attachments)

    async def test_carries_only_the_recipients_of_the_order(self, harness: Harness):
        """A retry reaches only the recipients it is for, in the order's order."""
        channel = await harness.start("accepted_three")
        order = Order(mail=MAILS["three"], recipients=(0, 2))
        mark = Mark()

        ended = await attempt(channel, order, mark)
        await channel.aclose()
        await harness.settled()

        check_promises(order, ended, mark, harness.accepted)
        same((Sent, Sent), ends_of(ended))
        same([ADA.address, BOB.address], sorted(harness.seen().recipients))

    @pytest.mark.parametrize("error", [FenceLostError(), RuntimeError("the ledger is away")])
    async def test_a_refused_mark_is_raised_and_nothing_is_accepted(self, harness: Harness, error: Exception):
        """What the mark raises comes out as it is, and the other side has accepted nothing."""
        channel = await harness.start("accepted")
        mark = Mark(error)

        with pytest.raises(type(error)) as raised:
            await attempt(channel, order_for(MAILS["plain"]), mark)
        await channel.aclose()
        await harness.settled()

        assert raised.value is error
        same(1, len(mark.told))
        same(0, harness.accepted)

    async def test_cancelled_in_the_mark_nothing_is_accepted(self, harness: Harness):
        """A lane cancelled while it writes the mark leaves nothing behind on the other side."""
        channel = await harness.start("accepted")
        mark = Mark(hang=True)
        task = asyncio.create_task(attempt(channel, order_for(MAILS["plain"]), mark))

        await asyncio.wait_for(mark.reached.wait(), 5)
        await cancel(task)
        await channel.aclose()
        await harness.settled()

        same(0, harness.accepted)

    async def test_terminated_at_any_phase(self, harness: Harness):
        """Wherever the other side hangs, SIGTERM ends a submission at once; before the mark nothing is accepted."""
        for point, past_the_mark in harness.cancel_points.items():
            channel = await harness.start(point)
            mark = Mark()
            before = harness.accepted
            task = asyncio.create_task(attempt(channel, order_for(MAILS["plain"]), mark))

            await asyncio.wait_for(harness.reached(), 5)
            await terminate(task)
            await channel.aclose()
            await harness.settled()

            same(past_the_mark, len(mark.told) == 1, point)
            if not past_the_mark:
                same(before, harness.accepted, point)
            await harness.stop()

    async def test_a_connection_carries_one_message_after_another(self, harness: Harness):
        """A usable connection takes the next message; each is accepted once."""
        channel = await harness.start("accepted")
        connection = await channel.connect()
        assert not isinstance(connection, ChannelFault)

        for _ in range(3):
            assert connection.usable
            ended = await connection.submit(order_for(MAILS["plain"]), Mark())
            same((Sent,), ends_of(ended))
        await connection.aclose()
        await channel.aclose()
        await harness.settled()

        same(3, harness.accepted)

    async def test_what_comes_next_may_be_begun_ahead(self, harness: Harness):
        """Told of the next message or not, a connection has each accepted once, at its own turn and with its own mark."""
        channel = await harness.start("accepted")
        connection = await channel.connect()
        assert not isinstance(connection, ChannelFault)
        orders = [order_for(MAILS["plain"]) for _ in range(3)]

        for number, order in enumerate(orders):
            assert connection.usable
            mark = Mark()
            ended = await connection.submit(order, mark, coming(orders[number + 1 :]))
            same((Sent,), ends_of(ended))
            same((1, number + 1), (len(mark.told), harness.accepted))
        await connection.aclose()
        await channel.aclose()
        await harness.settled()

        same(3, harness.accepted)

    @pytest.mark.parametrize("instead", ["another one", "nothing"])
    async def test_what_was_to_come_next_and_does_not_is_not_accepted(self, harness: Harness, instead: str):
        """Whatever a connection made of the next message ahead, without its own submission nobody gets it."""
        channel = await harness.start("accepted")
        connection = await channel.connect()
        assert not isinstance(connection, ChannelFault)
        first, second, third = (order_for(MAILS[name]) for name in ("plain", "three", "plain"))

        await connection.submit(first, Mark(), coming([second]))
        if instead == "another one":
            same((Sent,), ends_of(await connection.submit(third, Mark())))
        await connection.aclose()
        await channel.aclose()
        await harness.settled()

        same(2 if instead == "another one" else 1, harness.accepted)
        same([ADA.address], harness.seen().recipients)


def coming(orders: list[Order]) -> Ahead:
    """What a lane tells a connection of the orders behind the one it submits."""

    async def ahead() -> Order | None:
        return orders[0] if orders else None

    return ahead


def skip_impossible(harness: Harness, name: str) -> None:
    """Skip a scenario that the harness says cannot happen on its channel, with its reason."""
    if name in harness.impossible:
        pytest.skip(harness.impossible[name])


async def terminate(task: "asyncio.Task[Submission]") -> None:
    """Send this process a SIGTERM, which cancels the task as the end of a worker's patience does."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, heard.set)
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(heard.wait(), 5)
        await cancel(task)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def cancel(task: "asyncio.Task[Submission]") -> None:
    """Cancel the task and wait for its end, which must be the cancellation itself, within a second."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 1)
