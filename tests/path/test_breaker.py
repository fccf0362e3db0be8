"""Channels that stand still: on what evidence, who tries them, what becomes of the mail."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.mail import SECONDS, Receiver, assert_delivered, until
from tests.ledger.harness import Ledger
from tests.stack import QUICK, Stack, sample
from tests.street import Street, open_street

pytestmark = [pytest.mark.timeout(SECONDS), pytest.mark.asyncio(loop_scope="module")]
BREAKER = '[breaker]\nfaults = 3\nwindow = "2s"\nrefusals = 5\nrefusal_window = "5s"\nshortest = "200ms"\nlongest = "1s"'
PATIENT = 'on_ambiguous = "hold"\nconnections = 2\nretry_profile = "interactive"'
TOLD = [
    {"RCPT": "454 Throttling failure"},
    {"RCPT:ada@example.com": "450 4.2.1 busy", "RCPT:bob@example.com": "450 4.7.1 slow down"},
]
HANGUPS = [{"MAIL": "drop"}, {"RCPT": "reset"}, {"DATA": "drop"}, {"BODY": "reset"}, {"DOT": "drop"}]
HOUSES = {
    **dict.fromkeys(
        ["lonely", "down", "refusing", "mixed", "throttled", "deferring", "grey", "moody", "spare"], ""
    ),
    **dict.fromkeys([f"told-{n}" for n in range(len(TOLD))], ""),
    **dict.fromkeys([f"hangup-{n}" for n in range(len(HANGUPS))], PATIENT),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def street() -> AsyncIterator[Street]:
    async with open_street(HOUSES, two_channels=["spare"], more=BREAKER) as opened:
        yield opened


async def test_one_connection_that_fails_stops_nothing(street: Street):
    """A single failed connect is tried again at once: the breaker stays closed and the mail is sent."""
    house = street.house("lonely", {"CONNECT": ["drop", "ok"]})
    message_id = await house.accept("one")
    await assert_delivered(street.stack, house.receiver, [message_id])
    assert [] == house.lines("breaker.opened")
    assert 1 == len(house.lines("channel.faulty"))


async def test_a_channel_down_is_probed_by_one_and_releases_itself(street: Street):
    """Thirty messages and a server that drops everybody: it stands still, is tried now and then, then all goes."""
    house = street.house("down", {"CONNECT": "drop"})
    receiver = house.receiver
    ids = [await house.accept(f"d-{n}") for n in range(30)]
    message = await house.until_reason(ids[0], "channel_connect")
    assert ([], "agent") == (message["attempts"], message["reason"]["fault"])
    # The ledger has it a moment before the worker can say so.
    await until(lambda: len(house.lines("breaker.opened")) == 1, "the breaker is open")
    before = receiver.connections
    await until(lambda: receiver.connections >= before + 3, "it is tried again and again")
    # One at a time: no crowd of lanes meets a server that is down.
    assert 1 >= receiver.open
    receiver.script = {}
    messages = await assert_delivered(street.stack, receiver, ids)
    assert {1} == {len(message["attempts"]) for message in messages.values()}
    await until(lambda: len(house.lines("breaker.closed")) == 1, "the breaker is closed")
    assert 1 == len(house.lines("breaker.opened"))


async def test_a_server_that_refuses_everything_is_its_own_fault(street: Street):
    """Everything is refused: a few messages fail, the rest wait with the reason, and go when the server is mended."""
    house = street.house("refusing", {"DOT": "554 5.7.1 no"})
    ids = [await house.accept(f"r-{n}") for n in range(40)]
    await until(lambda: house.lines("breaker.opened") != [], "the channel stands still")
    house.receiver.script = {}
    messages = await street.stack.until_all_finished(ids)
    states = [message["state"] for message in messages.values()]
    assert {"failed", "sent"} == set(states)
    assert 4 == states.count("failed")
    opened = house.lines("breaker.opened")
    assert ("policy", 554) == (opened[0]["cause"], opened[0]["reply_code"])


async def test_a_few_bad_recipients_among_good_ones_are_theirs(street: Street):
    """Refusals between which mail is sent fail their own messages, however many there are in all."""
    house = street.house("mixed", {"RCPT:nobody@example.com": "550 5.1.1 nobody"})
    for number in range(8):
        bad = [{"address": "nobody@example.com"}]
        refused = [await house.accept(f"b-{number}-{n}", to=bad) for n in range(3)]
        good = await house.accept(f"g-{number}")
        await street.stack.until_all_finished([*refused, good])
        assert "failed" == (await street.stack.get(refused[0]))["state"]
    assert [] == house.lines("breaker.opened")


async def test_a_throttle_blocks_the_agent_for_all_workers(street: Street):
    """421 in place of MAIL's reply: both workers leave the server alone, no attempt is spent, then it goes on."""
    house = street.house("throttled", {"MAIL": ["421 4.7.0 slow down", "ok"]})
    ids = [await house.accept(f"t-{n}") for n in range(20)]
    messages = await assert_delivered(street.stack, house.receiver, ids)
    assert {1} == {len(message["attempts"]) for message in messages.values()}
    assert ["throttle"] == [line["cause"] for line in house.lines("breaker.opened")]


