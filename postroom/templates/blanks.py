"""Which white space around its tags the engine leaves out of a text (`trim_blocks`, `lstrip_blocks`, `-` and `+`)."""

from collections.abc import Iterable

from postroom.templates.language import Literal, Part, Tag

_BLANKS = " \t"
_WHITE = " \t\n"


class OddBlankError(Exception):
    """White space that is not blank, tab or line end stands where the engine may strip some."""


def trimmed(parts: Iterable[Part]) -> list[str | Tag]:
    """Return the texts that are written and the tags between them, without the comments.

    Raises:
        OddBlankError: a text cannot be trimmed for sure.
    """
    found: list[str | Tag] = []
    text, before = "", ""
    for part in parts:
        if isinstance(part, Literal):
            text += part.text
        else:
            found.append(_between(before, text, part.text))
            text, before = "", part.text
            if isinstance(part, Tag):
                found.append(part)
    return [*found, _between(before, text, "")]


def _between(before: str, text: str, behind: str) -> str:
    """Return what is left of a text between two tags or comments; `before` is empty at the start of a file."""
    return _without_begin(before, _without_end(text, behind, is_first=not before))


def _without_end(text: str, behind: str, *, is_first: bool) -> str:
    if behind[2:3] == "-":
        return _checked(text.rstrip(_WHITE), -1)
    if not behind or behind.startswith("{{") or behind[2:3] == "+":
        return text
    kept = _checked(text.rstrip(_BLANKS), -1)
    return kept if kept.endswith("\n") or (is_first and not kept) else text


def _without_begin(before: str, text: str) -> str:
    mark = before[3:][-3:-2]  # the one sign of '{#-#}' belongs to its opening
    if mark == "-":
        return _checked(text.lstrip(_WHITE), 0)
    if not before or before.endswith("}}") or mark == "+":
        return text
    return _checked(text, 0).removeprefix("\n")


def _checked(text: str, edge: int) -> str:
    if text and text[edge].isspace() and text[edge] not in _WHITE:
        raise OddBlankError
    return text
