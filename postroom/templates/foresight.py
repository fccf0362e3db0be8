"""Knowing that a message's bodies render without rendering them.

Every message is rendered once at acceptance, so that what cannot be rendered is refused while its caller listens;
that was a third of the cost of accepting (decision 15). Of a template that only shows variables, asks whether they are
there and goes through lists, what decides is not what the variables say but their *shape*: which of them are there,
and which are empty. So a shape that has rendered will render again, as long as the engine's bounds are out of reach.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from postroom.templates.engine import FORMATTED, MAX_FILTERED, MAX_OUTPUT_BYTES, fuel_for
from postroom.templates.language import Literal, Outline, Tag, Token
from postroom.templates.variables import Variable

MAX_SHAPES = 1_000  # remembered of one template; callers choose them
MAX_EXPANSION = 6  # bytes that one byte of a variable can become: `"` in HTML is `&quot;`
NO_ROOM = -1
ALL_THERE = True  # the shape of what is not looked into, where none of it is empty
STEPS_OF_TAG = 20  # more than any tag that is foreseen takes

# What can be shown, and filters that fit every value of a type. A number's size can be too much for a filter.
_SHOWN = frozenset({"string", "integer", "number", "date", "url", "email"})
_FILTERS = {
    "string": frozenset({"capitalize", "lower", "trim", "upper"}),
    "integer": frozenset({"number", "pluralize"}),
    "date": frozenset({"date"}),
    "url": frozenset({"url"}),
}
_NESTED = frozenset({list, dict})
# Checked variables of these types hold nothing that a subject may not hold.
_IN_LINE = frozenset({"string", "integer"})
LONGEST_INTEGER = len(str(-(2**63)))
_TEXT, _COUNT = Variable(type="string"), Variable(type="integer")


class NotForeseenError(Exception):
    """What a tag does may depend on what a variable says."""


class Foresight:
    """The shapes that the bodies of one template in one locale are known to render with."""

    def __init__(self, outlines: Iterable[Outline], variables: Mapping[str, Variable]) -> None:
        """Raise `NotForeseenError` where a body does more than can be foreseen."""
        self._bodies = [_Body(found, variables) for found in outlines]
        self._lists = sorted({name for body in self._bodies for name in body.lists})
        asked = {name for body in self._bodies for name in body.asked}
        within = {name for body in self._bodies for name in body.asked_within}
        # What is always there and nobody asks for decides nothing, but for a list: whether its loop is gone through.
        self._deep = [n for n, v in variables.items() if n in within or any(map(_may_lack, _inside(v)))]
        heeded = asked | set(self._lists) | {name for name, v in variables.items() if v.optional}
        self._flat = sorted(heeded - set(self._deep) - {"locale"})
        self._known: set[Any] = set()
        self._rooms: dict[int, int] = {}  # for so many list items

    def shape_of(self, context: Mapping[str, Any], size: int) -> Any | None:
        """Return the shape of checked variables of so many bytes; None where they may be too much for the engine."""
        items = 0
        for name in self._lists:
            items += len(context[name] or ())
        room = self._rooms.get(items)
        if room is None:
            room = self._rooms[items] = min(
                (body.room(items) for body in self._bodies), default=MAX_OUTPUT_BYTES
            )
        if size > room:
            return None
        flat: Any = ALL_THERE
        if not all(map(context.__getitem__, self._flat)):
            flat = tuple([None if context[name] is None else bool(context[name]) for name in self._flat])
        return (flat, *_shapes([context[name] for name in self._deep]))

    def knows(self, shape: Any | None) -> bool:
        """True where this shape has rendered."""
        return shape in self._known

    def learn(self, shape: Any | None) -> None:
        """Remember that this shape has rendered."""
        if shape is not None and len(self._known) < MAX_SHAPES:
            self._known.add(shape)


def _may_lack(variable: Variable) -> bool:
    """True where a value may not be there, or something inside it."""
    return variable.optional or any(map(_may_lack, _inside(variable)))


def _inside(variable: Variable) -> list[Variable]:
    fields = list(variable.fields.values()) if isinstance(variable.fields, dict) else []
    return [*fields, variable.items] if isinstance(variable.items, Variable) else fields


class Line:
    """A subject of text with variables in it: where these are texts and integers, only its length can be wrong."""

    def __init__(self, found: Outline, variables: Mapping[str, Variable], *, limit: int) -> None:
        """Raise `NotForeseenError` where the subject does more, or may be empty. It has `limit` characters at most."""
        literals = [part.text for part in found.parts if isinstance(part, Literal)]
        if not any(text.strip() for text in literals):
            raise NotForeseenError
        self._room = limit - sum(map(len, literals))
        self._names = [_plain_name(tag, variables) for tag in found.tags]

    def fits(self, context: Mapping[str, Any]) -> bool:
        """True where the subject surely renders with these checked variables."""
        room = self._room
        for name in self._names:
            value = context[name]
            if type(value) is str:
                room -= len(value)
            elif type(value) is int:
                room -= LONGEST_INTEGER
            else:
                return False
        return room >= 0


def _plain_name(tag: Tag, variables: Mapping[str, Variable]) -> str:
    match [token.text for token in tag.tokens]:
        case [name] if tag.is_output and name in variables and variables[name].type in _IN_LINE:
            return name
    raise NotForeseenError


def _shape(value: Any) -> Any:
    """Keep of a list or an object what is there and what is empty: of what is neither, None, or empty, or True."""
    if isinstance(value, dict):
        return (*value, *_shapes(value.values()))
    return frozenset(_shapes(value))  # how many items are alike makes no difference


def _shapes(values: Iterable[Any]) -> Iterable[Any]:
    return [_shape(value) if type(value) in _NESTED else value and True for value in values]


class _Body:
    """One body: what it may write and how many steps it may take, for so many list items."""

    def __init__(self, found: Outline, variables: Mapping[str, Variable]) -> None:
        self._known: dict[str, Variable] = {**variables, "locale": _TEXT}
        self._loop: str | None = None  # the name of the item, inside a loop
        self._over = ""  # the list that the loop goes through
        self.lists: set[str] = set()
        self.asked: set[str] = set()  # whether they are there
        self.asked_within: set[str] = set()  # whether something inside them is
        self._chars, self._outputs, self._tags = [0, 0], [0, 0], 0  # outside and inside of loops
        self._fuel = fuel_for(found.longest_repeated)
        for part in found.parts:
            if isinstance(part, Tag):
                self._take(part)
            if isinstance(part, Literal | Tag):
                self._chars[self._loop is not None] += len(part.text)

    def room(self, items: int) -> int:
        """Return of how many bytes not even the worst variables could reach a bound of the engine."""
        chars = self._chars[0] + self._chars[1] * items
        outputs = self._outputs[0] + self._outputs[1] * items
        left = MAX_OUTPUT_BYTES - 4 * chars
        if left <= 0 or STEPS_OF_TAG * self._tags * (1 + items) >= self._fuel:
            return NO_ROOM
        each = min((left - 1) // MAX_EXPANSION, MAX_FILTERED - 1) // max(1, outputs)
        return each - FORMATTED

    def _take(self, tag: Tag) -> None:
        self._tags += 1
        words = [token.text for token in tag.tokens]
        match words:
            case _ if tag.is_output:
                self._outputs[self._loop is not None] += 1
                self._show(tag.tokens)
            case ["else" | "endif"]:
                pass
            case ["if" | "elif", "not", *_]:
                self._ask(tag.tokens[2:])
            case ["if" | "elif", *_]:
                self._ask(tag.tokens[1:])
            case ["for", item, "in", name] if self._loop is None:
                self._enter(item, name)
            case ["endfor"] if self._loop is not None:
                del self._known[self._loop], self._known["loop"]
                self._loop = None
            case _:
                raise NotForeseenError

    def _enter(self, item: str, name: str) -> None:
        variable = self._known.get(name)
        taken = item in self._known or item == "loop" or "loop" in self._known
        if variable is None or not isinstance(variable.items, Variable) or taken:
            raise NotForeseenError
        self.lists.add(name)
        self._loop, self._over = item, name
        self._known |= {item: variable.items, "loop": Variable(type="object", fields={"index": _COUNT})}

    def _ask(self, path: tuple[Token, ...]) -> None:
        self._variable(path)
        root = path[0].text
        if root in {self._loop, "loop"}:
            self.asked_within.add(self._over)
        elif len(path) > 1:
            self.asked_within.add(root)
        else:
            self.asked.add(root)

    def _show(self, tokens: tuple[Token, ...]) -> None:
        path, bar, chosen = _cut(tokens)
        kind = self._variable(path).type
        is_default = [token.kind for token in chosen] == ["name", "sign", "string", "sign"] and (
            chosen[0].text == "default"
        )
        is_total = len(chosen) == 1 and chosen[0].text in _FILTERS.get(kind, ())
        if kind not in _SHOWN or (bar and not is_default and not is_total):
            raise NotForeseenError

    def _variable(self, path: tuple[Token, ...]) -> Variable:
        """Return what `name` or `name.field` is declared as."""
        match [token.text for token in path]:
            case [name] if name in self._known and name != "loop":
                return self._known[name]
            case [name, ".", field] if name in self._known:
                fields = self._known[name].fields
                if isinstance(fields, dict) and field in fields:
                    return fields[field]
        raise NotForeseenError


def _cut(tokens: tuple[Token, ...]) -> tuple[tuple[Token, ...], bool, tuple[Token, ...]]:
    """Cut an output into its value and its filter."""
    at = next((n for n, token in enumerate(tokens) if token.text == "|" and token.kind == "sign"), None)
    return (tokens, False, ()) if at is None else (tokens[:at], True, tokens[at + 1 :])
