"""Outcomes, and messages given back, on their way into the ledger.

An outcome is never dropped while the process lives: if Redis is away it is kept here and written again and
again, and nobody claims anything new meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from postroom.ledger.delivery import Delivery
from postroom.ledger.errors import LedgerError, LedgerUnavailableError, LedgerUnconfirmedError
from postroom.ledger.finished import Finish, Finished, read_finished
from postroom.ledger.limits import Limits, Pace

WORTH_ANOTHER_TRY = (LedgerUnavailableError, LedgerUnconfirmedError)
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)

Written = Callable[[Finished | None], None]


class Outbox:
    """Writes outcomes beside the lanes, which go on with their next message."""

    def __init__(self, delivery: Delivery, failed: Callable[[LedgerError], None]) -> None:
        self._delivery = delivery
        self._failed = failed
        self._pending: set[asyncio.Future[Any]] = set()
        self._stuck = 0

    def put(self, finish: Finish, limits: Limits, written: Written, *, narrowed: bool) -> None:
        """Write an outcome; `written` hears where it left the message, None where it was somebody else's."""

        def begin() -> asyncio.Future[Any]:
            return self._delivery.begin_finish(finish, limits, narrowed=narrowed)

        def answered(future: asyncio.Future[Any]) -> None:
            self._pending.discard(future)
            error = future.exception()
            if error is None:
                written(read_finished(future.result()))
            else:
                self._insist(write, error, given_up=lambda: written(None))

        async def write() -> None:
            written(read_finished(await begin()))

        # Nearly all are written at once, and a task for each would cost as much as the call itself.
        future = begin()
        self._pending.add(future)
        future.add_done_callback(answered)

    @property
    def flows(self) -> bool:
        """False while any outcome could not be written: nobody claims anything new then."""
        return self._stuck == 0

    async def flush(self, grace: float) -> int:
        """Wait for everything to be written, `grace` seconds at most; return what is left."""
        loop = asyncio.get_running_loop()
        over = loop.time() + grace
        while self._pending and (left := over - loop.time()) > 0:
            await asyncio.wait(set(self._pending), timeout=left)
        return len(self._pending)

    def release(
        self,
        agent: str,
        held: list[tuple[str, int]],
        pace: Pace,
        rang: Callable[[], None],
        *,
        behind: str = "",
        wait: float = 0,
    ) -> None:
        """Give messages back, the one called `behind` to the end; `rang` is called where to ring for a round.

        With `wait`, none of them is due again before so many seconds.

        Also when it comes late: a commit mark that Redis took although its answer was lost is undone by it,
        so that mail which surely was not sent does not become ambiguous.
        """

        async def write() -> None:
            wait_ms = round(wait * 1000)
            _, ring = await self._delivery.release(agent, held, pace=pace, behind=behind, wait_ms=wait_ms)
            if ring:
                rang()

        self._insist(write)

    def _insist(
        self,
        write: Callable[[], Awaitable[None]],
        error: BaseException | None = None,
        given_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Write until it is written; `error` is what came of a first try, `given_up` hears of a defect."""
        task = asyncio.create_task(self._write(write, error, given_up))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _write(
        self,
        write: Callable[[], Awaitable[None]],
        error: BaseException | None,
        given_up: Callable[[], None],
    ) -> None:
        tries = 0
        try:
            while True:
                try:
                    if error is not None:
                        raise error
                    await write()
                except WORTH_ANOTHER_TRY as failure:
                    if tries == 0:
                        self._stuck += 1
                    self._failed(failure)
                    await asyncio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                    tries, error = tries + 1, None
                except LedgerError as failure:
                    # A defect in a script: repeating it changes nothing. The message is held no longer, or its
                    # lease would be renewed for ever.
                    self._failed(failure)
                    given_up()
                    return
                else:
                    return
        finally:
            if tries:
                self._stuck -= 1
