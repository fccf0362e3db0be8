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
from postroom.startup import check_redis, leave_when_told, load_templates, report
from postroom.templates import TemplateSet
from service.app import build_app
from service.server import ApiServer

INTERRUPTED = 130  # as a shell has it


def main() -> int:
    """Serve until SIGTERM or SIGINT; 1 where it cannot start, with the reason on stderr."""
    leave_when_told()
    try:
        settings = read_settings(os.environ)
        configure_logging(settings, "api")
        live = LiveConfig.load(settings.config, os.environ)
        templates = load_templates(live.current)
        _check_ports(settings)
        asyncio.run(check_redis(live.current, get_logger()))
        uvloop.run(_serve(settings, live, templates))
    except PostroomError as error:
        report(error)
        return 1
    except KeyboardInterrupt:  # before anything is served, which has handlers of its own
        return INTERRUPTED
    return 0


async def _serve(settings: Settings, live: LiveConfig, templates: TemplateSet) -> None:
    server = ApiServer(settings.host, settings.port)
    await server.run(lambda: build_app(settings, live, templates, lambda: server.ready))


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
