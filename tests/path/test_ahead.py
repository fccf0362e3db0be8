"""A message whose opening travelled with the dot of the one before it, and what may come between."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.desk import OPERATOR, postroom
from tests.faults.mail import SECONDS, Receiver, ambiguous, assert_delivered, until
from tests.stack import Stack, sample
from tests.street import Street, open_street

pytestmark = [pytest.mark.timeout(SECONDS), pytest.mark.asyncio(loop_scope="module")]
LEASE = 'lease = "2s"\nlinger = "500ms"\nsweep = "200ms"\nround = "5s"'
ONE = "connections = 1"
HOUSES = {
    "run": ONE,
    "called-back": ONE,
    "too-late": ONE,
    "used-up": f"{ONE}\nper_day = 100",
    "paused": ONE,
    "urgent": ONE,
    "refused": f'{ONE}\nretry_profile = "interactive"',
    "faulty": ONE,
}
# The first is held up until the others are accepted, so that they are claimed at once; the second, so that something
# may happen.
HELD = ["held", "slow 1", "ok"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def street() -> AsyncIterator[Street]:
    async with open_street(HOUSES, more=OPERATOR) as opened:
        yield opened


def numbered(number: int, agent: str, **changes) -> dict:
    return sample(f"{agent}-{number}", agent=agent, to=[{"address": f"m{number}@example.com"}]) | changes


async def begin(stack: Stack, receiver: Receiver, agent: str = "orders", **third) -> list[str]:
    """Post four messages, and return when the dot of the second is out, with the opening of the third."""
    ids = [await stack.accept(numbered(0, agent))]
    await receiver.until("DOT")
    ids += [await stack.accept(numbered(n, agent, **(third if n == 2 else {}))) for n in (1, 2, 3)]
    receiver.release()
    await receiver.until("DOT", 2)
    return ids


def openings(receiver: Receiver, number: int) -> int:
    """How often a message's recipient was named."""
    return receiver.lines.count(f"RCPT TO:<m{number}@example.com>")


async def test_a_run_of_messages_goes_over_one_connection(street: Street):
    """Each arrives once, in order, over one connection, in one attempt, begun with the dot before it."""
    house, stack = street.house("run", {"DOT": HELD}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "run")
    # The server sleeps before its yes to the second, and has not read on.
    assert 0 == openings(receiver, 2)
    messages = await assert_delivered(stack, receiver, ids)
    assert (ids, 1) == (receiver.order(), receiver.connections)
    assert {1} == {len(message["attempts"]) for message in messages.values()}
    sent = [line for line in house.lines("message.sent") if line["message_id"] in ids]
    assert all(line["render_ms"] > 0 and line["submit_ms"] > 0 for line in sent)


async def test_called_back_after_its_opening(street: Street):
    """A message cancelled while its opening is out never arrives, and the one behind it does.

    A renewal tells the lane, which goes on to the next one at once, over a new connection.
    """
    house, stack = street.house("called-back", {"DOT": HELD}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "called-back")
    async with stack.session.post(f"{stack.url}/v1/messages/{ids[2]}/cancel") as response:
        assert 200 == response.status
    await assert_delivered(stack, receiver, [ids[0], ids[1], ids[3]])
    assert "cancelled" == (await stack.get(ids[2]))["state"]
    assert (1, [ids[0], ids[1], ids[3]]) == (openings(receiver, 2), receiver.order())
    assert ([], 2) == (house.lines("fence.rejected"), receiver.connections)


async def test_its_time_is_up_after_its_opening(street: Street):
    """Its mark comes too late: it expires, and nothing of it is accepted."""
    house, stack = street.house("too-late", {"DOT": ["held", "slow 1.3", "ok"]}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "too-late", deliver_within=1)
    await assert_delivered(stack, receiver, [ids[0], ids[1], ids[3]])
    assert "expired" == (await stack.until_finished(ids[2]))["state"]
    assert (1, [ids[0], ids[1], ids[3]]) == (openings(receiver, 2), receiver.order())
    assert [ids[2]] == [line["message_id"] for line in house.lines("mark.too_late")]


async def test_the_day_is_used_up_after_its_opening(street: Street):
    """No more than the day's recipients are sent; the one that was begun waits for tomorrow, untouched."""
    house, stack = street.house("used-up", {"DOT": HELD}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "used-up")
    (key,) = [key async for key in stack.ledger.scan_iter("*day:used-up")]
    start, _, _ = (await stack.ledger.get(key)).partition(b"|")
    await stack.ledger.set(key, start + b"|100", keepttl=True)
    await assert_delivered(stack, receiver, ids[:2])
    await until(lambda: house.lines("day.used_up"), "the day is used up")
    message = await stack.get(ids[2])
    assert ("queued", []) == (message["state"], message["attempts"])
    assert (1, ids[:2]) == (openings(receiver, 2), receiver.order())


