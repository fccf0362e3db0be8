"""Background work that must not end while its process lives."""

import asyncio
from collections.abc import Awaitable, Callable

from structlog.typing import FilteringBoundLogger

PAUSE_SECONDS = 1.0


async def supervise(name: str, work: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    """Do the work until it returns or is cancelled; a defect in it is told, and it begins anew."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("task.crashed", task=name)
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
