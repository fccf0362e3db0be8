"""Channels that stand still: on what evidence, who tries them, what becomes of the mail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_delivered, until
from tests.ledger.harness import Ledger
from tests.stack import QUICK, Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
BREAKER = '[breaker]\nfaults = 3\nwindow = "2s"\nrefusals = 5\nrefusal_window = "5s"\nshortest = "200ms"\nlongest = "1s"'
PATIENT = 'on_ambiguous = "hold"\nconnections = 2'


@asynccontextmanager
async def running(
    folder: Path, receiver: Receiver, agent: str = "", workers: int = 2
) -> AsyncIterator[Stack]:
    async with Stack(folder, receiver.port, worker=QUICK, agent=agent, more=BREAKER) as stack:
        names = [f"w{number}" for number in range(workers)]
        await asyncio.gather(stack.start_api(), stack.start_workers(*names))
        yield stack


def lines(stack: Stack, event: str) -> list[dict[str, object]]:
    """Return the workers' log lines of one event."""
    names = [name for name in stack.processes if name != "api"]
    return [line for name in names for line in stack.logs(name) if line["event"] == event]


async def until_reason(stack: Stack, message_id: str, code: str) -> dict[str, object]:
    """Wait until a message waits for that reason."""
    found: dict[str, object] = {}

    async def is_so() -> bool:
        nonlocal found
        found = await stack.get(message_id)
        return (found.get("reason") or {}).get("code") == code

    await stack.until(is_so, code)
    return found


async def test_one_connection_that_fails_stops_nothing(folder: Path):
    """A single failed connect is tried again at once: the breaker stays closed and the mail is sent."""
    async with Receiver({"CONNECT": ["drop", "ok"]}) as receiver, running(folder, receiver) as stack:
        message_id = await stack.accept(sample("one"))
        await assert_delivered(stack, receiver, [message_id])
        assert [] == lines(stack, "breaker.opened")
        assert 1 == len(lines(stack, "channel.faulty"))


async def test_a_channel_down_is_probed_by_one_and_releases_itself(folder: Path):
    """Thirty messages and a server that drops everybody: it stands still, is tried now and then, then all goes."""
    script = {"CONNECT": "drop"}
    async with Receiver(script) as receiver, running(folder, receiver) as stack:
        ids = [await stack.accept(sample(f"d-{n}")) for n in range(30)]
        message = await until_reason(stack, ids[0], "channel_connect")
        assert ([], "agent") == (message["attempts"], message["reason"]["fault"])
        assert 1 == len(lines(stack, "breaker.opened"))
        before = receiver.connections
        await until(lambda: receiver.connections >= before + 3, "it is tried again and again")
        # One at a time: no crowd of lanes meets a server that is down.
        assert 1 >= receiver.open
        receiver.script = {}
        messages = await assert_delivered(stack, receiver, ids)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        await until(lambda: len(lines(stack, "breaker.closed")) == 1, "the breaker is closed")


async def test_a_server_that_refuses_everything_is_its_own_fault(folder: Path):
    """Everything is refused: a few messages fail, the rest wait with the reason, and go when the server is mended."""
    async with Receiver({"DOT": "554 5.7.1 no"}) as receiver, running(folder, receiver) as stack:
        ids = [await stack.accept(sample(f"r-{n}")) for n in range(40)]
        await until(lambda: lines(stack, "breaker.opened") != [], "the channel stands still")
        receiver.script = {}
        messages = await stack.until_all_finished(ids)
        states = [message["state"] for message in messages.values()]
        assert {"failed", "sent"} == set(states)
        assert 4 == states.count("failed")
        opened = lines(stack, "breaker.opened")
        assert ("policy", 554) == (opened[0]["cause"], opened[0]["reply_code"])


