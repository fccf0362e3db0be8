"""Priorities within an agent: high mail hardly notices a flood, and bulk mail is not starved."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.mail import SECONDS, assert_delivered, waited
from tests.street import House, Street, open_street

pytestmark = [pytest.mark.timeout(SECONDS), pytest.mark.asyncio(loop_scope="module")]
SEND = 0.05  # seconds the server takes for a message
HOUSES = {
    "one": "connections = 1",
    "three": "connections = 3",
    "paced": 'rate = "10/s"\nburst = 1',
    "shared": 'rate = "50/s"\nburst = 1',
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def street() -> AsyncIterator[Street]:
    async with open_street(HOUSES) as opened:
        yield opened


async def time_high_mail(house: House) -> list[float]:
    """Send eight high messages one after the other; return the seconds that each took."""
    urgent = []
    for number in range(8):
        urgent.append(await house.accept(f"h-{number}", priority="high"))
        await house.stack.until_finished(urgent[-1])
    times = sorted(map(waited, (await house.stack.get_many(urgent)).values()))
    print([round(seconds, 3) for seconds in times])  # noqa: T201
    return times


@pytest.mark.parametrize(("name", "connections"), [("one", 1), ("three", 3)])
async def test_a_bulk_flood_delays_high_mail_by_one_send(street: Street, name: str, connections: int):
    """Amid a flood of bulk a high message waits for one send that is under way, and not for the ones claimed with it."""
    house = street.house(name, {"DOT": f"slow {SEND}"})
    flood = [await house.accept(f"b-{n}", priority="bulk") for n in range(60 * connections)]
    await house.receiver.until_mails(5)
    times = await time_high_mail(house)
    left = [i for i in flood[-5:] if not (await street.stack.get(i))["finished"]]
    assert left, "the flood ended too soon to tell anything"
    # One send under way, its own, and what a busy machine adds.
    assert times[len(times) // 2] <= 2 * SEND + 0.05
    assert times[-1] <= 2 * SEND + 0.3


async def test_with_a_rate_high_mail_gets_the_next_token(street: Street):
    """At ten a second with bulk waiting, a high message goes with the next token, not behind eight of bulk."""
    house = street.house("paced")
    for number in range(80):
        await house.accept(f"b-{number}", priority="bulk")
    await house.receiver.until_mails(5)
    times = await time_high_mail(house)
    assert times[-1] <= 0.1 + 0.15


async def test_a_flood_of_high_mail_leaves_bulk_a_share(street: Street):
    """While high mail keeps coming faster than it can go, some bulk goes all the same."""
    house, stack = street.house("shared"), street.stack
    high = await stack.accept_many(house.sample(f"h-{n}", priority="high") for n in range(150))
    bulk = [await house.accept(f"b-{n}", priority="bulk") for n in range(3)]
    await stack.until_all_finished(bulk)
    left = await stack.get_many(list(high)[-5:])
    assert any(not message["finished"] for message in left.values())
    await assert_delivered(stack, house.receiver, [*bulk, *high])
