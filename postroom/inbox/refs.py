"""Finding the caller's `client_ref` of a mail, which is not written in the mail itself."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from postroom.inbox.store import Store
from postroom.inbox.thread import Thread

LOOKUPS_AT_ONCE = 64

# Takes the id of a message and answers its client_ref, or None when it has none, which is remembered.
# It raises when it could not ask; then it is asked again the next time somebody looks.
Resolve = Callable[[str], Awaitable[str | None]]

log = logging.getLogger(__name__)


class Refs:
    """Looks references up when somebody wants to see them, and keeps what it found in the store."""

    def __init__(self, resolve: Resolve | None, store: Store, thread: Thread) -> None:
        self._resolve, self._store, self._thread = resolve, store, thread

    async def complete(self, identities: Sequence[int] | None = None) -> bool:
        """Look up what is still unknown of these mails (None: of all). True when the store has changed."""
        changed = False
        while self._resolve is not None:
            unknown = await self._thread.run(self._store.unresolved, identities, LOOKUPS_AT_ONCE)
            answers = await asyncio.gather(
                *map(self._resolve, (name for _, name in unknown)), return_exceptions=True
            )
            refs = [
                (answer or "", identity)
                for (identity, _), answer in zip(unknown, answers, strict=True)
                if not isinstance(answer, BaseException)
            ]
            if refs:
                changed = True
                await self._thread.run(self._store.set_refs, refs)
            if len(refs) < len(unknown):
                failed = next(answer for answer in answers if isinstance(answer, BaseException))
                log.warning("inbox.refs_unknown", extra={"error": type(failed).__name__})
            if len(refs) < LOOKUPS_AT_ONCE:
                break
        return changed
