"""From a template's files to its manifest and compiled pieces, or to everything that is wrong with them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from msgspec import Struct

from postroom.templates.css import inline_css
from postroom.templates.direct import BeyondError, Direct
from postroom.templates.engine import EngineError, Program
from postroom.templates.faults import Problem, TemplateFault, TemplatesError
from postroom.templates.language import Literal, Outline, Part, Tag, outline
from postroom.templates.layout import flatten
from postroom.templates.locales import DEFAULT_LOCALE
from postroom.templates.manifest import Manifest, read_manifest
from postroom.templates.markup import markup_problems
from postroom.templates.mjml import compile_mjml
from postroom.templates.plaintext import text_of
from postroom.templates.sources import MANIFEST, Sources
from postroom.templates.wire import ready_for_wire

SUBJECT, HTML, TEXT = "subject", "html", "text"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_LINE_END = re.compile(r"[ \t]*\n\s*")
_GIVEN = frozenset({"locale", "range", "_at"})  # names that every file may use


class Piece(Struct, frozen=True):
    """Subject, HTML or text of one locale, compiled, and where its tags were written."""

    file: str
    program: Program
    outline: Outline
    direct: Direct | None  # what writes most of its mail; the program is the measure, and writes the rest

    def render(self, context: dict[str, Any]) -> str:
        """Render, or raise `EngineError`."""
        text = None if self.direct is None else self.direct.render(context)
        return self.program.render(context) if text is None else text

    def origin(self, line: int) -> tuple[str, int]:
        """Return file and line of what stands on a line of the compiled source; line 0 where that is not clear."""
        return _origin(self.outline, line) or (self.file, 0)

    def place_of_failure(self, context: Mapping[str, object]) -> tuple[str, int]:
        """Find where the piece fails to render, by a copy that notes where it is."""
        tags = self.outline.tags
        try:
            _compile("".join(_tracked(self.outline.parts)), self.file, self.outline).render(context)
        except EngineError as error:
            if error.at:
                return tags[error.at - 1].file, tags[error.at - 1].line
        return self.file, 1


Pieces = dict[str, Piece]


class Prepared:
    """A template's manifest, and its compiled pieces by locale; `used` are the files that they are made of."""

    def __init__(self, name: str, files: Mapping[str, str]) -> None:
        """Judge and compile; raise `TemplatesError` with every fault found."""
        self._faults = Faults(name)
        self._sources = Sources(files)
        self._known: dict[tuple[str, tuple[Part, ...]], Piece | None] = {}
        if not _NAME.fullmatch(name):
            self._faults.say(MANIFEST, "a template's name is small letters, digits, '-' and '_', at most 64")
        for file, message in self._sources.problems():
            self._faults.say(file, message)
        manifest, problems = read_manifest(files.get(MANIFEST, ""))
        if MANIFEST in files:
            self._faults.add(MANIFEST, problems)
        self._variables = None if manifest is None else manifest.variables.keys()
        self.locales = self._locales(manifest)
        self.pieces = {locale: self._pieces(locale) for locale in self.locales}
        self._faults.raise_if_any()
        assert manifest is not None
        self.manifest: Manifest = manifest
        self.used = {MANIFEST, *self._sources.used}

    def _locales(self, manifest: Manifest | None) -> tuple[str, ...]:
        """Return the declared locales, else the default one and those that the files' names speak of."""
        if manifest is None or manifest.locales is None:
            return tuple(dict.fromkeys((DEFAULT_LOCALE, *self._sources.locales)))
        for file, problem in self._sources.unknown_locales(manifest.locales):
            self._faults.add(file, [problem])
        return manifest.locales

    def _pieces(self, locale: str) -> Pieces:
        subject = self._sources.find("subject", ("txt",), locale)
        html = self._sources.find("body", ("html", "mjml"), locale)
        text = self._sources.find("body", ("txt",), locale)
        pieces: dict[str, Piece | None] = {}
        if subject:
            pieces[SUBJECT] = self._piece(SUBJECT, subject[0], locale)
        if html:
            pieces[HTML] = self._piece(HTML, html[0], locale)
        if text and (html is None or text[1] <= html[1]):  # never words of another language beside the HTML
            pieces[TEXT] = self._piece(TEXT, text[0], locale)
        elif made_of := pieces.get(HTML):
            pieces[TEXT] = self._text_of(made_of)
        return {part: piece for part, piece in pieces.items() if piece is not None}

    def _piece(self, part: str, file: str, locale: str) -> Piece | None:
        flat = flatten(self._sources.outline(file), lambda name: self._sources.included(name, locale))
        key = (part, tuple(flat.parts))
        if flat.problems or key not in self._known:
            self._known[key] = self._compiled(part, file, flat)
        return self._known[key]

    def _compiled(self, part: str, file: str, found: Outline) -> Piece | None:
        """Take the steps from a flat source to its program; the first with problems is the last."""
        program = None if self._has_problems(file, found.problems) else self._judged(file, found)
        if program is None:
            return None
        if part == SUBJECT:
            found = Outline(_on_one_line(found.parts))
        elif part == HTML:
            found = compile_mjml(found) if file.endswith(".mjml") else found
            found = found if found.problems else inline_css(found)
            if self._has_problems(file, found.problems or markup_problems(found)):
                return None
            found = ready_for_wire(found)
        else:
            return _made(file, program, found)
        try:
            return _made(file, _compile(_source(found), file, found), found)
        except EngineError as error:
            self._faults.add(file, [Problem(1, f"cannot be compiled behind its layout: {error.detail}")])
            return None

    def _judged(self, file: str, found: Outline) -> Program | None:
        """Compile a source as it was written, where every line has its author."""
        try:
            program = _compile(_source(found), file, found)
        except EngineError as error:
            place = _origin(found, error.line) or (file, error.line or 1)
            self._faults.add(file, [Problem(place[1], error.detail, place[0])])
            return None
        if self._variables is None:
            return program
        unknown = sorted(program.undeclared - self._variables - _GIVEN)
        self._faults.add(file, [_unknown(name, found) for name in unknown])
        return None if unknown else program

    def _text_of(self, html: Piece) -> Piece | None:
        found = text_of(html.outline)
        key = (TEXT, tuple(found.parts))
        if key not in self._known:
            try:
                self._known[key] = _made(html.file, _compile(_source(found), "", found), found)
            except EngineError as error:
                text = f"no text can be made of it, write a body.txt: {error.detail}"
                self._faults.add(html.file, [Problem(1, text)])
                self._known[key] = None
        return self._known[key]

    def _has_problems(self, file: str, problems: list[Problem]) -> bool:
        self._faults.add(file, problems)
        return bool(problems)


