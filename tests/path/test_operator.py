"""The operator's hand on mail that moves: pauses, preferences, acts by filter, storms, superseded codes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.desk import OPERATOR, postroom
from tests.faults.mail import SECONDS, assert_delivered
from tests.street import Street, open_street

pytestmark = [pytest.mark.timeout(SECONDS), pytest.mark.asyncio(loop_scope="module")]
HOUSES = {
    "paused": 'connections = 2\nowner = "team-shop"',
    "sleeping": "",
    "preferring": "",
    "coded": "",
    "stormy": 'storm = { limit = 2, window = "1h" }',
    "wrong": "connections = 1",
    "right": "",
    "doubted": 'on_ambiguous = "hold"',
    "put-off": "connections = 1",
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def street() -> AsyncIterator[Street]:
    async with open_street(HOUSES, two_channels=["preferring"], more=OPERATOR) as opened:
        yield opened


async def test_a_pause_stops_lanes_at_once_and_resume_lets_them_go_on(street: Street):
    """In the midst of a load: at most the messages in hand still go; callers see why; nothing is lost or burnt."""
    house, stack = street.house("paused", {"DOT": "slow 0.2"}), street.stack
    receiver = house.receiver
    accepted = await stack.accept_many(house.sample(f"p-{n}") for n in range(250))
    await receiver.until_mails(20)
    await postroom(stack, "pause", "paused", "--reason", "provider incident", "--for", "1h")

    async def quiet() -> bool:
        before = len(receiver.mails)
        await asyncio.sleep(0.3)
        return before == len(receiver.mails) and receiver.open == 0

    await stack.until(quiet, "nothing moves", 5)
    waiting = [i for i, m in (await stack.get_many(accepted)).items() if not m["finished"]]
    assert len(waiting) > 100, "the load was over too soon"
    message = await stack.get(waiting[-1])
    assert ("queued", "paused", []) == (message["state"], message["reason"]["code"], message["attempts"])
    assert "provider incident" in message["reason"]["text"]
    assert "team-shop" == message["reason"]["owner"]
    assert "paused" in await postroom(stack, "agents")
    receiver.script = {}
    await postroom(stack, "resume", "paused")
    messages = await assert_delivered(stack, receiver, accepted)
    assert {1} == {len(m["attempts"]) for m in messages.values()}
    changes = await postroom(stack, "changes", "--since", "1h")
    for kind in ("process.started", "template.published", "agent.paused", "agent.resumed"):
        assert kind in changes
    acted = [line for line in stack.logs("api") if line["event"] == "operator.acted"]
    assert [("pause", "provider incident"), ("resume", None)] == [(a["verb"], a["reason"]) for a in acted[:2]]
    assert {("operator", "t9")} == {(a["caller"], a["token_id"]) for a in acted}


async def test_a_pause_stops_mail_whose_connection_is_still_being_made(street: Street):
    """The message was claimed before the lane connected; once it has, it looks again before it sends."""
    house, stack = street.house("sleeping", {"CONNECT": "slow 4"}), street.stack
    message_id = await house.accept("one")

    async def connecting() -> bool:
        return house.receiver.open > 0

    await stack.until(connecting, "a connection is being made")
    assert "sending" == (await stack.get(message_id))["state"]
    await postroom(stack, "pause", house.name, "--reason", "wrong price")
    assert house.receiver.open > 0, "the pause came too late to tell anything"

    async def given_back() -> bool:
        return (await stack.get(message_id))["state"] == "queued" and house.receiver.open == 0

    await stack.until(given_back, "the message waits again")
    assert [] == house.receiver.mails
    house.receiver.script = {}
    await postroom(stack, "resume", house.name)
    message = await stack.until_finished(message_id)
    assert ("sent", 1) == (message["state"], len(message["attempts"]))


async def test_a_preferred_channel_takes_over_within_moments(street: Street):
    """The second channel is used while it is preferred, by all workers, without a restart."""
    house, stack = street.house("preferring"), street.stack
    await stack.until_finished(await house.accept("one"))
    await postroom(stack, "agents", "prefer", house.name, "--channel", "second", "--for", "2h")
    ids = [await house.accept(f"t-{n}") for n in range(10)]
    messages = await stack.until_all_finished(ids)
    assert {"second"} == {m["attempts"][0]["channel"] for m in messages.values()}
    await postroom(stack, "agents", "prefer", house.name, "--clear")
    message = await stack.until_finished(await house.accept("back"))
    assert "relay" == message["attempts"][0]["channel"]


async def test_of_three_codes_behind_a_pause_only_the_last_arrives(street: Street):
    """Older messages with the same collapse_key and recipient end as cancelled, superseded."""
    house, stack = street.house("coded"), street.stack
    await postroom(stack, "pause", house.name, "--reason", "maintenance")
    ids = [await house.accept(f"code-{n}", collapse_key="login") for n in range(3)]
    await postroom(stack, "resume", house.name)
    messages = await stack.until_all_finished(ids)
    assert ["cancelled", "cancelled", "sent"] == [messages[i]["state"] for i in ids]
    assert ["superseded"] * 2 == [messages[i]["reason"]["code"] for i in ids[:2]]
    assert [0, 0, 1] == [house.receiver.copies()[i] for i in ids]


async def test_a_storm_waits_until_somebody_lets_it_go(street: Street):
    """Beyond two of one template to one recipient mail waits; released by filter, all of it goes."""
    house, stack = street.house("stormy"), street.stack
    ids = [await house.accept(f"s-{n}") for n in range(5)]
    await stack.until_all_finished(ids[:2])
    held = [await stack.get(i) for i in ids[2:]]
    assert ["storm"] * 3 == [message["reason"]["code"] for message in held]
    braked = [line for line in stack.logs("api") if line["event"] == "storm.braked"]
    assert 1 == len(braked)
    assert "3 message(s) released" in await postroom(stack, "release", "--agent", house.name, "--yes")
    await assert_delivered(stack, house.receiver, ids)


async def test_mail_held_for_a_while_goes_on_by_itself(street: Street):
    """Held by filter while it waits for a slow server, it arrives after the hold, with nobody's help."""
    house, stack = street.house("put-off", {"DOT": "slow 0.3"}), street.stack
    ids = await stack.accept_many(house.sample(f"p-{n}") for n in range(6))
    words = ("pause", "--agent", house.name, "--reason", "prices", "--for", "4s", "--yes")
    held = int((await postroom(stack, *words)).split()[0])
    assert held > 0
    reasons = [(await stack.get(i))["reason"] for i in ids]
    assert held >= sum(reason is not None and reason["code"] == "held" for reason in reasons) > 0
    await assert_delivered(stack, house.receiver, ids)


