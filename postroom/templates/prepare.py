"""From a template's files to its manifest and compiled parts, or to everything that is wrong with them."""

import re
from collections.abc import Iterator, Mapping

from postroom.templates.engine import EngineError, Program
from postroom.templates.faults import Problem, TemplateFault, TemplatesError
from postroom.templates.language import Literal, Outline, Tag, outline
from postroom.templates.manifest import Manifest, read_manifest
from postroom.templates.markup import find_mark, markup_problems
from postroom.text import find_forbidden_in_body

MANIFEST, SUBJECT, HTML, TEXT = "template.toml", "subject.txt", "body.html", "body.txt"
PARTS = (SUBJECT, HTML, TEXT)
FILES = (MANIFEST, *PARTS)
MAX_FILE_CHARS = 256 * 1024

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_LINE_END = re.compile(r"[ \t]*\n\s*")


class Prepared:
    """A template's manifest and compiled parts."""

    def __init__(self, name: str, files: Mapping[str, str]) -> None:
        """Judge and compile; raise `TemplatesError` with every fault found."""
        self._faults = Faults(name)
        self._judge_files(name, files)
        self.outlines = {part: outline(files[part]) for part in PARTS if part in files}
        manifest, problems = read_manifest(files.get(MANIFEST, ""))
        if MANIFEST in files:
            self._faults.add(MANIFEST, problems)
        for part, found in self.outlines.items():
            self._faults.add(part, found.problems)
            if part == HTML and not found.problems:
                self._faults.add(part, markup_problems(found))
        self._faults.raise_if_any()
        assert manifest is not None
        self.manifest: Manifest = manifest
        compiled = ((part, self._compile(part, found)) for part, found in self.outlines.items())
        self.programs = {part: program for part, program in compiled if program is not None}
        self._faults.raise_if_any()

    def line_of_failure(self, part: str, context: Mapping[str, object]) -> int:
        """Find the line on which a part fails to render, by a copy that notes where it is."""
        try:
            _program(part, "".join(_tracked(self.outlines[part])), self.outlines[part]).render(context)
        except EngineError as error:
            return error.line
        return 1

    def _compile(self, part: str, found: Outline) -> Program | None:
        source = "".join(_on_one_line(found) if part == SUBJECT else (piece.text for piece in found.parts))
        try:
            program = _program(part, source, found)
        except EngineError as error:
            self._faults.add(part, [Problem(error.line or 1, error.detail)])
            return None
        for name in sorted(program.undeclared - self.manifest.variables.keys() - {"locale"}):
            self._faults.add(part, [Problem(found.line_of(name), f"'{name}' is not among the variables")])
        return program

    def _judge_files(self, name: str, files: Mapping[str, str]) -> None:
        if not _NAME.fullmatch(name):
            self._faults.say(MANIFEST, "a template's name is small letters, digits, '-' and '_', at most 64")
        for file in (MANIFEST, SUBJECT):
            if file not in files:
                self._faults.say(file, "missing")
        if HTML not in files and TEXT not in files:
            self._faults.say(HTML, "missing: a template has body.html, body.txt or both")
        for file, text in files.items():
            if file not in FILES:
                self._faults.say(file, f"unknown file: a template is {', '.join(FILES)}")
            elif len(text) > MAX_FILE_CHARS:
                self._faults.say(file, f"longer than {MAX_FILE_CHARS} characters")
            elif found := find_forbidden_in_body(text) or find_mark(text):
                self._faults.say(file, f"holds {found}")


class Faults:
    """The faults of one template, collected until they are raised together."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._found: list[TemplateFault] = []

    def add(self, file: str, problems: list[Problem]) -> None:
        """Take over what was found in a file."""
        self._found += [
            TemplateFault(self._name, file, problem.line, problem.message) for problem in problems
        ]

    def say(self, file: str, message: str) -> None:
        """Note something about a file as a whole."""
        self.add(file, [Problem(1, message)])

    def raise_if_any(self) -> None:
        """Raise `TemplatesError` when there are faults."""
        if self._found:
            raise TemplatesError(self._found)


def _program(part: str, source: str, found: Outline) -> Program:
    return Program(source, as_html=part == HTML, longest_repeated=found.longest_repeated)


def _on_one_line(found: Outline) -> Iterator[str]:
    """Join the lines of a subject's file; a line break out of a variable is not in it, and stays an error."""
    for part in found.parts:
        yield _LINE_END.sub(" ", part.text) if isinstance(part, Literal) else part.text


def _tracked(found: Outline) -> Iterator[str]:
    for part in found.parts:
        if isinstance(part, Tag) and part.word in ("", "if", "for", "set"):
            yield f"{{{{ _at({part.line}) }}}}"
        yield part.text
