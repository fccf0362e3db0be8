"""Header fields (RFC 5322 §2.2): each function returns one whole field, folded, with its line end."""

import re
import time
from collections.abc import Iterable
from functools import lru_cache

from postroom.compose.check import MAX_LINE_BYTES, ComposeError, require_line
from postroom.compose.words import encode_words
from postroom.message import Address

FOLD_AT = 76  # RFC 5322 §2.1.1 recommends 78; RFC 2047 §2 allows 76 where encoded words stand

_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++)*")
_MAX_PLAIN_NAME = 60  # a longer display name is split into encoded words, which fold anywhere
# A dot-string (RFC 5321 §4.1.2, RFC 6531 §3.3) at a host name: nothing that ends a mailbox in a list.
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\xa1-\U0010ffff-]++@[A-Za-z0-9.-]++")
_MESSAGE_ID = re.compile(r"<[!-;=?A-~]++@[!-;=?A-~]++>")

TO_NOBODY = "To: undisclosed-recipients:;\n"  # an empty group (RFC 5322 §3.4)

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def unstructured(name: str, value: str) -> str:
    """Write free text (RFC 5322 §2.2.1), as encoded words unless it is plain and its lines fit.

    A value with `=?` in it is always encoded, so that no reader decodes what the caller did not mean encoded.
    """
    require_line(value, name)
    if value.isascii() and "=?" not in value and value == value.strip(" "):
        field = f"{name}: {value}\n"
        if len(field) <= FOLD_AT + 1:
            return field
        if "  " not in value:  # a fold inside a run of spaces could leave a blank line
            field = _fold(name, value.split(" "))
            if max(map(len, field.split("\n"))) <= MAX_LINE_BYTES:
                return field
    return _fold(name, encode_words(value, FOLD_AT - len(name) - 2))


def structured(name: str, value: str) -> str:
    """Write a value that has a grammar of its own: in ASCII, as it is, folded at its spaces."""
    require_line(value, name)
    if not value.isascii() or "=?" in value:
        raise ComposeError(f"{name} is not plain ASCII")
    return _fold(name, value.split())


def message_id(value: str) -> str:
    """Write the Message-ID (RFC 5322 §3.6.4), given with its angle brackets."""
    if not _MESSAGE_ID.fullmatch(value) or "=?" in value:
        raise ComposeError("the Message-ID is not of the form <left@right>")
    return f"Message-ID: {value}\n"


@lru_cache(maxsize=256)  # mails of one second share it
def date(seconds: int) -> str:
    """Write the Date (RFC 5322 §3.3) in UTC, in English whatever the locale is."""
    t = time.gmtime(seconds)
    day = f"{_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04}"
    return f"Date: {day} {t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} +0000\n"


@lru_cache(maxsize=256)  # an agent's mail has the same author again and again
def author(address: Address) -> str:
    """Write From (RFC 5322 §3.6.2)."""
    return mailboxes("From", (address,))


def mailboxes(name: str, addresses: Iterable[Address]) -> str:
    """Write a list of mailboxes (RFC 5322 §3.4); local parts beyond ASCII stay as they are (RFC 6532)."""
    words: list[str] = []
    for address in addresses:
        words += _mailbox(name, address)
        words[-1] += ","
    return _fold(name, words)[: -len(",\n")] + "\n"


def _mailbox(field: str, address: Address) -> list[str]:
    where = address.address
    if not _ADDRESS.fullmatch(where) or "=?" in where:
        raise ComposeError(f"an address in {field} is not in wire form")
    require_line(where, field)
    if not address.name:
        return [where]
    require_line(address.name, field)
    return [*_phrase(address.name), f"<{where}>"]


def _phrase(name: str) -> list[str]:
    """Write a display name: atoms as they are, other ASCII quoted, everything else as encoded words."""
    if not name.isascii() or "=?" in name or len(name) > _MAX_PLAIN_NAME:
        return encode_words(name, FOLD_AT - len("Reply-To: "))
    if _ATOMS.fullmatch(name):
        return [name]
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return [f'"{escaped}"']


def _fold(name: str, words: list[str]) -> str:
    """Put the words on as few lines as will hold them, the first one always beside the name."""
    whole = f"{name}: {' '.join(words)}"
    if words and len(whole) <= FOLD_AT:
        return f"{whole}\n"
    lines: list[str] = []
    line = f"{name}:"
    first = True
    for word in words:
        if not first and len(line) + 1 + len(word) > FOLD_AT:
            lines.append(line)
            line = ""
        line = f"{line} {word}"
        first = False
    lines.append(line)
    return "\n".join(lines) + "\n"
