"""What a lane begins ahead of its turn, and what it does not."""

from types import SimpleNamespace

import pytest

from postroom.ledger.claimed import Claim, Claimed
from postroom.message import Address, Payload
from workers.sending import CALM_SECONDS, Sending

MESSAGE = Claimed(
    id="orders-1",
    agent="orders",
    fence=1,
    attempts=0,
    accepted_at=0,
    waiting=(0,),
    recipients=1,
    caller="shop",
    client_ref="r-1",
    priority="normal",
    retry_profile="standard",
    template="",
    blobs=0,
    payload=Payload(
        message_id="<1@shop.example>", sender=Address("a@shop.example"), to=(Address("b@example.com"),)
    ),
)


def sending(
    *, paced_ms=0, interval_us=0, own=None, lost=False, urged_at=-CALM_SECONDS - 1e9, over=False, recalls=0
):
    """A lane with a connection over `relay`, after a claim."""
    ways = SimpleNamespace(own=lambda _: own, is_right=lambda _: True)
    carrier = SimpleNamespace(holdings=SimpleNamespace(is_lost=lambda _: lost))
    round_ = SimpleNamespace(
        carrier=carrier,
        agent="orders",
        ways=ways,
        over=over,
        recalls=recalls,
        urged_at=urged_at,
        limits=SimpleNamespace(pace=SimpleNamespace(interval_us=interval_us)),
    )
    made = Sending(round_, "lane")
    made.heed(Claim((MESSAGE,), 0, more=True, paced_ms=paced_ms), 0)
    made.way = SimpleNamespace(channel="relay")
    return made


@pytest.mark.parametrize(
    ("circumstances", "begun"),
    [
        ({}, True),
        ({"own": ("relay",)}, True),
        ({"own": ("other",)}, False),
        ({"lost": True}, False),
        ({"over": True}, False),
        ({"recalls": 1}, False),
        ({"paced_ms": 1}, False),
        ({"interval_us": 1_000}, True),
        ({"interval_us": 20_000}, False),
    ],
)
def test_what_is_begun_ahead(circumstances, begun):
    """What will surely be sent next, over this connection, and without waiting for its agent's rate."""
    assert begun is sending(**circumstances)._comes_next(MESSAGE)
