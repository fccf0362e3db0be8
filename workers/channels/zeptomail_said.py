"""What can be made out of a body of ZeptoMail's API: codes, targets and the request id.

Errors come in four shapes, and nothing about the types inside is certain. Bodies echo addresses, so the texts
they hold are dropped here; what is kept of codes and ids is checked first.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

_CODE = re.compile(r"[A-Za-z0-9_]{1,16}")
_OWN_CODE = re.compile(r"[A-Za-z]{1,8}_[0-9]{1,7}")
_REQUEST_ID = re.compile(r"[!-~]{1,128}")
_FIELD = re.compile(r"[A-Za-z_]+")
# A run of what may stand before the `@`, with or without the rest, so that a text costs no more than its length. Quotes
# and bars may be part of it.
_RUN = re.compile(r"[^\s\"<>(),:;\[\]\\@]++(?:@[^\s\"'`<>(),:;|/{}\[\]\\@]{1,253})?")
_AROUND = "'`|{/"


class Said(Struct, frozen=True):
    """What could be made out of a body. `values` are addresses in lower case: compared, never given out."""

    accepted: bool = False
    request_id: str = ""
    group: str = ""
    details: tuple[str, ...] = ()  # with the inner codes, each after its own
    targets: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()

    @property
    def code(self) -> str | None:
        """The most specific code."""
        return self.details[0] if self.details else self.group or None

    @property
    def provider_spoke(self) -> bool:
        """True where the error is the API's own, not that of a proxy on the way."""
        return any(_OWN_CODE.fullmatch(code) for code in (self.group, *self.details))


def read(body: bytes) -> Said:
    """Make out what can be made out. Anything may come; nothing raises."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Said()
    if not isinstance(document, dict):
        return Said()
    data, error = document.get("data"), document.get("error")
    if isinstance(data, dict) and "error_code" in data:  # the CPaaS shape
        return Said(group=_code(data["error_code"]))
    if isinstance(error, dict):
        return _read_error(error)
    if error is not None:
        return Said()
    request_id = _printable(document.get("request_id"))
    # Either sign of a yes will do: taking a known yes for nonsense would send the message twice.
    told = any(_code(entry.get("code")).startswith("EM_") for entry in _dicts(data))
    return Said(
        accepted=told or (document.get("object") == "email" and bool(request_id)), request_id=request_id
    )


def _read_error(error: dict[str, Any]) -> Said:
    details: list[str] = []
    targets: set[str] = set()
    values: set[str] = set()
    for entry in _dicts(error.get("details")):
        details.append(_code(entry.get("code")))
        details += [_code(inner.get("code")) for inner in _dicts(entry.get("inner_error"))]
        targets.update(_words(entry.get("target")))
        values |= _addresses(entry.get("target_value")) or _addresses(entry)
    return Said(
        request_id=_printable(error.get("request_id")),
        group=_code(error.get("code")),
        details=tuple(code for code in details if code),
        targets=frozenset(targets),
        values=frozenset(values),
    )


def _code(value: object) -> str:
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def _printable(value: object) -> str:
    return value if isinstance(value, str) and _REQUEST_ID.fullmatch(value) else ""


def _dicts(value: object) -> list[dict[str, Any]]:
    """Return the objects in a list, or the one that stands in its place."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _strings(value: object) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _addresses(value: object) -> set[str]:
    """Return the addresses in all texts of a value, each also without what may stand around it."""
    found: set[str] = set()
    rest = [value]
    while rest:
        match rest.pop():
            case str(text):
                plain = (run.rstrip(".") for run in _RUN.findall(text.lower()) if "@" in run)
                found.update(form for one in plain for form in (one, one.lstrip(_AROUND)))
            case list(parts):
                rest += parts
            case dict(parts):
                rest += [*parts, *parts.values()]
    return found


def _words(target: object) -> Iterator[str]:
    """Yield the field names of a target: `to`, `to|cc`, or a list of them."""
    for text in _strings(target):
        for part in text.split("|"):
            found = _FIELD.match(part.strip())
            if found:
                yield found[0].lower()