async def test_a_few_bad_recipients_among_good_ones_are_theirs(folder: Path):
    """Refusals between which mail is sent fail their own messages, however many there are in all."""
    script = {"RCPT:nobody@example.com": "550 5.1.1 nobody"}
    async with Receiver(script) as receiver, running(folder, receiver, workers=1) as stack:
        for number in range(8):
            bad = [{"address": "nobody@example.com"}]
            refused = [await stack.accept(sample(f"b-{number}-{n}", to=bad)) for n in range(3)]
            good = await stack.accept(sample(f"g-{number}"))
            await stack.until_all_finished([*refused, good])
            assert "failed" == (await stack.get(refused[0]))["state"]
        assert [] == lines(stack, "breaker.opened")


async def test_a_throttle_blocks_the_agent_for_all_workers(folder: Path):
    """421 in place of MAIL's reply: both workers leave the server alone, no attempt is spent, then it goes on."""
    script = {"MAIL": ["421 4.7.0 slow down", "ok"]}
    async with Receiver(script) as receiver, running(folder, receiver) as stack:
        ids = [await stack.accept(sample(f"t-{n}")) for n in range(20)]
        messages = await assert_delivered(stack, receiver, ids)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        assert ["throttle"] == [line["cause"] for line in lines(stack, "breaker.opened")]


async def test_all_workers_heed_one_answer(folder: Path):
    """In the midst of a load one connection is told to slow down: what is in hand still goes, then all are quiet."""
    slow = '[breaker]\nshortest = "2s"'
    async with (
        Receiver({"DOT": "slow 0.02"}) as receiver,
        Stack(folder, receiver.port, worker=QUICK, agent="connections = 4", more=slow) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_workers("w1", "w2"))
        ids = await stack.accept_many(sample(f"h-{n}") for n in range(500))
        await receiver.until_mails(30)
        receiver.script = {
            "DOT": "slow 0.02",
            "MAIL": ["ok"] * (receiver.times["MAIL"] + 1) + ["421 4.7.0 slow", "ok"],
        }
        await until(lambda: lines(stack, "breaker.opened") != [], "the channel stands still")
        opened = len(receiver.mails)
        await asyncio.sleep(1.5)
        assert len(receiver.mails) - opened <= 8, "somebody went on"
        messages = await assert_delivered(stack, receiver, ids)
        assert {1} == {len(message["attempts"]) for message in messages.values()}


async def test_a_server_that_puts_everything_off_is_left_alone(folder: Path):
    """451 for everything: after a few it is tried less and less, and the mail goes when it is well again."""
    async with Receiver({"DOT": "451 4.3.0 later"}) as receiver, running(folder, receiver) as stack:
        ids = [await stack.accept(sample(f"o-{n}")) for n in range(60)]
        await until(lambda: lines(stack, "breaker.opened") != [], "the channel stands still")
        tried = receiver.times["DOT"]
        assert tried < 20, "the crowd went on"
        receiver.script = {}
        waiting = [i for i, m in (await stack.get_many(ids)).items() if not m["attempts"]]
        assert len(waiting) > 20
        messages = await stack.until_all_finished(waiting)
        assert {"sent"} == {message["state"] for message in messages.values()}


async def test_one_greylisted_recipient_slows_nobody(folder: Path):
    """A single 451 4.7.1 between mail that is sent stops nothing; three in a row do."""
    script = {"RCPT:grey@example.com": "451 4.7.1 greylisted"}
    grey = [{"address": "grey@example.com"}]
    async with Receiver(script) as receiver, running(folder, receiver, workers=1) as stack:
        for number in range(4):
            first = await stack.accept(sample(f"grey-{number}", to=grey))
            await until_reason(stack, first, "retrying")
            await stack.until_finished(await stack.accept(sample(f"good-{number}")))
        assert [] == lines(stack, "breaker.opened")
        for number in range(3):
            await stack.accept(sample(f"more-{number}", to=grey))
        await until(lambda: lines(stack, "breaker.opened") != [], "the channel stands still")
        assert "throttle" == lines(stack, "breaker.opened")[0]["cause"]


