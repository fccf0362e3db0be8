"""The files of a template: which there are, which of them a locale sees, and reading each of them once."""

import re
from collections.abc import Iterator, Mapping

from postroom.templates.faults import Problem
from postroom.templates.language import Outline, outline
from postroom.templates.locales import TAG, fallbacks
from postroom.templates.markup import find_mark
from postroom.text import find_forbidden_in_body

MANIFEST = "template.toml"
SHARED = "_shared/"
MAX_FILE_CHARS = 256 * 1024

_OWN = re.compile(
    rf"(?P<stem>subject|body|_[a-z][a-z0-9_-]{{0,62}})(?:\.(?P<locale>{TAG}))?\.(?P<kind>txt|html|mjml)"
)
_SHARED = re.compile(
    rf"_shared/(?P<stem>[a-z_][a-z0-9_-]{{0,62}})(?:\.(?P<locale>{TAG}))?\.(?P<kind>txt|html|mjml)"
)
KNOWN = (
    "a template is template.toml, subject.txt, body.html or body.mjml, body.txt, the same with a locale "
    "(body.de.html), and files to include (_row.html)"
)


class Sources:
    """The files by their names; `used` are those that made it into the template."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._outlines: dict[str, Outline] = {}
        self.used: set[str] = set()

    @property
    def locales(self) -> list[str]:
        """The locales that file names of the template itself speak of."""
        found = {match["locale"] for name in self._files if (match := _OWN.fullmatch(name))}
        return sorted(found - {None})

    def find(self, stem: str, kinds: tuple[str, ...], locale: str | None) -> tuple[str, int] | None:
        """Return the file of a stem that a locale sees, and how many steps it fell back for it."""
        for step, suffix in enumerate(_suffixes(locale)):
            for kind in kinds:
                name = f"{stem}{suffix}.{kind}"
                if name in self._files:
                    return name, step
        return None

    def outline(self, name: str) -> Outline:
        """Return a file's outline, the same one on every call."""
        self.used.add(name)
        if name not in self._outlines:
            self._outlines[name] = outline(self._files[name], name)
        return self._outlines[name]

    def included(self, name: str, locale: str) -> Outline | None:
        """Return the file that a tag names, in the locale's own variant where there is one."""
        if not (name.startswith("_") and (_OWN.fullmatch(name) or _SHARED.fullmatch(name))):
            return None
        stem, _, kind = name.rpartition(".")
        found = self.find(stem, (kind,), locale)
        return self.outline(found[0]) if found else None

    def problems(self) -> Iterator[tuple[str, str]]:
        """Say what is wrong with the files as such: their names, their size, what they hold."""
        for file in (MANIFEST, "subject.txt"):
            if file not in self._files:
                yield file, "missing"
        if not any(f"body.{kind}" in self._files for kind in ("html", "mjml", "txt")):
            yield "body.html", "missing: a template has body.html or body.mjml, body.txt, or both"
        for file, text in self._files.items():
            if message := self._problem(file, text):
                yield file, message

    def _problem(self, file: str, text: str) -> str | None:
        if not (file == MANIFEST or _OWN.fullmatch(file) or _SHARED.fullmatch(file)):
            # Nobody can name such a file of the shared folder, so it belongs to no template.
            return None if file.startswith(SHARED) else f"unknown file: {KNOWN}"
        if len(text) > MAX_FILE_CHARS:
            return f"longer than {MAX_FILE_CHARS} characters"
        if found := find_forbidden_in_body(text) or find_mark(text):
            return f"holds {found}"
        if (
            file.startswith("body.")
            and file.removesuffix("html") + "mjml" in self._files
            and file[-5:] == ".html"
        ):
            return "stands beside the same in MJML: one of them is enough"
        if file.startswith("subject.") and not file.endswith(".txt"):
            return "a subject is text: subject.txt"
        return None

    def unknown_locales(self, declared: tuple[str, ...]) -> list[tuple[str, Problem]]:
        """Say which files are of a locale that the template does not declare."""
        return [
            (name, Problem(1, f"its locale is not among the locales: {', '.join(declared)}"))
            for name in self._files
            if (match := _OWN.fullmatch(name)) and match["locale"] not in (None, *declared)
        ]


def _suffixes(locale: str | None) -> list[str]:
    return [*(f".{tag}" for tag in fallbacks(locale or "") if tag), ""]
