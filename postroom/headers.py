"""The header fields a caller may set itself; all others are Postroom's to write."""

import re

from postroom.decode import Fault, join
from postroom.text import find_forbidden

MAX_VALUE_BYTES = 998  # RFC 5322 §2.1.1: what one line may hold

# Fields beside `X-*`. Their values have a grammar, so they are sent as they are: in ASCII, folded at spaces.
STRUCTURED = frozenset(
    {
        "auto-submitted",
        "importance",
        "in-reply-to",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "precedence",
        "references",
    }
)
RESERVED_PREFIXES = ("x-tm-", "x-postroom-")  # ZeptoMail's instructions, and our own

_ONE_CLICK = "List-Unsubscribe=One-Click"
_WAYS = re.compile(
    r"<(?:https?://|mailto:)[!-;=?-~]{1,900}>(?:, *<(?:https?://|mailto:)[!-;=?-~]{1,900}>){0,3}",
    re.IGNORECASE,
)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")


def check_headers(headers: dict[str, str]) -> list[Fault]:
    """Return every fault in the header fields of a caller, with pointers such as `/headers/X-Foo`."""
    if not headers:
        return []
    faults: list[Fault] = []
    seen: set[str] = set()
    for name, value in headers.items():
        lowered = name.lower()
        problem = _name_problem(name, lowered) or _value_problem(name, value)
        if problem is None and lowered in seen:
            problem = "given twice (names do not differ by case)"
        seen.add(lowered)
        if problem is not None:
            faults.append(Fault(join("/headers", name), problem))
    if not faults:
        faults += _unsubscribe_faults(headers)
    return faults


def is_wellformed(name: str) -> bool:
    """True for a name that is safe to write before a colon, whether or not callers may set it."""
    return _NAME.fullmatch(name) is not None


def is_structured(name: str) -> bool:
    """True for a field whose value has a grammar that encoded words would break (RFC 2047 §5)."""
    return name.lower() in STRUCTURED


def _unsubscribe_faults(headers: dict[str, str]) -> list[Fault]:
    """Hold the fields of unsubscribing to RFC 2369 §2 and, where one click is to do it, to RFC 8058 §3.1."""
    given = {name.lower(): (name, value) for name, value in headers.items()}
    ways_name, ways = given.get("list-unsubscribe", ("", ""))
    post_name, post = given.get("list-unsubscribe-post", ("", ""))
    if ways and not _WAYS.fullmatch(ways):
        text = "expected one or more of <https://…> and <mailto:…>, separated by commas"
        return [Fault(join("/headers", ways_name), text)]
    if post and post != _ONE_CLICK:
        return [Fault(join("/headers", post_name), f"the only value there is: {_ONE_CLICK}")]
    if post and "<https://" not in ways.lower():
        text = "goes with a List-Unsubscribe that has an https address"
        return [Fault(join("/headers", post_name), text)]
    return []


def _name_problem(name: str, lowered: str) -> str | None:
    if not is_wellformed(name):
        return "a header name is a letter and then up to 63 letters, digits or '-'"
    if lowered.startswith(RESERVED_PREFIXES):
        return "this header is reserved"
    if not lowered.startswith("x-") and lowered not in STRUCTURED:
        return "this header cannot be set by a caller"
    return None


def _value_problem(name: str, value: str) -> str | None:
    forbidden = find_forbidden(value)
    if forbidden is not None:
        return f"must not contain {forbidden}"
    if len(value.encode()) > MAX_VALUE_BYTES:
        return f"longer than {MAX_VALUE_BYTES} bytes"
    if value != value.strip() or not value:
        return "must not be empty, nor begin or end with a space"
    if "=?" in value:
        return "must not contain '=?', which starts an encoded word (RFC 2047)"
    return _structured_problem(name, value) if is_structured(name) else None


def _structured_problem(name: str, value: str) -> str | None:
    if not value.isascii():
        return "must be ASCII"
    # Such a field folds at spaces only, and its first word stands beside the name.
    if max(map(len, value.split())) + len(name) + 2 > MAX_VALUE_BYTES:
        return "holds a word too long for a line"
    return None
