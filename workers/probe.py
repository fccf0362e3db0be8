"""`postroom probe AGENT`: what each channel of an agent would say to mail now, without any mail.

A probe that passes releases the channel's breaker, so that waiting mail flows at once.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

from postroom.arguments import patience
from postroom.config.load import load_config
from postroom.config.structs import Agent, Config
from postroom.config.units import milliseconds
from postroom.errors import PostroomError
from postroom.ledger.clients import open_pipe, reading_client
from postroom.ledger.delivery import Delivery
from postroom.ledger.errors import LedgerError
from postroom.ledger.reading import Reading
from postroom.settings import read_settings
from postroom.startup import report
from workers.channel_faults import HANGS_UP, PROBED
from workers.channels.registry import open_channels
from workers.channels.seam import Channel, Check

SIGNS = {True: "ok", False: "FAILS", None: "-"}
LEDGER_SECONDS = 2.0
UNPROVED = "its last fault was {cause}: only a message can tell whether that is over, and the next one tries"


def main(arguments: list[str] | None = None) -> int:
    """Probe; return 0 where every channel would take mail, 1 where one would not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="postroom probe", description=__doc__)
    parser.add_argument("agent", metavar="AGENT")
    parser.add_argument("--timeout", type=patience, default=10.0)
    parser.add_argument("--config", type=Path)
    options = parser.parse_args(arguments)
    try:
        config, agent = _read(options.config, options.agent)
        return asyncio.run(_probe_all(config, options.agent, agent, options.timeout))
    except PostroomError as error:
        report(error)
        return 1
    except KeyboardInterrupt:
        return 130


def _read(path: Path | None, name: str) -> tuple[Config, Agent]:
    config = load_config(path or read_settings(os.environ).config, os.environ)
    agent = config.agents.get(name)
    if agent is None:
        known = ", ".join(sorted(config.agents)) or "none"
        raise PostroomError(f"no agent is called {name}; there are: {known}")
    return config, agent


async def _probe_all(config: Config, name: str, agent: Agent, seconds: float) -> int:
    failed = 0
    channels = open_channels(name, agent, lambda _: None, seconds=seconds)
    for channel, settings in zip(channels, agent.channels, strict=True):
        _say(f"{name}/{channel.name} ({_where(settings)})")
        probe = await channel.probe()
        for check in probe.checks:
            _say(_row(check))
        if probe.fault is None:
            await _release(config, name, channel)
        failed += probe.fault is not None
        await channel.aclose()
        _say("")
    good = len(channels) - failed
    _say(f"{good} of {len(channels)} channel(s) would take mail now. No mail was sent.")
    return 1 if failed else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _where(settings: object) -> str:
    told = msgspec.to_builtins(settings, enc_hook=lambda _: "")
    if "host" in told:
        return f"smtp {told['host']}:{told['port']}, tls {told['tls']}"
    return f"{told['kind']} {told['base_url']}"


def _row(check: Check) -> str:
    return f"  {check.name:<14}{SIGNS[check.ok]:<7}{check.text}".rstrip()


async def _release(config: Config, agent: str, channel: Channel) -> None:
    """Release the channel's breaker, where it has one and Redis is there."""
    client = reading_client(config.redis.url)
    pipe = open_pipe(config.redis.url, deadline=LEDGER_SECONDS)
    delivery = Delivery(
        pipe,
        lease_ms=milliseconds(config.worker.lease),
        content_ms=milliseconds(config.retention.content),
        message_ms=milliseconds(config.retention.message),
    )
    try:
        fault = (await Reading(client).standing(agent)).faults.get(channel.name)
        if fault is None:
            return
        released = await delivery.mend_channel(agent, channel.name, probed=True)
        if released:
            proved = fault.cause in PROBED and fault.text != HANGS_UP
            more = "mail flows again" if proved else UNPROVED.format(cause=fault.cause)
            _say(_row(Check("breaker", ok=True, text=f"released: {more}")))
    except LedgerError:
        _say(_row(Check("breaker", ok=None, text="Redis does not answer, so nothing could be released")))
    finally:
        await pipe.aclose()
        await client.aclose()


if __name__ == "__main__":
    sys.exit(main())
