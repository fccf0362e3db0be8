"""Outcomes, and messages given back, on their way into the ledger.

An outcome is never dropped while the process lives: if Redis is away it is kept here and written again and
again, and nobody claims anything new meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable

from postroom.ledger.delivery import Delivery, Finish, Finished, Limits, Pace
from postroom.ledger.errors import LedgerError, LedgerUnavailableError, LedgerUnconfirmedError

PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)

Written = Callable[[Finished | None], None]


class Outbox:
    """Writes outcomes beside the lanes, which go on with their next message."""

    def __init__(self, delivery: Delivery, failed: Callable[[LedgerError], None]) -> None:
        self._delivery = delivery
        self._failed = failed
        self._pending: set[asyncio.Task[None]] = set()
        self._stuck = 0

    def put(self, finish: Finish, limits: Limits, written: Written, *, narrowed: bool) -> None:
        """Write an outcome; `written` hears where it left the message, None where it was somebody else's."""

        async def write() -> None:
            try:
                finished = await self._delivery.finish(finish, limits, narrowed=narrowed)
            except (LedgerUnavailableError, LedgerUnconfirmedError):
                raise
            except LedgerError:
                written(None)  # it is held no longer, or its lease would be renewed for ever
                raise
            written(finished)

        self._insist(write)

    @property
    def flows(self) -> bool:
        """False while any outcome could not be written: nobody claims anything new then."""
        return self._stuck == 0

    async def flush(self, grace: float) -> int:
        """Wait for everything to be written, `grace` seconds at most; return what is left."""
        if self._pending:
            await asyncio.wait(set(self._pending), timeout=grace)
        return len(self._pending)

    def release(
        self,
        agent: str,
        held: list[tuple[str, int]],
        pace: Pace,
        rang: Callable[[], None],
        *,
        behind: str = "",
    ) -> None:
        """Give messages back, the one called `behind` to the end; `rang` is called where to ring for a round.

        Also when it comes late: a commit mark that Redis took although its answer was lost is undone by it,
        so that mail which surely was not sent does not become ambiguous.
        """

        async def write() -> None:
            _, ring = await self._delivery.release(agent, held, pace=pace, behind=behind)
            if ring:
                rang()

        self._insist(write)

    def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._write(write))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _write(self, write: Callable[[], Awaitable[None]]) -> None:
        tries = 0
        try:
            while True:
                try:
                    await write()
                except (LedgerUnavailableError, LedgerUnconfirmedError) as error:
                    if tries == 0:
                        self._stuck += 1
                    self._failed(error)
                    await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                    tries += 1
                except LedgerError as error:
                    # A defect in a script: repeating it changes nothing, and the lease will run out.
                    self._failed(error)
                    return
                else:
                    return
        finally:
            if tries:
                self._stuck -= 1
