"""Keyed digests: of refs and addresses, so that keys tell nothing; of a request's fields, so that a conflict names
them.

They are keyed because what they cover is short and guessable (a one-time code, a customer number).
"""

import base64
import hashlib

FIELD_DIGEST_BYTES = 4
BLOCK = 64  # bytes, of SHA-256


class Digests:
    """Makes digests with one installation's key."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        # All hashes with the key in them already: OpenSSL looks its algorithms up for each new one. The two of an HMAC
        # (RFC 2104 §2) are copied at two thirds of what copying the library's object takes.
        block = (key if len(key) <= BLOCK else hashlib.sha256(key).digest()).ljust(BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))
        self._of_field = hashlib.blake2b(key=key[:32], digest_size=FIELD_DIGEST_BYTES)

    def ref(self, caller: str, agent: str, client_ref: str) -> str:
        """Return 16 characters for (caller, agent, client_ref): 96 bits of HMAC-SHA256."""
        return self._short(f"{caller}\n{agent}\n{client_ref}")

    def storm(self, template: str, recipient: str) -> str:
        """Return 16 characters for what the storm brake counts: a template, or `-`, and a recipient's address."""
        return self._short(f"storm\n{template}\n{recipient.lower()}")

    def collapse(self, caller: str, key: str, recipient: str) -> str:
        """Return 16 characters for (caller, collapse_key, recipient's address)."""
        return self._short(f"collapse\n{caller}\n{key}\n{recipient.lower()}")

    def _short(self, text: str) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        return base64.urlsafe_b64encode(outer.digest()[:12]).decode()

    def fields(self, fields: dict[int, bytes]) -> bytes:
        """Return one byte and a 4-byte digest per field: its number in the contract, and what it holds."""
        parts: list[bytes] = []
        for number, value in sorted(fields.items()):
            digest = self._of_field.copy()
            digest.update(value)
            parts += (bytes((number,)), digest.digest())
        return b"".join(parts)


def differing(stored: bytes, offered: bytes) -> list[int]:
    """Return the numbers of the fields whose digests differ, a field that only one side has included."""
    step = 1 + FIELD_DIGEST_BYTES
    ours = {stored[i]: stored[i + 1 : i + step] for i in range(0, len(stored), step)}
    theirs = {offered[i]: offered[i + 1 : i + step] for i in range(0, len(offered), step)}
    return sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
