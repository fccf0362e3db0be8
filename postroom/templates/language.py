"""The part of the template language that templates may use, judged before the engine sees the source.

Fuel bounds how many steps a rendering takes, but not how long a step takes nor what it allocates: doubling a
string thirty times costs sixty steps and a gigabyte, and a chain of many thousand operators overflows the
stack of the engine's compiler. Hence the rules here: only an output may put strings together, nothing can be
built up over several tags, what stands in a tag is short. Then the largest thing a template can make is known
beforehand. Everything that is not allowed by name is refused.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from msgspec import Struct

from postroom.templates.faults import Problem
from postroom.templates.filters import OWN_FILTERS
from postroom.templates.formats import LOCALE_FILTERS

# Of the engine's own filters, those that cost the same whatever they are given.
ENGINE_FILTERS = frozenset({"abs", "first", "last", "length", "pluralize", "round"})
FILTERS = ENGINE_FILTERS | OWN_FILTERS.keys() | LOCALE_FILTERS.keys()
TESTS = frozenset({"defined", "divisibleby", "even", "none", "odd"})
TAGS = frozenset({"if", "elif", "else", "endif", "for", "endfor", "set"})
LAYOUT_TAGS = frozenset(
    {"extends", "block", "endblock", "include"}
)  # carried out before the engine sees them
MAX_TAGS = 1_000  # in one file; a chain of `elif` is what the stack of the compiler must bear
MAX_TOKENS = 100  # in one tag
MAX_JOINS = 2  # `~` and `+` in one tag
MAX_LOOPS = 3  # inside each other

_LOOPS = {"for": 1, "endfor": -1}
_KEYWORDS = frozenset({"and", "or", "not", "in", "is", "if", "else", "elif", "for", "set"})
_OPEN = re.compile(r"\{[{%#]")
_TOKEN = re.compile(
    r"""(?P<space>\s++)
    |(?P<end>[-+]?[%}]\})
    |(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<number>[0-9]++(?:\.[0-9]++)?(?![A-Za-z0-9_]))
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*+)
    |(?P<sign>==|!=|<=|>=|//|\*\*|[-+*/%~<>=.,|()\[\]])""",
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A string, number, name or sign inside a tag."""

    kind: str
    text: str


_SUPER = (Token("name", "super"), Token("sign", "("), Token("sign", ")"))


class Tag(Struct, frozen=True):
    """`{{ output }}` or `{% statement %}`, and where its author wrote it."""

    text: str
    line: int
    tokens: tuple[Token, ...]
    is_output: bool
    file: str = ""

    @property
    def word(self) -> str:
        """The statement's first word; empty for an output."""
        return "" if self.is_output or not self.tokens else self.tokens[0].text

    @property
    def is_super(self) -> bool:
        """True for `{{ super() }}`, which stands for what the layout has in this block."""
        return self.is_output and self.tokens == _SUPER


class Literal(Struct, frozen=True):
    """Text between tags, written out as it is, and where its author wrote it."""

    text: str
    line: int = 1
    file: str = ""


class Comment(Struct, frozen=True):
    """`{# … #}`, which nobody gets to see."""

    text: str


Part = Literal | Tag | Comment


class Outline(Struct):
    """A template cut into parts, which together are its text, and what is wrong with it."""

    parts: list[Part] = []
    problems: list[Problem] = []

    @property
    def tags(self) -> list[Tag]:
        """The tags, in order."""
        return [part for part in self.parts if isinstance(part, Tag)]

    @property
    def longest_repeated(self) -> int:
        """Characters of the longest literal that a loop may write again and again."""
        longest = loops = 0
        for part in self.parts:
            if isinstance(part, Tag):
                loops += _LOOPS.get(part.word, 0)
            elif isinstance(part, Literal) and loops:
                longest = max(longest, len(part.text))
        return longest

    def first_with(self, name: str) -> Tag | None:
        """The first tag that names this variable."""
        return next((tag for tag in self.tags if Token("name", name) in tag.tokens), None)


def outline(source: str, file: str = "") -> Outline:
    """Cut a source into its parts and judge each of them. With problems, the parts may end early."""
    found = Outline()
    position = 0
    while opening := _OPEN.search(source, position):
        line = _line(source, opening.start())
        found.parts.append(Literal(source[position : opening.start()], _line(source, position), file))
        position, part = _read(source, opening.start(), line, file)
        if isinstance(part, str):
            found.problems.append(Problem(line, part, file))
            return found
        found.parts.append(part)
        if isinstance(part, Tag):
            found.problems += [Problem(line, message, file) for message in _judge(part)]
        if len(found.parts) > 2 * MAX_TAGS:
            found.problems.append(Problem(line, f"more than {MAX_TAGS} tags and comments", file))
            return found
    found.parts.append(Literal(source[position:], _line(source, position), file))
    return found


def loop_problems(parts: Iterable[Part]) -> list[Problem]:
    """Say where loops stand too deep inside each other."""
    problems, loops = [], 0
    for part in parts:
        if isinstance(part, Tag):
            loops += _LOOPS.get(part.word, 0)
            if loops > MAX_LOOPS and part.word == "for":
                text = f"more than {MAX_LOOPS} loops inside each other"
                problems.append(Problem(part.line, text, part.file))
    return problems


def _line(source: str, position: int) -> int:
    return source.count("\n", 0, position) + 1


def _unreadable(opening: str) -> str:
    return (
        f"cannot be read: '{opening}' without its end, or around a character that the language does not have"
    )


def _read(source: str, start: int, line: int, file: str) -> tuple[int, Tag | Comment | str]:
    """Read a tag or a comment and return it with the position behind it, or say why it cannot be read.

    A tag that is too long is not read to its end: its length would be the time that a refusal takes.
    """
    is_output = source.startswith("{{", start)
    position = start + 2
    if source.startswith("{#", start):
        end = source.find("#}", position) + 2
        return end, Comment(source[start:end]) if end > position else _unreadable("{#")
    if source[position : position + 1] in ("-", "+"):
        position += 1
    tokens: list[Token] = []
    while token := _TOKEN.match(source, position):
        position = token.end()
        if len(tokens) > MAX_TOKENS:
            return start, f"more than {MAX_TOKENS} words and signs in one tag"
        if token.lastgroup == "end":
            if token[0][-2:] != ("}}" if is_output else "%}"):
                break
            return position, Tag(source[start:position], line, tuple(tokens), is_output, file)
        if token.lastgroup != "space":
            tokens.append(Token(str(token.lastgroup), token[0]))
    return start, _unreadable(source[start : start + 2])


def _judge(tag: Tag) -> Iterator[str]:
    if tag.is_super or tag.word in LAYOUT_TAGS:
        return
    if not tag.is_output and tag.word not in TAGS:
        yield (
            f"the statement '{tag.word}' is not allowed; allowed are {', '.join(sorted(TAGS | LAYOUT_TAGS))}"
        )
        return
    if sum(token.text in ("~", "+") for token in tag.tokens) > MAX_JOINS:
        yield f"more than {MAX_JOINS} of '~' and '+' in one tag"
    if any(token in (("sign", "*"), ("sign", "**")) for token in tag.tokens):
        yield "'*' is not allowed: it also repeats strings; let the caller send the result"
    if tag.word == "for" and Token("name", "recursive") in tag.tokens:
        yield "recursive loops are not allowed"
    yield from _judge_names(tag.tokens)
    if tag.word in ("set", "for"):
        yield from _judge_building(tag)


def _judge_names(tokens: tuple[Token, ...]) -> Iterator[str]:
    """Refuse filters that are not allowed, and calls of anything but `range`, a filter or a test."""
    padded = (Token("", ""), Token("", ""), *tokens, Token("", ""))
    for before, at, token, after in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        if at.text == "|" and token.kind == "name" and token.text not in FILTERS:
            yield f"the filter '{token.text}' is not allowed; allowed are {', '.join(sorted(FILTERS))}"
        is_test = at.text == "is" or (before.text, at.text) == ("is", "not")
        if is_test and token.text not in TESTS | {"not"}:
            yield f"the test '{token.text}' is not allowed; allowed are {', '.join(sorted(TESTS))}"
        is_call = after == ("sign", "(") and _is_value(token) and at.text != "|" and not is_test
        if is_call and (token.text != "range" or at.text == "."):
            yield f"'{token.text}(…)' is not allowed: only range can be called"


def _judge_building(tag: Tag) -> Iterator[str]:
    """Refuse `~`, `+`, lists and tuples, out of which several tags could build something huge."""
    groups = [True]  # whether a comma may stand in each open group; outermost, between names of `for a, b in`
    previous = Token("", "")
    for token in tag.tokens[1:]:
        if token.text in ("=", "in") and len(groups) == 1:
            groups[0] = False
        elif token.text in ("~", "+") or (token.text == "[" and not _is_value(previous)):
            yield f"'{token.text}' is not allowed in '{tag.word}': only an output may put things together"
        elif token.text in ("(", "["):
            groups.append(token.text == "(" and _is_value(previous))
        elif token.text in (")", "]") and len(groups) > 1:
            groups.pop()
        elif token.text == "," and not groups[-1]:
            yield f"a list of values is not allowed in '{tag.word}'"
        previous = token


def _is_value(token: Token) -> bool:
    """True where a following bracket is a call or a subscript, not a group."""
    return (
        token.kind in ("string", "number")
        or token.text in (")", "]")
        or (token.kind == "name" and token.text not in _KEYWORDS)
    )
