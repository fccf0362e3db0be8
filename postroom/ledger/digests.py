"""Keyed digests: of refs, so that keys tell nothing; of a request's fields, so that a conflict names them.

They are keyed because what they cover is short and guessable (a one-time code, a customer number).
"""

import base64
import hashlib
import hmac

FIELD_DIGEST_BYTES = 4


class Digests:
    """Makes digests with one installation's key."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def ref(self, caller: str, agent: str, client_ref: str) -> str:
        """Return 16 characters for (caller, agent, client_ref): 96 bits of HMAC-SHA256."""
        text = f"{caller}\n{agent}\n{client_ref}".encode()
        return base64.urlsafe_b64encode(hmac.digest(self.key, text, "sha256")[:12]).decode()

    def fields(self, fields: dict[int, bytes]) -> bytes:
        """Return one byte and a 4-byte digest per field: its number in the contract, and what it holds."""
        parts = []
        for number, value in sorted(fields.items()):
            digest = hashlib.blake2b(value, key=self.key[:32], digest_size=FIELD_DIGEST_BYTES).digest()
            parts.append(bytes((number,)) + digest)
        return b"".join(parts)


def differing(stored: bytes, offered: bytes) -> list[int]:
    """Return the numbers of the fields whose digests differ, a field that only one side has included."""
    step = 1 + FIELD_DIGEST_BYTES
    ours = {stored[i]: stored[i + 1 : i + step] for i in range(0, len(stored), step)}
    theirs = {offered[i]: offered[i + 1 : i + step] for i in range(0, len(offered), step)}
    return sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
