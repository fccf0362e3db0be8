"""What tests of the operator's hand share: mail of a template, and an act done to its end."""

import uuid
from typing import Any, NamedTuple

from postroom.ledger.accept import Created, Offer
from postroom.ledger.ends import Ended
from postroom.ledger.operating import Act, Filter
from postroom.message import Payload, TemplateUse
from postroom.states import State
from tests.ledger.harness import AGENT, Ledger, make_offer


class Acted(NamedTuple):
    """What an act did over one agent."""

    done: int
    too_late: int
    ended: list[Ended]
    ring: bool


def make_act(verb: str, *, counts_only: bool = False, till: int = 0, **wanted: Any) -> Act:
    """Return an act under an id of its own."""
    return Act(
        id=uuid.uuid4().hex, verb=verb, wanted=Filter(**wanted), counts_only=counts_only, who="ada", reason="wrong price",
        till=till,
    )  # fmt: skip


async def do(ledger: Ledger, verb: str, agent: str = AGENT, **options: Any) -> Acted:
    """Do an act to its end."""
    slices = [found async for found in ledger.operating.act(make_act(verb, **options), agent)]
    ended = [one for found in slices for one in found.ended]
    return Acted(slices[-1].done, slices[-1].too_late, ended, any(found.ring for found in slices))


async def accept_of(ledger: Ledger, template: str, **changes: Any) -> Offer:
    """Accept a message of a template."""
    offer = make_offer(**changes)
    payload = Payload(
        message_id="<x@shop.example>",
        sender=offer.payload.sender,
        to=offer.payload.to,
        template=TemplateUse(template, "11112222", {}),
    )
    offer = make_offer(**changes, payload=payload)
    assert isinstance(await ledger.acceptance.accept(offer), Created)
    return offer


async def make_unconfirmed(ledger: Ledger, codes: str = "a", **changes: Any) -> Offer:
    """Accept a message and let it end in doubt."""
    offer = await ledger.accept(len(codes), on_ambiguous="hold", **changes)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, codes)
    assert State.UNCONFIRMED == (await ledger.record(offer.id)).state
    return offer
