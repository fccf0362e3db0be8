"""What ZeptoMail's relay can be told of files in its cache: the header field X-TM-FILE-KEY.

Its form is `key:name,key:name`, or a key alone. It has no escapes, and no place for the cid of an inline image.
"""

import re
from collections.abc import Iterable

from postroom.message import Attachment, AttachmentRef

MAX_LENGTH = 900  # characters: a name may have no place to be folded at, and a line has 998

# Printable, without the comma and the colon that part keys and names.
_PLAIN = r"[!-+\--9;-~]"
_KEY = re.compile(rf"{_PLAIN}{{1,256}}")
_NAME = re.compile(rf"{_PLAIN}+(?: {_PLAIN}+)*")


def is_key(text: str) -> bool:
    """True for a key that can stand in the field as it is."""
    return _KEY.fullmatch(text) is not None and "=?" not in text


def is_name(text: str) -> bool:
    """True for a file name that can stand in the field: it has no escapes, and runs of spaces may be folded away."""
    return _NAME.fullmatch(text) is not None and "=?" not in text


def room_beside(files: Iterable[Attachment | AttachmentRef]) -> int:
    """Return the characters left beside the bare keys of what only the provider has; below 0 they do not fit."""
    return MAX_LENGTH - sum(len(file.provider_key) + 1 for file in files if file.provider_key)


def can_name(files: Iterable[Attachment | AttachmentRef]) -> bool:
    """True where the field can name all of these files that only the provider has."""
    own = [file for file in files if file.provider_key]
    return room_beside(own) >= 0 and all(file.cid is None and is_key(file.provider_key) for file in own)
