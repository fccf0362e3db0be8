"""`python -m service`: check what can be checked, then serve."""

import asyncio
import errno
import os
import socket
import sys

import uvloop

from postroom.config.live import LiveConfig
from postroom.errors import PostroomError
from postroom.log import configure_logging, get_logger
from postroom.settings import Settings, read_settings
from postroom.startup import check_redis, load_templates, run_process
from postroom.templates import TemplateSet
from service.app import build_app
from service.server import ApiServer


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit status (`run_process`)."""
    return run_process(_check_and_serve)


def _check_and_serve() -> None:
    settings = read_settings(os.environ)
    configure_logging(settings, "api")
    live = LiveConfig.load(settings.config, os.environ)
    templates = load_templates(live.current)
    _check_ports(settings)
    asyncio.run(check_redis(live.current, get_logger()))
    uvloop.run(_serve(settings, live, templates))


async def _serve(settings: Settings, live: LiveConfig, templates: TemplateSet) -> None:
    server = ApiServer(settings.host, settings.port)
    await server.run(lambda: build_app(settings, live, templates, lambda: server.ready))


def _check_ports(settings: Settings) -> None:
    """Name a port that cannot be had before the server fails on it less clearly."""
    if settings.port == settings.metrics_port:
        raise PostroomError(
            f"port {settings.port} cannot serve both: set POSTROOM_METRICS_PORT to another than POSTROOM_PORT"
        )
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
