"""Filters and functions of our own: what the engine lacks, and what it would do without limit."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from postroom.templates.urls import is_link

MAX_BUILT = 50_000  # characters that one filter may make
MAX_RANGE = 1_000


class Refusal(Exception):  # noqa: N818 -- not an error of ours: the template asked for what it cannot have
    """A filter refused its input. The text holds no value."""


def bounded_range(*bounds: int) -> list[int]:
    """`range(stop)` or `range(start, stop)`, at most `MAX_RANGE` numbers."""
    if not 1 <= len(bounds) <= 2 or any(type(bound) is not int for bound in bounds):
        raise Refusal("range takes one or two integers")
    numbers = range(*bounds)
    if bounds[-1] - bounds[0] * (len(bounds) - 1) > MAX_RANGE:
        raise Refusal(f"range makes more than {MAX_RANGE} numbers")
    return list(numbers)


def _url(value: Any) -> str:
    """A link that no mail program runs as code; it is escaped like any other text."""
    if not isinstance(value, str) or not is_link(value):
        raise Refusal("the url filter lets only http, https and mailto through")
    return value


def _join(value: Any, separator: Any = "") -> str:
    if not isinstance(value, list) or not isinstance(separator, str):
        raise Refusal("the join filter takes a list and a separator")
    if any(type(item) not in (str, int, float) for item in value):
        raise Refusal("the join filter takes a list of text and numbers")
    items = [str(item) for item in value]
    return _bounded(sum(map(len, items)) + len(separator) * len(items), lambda: separator.join(items))


def _replace(value: Any, old: Any, new: Any) -> str:
    if not (isinstance(value, str) and isinstance(old, str) and isinstance(new, str)):
        raise Refusal("the replace filter takes text")
    return _bounded(len(value) + value.count(old) * len(new), lambda: value.replace(old, new))


def _truncate(value: Any, length: Any = 80) -> str:
    """At most `length` characters, cut between words where there are any, and ended by `…`."""
    if not isinstance(value, str) or type(length) is not int or length < 1:
        raise Refusal("the truncate filter takes text and a length")
    if len(value) <= length:
        return value
    cut = value[: length - 1]
    return (cut.rpartition(" ")[0] or cut).rstrip() + "…"


def _default(value: Any, instead: Any) -> Any:
    """What to show where an optional variable was left out."""
    return instead if value is None else value


def _on_text(function: Callable[[str], str]) -> Callable[[Any], str]:
    def call(value: Any) -> str:
        if not isinstance(value, str):
            raise Refusal("a filter for text was given something else")
        return function(value)

    return call


def _bounded(size: int, make: Callable[[], str]) -> str:
    if size > MAX_BUILT:
        raise Refusal(f"a filter makes more than {MAX_BUILT} characters")
    return make()


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "capitalize": _on_text(str.capitalize),
    "default": _default,
    "join": _join,
    "lower": _on_text(str.lower),
    "replace": _replace,
    "trim": _on_text(str.strip),
    "truncate": _truncate,
    "upper": _on_text(str.upper),
    "url": _url,
    "urlencode": _on_text(lambda text: quote(text, safe="")),
}
