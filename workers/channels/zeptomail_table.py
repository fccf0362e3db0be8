"""What of ZeptoMail's answers but a yes ends in which outcome: literal tables, asked from top to bottom.

The status alone tells little (401 for a bad recipient, 429 for used-up credits), so the provider's codes are
asked first: the details' codes, then the group's, and the status only where no code is known.
"""

from typing import Literal

from msgspec import Struct

from postroom.outcome import Cause


class Fault(Struct, frozen=True):
    """The channel's own trouble: why, what a person can do, and when a probe is worth it."""

    cause: Cause
    text: str
    retry_after: float | None = None


# recipient: refused for those the answer names.   sender: the message's where its caller chose the From domain,
# else the channel's.   file: a cached file is gone.   later: deferred.   unknown: ambiguous.
Meaning = Fault | Literal["message", "recipient", "sender", "file", "later", "unknown"]

LONG_WAIT = 3600.0  # seconds; daily limits end at the provider's midnight, whose zone is not published

_CREDITS = "ZeptoMail has no credits left for this account: buy credits, or wait for the next plan period."
SENDER = Fault(
    Cause.POLICY,
    "ZeptoMail does not accept the From domain: verify it in the console and link it to this mail agent.",
)
_DAILY = (
    "The daily limit of this ZeptoMail agent is used up: raise it in the console, or wait for the next day."
)

# `details[].code` and its `inner_error.code`.
DETAILS: dict[str, Meaning] = {
    "SERR_157": Fault(
        Cause.AUTH,
        "ZeptoMail refused the token: it is wrong or revoked, or belongs to another region than base_url.",
    ),
    "SERR_156": Fault(
        Cause.POLICY,
        "ZeptoMail refused our IP address: add the cluster's egress IP to this agent's IP restriction list.",
    ),
    "SM_111": "sender",
    "SM_145": "sender",
    "SM_147": "sender",
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
    "UE_106": "file",  # an unknown file key
    "MTR_101": "message",  # a template's key
    "MTR_107": "message",  # an unknown template
}
DETAIL_FAMILIES: dict[str, Meaning] = {"GE_": "message"}  # the family of what is wrong with a body
GROUPS: dict[str, Meaning] = {  # `error.code`, where no detail is known
    "TM_3201": "message",
    "TM_3301": "message",
    "TM_8001": "message",
    "TM_3004": "message",
    "TM_5001": Fault(Cause.QUOTA, _CREDITS),
}
# The same, but only without any detail: an attachment was refused.
BARE: dict[str, Meaning] = {"TM_3501": "message"}

BOUNCE_ADDRESS = Fault(
    Cause.POLICY,
    "ZeptoMail does not know the agent's bounce_address: configure it there, or correct it here.",
)

# Where no code is known: (first status, last status, what must also hold, meaning). What was surely not accepted is
# held or tried again, and never dropped.
STATUSES: tuple[tuple[int, int, str, Meaning], ...] = (
    (200, 299, "", "unknown"),  # with a body that says no yes
    (
        300,
        399,
        "",
        Fault(Cause.POLICY, "ZeptoMail answered with a redirect, which is not followed: correct base_url."),
    ),
    (
        401,
        401,
        "no code",
        Fault(Cause.AUTH, "ZeptoMail answered 401 without a reason: check the token and base_url."),
    ),
    (408, 408, "", "later"),  # the request did not arrive whole
    (413, 413, "", "message"),
    (
        429,
        429,
        "",
        Fault(Cause.THROTTLE, "ZeptoMail asks to slow down: lower this agent's rate or connections."),
    ),
    (500, 599, "own code", "later"),  # the API's own no, not that of a proxy on the way
    (503, 503, "retry-after", "later"),
    (500, 599, "", "unknown"),
    (
        100,
        499,
        "",
        Fault(Cause.POLICY, "ZeptoMail answered an unknown error ({shown}): look it up in its console."),
    ),
)
