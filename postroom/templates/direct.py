"""Writing without the engine what only shows variables, asks whether they are there, and goes through lists.

Most mail does no more, and handing its variables to the engine and taking each output back to be judged costs several
times what putting the same text together does (decision 17). So such a file is translated into a function in Python,
into which nothing of a template gets but as a quoted text. The engine stays the measure: what is not surely the same
here, a tag or a value, is left to it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from postroom.templates.blanks import OddBlankError, trimmed
from postroom.templates.engine import MAX_OUTPUT_BYTES, fuel_for
from postroom.templates.filters import OWN_FILTERS
from postroom.templates.foresight import STEPS_OF_TAG
from postroom.templates.formats import LOCALE_FILTERS
from postroom.templates.language import Literal, Outline, Tag, Token, outline

LONGEST_SHOWN = 1_000  # characters of one output; the engine, which keeps count, has the longer ones
LARGEST_SHOWN = 2**63
MOST_TAGS = 300
MOST_DEPTH = 20  # of blocks inside each other: Python has its bounds too
CONSTANTS = frozenset({"true", "True", "false", "False", "none", "None"})
OF_LOOP = {"index": "n", "first": "n == 1", "last": "n == len(items)"}

Context = dict[str, Any]


class BeyondError(Exception):
    """Only the engine knows what this comes to."""


class Direct:
    """One file that needs no engine for usual values."""

    def __init__(self, found: Outline, *, as_html: bool) -> None:
        """Raise `BeyondError` where a tag does more than show, ask whether, and go through a list."""
        found = outline("".join(part.text for part in found.parts))  # texts that meet may have become a tag
        if found.problems or len(found.tags) > MOST_TAGS:
            raise BeyondError
        most_items = _most_items(found)
        scope: dict[str, Any] = {
            "show": _show_in_html if as_html else _show,
            "own": FILTERS,
            "by_locale": LOCALE_FILTERS,
            "filtered": _filtered,
            "localised": _localised,
            "listed": partial(_listed, most_items),
        }
        exec(_Translator(found).source, scope)  # noqa: S102  what of it the template says is quoted, as text
        self._write: Callable[[Context], list[str]] = scope["write"]

    def render(self, context: Context) -> str | None:
        """Return the text that the engine makes of checked variables; None where that is for the engine to say."""
        try:
            text = "".join(self._write(context))
        except Exception:  # noqa: BLE001  whatever a filter or a field comes to, the engine says it in its own way
            return None
        return text if len(text) * 4 <= MAX_OUTPUT_BYTES else None

    def compare(self, context: Context, text: str) -> None:
        """Leave everything to the engine from now on if it made another text of the same variables.

        Ours are tested against one version of it; which one is installed is not ours to say.
        """
        if self.render(context) not in (None, text):
            self._write = _leave


def _most_items(found: Outline) -> int:
    """Return how many items each list may have, so that the engine has the fuel for all of it.

    No loop stands in another: what an item adds of each list is at most what the file takes as a whole.
    """
    marks = sum(not isinstance(part, Literal) for part in found.parts)  # each has a text behind it
    most = fuel_for(found.longest_repeated) // (STEPS_OF_TAG * (1 + marks)) - 1
    if most < 0:
        raise BeyondError
    return most


class _Translator:
    """Turns tags into the source of `write(names)`, which returns the pieces of a text."""

    def __init__(self, found: Outline) -> None:
        try:
            self._parts: Iterator[str | Tag] = iter(trimmed(found.parts))
        except OddBlankError:
            raise BeyondError from None
        self._lines = ["def write(names):", " out = []"]
        self._item: str | None = None  # the name of the item, inside a loop
        if self._block(1) is not None:
            raise BeyondError
        self.source = "\n".join([*self._lines, " return out"])

    def _say(self, depth: int, line: str) -> None:
        self._lines.append(" " * depth + line)

    def _block(self, depth: int) -> Tag | None:
        """Translate up to the tag that ends or divides a block, and return that; None at the end of the file."""
        if depth > MOST_DEPTH:
            raise BeyondError
        pieces: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                pieces.append(repr(part))
            elif part.is_output:
                pieces.append(f"show({self._output(part.tokens)})")
            else:
                self._say(depth, f"out += [{', '.join(pieces)}]")
                pieces = []
                if part.word not in ("if", "for"):
                    return part
                self._choice(depth, part) if part.word == "if" else self._loop(depth, part)
        self._say(depth, f"out += [{', '.join(pieces)}]")
        return None

    def _choice(self, depth: int, tag: Tag) -> None:
        word = "if"
        while word != "else":
            self._say(depth, f"{word} {self._question(tag.tokens[1:])}:")
            end = self._block(depth + 1)
            if end is None or end.word not in ("elif", "else", "endif"):
                raise BeyondError
            if end.word == "endif":
                return
            tag, word = end, end.word
        self._say(depth, "else:")
        end = self._block(depth + 1)
        if end is None or end.word != "endif":
            raise BeyondError

    def _question(self, tokens: tuple[Token, ...]) -> str:
        if [token.text for token in tokens[:1]] == ["not"]:
            return f"not {self._value(tokens[1:])}"
        return self._value(tokens)

    def _loop(self, depth: int, tag: Tag) -> None:
        match [token.text for token in tag.tokens]:
            case ["for", item, "in", name] if "loop" not in (item, name) and self._item is None:
                self._say(depth, f"items = listed({self._value(tag.tokens[3:])})")
                self._say(depth, "for n, item in enumerate(items, 1):")
                self._item = item
                end = self._block(depth + 1)
                self._item = None
                if end is not None and end.word == "endfor":
                    return
        raise BeyondError

    def _output(self, tokens: tuple[Token, ...]) -> str:
        at = next((n for n, token in enumerate(tokens) if token == Token("sign", "|")), len(tokens))
        value = self._value(tokens[:at])
        if at == len(tokens):
            return value
        name, *texts = _applied(tokens[at + 1 :])
        if name in FILTERS:
            return f"filtered({', '.join([value, f'own[{name!r}]', *texts])})"
        if name in LOCALE_FILTERS:
            return f"localised({', '.join([value, f'by_locale[{name!r}]', 'names', *texts])})"
        raise BeyondError

    def _value(self, tokens: tuple[Token, ...]) -> str:
        """Return how to get at `name` or `name.field`."""
        match [token.text for token in tokens]:
            case ["loop", ".", field] if field in OF_LOOP and self._item is not None:
                return f"({OF_LOOP[field]})"
            case [name, ".", field] if tokens[0].kind == tokens[2].kind == "name":
                return f"{self._root(name)}[{field!r}]"
            case [name] if tokens[0].kind == "name":
                return self._root(name)
        raise BeyondError

    def _root(self, name: str) -> str:
        if name == "loop" or name in CONSTANTS:
            raise BeyondError
        return "item" if name == self._item else f"names[{name!r}]"


def _applied(tokens: tuple[Token, ...]) -> list[str]:
    """Return a filter's name and its arguments, plain texts all of them, as Python writes them."""
    match tokens:
        case [name]:
            return [name.text]
        case [name, Token("sign", "("), *given, Token("sign", ")")] if given:
            kinds = [token.kind if token.text != "," else "," for token in given]
            texts = [token.text[1:-1] for token in given[::2]]
            if kinds == (["string", ","] * len(texts))[:-1] and not any("\\" in text for text in texts):
                return [name.text, *map(repr, texts)]
    raise BeyondError


