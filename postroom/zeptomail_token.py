"""Tokens of ZeptoMail's as its console gives them: for the API, and as the password of its relay."""

import re

from postroom.secret import Secret

SCHEME = "Zoho-enczapikey"

_SCHEME = re.compile(rf"(?:authorization\s*:|{SCHEME}(?=\s|$))\s*", re.IGNORECASE)
_PASTED = " \t\r\n\"'`\u201c\u201d\u2018\u2019\u00a0\u200b\ufeff"  # what a copied token comes wrapped in


def normalise_token(token: Secret) -> Secret:
    """Strip what comes along when a token is copied: blanks, quotes, and the names of scheme and header field."""
    text = token.reveal().strip(_PASTED)
    while (found := _SCHEME.match(text)) is not None:
        text = text[found.end() :].strip(_PASTED)
    return Secret(text)
