"""The header fields of a request, and what must hold for them before anybody reads its body."""

import re
from collections.abc import Iterable

from postroom.errors import Code, RefusedError

MAX_BODY = 24_000_000  # 15 MB of attachments in base64, and the rest of a request
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]+\Z")  # RFC 3986 §3.2.2, and a port
_CHARSET = re.compile(rb'\s*charset\s*=\s*"?utf-8"?\s*\Z', re.IGNORECASE)


class Fields:
    """Header fields by their lower-case name, put in order once: every name is asked for more than once."""

    __slots__ = ("_values", "length")

    def __init__(self, given: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in given:
            if name in self._values:
                self._values[name].append(value)
            else:
                self._values[name] = [value]
        self.length: int | None = None  # of the body, by its own word

    def all(self, name: bytes) -> list[bytes]:
        """Return each value that was given for a name."""
        return self._values.get(name, [])

    def check(self) -> None:
        """Judge what says where a request goes and where its body ends.

        Raises:
            RefusedError: 400 or 415; what could be read in two ways is not read at all.
        """
        hosts = self.all(b"host")
        if len(hosts) != 1 or not _HOST.match(hosts[0]):
            raise RefusedError(Code.BAD_REQUEST, "Exactly one Host header field is required.")
        lengths, codings = self.all(b"content-length"), self.all(b"transfer-encoding")
        if lengths and codings:
            raise RefusedError(Code.BAD_REQUEST, "Content-Length and Transfer-Encoding exclude each other.")
        if codings and [coding.strip().lower() for coding in codings] != [b"chunked"]:
            raise RefusedError(Code.BAD_REQUEST, "The only Transfer-Encoding taken is chunked.")
        if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
            raise RefusedError(Code.BAD_REQUEST, "Content-Length must be one number.")
        if self.all(b"content-encoding"):
            raise RefusedError(Code.UNSUPPORTED_MEDIA_TYPE, "Compressed bodies are not taken.")
        if lengths:
            if len(lengths[0]) >= 16:
                raise too_large()
            self.length = int(lengths[0])

    def check_media_type(self) -> None:
        """Refuse what is not JSON by its own word."""
        types = self.all(b"content-type")
        if types == [b"application/json"]:
            return
        kind, *parameters = types[0].split(b";") if len(types) == 1 else (b"",)
        if kind.strip().lower() != b"application/json" or not all(_CHARSET.match(p) for p in parameters):
            detail = "Send Content-Type: application/json, in UTF-8."
            raise RefusedError(Code.UNSUPPORTED_MEDIA_TYPE, detail)


def too_large() -> RefusedError:
    """Return the refusal of a body beyond the limit."""
    return RefusedError(Code.TOO_LARGE, f"A request may have {MAX_BODY} bytes.")
