"""Message ids: the agent's name and a ULID, so that any key is found from the id alone."""

import os
import re
import time

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID = re.compile(r"[a-z][a-z0-9-]{0,31}-[0-9A-HJKMNP-TV-Z]{26}\Z")


def new_message_id(agent: str) -> str:
    """Return a fresh id such as `orders-01JD8X5V0QK3ZB9M2W4T6Y8R1C` (at most 59 characters)."""
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10))
    return f"{agent}-" + "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def is_message_id(text: str) -> bool:
    """True where the text has the shape of an id."""
    return _ID.match(text) is not None