class Faults:
    """The faults of one template, collected until they are raised together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: set[TemplateFault] = set()

    def add(self, file: str, problems: list[Problem]) -> None:
        """Take over what was found in a file, unless a problem names another one."""
        self._found |= {
            TemplateFault(self._name, problem.file or file, problem.line, problem.message)
            for problem in problems
        }

    def say(self, file: str, message: str) -> None:
        """Note something about a file as a whole."""
        self.add(file, [Problem(1, message)])

    def raise_if_any(self) -> None:
        """Raise `TemplatesError` when there are faults."""
        if self._found:
            raise TemplatesError(self._found)


def _compile(source: str, file: str, found: Outline) -> Program:
    as_html = file.endswith((".html", ".mjml"))
    return Program(source, as_html=as_html, longest_repeated=found.longest_repeated)


def _made(file: str, program: Program, found: Outline) -> Piece:
    direct = None
    with suppress(BeyondError):
        direct = Direct(found, as_html=program.as_html)
    return Piece(file, program, found, direct)


def _source(found: Outline) -> str:
    """Return the source of judged parts; raise `EngineError` where texts that meet make a tag that nobody judged."""
    source = "".join(part.text for part in found.parts)
    if _tags(outline(source)) != _tags(found):
        raise EngineError("two of its texts together make a tag")
    return source


def _tags(found: Outline) -> list[str]:
    return [part.text for part in found.parts if not isinstance(part, Literal)]


def _unknown(name: str, found: Outline) -> Problem:
    tag = found.first_with(name)
    text = f"'{name}' is not among the variables"
    return Problem(tag.line, text, tag.file) if tag else Problem(1, text)


def _origin(found: Outline, line: int) -> tuple[str, int] | None:
    """Return file and line of the tag on a line of the source; None where there is none, or more than one place."""
    places = set()
    at = 1
    for part in found.parts:
        ends = at + part.text.count("\n")
        if isinstance(part, Tag) and at <= line <= ends:
            places.add((part.file, part.line + line - at))
        at = ends
    return places.pop() if len(places) == 1 else None


def _on_one_line(parts: list[Part]) -> list[Part]:
    """Join the lines of a subject's file; a line break out of a variable is not in it, and stays an error."""
    return [
        Literal(_LINE_END.sub(" ", part.text), part.line, part.file) if isinstance(part, Literal) else part
        for part in parts
    ]


def _tracked(parts: list[Part]) -> Iterator[str]:
    number = 0
    for part in parts:
        if isinstance(part, Tag):
            number += 1
            if part.word in ("", "if", "for", "set"):
                yield f"{{{{ _at({number}) }}}}"
        yield part.text