@pytest.mark.parametrize(
    "script",
    [
        {"RCPT": "454 Throttling failure"},
        {"RCPT:ada@example.com": "450 4.2.1 busy", "RCPT:bob@example.com": "450 4.7.1 slow down"},
    ],
    ids=["454", "one of two"],
)
async def test_being_told_to_slow_down_again_and_again_is_heeded(folder: Path, script: dict[str, str]):
    """A bare 454 at RCPT, or 4.7.x for the second recipient only: three in a row let all of the agent's mail wait."""
    two = [{"address": "ada@example.com"}, {"address": "bob@example.com"}]
    async with Receiver(script) as receiver, running(folder, receiver, workers=1) as stack:
        for number in range(2):
            await until_reason(stack, await stack.accept(sample(f"slow-{number}", to=two)), "retrying")
        assert [] == lines(stack, "breaker.opened")
        for number in range(6):
            await stack.accept(sample(f"more-{number}", to=two))
        await until(lambda: lines(stack, "breaker.opened") != [], "the channel stands still")
        assert "throttle" == lines(stack, "breaker.opened")[0]["cause"]


@pytest.mark.parametrize(
    "script",
    [{"MAIL": "drop"}, {"RCPT": "reset"}, {"DATA": "drop"}, {"BODY": "reset"}, {"DOT": "drop"}],
    ids=str,
)
async def test_a_server_that_hangs_up_in_the_midst_of_mail_is_left_alone(
    folder: Path, script: dict[str, str]
):
    """Wherever it does: after three the others wait for the channel with their attempts unspent, and go when it works."""
    async with Receiver(script) as receiver, running(folder, receiver, workers=1, agent=PATIENT) as stack:
        ids = [await stack.accept(sample(f"h-{n}")) for n in range(30)]
        await until(lambda: lines(stack, "breaker.opened") != [], "the channel stands still")
        opened = lines(stack, "breaker.opened")[0]
        assert ("connect", None) == (opened["cause"], opened["reply_code"])
        assert "hangs up" in str(opened["text"])
        messages = await stack.get_many(ids)
        untouched = [i for i in ids if not messages[i]["attempts"]]
        assert len(untouched) >= 20, "the crowd went on"
        receiver.script = {}
        messages = await stack.until_all_finished(untouched)
        # One of them may have been the probe that was under way.
        assert len(untouched) - 1 <= [message["state"] for message in messages.values()].count("sent")


async def test_a_server_that_hangs_up_now_and_then_stops_nothing(folder: Path):
    """Two that are cut off and one that is sent, over and over: each attempt is its message's own matter."""
    script = {"DATA": ["drop", "drop", "ok"] * 4}
    async with Receiver(script) as receiver, running(folder, receiver, workers=1) as stack:
        for number in range(12):
            message_id = await stack.accept(sample(f"n-{number}"))

            async def is_over(message_id: str = message_id) -> bool:
                return (await stack.get(message_id))["attempts"] != []

            await stack.until(is_over, "an attempt")
        assert 4 == len(receiver.mails)
        assert [] == lines(stack, "breaker.opened")


async def test_the_day_ends_at_its_last_recipient(folder: Path):
    """With `per_day = 5`, five of nine messages go, whichever worker sends them; the rest waits for midnight."""
    async with Receiver() as receiver, running(folder, receiver, agent="per_day = 5") as stack:
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


async def test_a_dead_first_channel_costs_the_second_nothing(folder: Path):
    """With the first channel down the second sends, and the first takes over again once it works."""
    async with Receiver({"CONNECT": "drop"}) as first, Receiver() as second:
        spare = agent_toml(
            "spare", channel("spare", first.port, "first"), channel("spare", second.port, "second")
        )
        async with Stack(folder, second.port, worker=QUICK, agents={"spare": spare}, more=BREAKER) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            ids = [await stack.accept(sample(f"s-{n}", agent="spare")) for n in range(20)]
            await assert_delivered(stack, second, ids)
            first.script = {}

            async def back() -> bool:
                await stack.accept(sample(f"s-{stack.port}-{len(second.mails)}", agent="spare"))
                return len(first.mails) > 0

            await stack.until(back, "the first channel is used again")