async def test_all_workers_heed_one_answer(folder: Path):
    """In the midst of a load one connection is told to slow down: what is in hand still goes, then all are quiet."""
    slow = '[breaker]\nshortest = "2s"'
    async with (
        Receiver({"DOT": "slow 0.02"}) as receiver,
        Stack(folder, receiver.port, worker=QUICK, agent="connections = 4", more=slow) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_workers("w1", "w2"))
        ids = await stack.accept_many(sample(f"h-{n}") for n in range(250))
        await receiver.until_mails(30)
        receiver.script = {
            "DOT": "slow 0.02",
            "MAIL": ["ok"] * (receiver.times["MAIL"] + 1) + ["421 4.7.0 slow", "ok"],
        }
        await until(
            lambda: any(line["event"] == "breaker.opened" for line in stack.logs("w1") + stack.logs("w2")),
            "the channel stands still",
        )
        opened = len(receiver.mails)
        await asyncio.sleep(1.5)
        assert len(receiver.mails) - opened <= 8, "somebody went on"
        messages = await assert_delivered(stack, receiver, ids)
        assert {1} == {len(message["attempts"]) for message in messages.values()}


async def test_a_server_that_puts_everything_off_is_left_alone(street: Street):
    """451 for everything: after a few it is tried less and less, and the mail goes when it is well again."""
    house = street.house("deferring", {"DOT": "451 4.3.0 later"})
    ids = [await house.accept(f"o-{n}") for n in range(60)]
    await until(lambda: house.lines("breaker.opened") != [], "the channel stands still")
    tried = house.receiver.times["DOT"]
    assert tried < 20, "the crowd went on"
    house.receiver.script = {}
    waiting = [i for i, m in (await street.stack.get_many(ids)).items() if not m["attempts"]]
    assert len(waiting) > 20
    messages = await street.stack.until_all_finished(waiting)
    assert {"sent"} == {message["state"] for message in messages.values()}


async def test_one_greylisted_recipient_slows_nobody(street: Street):
    """A single 451 4.7.1 between mail that is sent stops nothing; three in a row do."""
    house = street.house("grey", {"RCPT:grey@example.com": "451 4.7.1 greylisted"})
    grey = [{"address": "grey@example.com"}]
    for number in range(4):
        first = await house.accept(f"grey-{number}", to=grey)
        await house.until_reason(first, "retrying")
        await street.stack.until_finished(await house.accept(f"good-{number}"))
    assert [] == house.lines("breaker.opened")
    for number in range(3):
        await house.accept(f"more-{number}", to=grey)
    await until(lambda: house.lines("breaker.opened") != [], "the channel stands still")
    assert "throttle" == house.lines("breaker.opened")[0]["cause"]


