"""The configuration as it is now: read at the start, and read again whenever its files change."""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from msgspec import Struct
from structlog.typing import FilteringBoundLogger

from postroom.config.change import Change, compare, keep_fixed
from postroom.config.files import Files
from postroom.config.load import read_config
from postroom.config.structs import Config
from postroom.decode import Fault
from postroom.errors import ConfigError
from postroom.log import get_logger
from postroom.metrics import ConfigMetrics

SETTLE_SECONDS = 0.2  # files that change within it are still being written
MOST_SHOWN = 50  # names, or pointers, in one log line


class _Attempt(Struct, frozen=True):
    """One reading of the files: a configuration, or the faults of one."""

    files: Files
    config: Config | None
    faults: tuple[Fault, ...] = ()


class LiveConfig:
    """The current configuration of a process. It is replaced as a whole, by one that is right as a whole."""

    def __init__(self, path: Path, environ: Mapping[str, str], config: Config, files: Files) -> None:
        """`config` is what `files` said; `load` has read both."""
        self._path = path
        self._environ = environ
        self._tried = files  # as they were at the last attempt
        self._loaded = files  # as they were when `current` was read
        self._subscribers: list[Callable[[Change], None]] = []
        self._log: FilteringBoundLogger = get_logger()
        self.current = config
        self.generation = 1
        self.digest = files.digest(path)  # of the file's text, which holds no secrets
        self.loaded_at = time.time()

    @classmethod
    def load(cls, path: Path, environ: Mapping[str, str]) -> Self:
        """Read the configuration for a start.

        Raises:
            ConfigError: it is wrong; see `load_config`.
        """
        files = Files()
        return cls(path, environ, read_config(path, environ, files), files)

    def subscribe(self, subscriber: Callable[[Change], None]) -> None:
        """Have `subscriber` called in the event loop after each accepted reload. What it raises is logged."""
        self._subscribers.append(subscriber)

    async def keep_watching(self, metrics: ConfigMetrics, every: float = 1.0) -> None:
        """Look at the files every `every` seconds until cancelled, and take over what is right as a whole.

        Watched are the configuration file, every `{ file = … }` and every `ca_file` it names. A faulty file
        changes nothing; it is told once, and tried again when any of the files changes.
        """
        self._show(metrics)
        while True:
            await asyncio.sleep(every)
            try:
                await self._look(metrics)
            except Exception:  # noqa: BLE001  a defect of ours: told, and what runs goes on
                self._log.exception("config.unwatched")

    async def _look(self, metrics: ConfigMetrics) -> None:
        if not await asyncio.to_thread(self._tried.changed):
            return
        attempt = await asyncio.to_thread(self._read)
        await asyncio.sleep(SETTLE_SECONDS)
        if await asyncio.to_thread(attempt.files.changed):
            return  # the next look finds it written
        self._tried = attempt.files
        if attempt.config is None:
            metrics.invalid.inc()
            self._tell_faults(attempt)
            return
        self._take(attempt.config, attempt.files)
        self._show(metrics)

    def _read(self) -> _Attempt:
        files = Files()
        try:
            config = read_config(self._path, self._environ, files)
        except ConfigError as error:
            return _Attempt(files, None, tuple(error.faults))
        if not files.read(self._path).strip():
            # It would be a right configuration, of nobody: more likely somebody is about to write it.
            return _Attempt(files, None, (Fault("", "is empty"),))
        return _Attempt(files, config)

    def _take(self, read: Config, files: Files) -> None:
        new, waiting = keep_fixed(self.current, read)
        change = compare(self.current, new, files.unlike(self._loaded))
        self._loaded = files
        self.current = new
        self.generation += 1
        self.digest = files.digest(self._path)
        self.loaded_at = time.time()
        self._log.info(
            "config.reloaded",
            generation=self.generation,
            config_hash=self.digest,
            added=_shown(change.added),
            removed=_shown(change.removed),
            changed=_shown(change.changed),
        )
        if waiting:
            self._log.warning("config.restart_needed", config_hash=self.digest, sections=waiting)
        for subscriber in self._subscribers:
            try:
                subscriber(change)
            except Exception:  # noqa: BLE001  one subscriber's defect is not the others'
                self._log.exception("config.not_applied", generation=self.generation)

    def _tell_faults(self, attempt: _Attempt) -> None:
        """Tell where the faults are and not what: a detail may repeat a word of the file."""
        self._log.warning(
            "config.invalid",
            generation=self.generation,
            config_hash=attempt.files.digest(self._path),
            faults=len(attempt.faults),
            pointers=_shown(tuple(fault.pointer or "(whole file)" for fault in attempt.faults)),
            remedy="postroom check tells what is wrong; what was loaded before stays in force",
        )

    def _show(self, metrics: ConfigMetrics) -> None:
        metrics.show(self.generation, self.digest, self.loaded_at, self.current)


def _shown(names: tuple[str, ...]) -> list[str]:
    rest = len(names) - MOST_SHOWN
    return [*names[:MOST_SHOWN], *([f"and {rest} more"] if rest > 0 else [])]
