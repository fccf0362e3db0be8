"""The variables of a template as its team declares them, and filling in what a caller left out."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

VariableName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}\Z")]
Type = Literal["string", "integer", "number", "boolean", "date", "url", "email", "money", "list", "object"]
Fill = Callable[[Any], Any]


class Variable(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One variable, list item or object field, as `template.toml` declares it."""

    type: Type
    description: str = ""
    required: bool = True
    default: Any = UNSET
    example: Any = UNSET
    max_length: Annotated[int, Meta(ge=1, le=20_000)] | UnsetType = UNSET  # characters of a string or url
    items: "Variable | UnsetType" = UNSET
    fields: "dict[VariableName, Variable] | UnsetType" = UNSET

    @property
    def optional(self) -> bool:
        """True when a caller may leave it out, or give null for it."""
        return self.default is not UNSET or not self.required


def object_filler(fields: dict[str, Variable]) -> Fill | None:
    """Make what completes an object, in a new one: defaults, and None for what is optional without one.

    None instead of a function means that there is nothing to complete, at any depth.
    """
    inner = {name: each for name, field in fields.items() if (each := _filler(field)) is not None}
    blanks = {name: _blank(field, inner.get(name)) for name, field in fields.items() if field.optional}
    if not inner and not blanks:
        return None

    def fill(value: dict[str, Any]) -> dict[str, Any]:
        given = value
        if None in value.values():
            given = {name: item for name, item in value.items() if item is not None}
        filled = {**blanks, **given}
        for name, complete in inner.items():
            if name in given:
                filled[name] = complete(given[name])
        return filled

    return fill


def least(variable: Variable, value: Any) -> Any:
    """Take out of an example what a caller may leave out, at any depth."""
    if isinstance(variable.items, Variable):
        item = variable.items
        return [least(item, each) for each in value]
    if isinstance(variable.fields, dict):
        fields = variable.fields
        return {name: least(fields[name], each) for name, each in value.items() if not fields[name].optional}
    return value


def _filler(variable: Variable) -> Fill | None:
    if isinstance(variable.fields, dict):
        return object_filler(variable.fields)
    complete = _filler(variable.items) if isinstance(variable.items, Variable) else None
    return None if complete is None else lambda items: [complete(item) for item in items]


def _blank(variable: Variable, complete: Fill | None) -> Any:
    if variable.default is UNSET:
        return None
    return variable.default if complete is None else complete(variable.default)
