"""Priorities within an agent: high mail hardly notices a flood, and bulk mail is not starved."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_delivered, waited
from tests.stack import QUICK, Stack, sample

pytestmark = pytest.mark.timeout(SECONDS)
SEND = 0.05  # seconds the server takes for a message


@pytest.mark.parametrize("connections", [1, 3])
async def test_a_bulk_flood_delays_high_mail_by_one_send(folder: Path, connections: int):
    """Amid a flood of bulk a high message waits for one send that is under way, and not for the ones claimed with it."""
    agent = f"connections = {connections}"
    async with (
        Receiver({"DOT": f"slow {SEND}"}) as receiver,
        Stack(folder, receiver.port, worker=QUICK, agent=agent) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker())
        flood = [await stack.accept(sample(f"b-{n}", priority="bulk")) for n in range(60 * connections)]
        await receiver.until_mails(5)
        urgent = []
        for number in range(8):
            urgent.append(await stack.accept(sample(f"h-{number}", priority="high")))
            await stack.until_finished(urgent[-1])
        left = [i for i in flood[-5:] if not (await stack.get(i))["finished"]]
        assert left, "the flood ended too soon to tell anything"
        messages = await stack.get_many(urgent)
        times = sorted(map(waited, messages.values()))
        print([round(seconds, 3) for seconds in times])  # noqa: T201
        # One send under way, its own, and what a busy machine adds.
        assert times[len(times) // 2] <= 2 * SEND + 0.05
        assert times[-1] <= 2 * SEND + 0.3


async def test_with_a_rate_high_mail_gets_the_next_token(folder: Path):
    """At ten a second with bulk waiting, a high message goes with the next token, not behind eight of bulk."""
    agent = 'rate = "10/s"\nburst = 1'
    async with Receiver() as receiver, Stack(folder, receiver.port, worker=QUICK, agent=agent) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        for number in range(80):
            await stack.accept(sample(f"b-{number}", priority="bulk"))
        await receiver.until_mails(5)
        urgent = []
        for number in range(8):
            urgent.append(await stack.accept(sample(f"h-{number}", priority="high")))
            await stack.until_finished(urgent[-1])
        times = sorted(map(waited, (await stack.get_many(urgent)).values()))
        print([round(seconds, 3) for seconds in times])  # noqa: T201
        assert times[-1] <= 0.1 + 0.15


async def test_a_flood_of_high_mail_leaves_bulk_a_share(folder: Path):
    """While high mail keeps coming faster than it can go, some bulk goes all the same."""
    agent = 'rate = "50/s"\nburst = 1'
    async with Receiver() as receiver, Stack(folder, receiver.port, worker=QUICK, agent=agent) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        high = await stack.accept_many(sample(f"h-{n}", priority="high") for n in range(250))
        bulk = [await stack.accept(sample(f"b-{n}", priority="bulk")) for n in range(3)]
        await stack.until_all_finished(bulk)
        left = await stack.get_many(list(high)[-5:])
        assert any(not message["finished"] for message in left.values())
        await assert_delivered(stack, receiver, [*bulk, *high])