@pytest.mark.parametrize("number", range(len(TOLD)), ids=["454", "one of two"])
async def test_being_told_to_slow_down_again_and_again_is_heeded(street: Street, number: int):
    """A bare 454 at RCPT, or 4.7.x for the second recipient only: three in a row let all of the agent's mail wait."""
    house = street.house(f"told-{number}", TOLD[number])
    two = [{"address": "ada@example.com"}, {"address": "bob@example.com"}]
    for n in range(2):
        await house.until_reason(await house.accept(f"slow-{n}", to=two), "retrying")
    assert [] == house.lines("breaker.opened")
    for n in range(6):
        await house.accept(f"more-{n}", to=two)
    await until(lambda: house.lines("breaker.opened") != [], "the channel stands still")
    assert "throttle" == house.lines("breaker.opened")[0]["cause"]


@pytest.mark.parametrize("number", range(len(HANGUPS)), ids=map(str, HANGUPS))
async def test_a_server_that_hangs_up_in_the_midst_of_mail_is_left_alone(street: Street, number: int):
    """Wherever it does: after three the others wait for the channel with their attempts unspent, and go when it works."""
    house = street.house(f"hangup-{number}", HANGUPS[number])
    ids = [await house.accept(f"h-{n}") for n in range(30)]
    await until(lambda: house.lines("breaker.opened") != [], "the channel stands still")
    opened = house.lines("breaker.opened")[0]
    assert ("connect", None) == (opened["cause"], opened["reply_code"])
    assert "hangs up" in str(opened["text"])
    messages = await street.stack.get_many(ids)
    untouched = [i for i in ids if not messages[i]["attempts"]]
    assert len(untouched) >= 20, "the crowd went on"
    house.receiver.script = {}
    messages = await street.stack.until_all_finished(untouched)
    # One of them may have been the probe that was under way.
    assert len(untouched) - 1 <= [message["state"] for message in messages.values()].count("sent")


async def test_a_server_that_hangs_up_now_and_then_stops_nothing(street: Street):
    """Two that are cut off and one that is sent, over and over: each attempt is its message's own matter."""
    house = street.house("moody", {"DATA": ["drop", "drop", "ok"] * 4})
    for number in range(12):
        message_id = await house.accept(f"n-{number}")

        async def is_over(message_id: str = message_id) -> bool:
            return (await street.stack.get(message_id))["attempts"] != []

        await street.stack.until(is_over, "an attempt")
    assert 4 == len(house.receiver.mails)
    assert [] == house.lines("breaker.opened")


async def test_the_day_ends_at_its_last_recipient(folder: Path):
    """With `per_day = 5`, five of nine messages go, whichever worker sends them; the rest waits for midnight."""
    async with (
        Receiver() as receiver,
        Stack(folder, receiver.port, worker=QUICK, agent="per_day = 5", more=BREAKER) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_workers("w1", "w2"))
        ids = [await stack.accept(sample(f"day-{n}")) for n in range(9)]
        await receiver.until_mails(5)
        calls = await stack.script_calls(1.5)
        assert 5 == len(receiver.mails)
        assert calls["claim"] <= 15, calls
        states = [(await stack.get(message_id))["state"] for message_id in ids]
        assert {"sent": 5, "queued": 4} == {state: states.count(state) for state in set(states)}
        # Whoever lost the race for the last place at its mark has kept its place in the queue.
        ledger = Ledger(stack.redis.url)
        try:
            for message_id in (i for i, state in zip(ids, states, strict=True) if state == "queued"):
                assert (await ledger.record(message_id)).next_at == await ledger.score(message_id)
        finally:
            await ledger.aclose()


async def test_a_dead_first_channel_costs_the_second_nothing(street: Street):
    """With the first channel down the second sends, and the first takes over again once it works."""
    house = street.house("spare", {"CONNECT": "drop"})
    ids = [await house.accept(f"s-{n}") for n in range(20)]
    await assert_delivered(street.stack, house.second, ids)
    house.receiver.script = {}

    async def back() -> bool:
        await house.accept(f"back-{len(house.second.mails)}")
        return len(house.receiver.mails) > 0

    await street.stack.until(back, "the first channel is used again")
