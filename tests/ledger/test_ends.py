"""What is told of a message that ends without an attempt: as much as of any other, whoever ended it."""

import msgspec
import pytest

from postroom.ledger import keys
from postroom.ledger.delivery import Cursor
from postroom.message import TemplateUse
from postroom.states import State
from tests.ledger.harness import AGENT, CALLER, DIGESTS, make_offer
from tests.ledger.operator import do
from tests.ledger.test_balance import number_of

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LONG_REF = "order/" + "7" * 100
ADA = DIGESTS.collapse(CALLER, "code", "ada0@example.com")


async def accept(ledger, **changes):
    """Accept a message that says where it came from."""
    offer = make_offer(client_ref=LONG_REF, **changes)
    payload = msgspec.structs.replace(
        offer.payload,
        content=None,
        template=TemplateUse("code", "0123456789ab", {"code": "123456", "more": "x" * 600}),
        request_id="from-the-caller",
        traceparent=TRACE,
        accept_us=1500,
    )
    await ledger.acceptance.accept(msgspec.structs.replace(offer, payload=payload))
    return offer.id


async def by_claim(ledger, message_id):
    await ledger.end_deadline(message_id)
    return (await ledger.claim()).ended


async def by_lapse(ledger, message_id):
    await ledger.end_deadline(message_id)
    return [await ledger.acceptance.lapse(message_id)]


async def by_sweep(ledger, message_id):
    await ledger.end_deadline(message_id)
    return (await ledger.delivery.expire(number_of(AGENT), Cursor(), 100))[1]


async def by_caller(ledger, message_id):
    return [(await ledger.acceptance.cancel(message_id)).ended]


async def by_operator(ledger, message_id):
    return [(await ledger.operating.cancel(message_id)).ended]


async def by_filter(ledger, message_id):  # noqa: ARG001  it takes what there is
    return (await do(ledger, "expire")).ended


async def by_a_newer_one(ledger, message_id):  # noqa: ARG001  the key names it
    reply = await ledger.acceptance.accept(make_offer(collapse=(ADA,)))
    return reply.superseded


async def for_want_of_content(ledger, message_id):
    await ledger.client.delete(keys.payload_key(message_id))
    return (await ledger.claim()).ended


ENDS = [
    (by_claim, State.EXPIRED, "expired"),
    (by_lapse, State.EXPIRED, "expired"),
    (by_sweep, State.EXPIRED, "expired"),
    (by_caller, State.CANCELLED, "cancelled"),
    (by_operator, State.CANCELLED, "cancelled"),
    (by_filter, State.EXPIRED, "expired"),
    (by_a_newer_one, State.CANCELLED, "superseded"),
]


@pytest.mark.parametrize(("end", "state", "how"), ENDS)
async def test_an_end_tells_whose_it_was_and_where_it_came_from(ledger, end, state, how):
    """In the reply of the very script that ended it."""
    message_id = await accept(ledger, collapse=(ADA,), priority="high")
    (ended,) = await end(ledger, message_id)
    assert (message_id, state, how, "high") == (ended.id, ended.state, ended.how, ended.priority)
    assert (LONG_REF, CALLER, "code@0123456789ab") == (ended.client_ref, ended.caller, ended.template)
    assert ("from-the-caller", TRACE, 1500) == (ended.request_id, ended.traceparent, ended.accept_us)
    assert (0, "") == (ended.attempts, ended.channel)


async def test_attempts_that_were_made_are_told(ledger):
    """With the channel of the last one, whatever ended it later."""
    message_id = await accept(ledger)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "d")
    await ledger.end_deadline(message_id)
    ended = await ledger.acceptance.lapse(message_id)
    assert (1, "relay") == (ended.attempts, ended.channel)


async def test_without_its_content_the_record_still_tells(ledger):
    """What was stored is gone, and with it where it came from."""
    message_id = await accept(ledger)
    (ended,) = await for_want_of_content(ledger, message_id)
    assert (message_id, State.FAILED, "lost") == (ended.id, ended.state, ended.how)
    assert (LONG_REF, "", "", 0) == (ended.client_ref, ended.request_id, ended.traceparent, ended.accept_us)


@pytest.mark.parametrize("verb", ["cancel", "expire"])
async def test_large_messages_end_a_few_at_a_time(ledger, verb):
    """What a slice brings is bounded by bytes as well, and none is passed over."""
    for n in range(12):
        offer = make_offer(client_ref=f"large-{n}")
        noise = "".join(chr(33 + (n * 7919 + k * k * 31) % 90) for k in range(120_000))
        content = msgspec.structs.replace(offer.payload.content, html=noise)
        payload = msgspec.structs.replace(offer.payload, content=content)
        await ledger.acceptance.accept(msgspec.structs.replace(offer, payload=payload))
    found = await do(ledger, verb)
    assert (12, 12) == (found.done, len({one.id for one in found.ended}))
    assert 0 == sum(map(len, (await ledger.queues()).values()))
