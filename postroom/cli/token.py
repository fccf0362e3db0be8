"""`postroom token new`: a random token, shown once, and the line that lets it in."""

import hashlib
import os
import re
import secrets

from postroom.errors import UsageError

NAME = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
TOKEN_ID = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")


def make_token(token_id: str) -> tuple[str, str]:
    """Return a token with 256 random bits, and its SHA-256."""
    token = f"pr_{token_id}_{secrets.token_urlsafe(32)}"
    return token, hashlib.sha256(token.encode()).hexdigest()


def new_token(caller: str, token_id: str | None, scopes: list[str] | None) -> int:
    """Print a new token and its line of configuration."""
    token_id = token_id or f"k{os.urandom(3).hex()}"
    if not NAME.match(caller):
        raise UsageError("CALLER must be a name such as checkout: a-z, 0-9 and -, at most 32")
    if not TOKEN_ID.match(token_id):
        raise UsageError("--id must be 1 to 32 of A-Z a-z 0-9 _ -")
    token, digest = make_token(token_id)
    listed = ", ".join(f'"{scope}"' for scope in dict.fromkeys(scopes or ("send", "read")))
    print(f"Token of {caller}, shown only now; give it to the service and store it nowhere else:\n")
    print(f"    {token}\n")
    print(f"Add it to `tokens` of [callers.{caller}] (two may be valid at once, to change without a gap):\n")
    print(f'    {{ id = "{token_id}", sha256 = "{digest}", scopes = [{listed}] }}')
    return 0
