"""Email addresses: from what a caller wrote to the form that goes onto the wire.

The wire form is a local part in NFC, its case kept, and a domain as a lower-case A-label. What SMTP allows
but no mailbox of today needs is refused, because parsers disagree about it: quoted local parts, comments,
domain literals, source routes, percent and bang paths, and `=?`, which starts an encoded word elsewhere.
"""

import re

from email_validator import EmailNotValidError, validate_email

from postroom.text import find_forbidden

MAX_INPUT_CHARS = (
    320  # judged before anything else looks at the text; the longest legal local part and domain
)
MAX_LOCAL_OCTETS = 64  # RFC 5321 §4.5.3.1.1
MAX_DOMAIN_OCTETS = 253  # RFC 1035 §2.3.4, as text
MAX_ADDRESS_OCTETS = 254  # RFC 5321 §4.5.3.1.3: 256 with the angle brackets

# Atom characters of RFC 5322 §3.2.3 without `%` and `!`, and (RFC 6531 §3.3) everything beyond ASCII.
_ATOM = r"[A-Za-z0-9#$&'*+/=?^_`{|}~\x80-\U0010ffff-]++"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# Possessive repeats stand on single classes only: after a group, Python 3.11.0 to 3.11.2 match too much.
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# What nearly all addresses look like; one of at most MAX_LOCAL_OCTETS in all keeps every other limit too.
_USUAL = re.compile(
    r"[A-Za-z0-9_+-]++(?:\.[A-Za-z0-9_+-]++)*@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}"
)
# A label with hyphens in third and fourth place is an A-label, or reserved: IDNA has to look at it.
_IDNA_LABEL = re.compile(r"(?:\A|\.)..--")


class AddressError(ValueError):
    """Not an address Postroom sends to. The message says why and never repeats the address."""


def parse_address(text: str) -> str:
    """Return the wire form of an address (a bare `local@domain`, RFC 5321 §4.1.2), or raise `AddressError`.

    Parsing a wire form again gives the same wire form.
    """
    if len(text) <= MAX_LOCAL_OCTETS and "--" not in text and _USUAL.fullmatch(text):
        return text
    if len(text) > MAX_INPUT_CHARS:
        raise AddressError(f"longer than {MAX_ADDRESS_OCTETS} octets")
    local, at, domain = text.rpartition("@")
    if not at:
        raise AddressError("has no '@'")
    if text.isascii() and not _IDNA_LABEL.search(domain):
        return _checked(local, domain.lower())
    return _checked(*_normalised(text))


def domain_of(address: str) -> str:
    """Return the domain of an address in wire form."""
    return address.rpartition("@")[2]


def is_ascii(address: str) -> bool:
    """True when a channel needs no SMTPUTF8 (RFC 6531) for this address in wire form."""
    return address.isascii()


def _normalised(text: str) -> tuple[str, str]:
    """Apply NFC to the local part and IDNA 2008 (after UTS 46 mapping) to the domain."""
    try:
        found = validate_email(
            text,
            check_deliverability=False,
            strict=True,
            test_environment=True,
            globally_deliverable=False,
            allow_smtputf8=True,
            allow_quoted_local=False,
            allow_domain_literal=False,
        )
    except EmailNotValidError:
        # Its messages repeat parts of the address, so our own checks speak first and this sentence last.
        local, _, domain = text.rpartition("@")
        if domain.isascii():
            _checked(local, domain)
        raise AddressError(
            "is not a valid address, or its domain is not a valid international name"
        ) from None
    return found.local_part, found.ascii_domain


def _checked(local: str, domain: str) -> str:
    """Judge both parts in wire form and put them together."""
    if not _LOCAL.fullmatch(local):
        raise AddressError(_why_not_local(local))
    if "=?" in local or find_forbidden(local):
        raise AddressError("holds characters before the '@' that are not allowed")
    octets = len(local) if local.isascii() else len(local.encode())
    if octets > MAX_LOCAL_OCTETS:
        raise AddressError(f"has more than {MAX_LOCAL_OCTETS} octets before the '@'")
    if not _is_host_name(domain):
        raise AddressError(_why_not_domain(domain))
    if len(domain) > MAX_DOMAIN_OCTETS:
        raise AddressError(f"has a domain of more than {MAX_DOMAIN_OCTETS} octets")
    if octets + 1 + len(domain) > MAX_ADDRESS_OCTETS:
        raise AddressError(f"longer than {MAX_ADDRESS_OCTETS} octets")
    return f"{local}@{domain}"


def _is_host_name(domain: str) -> bool:
    """True for two labels or more of letters, digits and hyphens, the last of them not a number (RFC 1123)."""
    labels = domain.split(".")
    return len(labels) > 1 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _why_not_local(local: str) -> str:
    if not local:
        return "has nothing before the '@'"
    if "@" in local:
        return "has more than one '@'"
    if local.startswith(".") or local.endswith(".") or ".." in local:
        return "has a misplaced '.' before the '@'"
    return "holds characters before the '@' that are not allowed"


def _why_not_domain(domain: str) -> str:
    if "." not in domain:
        return "its domain needs at least one '.'"
    if domain.rpartition(".")[2].isdigit():
        return "its domain ends in a number"
    return "its domain is not a valid host name"