def _leave(_context: Context) -> list[str]:
    raise BeyondError


def _listed(most: int, items: Any) -> list[Any]:
    if type(items) is not list or len(items) > most:
        raise BeyondError
    return items


def _filtered(value: Any, function: Callable[..., Any], *given: str) -> Any:
    return function(_usual(value), *given)


def _localised(value: Any, function: Callable[..., Any], names: Context, *given: str) -> Any:
    return function(names["locale"], _usual(value), *given)


def _usual(value: Any) -> Any:
    if isinstance(value, (str, list)) and len(value) > LONGEST_SHOWN:
        raise BeyondError
    if type(value) is float and value.is_integer():  # the engine makes an integer of it, of -0.0 too
        raise BeyondError
    return value


def _pluralize(value: Any, *endings: str) -> str:
    """The engine's own filter, of an integer."""
    if type(value) is not int or len(endings) not in (0, 2):
        raise BeyondError
    singular, plural = endings or ("", "s")
    return singular if value == 1 else plural


def _show(value: Any) -> str:
    if type(value) is str and len(value) <= LONGEST_SHOWN:
        return value
    if type(value) is int and -LARGEST_SHOWN < value < LARGEST_SHOWN:
        return str(value)
    raise BeyondError


def _show_in_html(value: Any) -> str:
    if type(value) is str and len(value) <= LONGEST_SHOWN:
        if value.isalnum():
            return value
        text = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return text.replace('"', "&quot;").replace("'", "&#x27;")
    return _show(value)


FILTERS: dict[str, Callable[..., Any]] = {**OWN_FILTERS, "pluralize": _pluralize}
