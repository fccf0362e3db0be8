"""What a process takes from its environment: where to listen, where the configuration is, how to log."""

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, cast

from msgspec import Struct

from postroom.decode import Fault
from postroom.errors import ConfigError

DEFAULT_PORT = 8080
OTEL = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class Settings(Struct, frozen=True, kw_only=True):
    """The environment of a process (`POSTROOM_…`)."""

    config: Path = Path("postroom.toml")
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    metrics_port: int = DEFAULT_PORT + 3
    log_format: Literal["json", "console", "auto"] = "auto"
    log_level: str = "INFO"
    traces: Literal["off", "otlp"] = "off"

    @property
    def log_level_number(self) -> int:
        """The level as `logging` counts it."""
        return logging.getLevelNamesMapping()[self.log_level]


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings, all faults at once.

    Raises:
        ConfigError: a variable holds what it cannot hold.
    """
    faults: list[Fault] = []
    port = _port(environ, "POSTROOM_PORT", DEFAULT_PORT, faults)
    metrics_port = _port(environ, "POSTROOM_METRICS_PORT", port + 3, faults)
    log_format = environ.get("POSTROOM_LOG_FORMAT", "auto")
    if log_format not in ("json", "console", "auto"):
        faults.append(Fault("POSTROOM_LOG_FORMAT", "must be json or console"))
    log_level = environ.get("POSTROOM_LOG_LEVEL", "INFO").upper()
    if log_level not in LOG_LEVELS:
        faults.append(Fault("POSTROOM_LOG_LEVEL", f"must be one of: {', '.join(LOG_LEVELS)}"))
    traces = environ.get("POSTROOM_TRACES", "off")
    if traces not in ("off", "otlp"):
        faults.append(Fault("POSTROOM_TRACES", "must be off or otlp"))
    elif traces == "otlp" and not _has_otel():
        faults.append(Fault("POSTROOM_TRACES", "needs the extra otel: pip install 'postroom[otel]'"))
    if faults:
        raise ConfigError("environment", faults)
    return Settings(
        config=Path(environ.get("POSTROOM_CONFIG", "postroom.toml")),
        host=environ.get("POSTROOM_HOST", "127.0.0.1"),
        port=port,
        metrics_port=metrics_port,
        log_format=cast(Literal["json", "console", "auto"], log_format),
        log_level=log_level,
        traces=cast(Literal["off", "otlp"], traces),
    )


def _has_otel() -> bool:
    """True where the extra is installed; only asked where traces are wanted, for asking imports a part of it."""
    try:
        return all(importlib.util.find_spec(name) for name in OTEL)
    except ModuleNotFoundError:
        return False


def _port(environ: Mapping[str, str], name: str, default: int, faults: list[Fault]) -> int:
    text = environ.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    faults.append(Fault(name, "must be a port number (on Kubernetes, set enableServiceLinks: false)"))
    return default
