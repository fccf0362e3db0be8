"""What aiohttp's servers say of themselves, in our words: of garbage they would log frames and its sender's address."""

import logging
from collections.abc import Callable

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import PayloadAccessError, RequestPayloadError

# What came was no HTTP, or broke off in the midst.
THEIRS = (HttpProcessingError, PayloadAccessError, RequestPayloadError, ConnectionError)

Tell = Callable[[BaseException | None], None]


class PortLog(logging.Logger):
    """The logger to give a server: it is silent about what others do wrong."""

    def __init__(self, tell: Tell | None = None) -> None:
        """`tell` hears of each defect of ours; unset, the log of the standard library does."""
        super().__init__("postroom.port", logging.ERROR)
        self._say = tell or _tell

    def handle(self, record: logging.LogRecord) -> None:
        """Take a line of the server."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, THEIRS):
            self._say(error)


def _tell(error: BaseException | None) -> None:
    logging.getLogger("postroom.port").error("request.crashed", exc_info=error)
