"""`python -m workers`: check what can be checked, then deliver."""

import asyncio
import os
import sys

import uvloop

from postroom.config.live import LiveConfig
from postroom.log import configure_logging, get_logger
from postroom.settings import read_settings
from postroom.startup import check_redis, load_templates, run_process
from workers.worker import WorkerProcess


def main() -> int:
    """Deliver until SIGTERM or SIGINT; return the exit status (`run_process`)."""
    return run_process(_check_and_deliver)


def _check_and_deliver() -> None:
    settings = read_settings(os.environ)
    configure_logging(settings, "worker")
    live = LiveConfig.load(settings.config, os.environ)
    templates = load_templates(live.current)
    asyncio.run(check_redis(live.current, get_logger()))
    uvloop.run(WorkerProcess(settings, live, templates).run())


if __name__ == "__main__":
    sys.exit(main())
