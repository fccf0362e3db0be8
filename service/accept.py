"""The use case: check a request, record it once, say so. Nothing here knows HTTP.

The guarantee: `Accepted` with `created` is returned only after the ledger's script answered, so what a caller
hears of as accepted is in the ledger. We would rather answer "unconfirmed" than promise what we do not know.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from postroom.config.structs import Agent
from postroom.decode import Fault
from postroom.errors import Code, RefusedError
from postroom.failpoint import reach
from postroom.ledger.accept import Acceptance, Created, Exists, Offer, Untimely
from postroom.ledger.digests import Digests, differing
from postroom.ledger.errors import (
    LedgerError,
    LedgerFullError,
    LedgerUnavailableError,
    LedgerUnconfirmedError,
)
from postroom.ledger.files import Files, StoredFile
from postroom.ledger.record import Record
from postroom.origin import Origin
from postroom.shelf import Shelf
from service.auth import Identity
from service.check import NO_FILES, Checked
from service.offer import make_offer
from service.schema import FAULTS_DETAIL, FIELD_NAMES, Decoded, MessageRequest, TemplateChoice, field_values

RETRY_SECONDS = 2

UNTIMELY = {
    "send_at_past": Fault("/send_at", "lies in the past"),
    "send_at_far": Fault("/send_at", "lies more than 30 days ahead"),
    "deliver_before_far": Fault("/deliver_before", "lies more than 60 days ahead"),
    "deliver_before_past": Fault("/deliver_before", "lies before the message could be sent"),
}


class Accepted(Struct, frozen=True):
    """A message that is in the ledger: recorded now as offered, or found under its ref with its live state."""

    offer: Offer | None
    created: Created | None
    record: Record | None


class AcceptMessage:
    """Accepts requests of identified callers. `ring` is told of agents that nobody is awake for."""

    def __init__(
        self,
        templates: Shelf,
        acceptance: Acceptance,
        files: Files,
        digests: Callable[[], Digests],
        ring: Callable[[str], None],
    ) -> None:
        self._templates = templates
        self._acceptance = acceptance
        self._files = files
        self._digests = digests
        self._ring = ring

    async def __call__(self, identity: Identity, decoded: Decoded, origin: Origin) -> Accepted:
        """Check the request and record it, or find what its ref names, which wins over any other refusal.

        Raises:
            RefusedError: 403 or 422 for the request, 409 where the ref names another one, 503 for the ledger.
        """
        try:
            offer, _ = await self.rehearse(identity, decoded, origin)
        except RefusedError as refused:
            return await self._repeated(identity, decoded, refused)
        try:
            reach("accept.before_script")
            reply = await self._acceptance.accept(offer)
            reach("accept.after_script")
        except LedgerFullError:
            raise storage_full() from None
        except LedgerUnavailableError:
            raise unavailable() from None
        except LedgerUnconfirmedError:
            detail = "The ledger did not answer in time. Repeat the request with the same client_ref."
            raise RefusedError(Code.ACCEPTANCE_UNCONFIRMED, detail, retry_after=RETRY_SECONDS) from None
        match reply:
            case Created():
                if reply.ring:
                    self._ring(offer.agent)
                return Accepted(offer, reply, None)
            case Exists():
                _refuse_conflict(offer.digests, reply)
                return Accepted(offer, None, reply.record)
            case Untimely():
                raise RefusedError(Code.INVALID_REQUEST, FAULTS_DETAIL, faults=[UNTIMELY[reply.code]])

    async def rehearse(self, identity: Identity, decoded: Decoded, origin: Origin) -> tuple[Offer, Agent]:
        """Return what would be offered to the ledger, and the agent; refuses what an accept would refuse before."""
        request = decoded.request
        agent = _allowed_agent(identity, request)
        await self._bring_version(request.template)
        files = await self._find_files(identity, request)
        checked = Checked(decoded, agent, self._templates, files)
        checked.raise_faults()
        checked.check_sender_allowed(agent)
        return make_offer(identity, agent, decoded.request, checked, self._digests, origin), agent

    async def _bring_version(self, chosen: TemplateChoice | None) -> None:
        """Bring the version here that a request names, if it names one and there is one."""
        if chosen is None or chosen.version is None:
            return
        try:
            await self._templates.fetch(chosen.name, chosen.version)
        except LedgerError:
            raise unavailable() from None

    async def _find_files(self, identity: Identity, request: MessageRequest) -> Mapping[str, StoredFile]:
        """Find the cached files that a request names. What was found stays until the accept has hold of it."""
        ids = _named_files(request)
        if not ids:
            return NO_FILES
        try:
            return await self._files.touch(identity.name, ids)
        except LedgerError:
            raise unavailable() from None

    async def _repeated(self, identity: Identity, decoded: Decoded, refused: RefusedError) -> Accepted:
        """Answer a refused request by its ref, where that has a message already: what was accepted stays accepted.

        A stricter template or a change of the configuration may refuse today what was taken yesterday. The ref is
        looked for only when a refusal is to be told, so that costs the others nothing.

        Raises:
            RefusedError: `refused` where the ref is new, a conflict where it names other content, 503 for the ledger.
        """
        request = decoded.request
        # With a field that could not be read, nobody can say that the request is the same.
        if refused.code == Code.UNAVAILABLE or decoded.faults or request.client_ref is None:
            raise refused
        digests = self._digests()
        ref = digests.ref(identity.name, request.agent, request.client_ref)
        try:
            found = await self._acceptance.find(request.agent, ref)
        except LedgerError:
            raise unavailable() from None
        if found is None:
            raise refused
        _refuse_conflict(digests.fields(field_values(request)), found)
        return Accepted(None, None, found.record)


def _allowed_agent(identity: Identity, request: MessageRequest) -> Agent:
    """Return the agent. One that does not exist is refused like one that is another's."""
    agent = identity.config.agents.get(request.agent)
    if agent is None or request.agent not in identity.caller.agents:
        raise RefusedError(Code.AGENT_NOT_ALLOWED, "The caller's agents do not include this one.")
    return agent


def _named_files(request: MessageRequest) -> set[str]:
    return {one.file for one in request.attachments if one.file is not None}


def unavailable() -> RefusedError:
    """Return the refusal of a request that surely was not recorded."""
    detail = "The ledger cannot be reached. Nothing was recorded; try again."
    return RefusedError(Code.UNAVAILABLE, detail, retry_after=RETRY_SECONDS)


def storage_full() -> RefusedError:
    """Return the refusal while the ledger's memory is kept for the mail that is queued already."""
    detail = "The ledger is nearly full. Nothing was recorded; try again later."
    return RefusedError(Code.STORAGE_FULL, detail, retry_after=15)


def _refuse_conflict(digests: bytes, found: Exists) -> None:
    different = differing(found.digests, digests)
    if different:
        faults = [Fault(f"/{FIELD_NAMES.get(n, n)}", "differs from the first request") for n in different]
        detail = "This client_ref was accepted with other content. Use a new ref for a new message."
        raise RefusedError(Code.CONFLICT, detail, faults=faults, message_id=found.record.id)
