"""A probe of ZeptoMail's API: an empty request, which it must refuse, tells whether it takes the token."""

from postroom.outcome import Cause, ChannelFault, Phase
from postroom.secret import Secret
from workers.channels.http_pool import Lost, connect_fault
from workers.channels.http_probe import unless_refused
from workers.channels.probing import not_looked_at
from workers.channels.seam import Check, Probe
from workers.channels.zeptomail_answer import fault_of
from workers.channels.zeptomail_client import UNLIKELY, ZeptomailClient, is_bad_token

EMPTY = b"{}"  # no recipient, no content: nothing that could be sent
NAMES = ("token", "second token")
STRANGE = "answers, but not as ZeptoMail does: check base_url"


async def probe(client: ZeptomailClient, path: str) -> Probe:
    """Look at the host, then at each token."""
    names = NAMES[: len(client.given)]
    seen, fault = await client.look()
    if fault is not None:
        return Probe((*seen, *not_looked_at(names)), fault)
    if client.open() is not None:
        return Probe((*seen, Check("token", ok=False, text=UNLIKELY)), client.open())
    checks, faults = [], []
    for name, token in zip(names, client.given, strict=True):
        found = await _try(client, token, path)
        checks.append(Check(name, ok=found is None, text=found.text if found else "accepted"))
        faults.append(found)
    # One good token is enough to send with.
    return Probe((*seen, *checks), None if None in faults else faults[0])


async def _try(client: ZeptomailClient, token: Secret, path: str) -> ChannelFault | None:
    answer = await client.post_with(token, path, EMPTY)
    if isinstance(answer, ChannelFault):
        return answer
    if isinstance(answer, Lost):
        return connect_fault("the host ends the connection, or does not answer in time")
    heard, said = answer
    fault = fault_of(heard.status, said, heard.retry_after)
    if fault is not None or is_bad_token(heard, said):
        return fault
    fault = unless_refused(heard, "ZeptoMail", said.code)
    if fault is None and said.code is None:
        return ChannelFault(Cause.CONNECT, Phase.REQUEST, STRANGE, heard.status)
    return fault
