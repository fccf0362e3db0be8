"""What a request must fulfil beyond its types: every fault is found before any is told."""

import base64
import binascii
import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from postroom.address import AddressError, domain_of, parse_address
from postroom.config.rules import allowed_domains
from postroom.config.structs import Agent, From
from postroom.decode import MAX_FAULTS, Fault, join
from postroom.errors import Code, RefusedError
from postroom.files import looks, name_problem, type_problem
from postroom.headers import check_headers
from postroom.ledger.files import StoredFile
from postroom.message import Address, AttachmentRef, Content
from postroom.shelf import Shelf
from postroom.templates import RenderError, Template
from postroom.text import find_forbidden, find_forbidden_in_body
from service.carrying import find_uncarried
from service.schema import (
    FAULTS_DETAIL,
    MAX_RECIPIENTS,
    Decoded,
    GivenAttachment,
    GivenContent,
    Mailbox,
    MessageRequest,
)

MAX_FILE_BYTES = 10_000_000
MAX_FILES_BYTES = 15_000_000
OPAQUE = "application/octet-stream"
NO_FILES: Mapping[str, StoredFile] = MappingProxyType({})
_METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


class Checked:
    """Collects the checked parts of one request and everything that is wrong with it."""

    def __init__(
        self,
        decoded: Decoded,
        agent: Agent,
        templates: Shelf,
        files: Mapping[str, StoredFile] = NO_FILES,
    ) -> None:
        """`files` are the cached files that the request names and its caller has."""
        request = decoded.request
        self._decoded = decoded
        self._files = files
        self.faults: list[Fault] = list(decoded.faults)
        self._codes: set[Code] = {Code.INVALID_REQUEST} if decoded.faults else set()
        self.to = self._mailboxes("/to", request.to)
        self.cc = self._mailboxes("/cc", request.cc)
        self.bcc = self._mailboxes("/bcc", request.bcc)
        self.reply_to = self._mailboxes("/reply_to", request.reply_to)
        self._check_recipients(agent.per_day)
        self.sender = self._sender(request.from_, agent)
        self.submitter = self._submitter(request.sender, agent)
        self.template = self._template(request, templates)
        self.content = self._content(request.content)
        self.attachments, self.blobs = self._attachments(request.attachments)
        self._add(list(find_uncarried(agent, self.submitter, self.attachments)))
        self._add(check_headers(request.headers))
        self._check_metadata(request.metadata)
        self._check_choice(request)

    def raise_faults(self) -> None:
        """Raise one refusal that carries every fault, if there is any."""
        if not self.faults:
            return
        code = self._codes.pop() if len(self._codes) == 1 else Code.INVALID_REQUEST
        raise RefusedError(code, FAULTS_DETAIL, faults=self.faults[:MAX_FAULTS])

    def check_sender_allowed(self, agent: Agent) -> None:
        """Refuse a From or a Sender outside the agent's domains."""
        if domain_of(self.sender.address) not in allowed_domains(agent):
            raise RefusedError(Code.FROM_NOT_ALLOWED, "The From domain is not among the agent's domains.")
        if self.submitter and domain_of(self.submitter.address) not in allowed_domains(agent):
            raise RefusedError(Code.FROM_NOT_ALLOWED, "The Sender's domain is not among the agent's domains.")
        if agent.only_from and self.sender.address.lower() != _author(agent.sender).address.lower():
            raise RefusedError(Code.FROM_NOT_ALLOWED, "The agent sends as its own From address only.")

    def _add(self, faults: list[Fault], code: Code = Code.INVALID_REQUEST) -> None:
        if self._decoded.faults:
            faults = [fault for fault in faults if not self._decoded.concerns_known(fault)]
        if faults:
            self.faults += faults
            self._codes.add(code)

    def _say(self, pointer: str, detail: str, code: Code = Code.INVALID_REQUEST) -> None:
        self._add([Fault(pointer, detail)], code)

    def _mailboxes(self, pointer: str, given: tuple[Mailbox, ...]) -> tuple[Address, ...]:
        if not given:
            return ()
        return tuple([self._mailbox(f"{pointer}/{index}", mailbox) for index, mailbox in enumerate(given)])

    def _mailbox(self, pointer: str, mailbox: Mailbox) -> Address:
        name = mailbox.name or ""
        if forbidden := find_forbidden(name):
            self._say(f"{pointer}/name", f"holds {forbidden}")
        try:
            return Address(parse_address(mailbox.address), name)
        except AddressError as error:
            self._say(f"{pointer}/address", str(error))
            return Address("", name)

    def _check_recipients(self, per_day: int | None) -> None:
        everyone = [r.address.lower() for r in self.to + self.cc + self.bcc]
        if len(everyone) > MAX_RECIPIENTS:
            self._say("/to", f"to, cc and bcc together may hold {MAX_RECIPIENTS} recipients")
        elif per_day is not None and len(everyone) > per_day:
            self._say("/to", f"the agent may send to {per_day} recipients a day, and this message has more")
        if len(set(everyone)) == len(everyone):
            return
        seen: set[str] = set()
        places = [("/to", self.to), ("/cc", self.cc), ("/bcc", self.bcc)]
        for pointer, addresses in places:
            for index, recipient in enumerate(addresses):
                lowered = recipient.address.lower()
                if lowered and lowered in seen:
                    self._say(f"{pointer}/{index}/address", "is a recipient already")
                seen.add(lowered)

    def _sender(self, given: Mailbox | None, agent: Agent) -> Address:
        if given is None:
            return _author(agent.sender)
        if "@" in looks(given.name or ""):
            self._say("/from/name", "must not look like an address")
        return self._mailbox("/from", given)

    def _submitter(self, given: Mailbox | None, agent: Agent) -> Address | None:
        """Return who stands in Sender; nobody where it is the author (RFC 5322 §3.6.2)."""
        submitter = None if agent.submitter is None else _author(agent.submitter)
        if given is not None:
            if "@" in looks(given.name or ""):
                self._say("/sender/name", "must not look like an address")
            submitter = self._mailbox("/sender", given)
        if submitter is None or submitter.address.lower() == self.sender.address.lower():
            return None
        return submitter

    def _template(self, request: MessageRequest, templates: Shelf) -> Template | None:
        chosen = request.template
        if chosen is None:
            return None
        template = templates.get(chosen.name, chosen.version)
        if template is None and templates.get(chosen.name) is not None:
            self._say("/template/version", "is not a version of the template", Code.UNKNOWN_TEMPLATE)
            return None
        if template is None:
            self._say("/template/name", "is not the name of a template", Code.UNKNOWN_TEMPLATE)
            return None
        if template.agents is not None and request.agent not in template.agents:
            self._say("/template/name", "is a template this agent may not send")
        faults = template.check(chosen.variables)
        if not faults:
            # Tried once here, so that what cannot be rendered is refused while its caller listens.
            try:
                template.try_render(chosen.variables, chosen.locale)
            except RenderError:
                faults = [Fault("", "cannot be rendered with these variables")]
        named = [Fault("/template/variables" + fault.pointer, fault.detail) for fault in faults]
        self._add(named, Code.INVALID_VARIABLES)
        return template

    def _content(self, given: GivenContent | None) -> Content | None:
        if given is None:
            return None
        if forbidden := find_forbidden(given.subject):
            self._say("/content/subject", f"holds {forbidden}")
        if given.html is None and given.text is None:
            self._say("/content", "needs html or text")
        for name, body in (("html", given.html), ("text", given.text)):
            if body is not None and (forbidden := find_forbidden_in_body(body)):
                self._say(f"/content/{name}", f"holds {forbidden}")
        return Content(given.subject, given.text, given.html)

    def _attachments(
        self, given: tuple[GivenAttachment, ...]
    ) -> tuple[tuple[AttachmentRef, ...], tuple[bytes, ...]]:
        """Return what is attached, and the bytes of what lies in no cache."""
        if not given:
            return (), ()
        refs, blobs = [], []
        for index, attachment in enumerate(given):
            pointer = f"/attachments/{index}"
            if problem := name_problem(attachment.name):
                self._say(f"{pointer}/name", problem)
            if attachment.content_type is not None and (problem := type_problem(attachment.content_type)):
                self._say(f"{pointer}/content_type", problem)
            ref, data = self._attachment(pointer, attachment)
            refs.append(ref)
            if data is not None:
                blobs.append(data)
        if sum(ref.size for ref in refs) > MAX_FILES_BYTES:
            self._say("/attachments", f"may hold {MAX_FILES_BYTES} bytes together")
        cids = [ref.cid for ref in refs if ref.cid]
        if len(cids) != len(set(cids)):
            self._say("/attachments", "use a cid more than once")
        return tuple(refs), tuple(blobs)

    def _attachment(self, pointer: str, given: GivenAttachment) -> tuple[AttachmentRef, bytes | None]:
        name, kind, cid = given.name, given.content_type, given.cid
        if sum(part is not None for part in (given.content, given.file, given.provider_key)) != 1:
            self._say(pointer, "needs exactly one of content, file and provider_key")
        elif given.file is not None:
            stored = self._files.get(given.file)
            if stored is None:
                self._say(f"{pointer}/file", "is no file of this caller, or its lifetime is over")
            else:
                return AttachmentRef(
                    name, kind or stored.content_type, stored.size, cid, file=stored.id
                ), None
        elif given.provider_key is not None:
            return AttachmentRef(name, kind or OPAQUE, 0, cid, provider_key=given.provider_key), None
        elif given.content is not None:
            if kind is None:
                self._say(f"{pointer}/content_type", "required beside content, but missing")
            data = self._decoded_content(pointer, given.content)
            return AttachmentRef(name, kind or OPAQUE, len(data), cid), data
        return AttachmentRef(name, OPAQUE, 0, cid), None

    def _decoded_content(self, pointer: str, content: str) -> bytes:
        data = _decode_base64(content)
        if data is None:
            self._say(f"{pointer}/content", "is not base64")
        elif not 0 < len(data) <= MAX_FILE_BYTES:
            self._say(f"{pointer}/content", f"must hold 1 to {MAX_FILE_BYTES} bytes")
        return data or b""

    def _check_metadata(self, metadata: dict[str, str]) -> None:
        for key, value in metadata.items():
            if not _METADATA_KEY.match(key):
                self._say(join("/metadata", key), "keys are 1 to 64 of A-Z a-z 0-9 _ . -")
            elif forbidden := find_forbidden(value):
                self._say(join("/metadata", key), f"holds {forbidden}")

    def _check_choice(self, request: MessageRequest) -> None:
        if (request.template is None) == (request.content is None):
            self._say("", "needs exactly one of template and content")
        if request.deliver_within is not None and request.deliver_before is not None:
            self._say("/deliver_before", "at most one of deliver_within and deliver_before")
        if request.client_ref is None:
            self._say("/client_ref", "required, but missing")
        elif ".." in request.client_ref:
            self._say("/client_ref", "must not hold two dots in a row")


@lru_cache(maxsize=4096)
def _author(sender: From) -> Address:
    """Return an agent's own author; every request without a `from` asks for one."""
    return Address(parse_address(sender.address), sender.name)


def _decode_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
