"""What an answer of ZeptoMail's API means: a pure function over its status, codes and targets.

The tables are in `zeptomail_table`, reading a body in `zeptomail_said`. Bodies echo addresses, so nothing leaves
this module but checked codes, the request id and texts of our own.
"""

import msgspec

from postroom.address import domain_of
from postroom.outcome import (
    Ambiguous,
    Answer,
    ChannelFault,
    Deferred,
    Phase,
    RecipientOutcome,
    Refused,
    Sent,
    Submission,
    Submitted,
)
from workers.channels.seam import Order
from workers.channels.zeptomail_body import SendRequest, named
from workers.channels.zeptomail_said import Said
from workers.channels.zeptomail_table import (
    BARE,
    BOUNCE_ADDRESS,
    DETAIL_FAMILIES,
    DETAILS,
    GROUPS,
    SENDER,
    STATUSES,
    Fault,
    Meaning,
)

_RECIPIENT_KINDS = frozenset({"to", "cc", "bcc"})
_OTHER_FIELDS = (
    frozenset(field.encode_name for field in msgspec.structs.fields(SendRequest)) - _RECIPIENT_KINDS
)


def classify(
    order: Order, status: int, said: Said, retry_after: float | None = None, *, own_domain: str | None = None
) -> Submission:
    """Tell how the order ended. `own_domain` is the agent's: another From was the caller's choice."""
    if said.accepted and 200 <= status <= 299:  # any 2xx, with a body that says yes; the rest is in tables
        return order.all_end(Sent(said.request_id), status)
    ours = any(_named_in(said, order))
    code, meaning = _meaning(said, ours=ours) or (said.code, _by_status(status, said, retry_after))
    if meaning == "sender":
        chosen = own_domain is not None and domain_of(order.mail.sender.address) != own_domain
        meaning = "message" if chosen else SENDER
    if isinstance(meaning, Fault):
        return _fault(meaning, status, code, retry_after)
    if meaning == "recipient":
        return _recipients(order, status, code, said)
    outcomes: dict[str, RecipientOutcome] = {
        "later": Deferred(Phase.REQUEST, retry_after),
        "unknown": Ambiguous(Phase.DONE),
    }
    return order.all_end(outcomes.get(meaning, Refused(Phase.REQUEST, "message")), status, code)


def fault_of(status: int, said: Said, retry_after: float | None) -> ChannelFault | None:
    """Return the channel's fault that an answer tells of, whatever was asked."""
    code, meaning = _meaning(said) or (said.code, _by_status(status, said, retry_after))
    return _fault(meaning, status, code, retry_after) if isinstance(meaning, Fault) else None


def _meaning(said: Said, *, ours: bool = False) -> tuple[str | None, Meaning] | None:
    """Return the code that decides. The channel's trouble outweighs the message's, that a recipient's.

    `ours`: the answer repeats an address that is a recipient's.
    """
    known = [(code, meaning) for code in said.details if (meaning := _detail(code)) is not None]
    if known:
        return _by_target(*min(known, key=lambda pair: _weight(pair[1])), said, ours=ours)
    if said.group in GROUPS:
        return said.code or said.group, GROUPS[said.group]
    if said.group in BARE and not said.details:
        return said.group, BARE[said.group]
    own = _detail(said.group)  # a detail's code in the group's place
    return None if own is None else _by_target(said.group, own, said, ours=ours)


def _detail(code: str) -> Meaning | None:
    family = next((meaning for start, meaning in DETAIL_FAMILIES.items() if code.startswith(start)), None)
    return family or DETAILS.get(code)


def _weight(meaning: Meaning) -> int:
    if isinstance(meaning, Fault) or meaning == "sender":
        return 0
    return 2 if meaning == "recipient" else 1


def _by_target(code: str, meaning: Meaning, said: Said, *, ours: bool) -> tuple[str, Meaning]:
    if meaning != "recipient" or (said.targets and said.targets <= _RECIPIENT_KINDS):
        return code, meaning
    if said.targets == {"bounce_address"}:  # from the configuration: every message would fall to it
        return code, BOUNCE_ADDRESS
    # A recipient may stand in reply_to as well: what the answer calls so is no recipient's trouble.
    by_name = ours and (not said.targets or not said.targets <= _OTHER_FIELDS)
    whole = not said.targets and "SMI_116" in said.details
    return code, "recipient" if by_name or whole else "message"


def _by_status(status: int, said: Said, retry_after: float | None) -> Meaning:
    holds = {
        "": True,
        "no code": said.code is None,
        "own code": said.provider_spoke,
        "retry-after": retry_after is not None,
    }
    for first, last, condition, meaning in STATUSES:
        if first <= status <= last and holds[condition]:
            return meaning
    return "unknown"


def _recipients(order: Order, status: int, code: str | None, said: Said) -> Submission:
    """Refuse those the answer names, or else all of the kinds it names; the others are deferred.

    One bad address makes ZeptoMail refuse the whole request.
    """
    by_name = _named_in(said, order)
    bad = by_name if any(by_name) else [kind in _kinds(said) for kind, _ in named(order)]
    if not any(bad):  # it misses a kind that the order has not: repeating would change nothing
        return order.all_end(Refused(Phase.REQUEST, "message"), status, code)
    refused, deferred = Refused(Phase.REQUEST, "recipient"), Deferred(Phase.REQUEST)
    return Submitted(tuple(Answer(refused if one else deferred, status, code) for one in bad))


def _named_in(said: Said, order: Order) -> list[bool]:
    """Tell of each recipient whether the answer repeats its address."""
    kinds = _kinds(said)
    return [kind in kinds and box.address.lower() in said.values for kind, box in named(order)]


def _kinds(said: Said) -> frozenset[str]:
    return said.targets & _RECIPIENT_KINDS or _RECIPIENT_KINDS


def _fault(fault: Fault, status: int, code: str | None, retry_after: float | None) -> ChannelFault:
    shown = f"status {status}" + (f", code {code}" if code else "")
    text, wait = fault.text.format(shown=shown), fault.retry_after or retry_after
    return ChannelFault(fault.cause, Phase.REQUEST, text, status, code, wait)