async def test_paused_after_its_opening(street: Street):
    """The lane stops at once: what was begun is not sent, and is once the agent goes on."""
    house, stack = street.house("paused", {"DOT": HELD}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "paused")
    await postroom(stack, "pause", "paused", "--reason", "look", "--for", "1h")
    await until(lambda: receiver.open == 0, "it hangs up")
    assert (1, ids[:2]) == (openings(receiver, 2), receiver.order())
    assert ("queued", []) == ((message := await stack.get(ids[2]))["state"], message["attempts"])
    await postroom(stack, "resume", "paused")
    messages = await assert_delivered(stack, receiver, ids)
    assert ({1}, ids) == ({len(m["attempts"]) for m in messages.values()}, receiver.order())


async def test_urgent_mail_comes_before_what_is_begun(street: Street):
    """High mail waits for the one send under way; the begun one goes after it, once, and nothing is mixed up.

    That costs a connection once: for a while nothing more is begun that high mail would go before.
    """
    house, stack = street.house("urgent", {"DOT": [*HELD, "slow 1", "ok"]}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "urgent")
    high = await stack.accept(numbered(8, "urgent", priority="high"))
    await receiver.until("DOT", 4)
    higher = await stack.accept(numbered(9, "urgent", priority="high"))
    messages = await assert_delivered(stack, receiver, [*ids, high, higher])
    assert [*ids[:2], high, ids[2], higher, ids[3]] == receiver.order()
    assert {1} == {len(message["attempts"]) for message in messages.values()}
    assert [2, 1, 1, 1, 2] == [*(openings(receiver, number) for number in (2, 3, 8, 9)), receiver.connections]
    sent_to = [[f"m{number}@example.com"] for number in (0, 1, 8, 2, 9, 3)]
    assert sent_to == [mail.recipients for mail in receiver.mails]


async def test_the_one_before_it_is_refused(street: Street):
    """A refusal of the second is the second's alone."""
    house, stack = street.house("refused", {"DOT": ["held", "552 5.3.4 no", "ok"]}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "refused")
    await assert_delivered(stack, receiver, [ids[0], ids[2], ids[3]])
    assert "failed" == (await stack.until_finished(ids[1]))["state"]
    assert ([ids[0], ids[2], ids[3]], 1) == (receiver.order(), receiver.connections)


async def test_the_channel_is_stopped_by_the_one_before_it(street: Street):
    """A fault in the reply to the second stops the channel: the third goes back untouched, and both are sent later."""
    house, stack = street.house("faulty", {"DOT": ["held", "454 4.7.0 slow down", "ok"]}), street.stack
    receiver = house.receiver
    ids = await begin(stack, receiver, "faulty")
    messages = await assert_delivered(stack, receiver, ids)
    assert {1} == set(receiver.copies().values())
    assert 1 == len(messages[ids[2]]["attempts"])


@pytest.mark.parametrize("how", ["terminated", "killed", "frozen"])
async def test_a_worker_ends_after_the_opening(folder: Path, how: str):
    """What was begun is sent once, by another worker; of the one whose dot is out, `hold` knows to say nothing.

    A worker that is terminated waits for that one's answer. One that was frozen goes on after its leases have run
    out, with a transaction open, and sends nothing of it.
    """
    async with Receiver({"DOT": HELD}) as receiver:
        agent = f'{ONE}\non_ambiguous = "hold"'
        async with Stack(folder, receiver.port, worker=LEASE, agent=agent) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker("first"))
            ids = await begin(stack, receiver)
            if how == "terminated":
                assert 0 == await stack.end("first")
            elif how == "killed":
                stack.kill("first")
            else:
                stack.pause("first")
            await stack.start_worker("heir")
            others = [ids[0], ids[2], ids[3]]
            await stack.until_all_finished(others)
            if how == "frozen":
                stack.resume("first")
            second = await stack.until_finished(ids[1])
            assert dict.fromkeys(ids, 1) == dict(receiver.copies())
            # Begun by the first, and once more by the heir. Of one that was killed the server may have read no more.
            lost = how == "killed"
            assert openings(receiver, 2) in ((1, 2) if lost else (2,))
            assert ("unconfirmed" if lost else "sent", int(lost)) == (second["state"], ambiguous(second))
            assert ([], []) == (stack.mishaps(), stack.exited())
