"""What both processes do before they start: load everything, look at Redis, and say clearly what is wrong."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping

from structlog.typing import FilteringBoundLogger

from postroom.config.advice import find_warnings
from postroom.config.load import load_config
from postroom.config.structs import Config
from postroom.errors import ConfigError, PostroomError
from postroom.ledger.clients import reading_client
from postroom.ledger.errors import LedgerUnavailableError
from postroom.ledger.watch import Watch
from postroom.outage import kind_of
from postroom.settings import Settings
from postroom.templates import Template, TemplateFault, TemplatesError, TemplateSet
from postroom.templates.folder import read_folder
from postroom.templates.judging import judge

YOUNG_OBJECTS = 20_000


def load_everything(settings: Settings, environ: Mapping[str, str]) -> tuple[Config, TemplateSet]:
    """Load configuration and templates.

    Raises:
        ConfigError: the configuration is wrong.
        BrokenTemplatesError: a template is.
    """
    config = load_config(settings.config, environ)
    return config, load_templates(config)


def load_templates(config: Config) -> TemplateSet:
    """Load the templates of a configuration, once another process has judged them.

    Raises:
        BrokenTemplatesError: one of them is wrong.
    """
    try:
        faults: list[TemplateFault] = []
        files = read_folder(config.templates.dir, faults)
        faults += judge(files)
    except TemplatesError as error:
        raise BrokenTemplatesError(error) from None
    if faults:
        raise BrokenTemplatesError(TemplatesError(faults))
    return TemplateSet(Template(name, of_one) for name, of_one in files.items())


class BrokenTemplatesError(PostroomError):
    """Templates that cannot be used, each fault with its file and line."""

    def __init__(self, error: TemplatesError) -> None:
        super().__init__("\n".join(map(str, error.faults)))


async def check_redis(config: Config, log: FilteringBoundLogger) -> None:
    """Look at the ledger's Redis; where it does not answer, go on: it is waited for while running.

    Raises:
        PostroomError: it would lose mail: it evicts keys, or is too old for the scripts.
    """
    for warning in find_warnings(config):
        log.warning("config.warning", pointer=warning.pointer, detail=warning.detail)
    client = reading_client(config.redis.url)
    try:
        fitness = await Watch(client).fitness()
    except LedgerUnavailableError as error:
        log.warning("redis.unavailable", kind=kind_of(error), detail=str(error), at="start")
        return
    finally:
        await client.aclose()
    if fitness.evicts:
        raise PostroomError(
            f"Redis has maxmemory-policy {fitness.evicts}, so it would delete queued mail when it is full: "
            "set maxmemory-policy noeviction"
        )
    if fitness.too_old:
        raise PostroomError(f"Redis {fitness.too_old} is too old: Postroom needs Redis 6.2 or Valkey")
    if fitness.durable is False:
        log.warning("redis.not_durable", remedy="set appendonly yes, or a restart of Redis loses queued mail")


def run_process(work: Callable[[], None]) -> int:
    """Do a process's work; return its exit status: 1 where it cannot start, with the reason on stderr.

    Until an event loop has handlers of its own nothing is in hand, and a signal ends the process at once: SIGTERM with
    0, for the first process of a container would otherwise not hear it at all, and Ctrl-C with 130, as a shell has it.
    Not by an exception: one that a handler raises in a destructor or a weak reference's callback is printed and lost.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        work()
    except PostroomError as error:
        report(error)
        return 1
    return 0


def report(error: PostroomError) -> None:
    """Tell a person at a terminal, or in the logs of a pod, why nothing starts."""
    lines = error.lines() if isinstance(error, ConfigError) else str(error).splitlines()
    for line in lines:
        print(f"postroom: {line}", file=sys.stderr)  # noqa: T201  there may be no logging yet


def settle() -> None:
    """Take what is loaded by now out of the garbage collector's sight, and let it look less often.

    A full collection that looks through it all halts everything for 0.2 s. A message makes some hundred objects that
    die with it, so that by the usual 700 there is a collection with every other message: 3 % of a worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
