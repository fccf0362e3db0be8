"""An outage of the ledger's Redis as a process tells of it: once for each cause, and its end."""

from structlog.typing import FilteringBoundLogger

from postroom.ledger.errors import LedgerError


class Outage:
    """What one process has seen of it."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        self._log = log
        self._told: set[str] = set()

    def failed(self, error: LedgerError) -> None:
        """Tell of a failed call, where it is the first of its cause in this outage."""
        detail = str(error)
        if detail not in self._told:
            self._told.add(detail)
            self._log.warning("redis.unavailable", kind=kind_of(error), detail=detail)

    def over(self) -> None:
        """Tell that Redis answers again, where it did not."""
        if self._told:
            self._told.clear()
            self._log.info("redis.recovered")


def kind_of(error: LedgerError) -> str:
    """Return a word for the error: `unavailable`, `full`, `moved`, `unconfirmed`, or `script` for a defect in one."""
    return type(error).__name__.removeprefix("Ledger").removesuffix("Error").lower() or "script"
