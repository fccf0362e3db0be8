"""One template at one version: checks variables, renders content."""

import hashlib
from collections.abc import Mapping
from typing import Any, Self

import msgspec
from msgspec import UNSET

from postroom.decode import Fault
from postroom.message import Content
from postroom.templates.checks import object_checker, total_faults
from postroom.templates.engine import EngineError
from postroom.templates.faults import Problem, RenderError, TemplateFault, TemplatesError
from postroom.templates.prepare import HTML, MANIFEST, SUBJECT, TEXT, Faults, Prepared
from postroom.templates.variables import least, object_filler
from postroom.text import find_forbidden

MAX_SUBJECT = 998  # RFC 5322 §2.1.1
DEFAULT_LOCALE = "en"


class Template:
    """A template at one version. A change of any file makes another version.

    `name`, `version`, `description`, `owner`; `agents` that may send it (None: any); `variables` as declared;
    `delivery`, the defaults for its messages.
    """

    def __init__(self, name: str, files: Mapping[str, str]) -> None:
        """Take the text of each file by its name; raise `TemplatesError` with everything that is wrong."""
        self._files = {file: text.replace("\r\n", "\n") for file, text in sorted(files.items())}
        self.name = name
        self.version = hashlib.sha256(self.source()).hexdigest()[:12]
        prepared = Prepared(name, self._files)
        self.description = prepared.manifest.description
        self.owner = prepared.manifest.owner
        self.agents = prepared.manifest.agents
        self.variables = prepared.manifest.variables
        self.delivery = prepared.manifest.delivery_defaults
        self._programs = prepared.programs
        self._check = object_checker(self.variables, shown=self._programs[SUBJECT].undeclared)
        self._fill = object_filler(self.variables)
        self._try_examples(prepared)

    @classmethod
    def from_source(cls, name: str, source: bytes) -> Self:
        """Make a template of what `source` gave; raise `TemplatesError` if it is none."""
        try:
            files = dict(msgspec.msgpack.decode(source, type=list[tuple[str, str]]))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise TemplatesError(
                [TemplateFault(name, MANIFEST, 1, "the stored source cannot be read")]
            ) from None
        return cls(name, files)

    def source(self) -> bytes:
        """The files in the canonical form that the version is a digest of."""
        return msgspec.msgpack.encode(list(self._files.items()))

    def check(self, variables: dict[str, Any]) -> list[Fault]:
        """Judge a message's variables: every missing, unknown and wrong one, each with its pointer."""
        faults: list[Fault] = []
        self._check(variables, "", faults)
        return faults or total_faults(variables)

    def render(self, variables: dict[str, Any], locale: str | None = None) -> Content:
        """Make the content out of checked variables, or raise `RenderError`. The files see `locale` too."""
        context = self._context(variables, locale)
        return Content(
            subject=self._part(SUBJECT, context),
            html=self._part(HTML, context) if HTML in self._programs else None,
            text=self._part(TEXT, context) if TEXT in self._programs else None,
        )

    def _context(self, variables: dict[str, Any], locale: str | None = None) -> dict[str, Any]:
        filled = variables if self._fill is None else self._fill(variables)
        return {**filled, "locale": locale or DEFAULT_LOCALE}

    def _part(self, part: str, context: dict[str, Any]) -> str:
        try:
            return self._rendered(part, context)
        except EngineError as error:
            line = f" line {error.line}" if error.line and part != SUBJECT else ""
            raise RenderError(self.name, f"{part}{line}: {error.reason}") from None

    def _rendered(self, part: str, context: dict[str, Any]) -> str:
        text = self._programs[part].render(context)
        return _subject(text) if part == SUBJECT else text

    def _try_examples(self, prepared: Prepared) -> None:
        """Render with everything given, and with nothing but what is required."""
        full = {name: v.default if v.example is UNSET else v.example for name, v in self.variables.items()}
        bare = {name: least(v, full[name]) for name, v in self.variables.items() if not v.optional}
        faults = Faults(self.name)
        for part in prepared.outlines:
            if problem := self._trial(prepared, part, full):
                faults.add(part, [problem])
            elif problem := self._trial(prepared, part, bare):
                text = f"{problem.message} (when the optional variables are left out)"
                faults.add(part, [Problem(problem.line, text)])
        faults.raise_if_any()

    def _trial(self, prepared: Prepared, part: str, variables: dict[str, Any]) -> Problem | None:
        context = self._context(variables)
        try:
            self._rendered(part, context)
        except EngineError as error:
            return Problem(prepared.line_of_failure(part, context) or 1, error.detail)
        return None


def _subject(text: str) -> str:
    subject = text.strip(" ")
    if not subject:
        raise EngineError("subject is empty")
    if find_forbidden(subject):
        raise EngineError("subject has control characters")
    if len(subject) > MAX_SUBJECT:
        raise EngineError(f"subject is longer than {MAX_SUBJECT} characters")
    return subject
