"""Where in HTML a value may stand.

Escaping makes a value harmless in text and in a quoted attribute, and nowhere else. So a value inside an
unquoted attribute, the name of a tag, a script or a style sheet is refused when the template is loaded, and
one that begins a link has to pass the `url` filter.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from postroom.templates.faults import Problem
from postroom.templates.language import Literal, Outline, Tag, Token

_LINKS = frozenset(
    {"action", "background", "cite", "data", "formaction", "href", "poster", "src", "xlink:href"}
)
_SAFE_START = re.compile(r"\s*(?:https?://|mailto:|tel:|cid:|#)", re.IGNORECASE)
# Noncharacters, which no document may hold: around the number of an output, and in place of a statement.
_MARK = re.compile("\ufdd0([0-9]+)\ufdd1")
_STATEMENT = "\ufdd2"
_TAG_NAME = re.compile(f"</?{_STATEMENT}*{_MARK.pattern}")
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
_URL_FILTER = (Token("sign", "|"), Token("name", "url"))


def markup_problems(outline: Outline) -> list[Problem]:
    """Say which outputs of an HTML file stand where escaping does not make them safe."""
    tags = outline.tags
    html = "".join(_marked(outline))
    reader = _Reader(tags)
    reader.feed(html)
    reader.close()
    reader.judge_tag_names(html)
    for number, tag in enumerate(tags):
        if tag.is_output and number not in reader.seen:
            reader.problems.append(Problem(tag.line, "a value here cannot be made safe", tag.file))
    return reader.problems


def find_mark(text: str) -> str | None:
    """Name the characters that stand for a value while the HTML is read, and hence not in a file."""
    return "a noncharacter (U+FDD0 to U+FDD2)" if re.search("[\ufdd0-\ufdd2]", text) else None


def _marked(outline: Outline) -> Iterator[str]:
    number = 0
    for part in outline.parts:
        if isinstance(part, Literal):
            yield part.text
        elif isinstance(part, Tag):
            yield f"\ufdd0{number}\ufdd1" if part.is_output else _STATEMENT
            number += 1


class _Reader(HTMLParser):
    def __init__(self, tags: list[Tag]) -> None:
        super().__init__()
        self.problems: list[Problem] = []
        self.seen: set[int] = set()
        self._tags = tags
        self._inside = ""  # "script" or "style"

    def judge_tag_names(self, html: str) -> None:
        for found in _TAG_NAME.finditer(html):
            self._refuse(found[0], "a value must not be the name of a tag")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag in ("script", "style") else ""
        unquoted = _QUOTED.sub("", self.get_starttag_text() or "")
        self._refuse(unquoted, "a value in an attribute must stand in quotes")
        for name, value in attrs:
            if value is None or not _MARK.search(value):
                continue
            if name.startswith("on") or name == "srcdoc":
                self._refuse(value, f"a value must not stand in {name}")
            elif name in _LINKS:
                self._judge_link(name, value)
            self._see(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._inside = ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._refuse(data, f"a value must not stand in <{self._inside}>")
        self._see(data)

    def handle_comment(self, data: str) -> None:
        self._see(data)
        if data.lstrip().startswith("[if"):  # a comment for all but Outlook, which reads it as HTML
            inner = _Reader(self._tags)
            inner.feed(data.partition(">")[2].removesuffix("<![endif]"))
            inner.close()
            self.problems += inner.problems

    def _judge_link(self, name: str, value: str) -> None:
        first = _MARK.match(value.lstrip())
        if first is None:
            if not _SAFE_START.match(value):
                self._refuse(
                    value, f"{name} with a value inside must begin with https:// or be one value | url"
                )
            return
        tag = self._tags[int(first[1])]
        if tag.tokens[-2:] != _URL_FILTER:
            self.problems.append(
                Problem(tag.line, f"a value in {name} must pass the url filter: {{{{ … | url }}}}", tag.file)
            )

    def _refuse(self, text: str, message: str) -> None:
        tags = [self._tags[int(found[1])] for found in _MARK.finditer(text)]
        self.problems += [Problem(tag.line, message, tag.file) for tag in tags]
        self._see(text)

    def _see(self, text: str) -> None:
        self.seen.update(int(found[1]) for found in _MARK.finditer(text))
