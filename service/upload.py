"""The use case: keep a caller's file, once however often it is sent. Nothing here knows HTTP."""

import asyncio
from fnmatch import fnmatchcase

from postroom.compose.body import base64_lines
from postroom.config.structs import Files as Limits
from postroom.config.units import milliseconds, seconds
from postroom.decode import Fault
from postroom.errors import Code, RefusedError
from postroom.files import normalised_type, type_problem
from postroom.ledger.errors import LedgerError, LedgerFullError
from postroom.ledger.files import Files, StoredFile, file_id
from service.accept import RETRY_SECONDS, storage_full
from service.schema import FAULTS_DETAIL

SHORTEST_SECONDS = 60
BESIDE_FROM = 256 * 1024  # bytes from which hashing and encoding go beside the event loop


class KeepFile:
    """Keeps files."""

    def __init__(self, files: Files, limits: Limits) -> None:
        self._files = files
        self._limits = limits

    async def __call__(
        self, caller: str, content_type: str, data: bytes, lifetime: str | None
    ) -> tuple[StoredFile, bool]:
        """Keep a file, and return it and whether it is new. `lifetime` is in seconds, as the caller wrote it.

        Raises:
            RefusedError: 413, 415 or 422 for the file, 503 for the ledger; it may be sent again.
        """
        self._check(content_type, data)
        content_type = normalised_type(content_type)
        lifetime_ms = self._lifetime_ms(lifetime)
        if len(data) < BESIDE_FROM:
            file, lines = file_id(caller, content_type, data), base64_lines(data)
        else:
            file = await asyncio.to_thread(file_id, caller, content_type, data)
            lines = await asyncio.to_thread(base64_lines, data)
        try:
            return await self._files.keep(
                StoredFile(file, content_type, len(data), 0), caller, lines, lifetime_ms
            )
        except LedgerFullError:
            raise storage_full() from None
        except LedgerError:
            detail = "The ledger did not answer in time. Send the file again: it is kept once."
            raise RefusedError(Code.UNAVAILABLE, detail, retry_after=RETRY_SECONDS) from None

    def _check(self, content_type: str, data: bytes) -> None:
        allowed = self._limits.types
        bare = content_type.partition(";")[0].lower()
        if type_problem(content_type) or (allowed and not any(fnmatchcase(bare, one) for one in allowed)):
            raise RefusedError(
                Code.UNSUPPORTED_MEDIA_TYPE, "Content-Type is not a type that may be attached."
            )
        if not data:
            raise RefusedError(Code.INVALID_REQUEST, FAULTS_DETAIL, faults=[Fault("", "must not be empty")])
        if len(data) > self._limits.largest:
            raise RefusedError(Code.TOO_LARGE, f"A file may have {self._limits.largest} bytes.")

    def _lifetime_ms(self, given: str | None) -> int:
        if given is None:
            return milliseconds(self._limits.lifetime)
        longest = int(seconds(self._limits.longest))
        if (
            given.isascii()
            and given.isdigit()
            and len(given) < 10
            and SHORTEST_SECONDS <= int(given) <= longest
        ):
            return int(given) * 1000
        detail = f"lifetime must be whole seconds, {SHORTEST_SECONDS} to {longest}."
        raise RefusedError(Code.BAD_REQUEST, detail)
