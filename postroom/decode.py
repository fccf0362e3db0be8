"""Strict decoding that reports every fault at once, each with its place and never with its value."""

import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct

T = TypeVar("T")
DecHook = Callable[[type, Any], Any]

MAX_FAULTS = 100  # a small body can hold very many; beyond so many nobody reads on
MAX_PARTS = 1000  # a larger list or object is judged as a whole: looking at each part would hold everybody up
SHOWN_NAME_CHARS = 64  # how much of an unknown field's name a pointer repeats


class Fault(Struct, frozen=True):
    """One thing wrong: where (a JSON pointer, RFC 6901) and what, without the offending value."""

    pointer: str
    detail: str


def convert(value: object, kind: type[T], *, dec_hook: DecHook | None = None) -> tuple[T | None, list[Fault]]:
    """Convert plain data to `kind`, strictly; return it and no faults, or None and all of them."""
    try:
        return msgspec.convert(value, kind, dec_hook=dec_hook), []
    except msgspec.ValidationError:
        faults: list[Fault] = []
        _Collector(faults, dec_hook).visit(value, kind, "")
        return None, faults[:MAX_FAULTS]


def join(pointer: str, step: str | int) -> str:
    """Append one step to a JSON pointer. Only printable ASCII of the step is repeated, and not too much."""
    shown = "".join(c if " " <= c <= "~" else "?" for c in str(step)[:SHOWN_NAME_CHARS])
    return f"{pointer}/{shown.replace('~', '~0').replace('/', '~1')}"


class _Collector:
    def __init__(self, faults: list[Fault], dec_hook: DecHook | None) -> None:
        self._faults = faults
        self._dec_hook = dec_hook

    def visit(self, value: object, kind: Any, pointer: str) -> None:
        """Look into the parts first; a whole whose parts are right is then judged itself."""
        before = len(self._faults)
        if before >= MAX_FAULTS:
            return
        self._visit_parts(value, _bare(kind), pointer)
        if len(self._faults) > before:
            return
        try:
            msgspec.convert(value, kind, dec_hook=self._dec_hook)
        except msgspec.ValidationError as error:
            self._faults.append(Fault(pointer, _without_value(str(error), kind)))

    def _visit_parts(self, value: object, kind: Any, pointer: str) -> None:
        origin = get_origin(kind)
        if isinstance(value, list | dict) and len(value) > MAX_PARTS:
            self._faults.append(Fault(pointer, f"may not have more than {MAX_PARTS} parts"))
        elif origin in (Union, types.UnionType):
            chosen = _choose(value, get_args(kind))
            if chosen is not None:
                self._visit_parts(value, _bare(chosen), pointer)
        elif isinstance(kind, type) and issubclass(kind, Struct) and isinstance(value, dict):
            self._visit_struct(value, kind, pointer)
        elif origin in (list, tuple) and isinstance(value, list):
            for index, item in enumerate(value):
                self.visit(item, get_args(kind)[0], join(pointer, index))
        elif origin is dict and isinstance(value, dict):
            key_kind, item_kind = get_args(kind)
            for key, item in value.items():
                self.visit(key, key_kind, join(pointer, key))
                self.visit(item, item_kind, join(pointer, key))

    def _visit_struct(self, value: dict[str, Any], kind: type[Struct], pointer: str) -> None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        tag_field = kind.__struct_config__.tag_field
        for name in value:
            if name not in fields and name != tag_field and kind.__struct_config__.forbid_unknown_fields:
                self._faults.append(Fault(join(pointer, name), "unknown field"))
        for name, field in fields.items():
            if name in value:
                self.visit(value[name], field.type, join(pointer, name))
            elif field.required:
                self._faults.append(Fault(join(pointer, name), "required, but missing"))


def _bare(kind: Any) -> Any:
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def _choose(value: object, options: tuple[Any, ...]) -> Any | None:
    """Pick the member of a union whose parts are worth looking into: by tag, or the only one with parts."""
    structs = [o for o in map(_bare, options) if isinstance(o, type) and issubclass(o, Struct)]
    if len(structs) > 1 and isinstance(value, dict):
        for option in structs:
            config = option.__struct_config__
            if config.tag_field and value.get(config.tag_field) == config.tag:
                return option
        return None
    others = [o for o in options if o is not type(None)]
    return others[0] if len(others) == 1 else (structs[0] if len(structs) == 1 else None)


def _without_value(message: str, kind: Any) -> str:
    """Keep what msgspec says is expected, and drop what it repeats of the input."""
    text = message.partition(" - at `")[0]
    if text.startswith("Invalid"):
        allowed = _allowed(kind)
        return f"must be one of: {', '.join(allowed)}" if allowed else "not an allowed value"
    if " matching regex " in text and (expected := _expected(kind)):
        return f"must be {expected}"
    return text[:1].lower() + text[1:]


def _expected(kind: Any) -> str | None:
    """Return in words what a pattern allows, where its type says so (`Meta(extra={"expected": …})`)."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(filter(None, map(_expected, get_args(kind))), None)
    known = [meta.extra or {} for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    return next((str(extra["expected"]) for extra in known if "expected" in extra), None)


def _allowed(kind: Any) -> list[str]:
    kind = _bare(kind)
    if get_origin(kind) is Literal:
        return [str(a) for a in get_args(kind)]
    if get_origin(kind) in (Union, types.UnionType):
        tags = [getattr(_bare(o), "__struct_config__", None) for o in get_args(kind)]
        named = [str(t.tag) for t in tags if t is not None and t.tag]
        return named or [a for o in get_args(kind) for a in _allowed(o)]
    if isinstance(kind, type) and hasattr(kind, "__members__"):
        return [str(member.value) for member in kind.__members__.values()]
    return []