async def test_wrong_mail_is_cancelled_by_filter_while_the_rest_goes_on(street: Street):
    """What is printed is what was cancelled; another agent's mail goes on, and the ledger's balance is drawn."""
    house, right, stack = street.house("wrong", {"DOT": "slow 0.2"}), street.house("right"), street.stack
    wrong = await stack.accept_many(house.sample(f"w-{n}") for n in range(300))
    assert "would be cancelled" in await postroom(stack, "cancel", "--agent", house.name)
    done = asyncio.create_task(
        postroom(stack, "cancel", "--template", "order_shipped", "--agent", house.name, "--yes")
    )
    other = [await right.accept(f"o-{n}") for n in range(5)]
    printed = int((await done).split()[0])
    messages = await stack.until_all_finished(wrong)
    states = [message["state"] for message in messages.values()]
    assert printed == states.count("cancelled") > 200
    assert {"cancelled", "sent"} >= set(states)
    await stack.until_all_finished(other)
    assert "Everything that was accepted is accounted for" in await postroom(stack, "ledger", "check")


async def test_a_message_in_doubt_is_settled_by_a_person(street: Street):
    """`resolve --sent` ends it as sent; `--retry` sends it again, once, and the account holds."""
    house, stack = street.house("doubted", {"DOT": ["accept drop", "drop", "ok"]}), street.stack
    ids = []
    for number in range(2):
        ids.append(await house.accept(f"d-{number}"))
        assert "unconfirmed" == (await stack.until_finished(ids[-1]))["state"]
    await postroom(stack, "resolve", ids[0], "--sent")
    await postroom(stack, "resolve", ids[1], "--retry")
    messages = await stack.until_all_finished(ids)
    assert ["sent", "sent"] == [messages[i]["state"] for i in ids]
    assert [1, 1] == [house.receiver.copies()[i] for i in ids]
    await postroom(stack, "resolve", ids[0], "--sent", status=1)
    assert "0 misfits" in await postroom(stack, "ledger", "check")
