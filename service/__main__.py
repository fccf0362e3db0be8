"""`python -m service`: check what can be checked, then serve."""

import asyncio
import errno
import os
import socket
import sys
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops

from postroom.config.load import load_config
from postroom.errors import PostroomError
from postroom.log import configure_logging, get_logger
from postroom.settings import Settings, read_settings
from postroom.startup import check_redis, judged_files, report

# Granian's records go through our own pipeline, by way of the root logger.
ONE_PIPELINE: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"propagate": True}, "granian.access": {"propagate": True}},
}


def main() -> int:
    """Serve until SIGTERM or SIGINT; 1 where it cannot start, with the reason on stderr."""
    try:
        settings = read_settings(os.environ)
        configure_logging(settings, "api")
        config = load_config(settings.config, os.environ)
        judged_files(config)  # the server's own process makes templates of them
        _check_ports(settings)
        asyncio.run(check_redis(config, get_logger()))
    except PostroomError as error:
        report(error)
        return 1
    Granian(
        "service.app:create_app",
        factory=True,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        loop=Loops.uvloop,
        address=settings.host,
        port=settings.port,
        workers=1,
        backlog=2048,
        log_dictconfig=ONE_PIPELINE,
        log_access=False,
        websockets=False,
        workers_kill_timeout=30,
    ).serve()
    return 0


def _check_ports(settings: Settings) -> None:
    """Name a taken port before the server fails on it less clearly."""
    for name, port in (("POSTROOM_PORT", settings.port), ("POSTROOM_METRICS_PORT", settings.metrics_port)):
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise PostroomError(
                        f"cannot listen on {settings.host}:{port}: {error.strerror}"
                    ) from None
                raise PostroomError(f"port {port} is taken: set {name} to a free one") from None


if __name__ == "__main__":
    sys.exit(main())
