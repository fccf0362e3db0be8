"""What an answer of ZeptoMail's API means: a pure function over its status, codes and targets.

The status alone tells little (401 for a bad recipient, 429 for used-up credits), so the provider's codes are
asked first. They come in four shapes and nothing about their types is certain. Bodies echo addresses, so
nothing leaves this module but checked codes, the request id and texts of our own.
"""

import re
from email.utils import parsedate_to_datetime
from typing import Literal

from msgspec import Struct

from postroom.outcome import (
    Ambiguous,
    Answer,
    Cause,
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
from workers.channels.zeptomail_body import named
from workers.channels.zeptomail_said import Said, read


class Fault(Struct, frozen=True):
    """The channel's own trouble: why, what a person can do, and when a probe is worth it."""

    cause: Cause
    text: str
    retry_after: float | None = None


Meaning = Fault | Literal["message", "recipient"]

LONG_WAIT = 3600.0  # seconds; daily limits end at the provider's midnight, whose zone is not published
MAX_RETRY_AFTER = 3600.0

_CREDITS = "ZeptoMail has no credits left for this account: buy credits, or wait for the next plan period."
_SENDER = (
    "ZeptoMail does not accept the From domain: verify it in the console and link it to this mail agent."
)
_DAILY = (
    "The daily limit of this ZeptoMail agent is used up: raise it in the console, or wait for the next day."
)

DETAILS: dict[str, Meaning] = {
    "SERR_157": Fault(
        Cause.AUTH,
        "ZeptoMail refused the token: it is wrong or revoked, or belongs to another region than base_url.",
    ),
    "SERR_156": Fault(
        Cause.POLICY,
        "ZeptoMail refused our IP address: add the cluster's egress IP to this agent's IP restriction list.",
    ),
    "SM_111": Fault(Cause.POLICY, _SENDER),
    "SM_145": Fault(Cause.POLICY, _SENDER),
    "SM_147": Fault(Cause.POLICY, _SENDER),
    "SM_128": Fault(
        Cause.POLICY, "ZeptoMail has not reviewed this account yet: ask for the review in the console."
    ),
    "AE_101": Fault(Cause.POLICY, "ZeptoMail has blocked this account or agent: ask its support why."),
    "LE_101": Fault(Cause.QUOTA, "The credits of this ZeptoMail account have expired: buy new ones."),
    "LE_102": Fault(Cause.QUOTA, _CREDITS),
    "SM_133": Fault(
        Cause.QUOTA,
        "The sending limit of ZeptoMail's trial is used up: have the account reviewed.",
        LONG_WAIT,
    ),
    "SMI_115": Fault(Cause.QUOTA, _DAILY, LONG_WAIT),
    "SM_151": Fault(Cause.QUOTA, _DAILY, LONG_WAIT),
    "SM_113": "recipient",  # an invalid value; its target says whether it is a recipient's at all
    "SMI_116": "recipient",  # none valid is left
    "SM_101": "message",  # not JSON
    "SM_120": "message",  # an attachment's type
    "SM_127": "message",  # too many attachments or addresses
    "SM_129": "message",  # too long or too large
    "UE_106": "message",  # an unknown file key
    "MTR_101": "message",  # a template's key
    "MTR_107": "message",  # an unknown template
}
GROUPS: dict[str, Meaning] = {  # `error.code`, where no detail is known
    "TM_3201": "message",
    "TM_3301": "message",
    "TM_8001": "message",
    "TM_3004": "message",
    "TM_5001": Fault(Cause.QUOTA, _CREDITS),
}
# The same, but only without any detail: an attachment was refused.
BARE: dict[str, Meaning] = {"TM_3501": "message"}

_BOUNCE_ADDRESS = Fault(
    Cause.POLICY,
    "ZeptoMail does not know the agent's bounce_address: configure it there, or correct it here.",
)
_STATUS_401 = Fault(Cause.AUTH, "ZeptoMail answered 401 without a reason: check the token and base_url.")
_REDIRECT = Fault(
    Cause.POLICY, "ZeptoMail answered with a redirect, which is not followed: correct base_url."
)
_THROTTLE = "ZeptoMail asks to slow down: lower this agent's rate or connections."

_RECIPIENT_KINDS = frozenset({"to", "cc", "bcc"})


def classify(order: Order, status: int, body: bytes, retry_after: str | None, now: float) -> Submission:
    """Tell how the order ended. `now` is the provider's clock, for a Retry-After that names a date."""
    said = read(body)
    found = _meaning(said)
    if found is None:
        return _by_status(order, status, said, parse_retry_after(retry_after, now))
    code, meaning = found
    if isinstance(meaning, Fault):
        return _fault(meaning, status, code)
    if meaning == "recipient":
        return _recipients(order, status, code, said)
    return _all(order, Refused(Phase.REQUEST, "message"), status, code)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds to wait, from either form of the header (RFC 9110, 10.2.3), at most an hour."""
    if value is None:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return min(float(value), MAX_RETRY_AFTER)
    until = _read_date(value)
    return None if until is None else min(max(until - now, 0.0), MAX_RETRY_AFTER)


def read_clock(date: str | None, local: float) -> float:
    """Return the provider's clock by the `Date` of its answer, or the local one where that says nothing."""
    told = None if date is None else _read_date(date)
    return local if told is None else told


def _read_date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _meaning(said: Said) -> tuple[str, Meaning] | None:
    """Return the code that decides. The channel's trouble outweighs the message's, that a recipient's."""
    known = [(code, meaning) for code in said.details if (meaning := _detail(code)) is not None]
    if known:
        return _by_target(*min(known, key=lambda pair: _weight(pair[1])), said)
    if said.group in GROUPS:
        return said.code or said.group, GROUPS[said.group]
    if said.group in BARE and not said.details:
        return said.group, BARE[said.group]
    own = _detail(said.group)  # a detail's code in the group's place
    return None if own is None else _by_target(said.group, own, said)


def _detail(code: str) -> Meaning | None:
    if code.startswith("GE_"):  # the family of what is wrong with a body
        return "message"
    return DETAILS.get(code)


def _weight(meaning: Meaning) -> int:
    if isinstance(meaning, Fault):
        return 0
    return 1 if meaning == "message" else 2


def _by_target(code: str, meaning: Meaning, said: Said) -> tuple[str, Meaning]:
    if meaning != "recipient" or (said.targets and said.targets <= _RECIPIENT_KINDS):
        return code, meaning
    if said.targets == {"bounce_address"}:  # from the configuration: every message would fall to it
        return code, _BOUNCE_ADDRESS
    whole = not said.targets and "SMI_116" in said.details
    return code, "recipient" if whole else "message"


def _by_status(order: Order, status: int, said: Said, retry_after: float | None) -> Submission:
    """Decide without a known code: hold or retry what was surely not accepted, and never drop it."""
    outcome = _outcome(status, said, retry_after)
    if outcome is None:
        return _fault(_unknown(status, said, retry_after), status, said.code)
    return _all(order, outcome, status, said.code)


def _outcome(status: int, said: Said, retry_after: float | None) -> RecipientOutcome | None:
    if 200 <= status < 300:
        return Sent(said.request_id) if said.accepted else Ambiguous(Phase.DONE)
    if status >= 500:
        sure = said.provider_spoke or (status == 503 and retry_after is not None)
        return Deferred(Phase.REQUEST, retry_after) if sure else Ambiguous(Phase.DONE)
    if status == 408:  # the request did not arrive whole
        return Deferred(Phase.REQUEST, retry_after)
    return Refused(Phase.REQUEST, "message") if status == 413 else None


def _unknown(status: int, said: Said, retry_after: float | None) -> Fault:
    if status == 429:
        return Fault(Cause.THROTTLE, _THROTTLE, retry_after)
    if status == 401 and said.code is None:
        return _STATUS_401
    if status < 400:
        return _REDIRECT
    shown = f"status {status}" + (f", code {said.code}" if said.code else "")
    return Fault(Cause.POLICY, f"ZeptoMail answered an unknown error ({shown}): look it up in its console.")


def _recipients(order: Order, status: int, code: str, said: Said) -> Submission:
    """Refuse those the answer names, or else all of the kinds it names; the others are deferred.

    One bad address makes ZeptoMail refuse the whole request.
    """
    kinds = said.targets or _RECIPIENT_KINDS
    of_kind = [kind in kinds for kind, _ in named(order)]
    by_name = [kind in kinds and box.address.lower() in said.values for kind, box in named(order)]
    bad = by_name if any(by_name) else of_kind
    if not any(bad):  # it misses a kind that the order has not: repeating would change nothing
        return _all(order, Refused(Phase.REQUEST, "message"), status, code)
    refused, deferred = Refused(Phase.REQUEST, "recipient"), Deferred(Phase.REQUEST)
    return Submitted(tuple(Answer(refused if one else deferred, status, code) for one in bad))


def _all(order: Order, outcome: RecipientOutcome, status: int, code: str | None) -> Submitted:
    return Submitted((Answer(outcome, status, code),) * len(order.recipients))


def _fault(fault: Fault, status: int, code: str | None) -> ChannelFault:
    return ChannelFault(fault.cause, Phase.REQUEST, fault.text, status, code, fault.retry_after)
