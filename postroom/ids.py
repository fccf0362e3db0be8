"""Message ids: the agent's name and a ULID, so that any key is found from the id alone."""

import os
import re
import time

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]  # ten bits each
# Of each random byte five bits count, so that 16 of them are the 80 bits of a ULID, without arithmetic.
_RANDOM = bytes(ord(_CROCKFORD[byte & 31]) for byte in range(256))
_ID = re.compile(r"[a-z][a-z0-9-]{0,31}-[0-9A-HJKMNP-TV-Z]{26}\Z")


def new_message_id(agent: str) -> str:
    """Return a fresh id such as `orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C` (at most 59 characters)."""
    now = time.time_ns() // 1_000_000
    moment = "".join([_PAIRS[(now >> shift) & 1023] for shift in (40, 30, 20, 10, 0)])
    return f"{agent}-{moment}{os.urandom(16).translate(_RANDOM).decode()}"


def is_message_id(text: str) -> bool:
    """True where the text has the shape of an id."""
    return _ID.match(text) is not None
