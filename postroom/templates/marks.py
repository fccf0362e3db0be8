"""Taking a template's tags through a tool that knows only HTML or MJML, and finding them again behind it.

Each tag is one word of letters and digits while the tool works: no parser changes such a word, wherever it
stands. A tool that drops one, or a tag in a place that the tool has no place for, is found by counting.
"""

import re
from collections.abc import Iterable, Iterator

from postroom.templates.faults import Problem
from postroom.templates.language import Comment, Literal, Part, Tag


class Marked:
    """Parts as one text, with a mark for each tag; comments are left out, for nobody gets to see them."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = [part for part in parts if not isinstance(part, Comment)]
        self.tags = [part for part in self._parts if isinstance(part, Tag)]
        self._key = self._unused_key()
        self.mark = re.compile(f"{self._key}[os]([0-9]+)e")
        self.statement = re.compile(f"{self._key}s([0-9]+)e")
        self.text = "".join(self._pieces())

    def parts(self, text: str) -> list[Part]:
        """Put the tags back in place of their marks."""
        found: list[Part] = []
        position = 0
        for mark in self.mark.finditer(text):
            tag = self.tags[int(mark[1])]
            if mark.start() > position:
                found.append(Literal(text[position : mark.start()], tag.line, tag.file))
            found.append(tag)
            position = mark.end()
        if position < len(text):
            found.append(Literal(text[position:]))
        return found

    def tags_in(self, text: str) -> list[Tag]:
        """Return the tags whose marks stand in a text, in their order."""
        return [self.tags[int(mark[1])] for mark in self.mark.finditer(text)]

    def lost(self, text: str) -> list[Problem]:
        """Say which tags a tool has lost."""
        kept = {int(mark[1]) for mark in self.mark.finditer(text)}
        return [
            Problem(tag.line, "a tag here has no place in the mail that is made of it", tag.file)
            for number, tag in enumerate(self.tags)
            if number not in kept
        ]

    def origin(self, position: int) -> tuple[int, str]:
        """Return line and file of what stands at a position of `text`."""
        line, file = 1, ""
        for part, piece in zip(self._parts, self._pieces(), strict=True):
            line, file = part.line, part.file
            if position < len(piece):
                return line + (piece.count("\n", 0, position) if isinstance(part, Literal) else 0), file
            position -= len(piece)
        return line, file

    def _pieces(self) -> Iterator[str]:
        number = 0
        for part in self._parts:
            if isinstance(part, Tag):
                yield f"{self._key}{'o' if part.is_output else 's'}{number}e"
                number += 1
            else:
                yield part.text

    def _unused_key(self) -> str:
        """Choose how marks begin, so that the source has nothing like it."""
        key, taken = "prx", "".join(p.text for p in self._parts if isinstance(p, Literal)).lower()
        while key in taken:
            key += "x"
        return key
