"""Judging values by their declared types: every fault at once, with its place and never with the value.

Checks are composed once per template as closures, so that judging a mail's few variables costs microseconds.
"""

import math
import re
from collections.abc import Callable, Collection
from datetime import date
from typing import Any

import msgspec
from msgspec import UNSET

from postroom.address import AddressError, parse_address
from postroom.decode import Fault, join
from postroom.templates.formats import currencies
from postroom.templates.urls import is_link
from postroom.templates.variables import Variable
from postroom.text import find_forbidden, find_forbidden_in_body

MAX_STRING = 10_000  # characters, unless the template says otherwise
MAX_SUBJECT_STRING = 255  # the same for what the subject shows
MAX_URL = 4_096
MAX_ITEMS = 1_000
MAX_DEPTH = 16
MAX_TOTAL_BYTES = 128 * 1024  # of all variables together, as msgpack
MAX_FAULTS = 100  # nobody reads more, and a hostile caller must not make us write them


Check = Callable[[Any, str, list[Fault]], None]

_AMOUNT = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,6})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NAMES = {
    "string": "a string",
    "integer": "an integer of at most 64 bits",
    "number": "a finite number",
    "boolean": "true or false",
    "date": 'a date like "2026-12-31"',
    "url": "an http, https or mailto URL",
    "email": "an email address",
    "money": 'an amount of money like {"amount": "19.90", "currency": "EUR"}',
    "list": "a list",
    "object": "an object",
}
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def declaration_faults(variable: Variable, pointer: str, depth: int = 1) -> list[Fault]:
    """Judge what the structs cannot: options that go together, defaults and examples by their type."""
    if depth > MAX_DEPTH:
        return [Fault(pointer, f"nested deeper than {MAX_DEPTH}")]
    faults = []
    for option, value, kinds in (
        ("items", variable.items, ("list",)),
        ("fields", variable.fields, ("object",)),
        ("max_length", variable.max_length, ("string", "url")),
    ):
        if value is not UNSET and variable.type not in kinds:
            faults.append(Fault(pointer, f"{option} goes with type {' or '.join(kinds)} only"))
        if value is UNSET and option != "max_length" and variable.type in kinds:
            faults.append(Fault(pointer, f"type {variable.type} needs {option}"))
    if isinstance(variable.items, Variable):
        faults += declaration_faults(variable.items, f"{pointer}/items", depth + 1)
    for name, field in (variable.fields or {}).items():
        faults += declaration_faults(field, f"{pointer}/fields/{name}", depth + 1)
    if not faults:
        check = checker(variable)
        for option in ("default", "example"):
            if getattr(variable, option) is not UNSET:
                check(getattr(variable, option), f"{pointer}/{option}", faults)
    return faults


def checker(variable: Variable, *, in_subject: bool = False) -> Check:
    """Make the check of one variable. What the subject shows must fit on its one line."""
    if variable.type == "object":
        return object_checker(variable.fields or {}, shown=variable.fields or () if in_subject else ())
    if variable.type == "list":
        assert isinstance(variable.items, Variable)
        return _list_checker(checker(variable.items, in_subject=in_subject))
    if variable.type == "string":
        return _string_checker(limit_of(variable, in_subject=in_subject), in_subject=in_subject)
    if variable.type == "money":
        return _check_money
    if variable.type == "url":
        limit = MAX_URL if variable.max_length is UNSET else variable.max_length
        return _plain_checker("url", lambda value: len(value) <= limit and is_link(value))
    return _plain_checker(variable.type, _PREDICATES[variable.type])


def object_checker(fields: dict[str, Variable], *, shown: Collection[str] = ()) -> Check:
    """Make the check of an object, or of all variables together; `shown` are those that the subject shows."""
    checks = {name: checker(field, in_subject=name in shown) for name, field in fields.items()}
    optional = frozenset(name for name, field in fields.items() if field.optional)
    required = {name: _NAMES[field.type] for name, field in fields.items() if not field.optional}
    known = f"expected are {', '.join(checks)}" if checks else "none is expected"
    # What most values are, text and integers, is judged in the loop itself, without a call each.
    limits = {name: limit_of(f, in_subject=name in shown) for name, f in fields.items() if f.type == "string"}
    integers = frozenset(name for name, field in fields.items() if field.type == "integer")

    def check(value: Any, pointer: str, faults: list[Fault]) -> None:
        if type(value) is not dict:
            faults.append(_wrong("object", value, pointer))
            return
        for name, item in value.items():
            if type(item) is str and len(item) <= limits.get(name, -1) and item.isprintable():
                continue
            if type(item) is int and name in integers and _is_integer(item):
                continue
            judge = checks.get(name)
            if judge is None:
                faults.append(Fault(join(pointer, name), f"unknown: {known}"))
            elif item is not None or name not in optional:
                judge(item, f"{pointer}/{name}", faults)
            if len(faults) >= MAX_FAULTS:
                return
        faults += [
            Fault(f"{pointer}/{name}", f"missing: expected {kind}")
            for name, kind in required.items()
            if name not in value
        ]

    return check


