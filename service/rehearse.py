"""The use case: everything but the sending. A request is checked, rendered and composed, and then forgotten.

It is made by the very steps of an accept up to the ledger's script, so what is refused there is refused here.
"""

import time
from typing import Any

from msgspec import Struct

from postroom.compose import ComposeError, compose
from postroom.config.structs import Agent
from postroom.decode import Fault
from postroom.errors import Code, RefusedError
from postroom.explain import moment
from postroom.ledger.accept import FURTHEST_AHEAD_MS, TOLERATED_PAST_MS, Offer
from postroom.message import Attachment, Content, Mail
from postroom.shelf import Shelf
from postroom.templates import RenderError, Template
from postroom.templates.manifest import Delivery
from service.accept import UNTIMELY
from service.offer import NO_DEFAULTS
from service.schema import FAULTS_DETAIL, MessageRequest


class Choice(Struct, frozen=True):
    """An option's value, and where it comes from: message, template, agent or default."""

    value: Any
    origin: str


class PlanTemplate(Struct, frozen=True):
    """The template that would be used, at which version, and the locale it would be written in."""

    name: str
    version: str
    locale: str


class Plan(Struct, frozen=True, kw_only=True):
    """How the message would be delivered. `channels` are in the order in which they would be tried."""

    agent: str
    channel: str
    channels: list[str]
    template: PlanTemplate | None
    send_at: str
    expires_at: str
    options: dict[str, Choice]


class DryRunView(Struct, frozen=True, kw_only=True):
    """What a dry run answers. `size` is in bytes, attachments encoded: what SMTP without extensions would carry."""

    dry_run: bool
    subject: str
    text: str | None
    html: str | None
    size: int
    recipients: int
    plan: Plan


def rehearse(request: MessageRequest, offer: Offer, agent: Agent, shelf: Shelf) -> DryRunView:
    """Say what would become of a request that has passed every check.

    Raises:
        RefusedError: 422 where it could not be rendered or composed, or is asked for at an impossible time.
    """
    now = round(time.time() * 1000)
    due = max(now, offer.send_at)
    _check_times(offer, now, due)
    used = offer.payload.template
    template = shelf.get(used.name, used.version) if used else None
    content = _content(offer, template)
    delivery = template.delivery if template else NO_DEFAULTS
    return DryRunView(
        dry_run=True,
        subject=content.subject,
        text=content.text,
        html=content.html,
        size=_size(offer, content, now),
        recipients=len(offer.payload.recipients),
        plan=Plan(
            agent=offer.agent,
            channel=agent.channels[0].name,
            channels=[channel.name for channel in agent.channels],
            template=PlanTemplate(used.name, used.version, template.locale_for(used.locale))
            if used and template
            else None,
            send_at=moment(due) or "",
            expires_at=moment(offer.deliver_before or due + offer.lifetime) or "",
            options=_options(request, offer, delivery),
        ),
    )


def _check_times(offer: Offer, now: int, due: int) -> None:
    """Refuse what the ledger's script would refuse; it has Redis's clock, this one the process's own."""
    wrong = [
        code
        for code, is_wrong in (
            ("send_at_past", offer.send_at and offer.send_at < now - TOLERATED_PAST_MS),
            ("send_at_far", offer.send_at > now + FURTHEST_AHEAD_MS),
            ("deliver_before_past", offer.deliver_before and offer.deliver_before <= due),
            ("deliver_before_far", offer.deliver_before > now + 2 * FURTHEST_AHEAD_MS),
        )
        if is_wrong
    ]
    if wrong:
        raise RefusedError(Code.INVALID_REQUEST, FAULTS_DETAIL, faults=[UNTIMELY[code] for code in wrong])


def _content(offer: Offer, template: Template | None) -> Content:
    used = offer.payload.template
    if used is None or template is None:
        assert offer.payload.content is not None
        return offer.payload.content
    try:
        return template.render(used.variables, used.locale)
    except RenderError:
        faults = [Fault("/template/variables", "cannot be rendered with these variables")]
        raise RefusedError(Code.INVALID_VARIABLES, FAULTS_DETAIL, faults=faults) from None


def _size(offer: Offer, content: Content, now: int) -> int:
    payload = offer.payload
    mail = Mail(
        id=offer.id,
        message_id=payload.message_id,
        date=now / 1000,
        sender=payload.sender,
        submitter=payload.submitter,
        to=payload.to,
        cc=payload.cc,
        bcc=payload.bcc,
        reply_to=payload.reply_to,
        content=content,
        headers=tuple(payload.headers.items()),
        # Their size is what matters here; what only a provider has is in no message of ours.
        attachments=tuple(
            Attachment(file.name, file.content_type, bytes(file.size), file.cid)
            for file in payload.attachments
            if not file.provider_key
        ),
    )
    try:
        return len(compose(mail).data)
    except ComposeError as error:
        faults = [Fault("", f"cannot be composed: {error}")]
        raise RefusedError(Code.INVALID_REQUEST, FAULTS_DETAIL, faults=faults) from None


def _options(request: MessageRequest, offer: Offer, delivery: Delivery) -> dict[str, Choice]:
    payload = offer.payload
    limit, by = _limit(request, delivery)
    return {
        "from": Choice(payload.sender.address, "message" if request.from_ else "agent"),
        "sender": _submitter(request, offer),
        "priority": _chosen(offer.priority, request.priority, delivery.priority, "default"),
        "retry_profile": _chosen(offer.retry_profile, None, delivery.retry_profile, "agent"),
        "on_ambiguous": _chosen(offer.on_ambiguous, request.on_ambiguous, delivery.on_ambiguous, "agent"),
        "track_opens": _chosen(payload.track_opens, request.track_opens, delivery.track_opens, "agent"),
        "track_clicks": _chosen(payload.track_clicks, request.track_clicks, delivery.track_clicks, "agent"),
        "send_at": Choice(moment(offer.send_at or None), "message" if request.send_at else "default"),
        limit: Choice(
            moment(offer.deliver_before) if limit == "deliver_before" else offer.lifetime // 1000, by
        ),
    }


def _submitter(request: MessageRequest, offer: Offer) -> Choice:
    """Return who stands in Sender, if anybody does: RFC 5322 wants none where that is the author."""
    submitter = offer.payload.submitter
    if request.sender is not None:
        return Choice(submitter and submitter.address, "message")
    return Choice(submitter and submitter.address, "agent" if submitter else "default")


def _limit(request: MessageRequest, delivery: Delivery) -> tuple[str, str]:
    if request.deliver_before is not None:
        return "deliver_before", "message"
    if request.deliver_within is not None:
        return "deliver_within", "message"
    return "deliver_within", "default" if delivery.deliver_within is None else "template"


def _chosen(value: Any, by_message: Any, by_template: Any, otherwise: str) -> Choice:
    """Message > template > agent: the first that says anything is where the value comes from."""
    if by_message is not None:
        return Choice(value, "message")
    return Choice(value, otherwise if by_template is None else "template")
