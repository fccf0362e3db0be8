"""`python -m workers`: check what can be checked, then deliver."""

import asyncio
import os
import sys

import uvloop

from postroom.config.live import LiveConfig
from postroom.errors import PostroomError
from postroom.log import configure_logging, get_logger
from postroom.settings import read_settings
from postroom.startup import check_redis, leave_when_told, load_templates, report
from workers.worker import WorkerProcess

INTERRUPTED = 130  # as a shell has it


def main() -> int:
    """Deliver until SIGTERM or SIGINT; 1 where it cannot start, with the reason on stderr."""
    leave_when_told()
    try:
        settings = read_settings(os.environ)
        configure_logging(settings, "worker")
        live = LiveConfig.load(settings.config, os.environ)
        templates = load_templates(live.current)
        asyncio.run(check_redis(live.current, get_logger()))
        uvloop.run(WorkerProcess(settings, live, templates).run())
    except PostroomError as error:
        report(error)
        return 1
    except KeyboardInterrupt:  # before anything is served, which has handlers of its own
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
