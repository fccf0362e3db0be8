"""Which addresses of the web a mail may link to."""

import re

from postroom.text import find_forbidden

# No blanks, quotes, angle brackets or backslashes: mail programs disagree about where such a link ends.
_LINK = re.compile(r"""(?:https?://[^\s"'<>\\`/?#]++|mailto:(?=[^?]))[^\s"<>\\`]*+""", re.IGNORECASE)


def is_link(text: str) -> bool:
    """True for an absolute http or https URL and for a mailto link; false for `javascript:` and its kin."""
    return _LINK.fullmatch(text) is not None and find_forbidden(text) is None
