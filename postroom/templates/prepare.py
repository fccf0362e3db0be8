"""From a template's files to its manifest and compiled parts, or to everything that is wrong with them."""

import re
from collections.abc import Iterator, Mapping

from postroom.templates.engine import Engine, EngineError
from postroom.templates.faults import Problem, TemplateFault, TemplatesError
from postroom.templates.language import Literal, Outline, outline
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
        self.engine = self.compile(
            {p: _on_one_line(o) if p == SUBJECT else files[p] for p, o in self.outlines.items()}
        )
        self._faults.raise_if_any()
        self._judge_names()
        self._faults.raise_if_any()

    @property
    def in_subject(self) -> set[str]:
        """The variables that the subject shows."""
        return self.engine.undeclared(_on_one_line(self.outlines[SUBJECT]))

    def line_of_failure(self, part: str, context: Mapping[str, object]) -> int:
        """Find the line on which a part fails to render, by a copy that notes where it is."""
        try:
            self.compile({part: "".join(_tracked(self.outlines[part]))}).render(part, context)
        except EngineError as error:
            return error.line
        return 1

    def compile(self, sources: Mapping[str, str]) -> Engine:
        """Compile these sources with the fuel that the template has."""
        engine = Engine(max(found.longest_repeated for found in self.outlines.values()))
        for part, source in sources.items():
            try:
                engine.compile(part, source)
            except EngineError as error:
                self._faults.add(part, [Problem(error.line or 1, error.detail)])
        return engine

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

    def _judge_names(self) -> None:
        known = self.manifest.variables.keys() | {"locale"}
        for part, found in self.outlines.items():
            source = "".join(p.text for p in found.parts)
            for name in sorted(self.engine.undeclared(source) - known):
                self._faults.add(part, [Problem(found.line_of(name), f"'{name}' is not among the variables")])


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


def _on_one_line(found: Outline) -> str:
    """Join the lines of a subject's file; a line break out of a variable is not in it, and stays an error."""
    return "".join(_LINE_END.sub(" ", p.text) if isinstance(p, Literal) else p.text for p in found.parts)


def _tracked(found: Outline) -> Iterator[str]:
    for part in found.parts:
        if not isinstance(part, Literal) and part.word in ("", "if", "for", "set"):
            yield f"{{{{ _at({part.line}) }}}}"
        yield part.text