def total_faults(variables: dict[str, Any]) -> list[Fault]:
    """Judge the size of all variables together, once each of them has been found right."""
    if len(msgspec.msgpack.encode(variables)) > MAX_TOTAL_BYTES:
        return [Fault("", f"expected at most {MAX_TOTAL_BYTES} bytes in all variables together")]
    return []


def _list_checker(judge: Check) -> Check:
    def check(value: Any, pointer: str, faults: list[Fault]) -> None:
        if type(value) is not list:
            faults.append(_wrong("list", value, pointer))
        elif len(value) > MAX_ITEMS:
            faults.append(Fault(pointer, f"expected a list of at most {MAX_ITEMS} items"))
        else:
            for index, item in enumerate(value):
                judge(item, f"{pointer}/{index}", faults)
                if len(faults) >= MAX_FAULTS:
                    return

    return check


def limit_of(variable: Variable, *, in_subject: bool) -> int:
    """Return how many characters a string may have."""
    usual = MAX_SUBJECT_STRING if in_subject else MAX_STRING
    return usual if variable.max_length is UNSET else variable.max_length


def _string_checker(limit: int, *, in_subject: bool) -> Check:
    def check(value: Any, pointer: str, faults: list[Fault]) -> None:
        if type(value) is not str:
            faults.append(_wrong("string", value, pointer))
        elif len(value) > limit:
            faults.append(Fault(pointer, f"expected a string of at most {limit} characters"))
        elif not value.isprintable():
            found = find_forbidden(value) if in_subject else _find_forbidden_in_text(value)
            if found is not None:
                faults.append(Fault(pointer, f"expected a string without {found}"))

    return check


def _check_money(value: Any, pointer: str, faults: list[Fault]) -> None:
    """An amount is text, so that no float ever rounds it, and its currency one of ISO 4217."""
    if type(value) is not dict:
        faults.append(_wrong("money", value, pointer))
        return
    others = [name for name in value if name not in ("amount", "currency")]
    faults += [
        Fault(join(pointer, name), "unknown: expected are amount, currency") for name in others[:MAX_FAULTS]
    ]
    amount, currency = value.get("amount"), value.get("currency")
    if type(amount) is not str or _AMOUNT.fullmatch(amount) is None:
        faults.append(Fault(f"{pointer}/amount", 'expected a decimal number as text, like "19.90"'))
    if type(currency) is not str or currency not in currencies():
        faults.append(Fault(f"{pointer}/currency", 'expected a currency of ISO 4217, like "EUR"'))


def _find_forbidden_in_text(value: str) -> str | None:
    return "a carriage return (U+000D)" if "\r" in value else find_forbidden_in_body(value)


def _plain_checker(kind: str, is_right: Callable[[Any], bool]) -> Check:
    accepted = {"integer": (int,), "number": (int, float), "boolean": (bool,)}.get(kind, (str,))

    def check(value: Any, pointer: str, faults: list[Fault]) -> None:
        if type(value) not in accepted:
            faults.append(_wrong(kind, value, pointer))
        elif not is_right(value):
            faults.append(Fault(pointer, f"expected {_NAMES[kind]}"))

    return check


def _wrong(kind: str, value: Any, pointer: str) -> Fault:
    return Fault(pointer, f"expected {_NAMES[kind]}, got {_KINDS.get(type(value), 'something else')}")


def _is_integer(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _is_number(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else _is_integer(value)


def _is_date(value: str) -> bool:
    if _DATE.fullmatch(value) is None:
        return False
    try:
        date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_email(value: str) -> bool:
    try:
        parse_address(value)
    except AddressError:
        return False
    return True


_PREDICATES: dict[str, Callable[[Any], bool]] = {
    "integer": _is_integer,
    "number": _is_number,
    "boolean": lambda _: True,
    "date": _is_date,
    "email": _is_email,
}
