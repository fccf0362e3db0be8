"""What aiohttp's servers say of themselves, in our words: of garbage they would log frames and its sender's address."""

import logging

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import PayloadAccessError, RequestPayloadError

EVENT = "port.crashed"
# What came was no HTTP, or broke off in the midst.
THEIRS = (HttpProcessingError, PayloadAccessError, RequestPayloadError, ConnectionError)


def tame_aiohttp() -> None:
    """Let the servers of this process say nothing of what others do wrong, and tell a defect of ours by one event."""
    logging.getLogger("aiohttp.server").addFilter(_keep)


def _keep(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, THEIRS) or record.levelno < logging.ERROR:
        return False
    record.msg, record.args = EVENT, ()
    return True
