"""What a request offers to the ledger: itself, with what its template and its agent say where it is silent."""

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

from postroom.address import parse_address
from postroom.config.structs import Agent, Storm
from postroom.config.units import milliseconds
from postroom.errors import Code, RefusedError
from postroom.ids import new_message_id
from postroom.ledger.accept import Brake, Offer
from postroom.ledger.digests import Digests
from postroom.message import Payload, TemplateUse
from postroom.origin import Origin
from postroom.templates.manifest import Delivery
from service.auth import Identity
from service.check import Checked
from service.schema import MessageRequest, field_values

LIFETIME_SECONDS = {"standard": 24 * 3600, "interactive": 15 * 60}
NO_DEFAULTS = Delivery()


def make_offer(
    identity: Identity,
    agent: Agent,
    request: MessageRequest,
    checked: Checked,
    digest_key: Callable[[], Digests],
    origin: Origin,
) -> Offer:
    """Return what a checked request offers to the ledger.

    Raises:
        RefusedError: 403, the caller may not ask for this priority; 503 where the digest key is not known yet.
    """
    delivery = checked.template.delivery if checked.template else NO_DEFAULTS
    priority = request.priority or delivery.priority or "normal"
    if priority not in identity.caller.priorities:
        raise RefusedError(Code.PRIORITY_NOT_ALLOWED, "The caller's priorities do not include this one.")
    message_id, digests = new_message_id(request.agent), digest_key()
    assert request.client_ref is not None
    profile = delivery.retry_profile or agent.retry_profile
    payload = _make_payload(message_id, agent, request, checked, delivery, origin)
    return Offer(
        id=message_id,
        agent=request.agent,
        caller=identity.name,
        client_ref=request.client_ref,
        ref=digests.ref(identity.name, request.agent, request.client_ref),
        digests=digests.fields(field_values(request)),
        payload=payload,
        blobs=checked.blobs,
        priority=priority,
        retry_profile=profile,
        on_ambiguous=request.on_ambiguous or delivery.on_ambiguous or agent.on_ambiguous,
        send_at=_ms(request.send_at),
        lifetime=1000 * _lifetime(request, delivery, profile),
        deliver_before=_ms(request.deliver_before),
        standing_clock=_clock_stands(request, delivery, profile),
        storm=_brake(agent.storm, digests, payload) if agent.storm else None,
        collapse=_collapse(request.collapse_key, identity.name, digests, payload),
    )


def _make_payload(
    message_id: str,
    agent: Agent,
    request: MessageRequest,
    checked: Checked,
    delivery: Delivery,
    origin: Origin,
) -> Payload:
    template = None
    if checked.template is not None and request.template is not None:
        chosen = request.template
        template = TemplateUse(
            checked.template.name, checked.template.version, chosen.variables, chosen.locale
        )
    domain = checked.sender.address.rpartition("@")[2]
    return Payload(
        message_id=f"<{message_id.rpartition('-')[2]}@{domain}>",
        sender=checked.sender,
        submitter=checked.submitter,
        to=checked.to,
        cc=checked.cc,
        bcc=checked.bcc,
        reply_to=checked.reply_to,
        template=template,
        content=checked.content,
        headers=request.headers,
        attachments=checked.attachments,
        metadata=request.metadata,
        track_opens=_first(request.track_opens, delivery.track_opens, agent.track_opens),
        track_clicks=_first(request.track_clicks, delivery.track_clicks, agent.track_clicks),
        request_id=origin.request_id,
        traceparent=origin.traceparent,
        accept_us=origin.since(),
    )


def _brake(storm: Storm, digests: Digests, payload: Payload) -> Brake:
    template = payload.template.name if payload.template else "-"
    exempt = _wire_forms(storm.exempt)
    counted = [r.address for r in payload.recipients if r.address.lower() not in exempt]
    return Brake(
        storm.limit,
        milliseconds(storm.window),
        tuple(digests.storm(template, address) for address in dict.fromkeys(counted)),
    )


@lru_cache(maxsize=1024)
def _wire_forms(addresses: tuple[str, ...]) -> frozenset[str]:
    return frozenset(parse_address(address).lower() for address in addresses)


def _collapse(key: str | None, caller: str, digests: Digests, payload: Payload) -> tuple[str, ...]:
    if key is None:
        return ()
    return tuple(digests.collapse(caller, key, recipient.address) for recipient in payload.recipients)


def _first(*options: bool | None) -> bool:
    for option in options:
        if option is not None:
            return option
    return False


def _lifetime(request: MessageRequest, delivery: Delivery, profile: str) -> int:
    """Seconds from the later of acceptance and `send_at` to expiry: message > template > profile."""
    return request.deliver_within or delivery.deliver_within or LIFETIME_SECONDS[profile]


def _clock_stands(request: MessageRequest, delivery: Delivery, profile: str) -> bool:
    """A limit somebody named is absolute, and so is that of a login code; the profile's own day is patient."""
    named = request.deliver_within or request.deliver_before or delivery.deliver_within
    return profile == "standard" and not named


def _ms(time: datetime | None) -> int:
    """Return milliseconds since the epoch; 0 stands for "not given", so the epoch itself is a moment earlier."""
    return 0 if time is None else round(time.timestamp() * 1000) or -1
