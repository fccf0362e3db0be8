"""One template at one version: checks variables, renders content."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import msgspec
from msgspec import UNSET, Struct

from postroom.decode import Fault
from postroom.message import Content
from postroom.templates.checks import object_checker, total_faults
from postroom.templates.engine import EngineError
from postroom.templates.faults import Problem, RenderError, TemplateFault, TemplatesError
from postroom.templates.foresight import Foresight, Line, NotForeseenError
from postroom.templates.locales import babel_locale, fallbacks, usual_form
from postroom.templates.prepare import HTML, SUBJECT, TEXT, Faults, Piece, Pieces, Prepared
from postroom.templates.quick import quick_judge
from postroom.templates.sources import MANIFEST
from postroom.templates.variables import least, object_filler
from postroom.text import find_forbidden

MAX_SUBJECT = 998  # RFC 5322 §2.1.1
MAX_ASKED = 200  # locales that messages asked for and that are remembered


class _Spoken(Struct, frozen=True):
    """What a message in a locale is made of, and by which locale its dates and numbers are written."""

    pieces: Pieces
    locale: str
    line: Line | None
    foresight: Foresight | None


class Template:
    """A template at one version. A change of any file makes another version.

    `name`, `version`, `description`, `owner`; `agents` that may send it (None: any); `locales`, the default one
    first; `variables` as declared, and those of them that are `shown` in the subject; `delivery`, the defaults for its
    messages; `files` that it is made of.
    """

    def __init__(self, name: str, files: Mapping[str, str]) -> None:
        """Take the text of each file by its name; raise `TemplatesError` with everything that is wrong.

        Files of the shared folder are named `_shared/…`; those that the template does not use are left out.
        """
        given = {file: text.replace("\r\n", "\n") for file, text in sorted(files.items())}
        prepared = Prepared(name, given)
        self.name = name
        self.files = {file: text for file, text in given.items() if _belongs(file, prepared.used)}
        self.version = hashlib.sha256(self.source()).hexdigest()[:12]
        self.description = prepared.manifest.description
        self.owner = prepared.manifest.owner
        self.agents = prepared.manifest.agents
        self.variables = prepared.manifest.variables
        self.delivery = prepared.manifest.delivery_defaults
        self.locales = prepared.locales
        self._pieces = prepared.pieces
        self._foresights = {locale: self._foresight(pieces) for locale, pieces in self._pieces.items()}
        self._asked: dict[str | None, _Spoken] = {}
        self.shown = _shown(prepared.pieces)
        self._is_right = quick_judge(self.variables, shown=self.shown)
        self._check = object_checker(self.variables, shown=self.shown)
        self._fill = object_filler(self.variables)
        self._try_examples()

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
        return msgspec.msgpack.encode(list(self.files.items()))

    @property
    def examples(self) -> dict[str, Any]:
        """Every variable's example, or its default where it has none."""
        return {name: v.default if v.example is UNSET else v.example for name, v in self.variables.items()}

    @property
    def least_examples(self) -> dict[str, Any]:
        """The examples of what a caller has to give, and nothing else."""
        full = self.examples
        return {name: least(v, full[name]) for name, v in self.variables.items() if not v.optional}

    def check(self, variables: dict[str, Any]) -> list[Fault]:
        """Judge a message's variables: every missing, unknown and wrong one, each with its pointer."""
        if self._is_right is not None and self._is_right(variables):
            return []
        faults: list[Fault] = []
        self._check(variables, "", faults)
        return faults or total_faults(variables)

    def locale_for(self, asked: str | None) -> str:
        """Return the locale that a message is written in which asks for one: its own, or what that falls back to."""
        return self._spoken(asked).locale

    def render(self, variables: dict[str, Any], locale: str | None = None) -> Content:
        """Make the content out of checked variables, or raise `RenderError`. The files see `locale` too."""
        spoken = self._asked.get(locale) or self._spoken(locale)
        context = self._context(variables, spoken.locale)
        pieces = spoken.pieces
        html, text = pieces.get(HTML), pieces.get(TEXT)
        return Content(
            subject=self._part(SUBJECT, pieces[SUBJECT], context),
            html=self._part(HTML, html, context) if html else None,
            text=self._part(TEXT, text, context) if text else None,
        )

    def try_render(self, variables: dict[str, Any], locale: str | None = None) -> None:
        """Raise `RenderError` where `render` would for checked variables. It costs little where that is foreseen."""
        spoken = self._asked.get(locale) or self._spoken(locale)
        context = self._context(variables, spoken.locale)
        if spoken.line is None or not spoken.line.fits(context):
            self._part(SUBJECT, spoken.pieces[SUBJECT], context)
        foresight = spoken.foresight
        shape = foresight and foresight.shape_of(context, len(msgspec.msgpack.encode(context)))
        if foresight and foresight.knows(shape):
            return
        for part in (HTML, TEXT):
            if part in spoken.pieces:
                self._part(part, spoken.pieces[part], context)
        if foresight:
            foresight.learn(shape)

    def _foresight(self, pieces: Pieces) -> tuple[Line | None, Foresight | None]:
        bodies = [pieces[part].outline for part in (HTML, TEXT) if part in pieces]
        line = foresight = None
        with suppress(NotForeseenError):
            line = Line(pieces[SUBJECT].outline, self.variables, limit=MAX_SUBJECT)
        with suppress(NotForeseenError):
            foresight = Foresight(bodies, self.variables)
        return line, foresight

    def _spoken(self, asked: str | None) -> _Spoken:
        wanted = usual_form(asked) if asked else self.locales[0]
        found = next((tag for tag in fallbacks(wanted) if tag in self.locales), None)
        if found is None:  # another language: the default one, its dates and numbers included
            found = known = self.locales[0]
        else:
            known = next((tag for tag in fallbacks(wanted) if babel_locale(tag)), found)
        spoken = _Spoken(self._pieces[found], known, *self._foresights[found])
        if len(self._asked) < MAX_ASKED:
            self._asked[asked] = spoken
        return spoken

    def _context(self, variables: dict[str, Any], locale: str) -> dict[str, Any]:
        filled = dict(variables) if self._fill is None else self._fill(variables)
        filled["locale"] = locale
        return filled

    def _part(self, part: str, piece: Piece, context: dict[str, Any]) -> str:
        try:
            return _checked(part, piece.render(context))
        except EngineError as error:
            file, line = piece.origin(error.line) if part != SUBJECT else (piece.file, 0)
            place = f"{file} line {line}" if line else file
            raise RenderError(self.name, f"{place}: {error.reason}") from None

    def _try_examples(self) -> None:
        """Render in every locale with everything given, and with nothing but what is required."""
        faults = Faults(self.name)
        for locale, pieces in self._pieces.items():
            for part, piece in pieces.items():
                if problem := self._trial(part, piece, self._context(self.examples, locale)):
                    faults.add(piece.file, [problem])
                elif problem := self._trial(part, piece, self._context(self.least_examples, locale)):
                    text = f"{problem.message} (when the optional variables are left out)"
                    faults.add(piece.file, [Problem(problem.line, text, problem.file)])
        faults.raise_if_any()

    @staticmethod
    def _trial(part: str, piece: Piece, context: dict[str, Any]) -> Problem | None:
        try:
            text = piece.program.render(context)
            if piece.direct is not None:
                piece.direct.compare(context, text)
            _checked(part, text)
        except EngineError as error:
            file, line = piece.place_of_failure(context)
            return Problem(line, error.detail, file)
        return None


def _belongs(file: str, used: set[str]) -> bool:
    """A template's own files all make its version; of the shared ones those it uses."""
    return file in used or not file.startswith("_shared/")


def _shown(pieces: Mapping[str, Pieces]) -> set[str]:
    return {name for of_locale in pieces.values() for name in of_locale[SUBJECT].program.undeclared}


def _checked(part: str, text: str) -> str:
    return _subject(text) if part == SUBJECT else text


def _subject(text: str) -> str:
    subject = text.strip(" ")
    if not subject:
        raise EngineError("subject is empty")
    if find_forbidden(subject):
        raise EngineError("subject has control characters")
    if len(subject) > MAX_SUBJECT:
        raise EngineError(f"subject is longer than {MAX_SUBJECT} characters")
    return subject
