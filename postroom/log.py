"""One log pipeline for our lines and everybody else's: JSON lines, or a console look on a terminal.

A line names ids, codes and numbers. Addresses, subjects, variables, bodies, tokens and what providers say
never reach it, so no processor has to take them out again; an unexpected exception is told by its class and
its frames, not by its text, which may quote a value.
"""

import asyncio
import atexit
import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from postroom import __version__
from postroom.moment import rfc3339
from postroom.settings import Settings

_encoder = msgspec.json.Encoder(enc_hook=str)
FRAMES_SHOWN = 12
LEVELS = {
    "exception": "error",
    "warn": "warning",
    "fatal": "critical",
}  # methods that are not named as levels
QUIET = {"arq": logging.WARNING, "asyncio": logging.WARNING, "aiohttp.access": logging.WARNING}


def configure_logging(settings: Settings, service: str) -> None:
    """Set up structlog and the standard library's root logger for a whole process."""
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    stamp = _Stamp(service)
    common: list[Processor] = [_shape_exception, stamp]
    usual = structlog.make_filtering_bound_logger(settings.log_level_number)
    quick = not console and settings.log_level_number <= logging.INFO
    structlog.configure(
        processors=[*common, structlog.dev.ConsoleRenderer() if console else _render_bytes],
        wrapper_class=_with_quick_info(usual, stamp) if quick else usual,
        logger_factory=structlog.PrintLoggerFactory() if console else LineLogger(sys.stdout.buffer).for_all,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.dev.ConsoleRenderer() if console else _render_text,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level_number)
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(max(level, settings.log_level_number))


def get_logger(**bound: Any) -> FilteringBoundLogger:
    """Return a logger with ids bound to it once."""
    logger: FilteringBoundLogger = structlog.get_logger(**bound)
    return logger


def _with_quick_info(usual: type[FilteringBoundLogger], stamp: "_Stamp") -> type[FilteringBoundLogger]:
    """Return the class with a short way to the same line for INFO, which each message writes once or twice.

    structlog copies the fields of a line at every step it takes: more than half of what a line cost.
    """

    class QuickLogger(usual):  # type: ignore[valid-type,misc]
        def info(self, event: str, *args: Any, **fields: Any) -> Any:
            shown = {**self._context, **fields} if self._context else fields
            if args or not shown or "exc_info" in shown or stamp.is_shown_by(shown):
                return super().info(event, *args, **fields)
            write = self._logger.info
            return write(stamp.info_line(event, shown))

    return QuickLogger


class LineLogger:
    """Writes lines, those of one turn of the event loop together: a system call for each costs more than the line.

    Warnings and worse are written at once, and so is everything where no loop runs. A process that is killed loses at
    most what it logged in that turn.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lines: list[bytes] = []
        atexit.register(self._flush)

    def for_all(self, *_: object) -> "LineLogger":
        """Be structlog's factory: all loggers of a process share their lines, so these keep their order."""
        return self

    def info(self, line: bytes) -> None:
        """Write a line by the end of this turn."""
        self._lines.append(line)
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                self._flush()

    def warning(self, line: bytes) -> None:
        """Write a line, and all before it, now."""
        self._lines.append(line)
        self._flush()

    debug = msg = info
    error = critical = fatal = exception = err = warn = warning

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            lines.append(b"")
            self._file.write(b"\n".join(lines))
            self._file.flush()


class _Stamp:
    """Puts time, level, event, service, version and process in front of every line."""

    def __init__(self, service: str) -> None:
        self._common = {"service": service, "version": __version__, "pid": os.getpid()}
        self._names = ("ts", "level", "event", *self._common)
        # What follows the time in an INFO line, by event: words of our own, so they are few.
        self._heads: dict[str, bytes] = {}

    def __call__(self, _logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        head = {"ts": _now(), "level": LEVELS.get(method, method), "event": event.pop("event")}
        return {**head, **self._common, **event}

    def is_shown_by(self, fields: EventDict) -> bool:
        """True where a field has a name of the stamp's own."""
        return not fields.keys().isdisjoint(self._names)

    def info_line(self, event: str, fields: EventDict) -> bytes:
        """Return the INFO line of an event with some fields, as the processors would make it."""
        head = self._heads.get(event)
        if head is None:
            words = _encoder.encode({"level": "info", "event": event, **self._common})
            head = self._heads[event] = b'",%b,' % words[1:-1]
        return b"".join((b'{"ts":"', _now().encode(), head, _encoder.encode(fields)[1:]))


def _now() -> str:
    return rfc3339(time.time_ns() // 1_000_000)


def _shape_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    info = event.pop("exc_info", None) if "exc_info" in event else None
    if not info:
        return event
    error = (
        info if isinstance(info, BaseException) else (info[1] if isinstance(info, tuple) else sys.exception())
    )
    if error is not None:
        event["error"] = type(error).__name__
        frames = traceback.extract_tb(error.__traceback__)[-FRAMES_SHOWN:]
        event["frames"] = ["/".join(Path(f.filename).parts[-2:]) + f":{f.lineno} {f.name}" for f in frames]
    return event


def _render_bytes(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return _encoder.encode(event)


def _render_text(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return _encoder.encode(event).decode()
