"""A reload, for one agent: its round ends after the message in hand, and the next one opens its channels anew."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from postroom.config.change import Change
from postroom.ledger.errors import LedgerError, LedgerUnavailableError, LedgerUnconfirmedError
from workers.round import Round
from workers.ways import Ways

if TYPE_CHECKING:
    from workers.carrier import Carrier

LEDGER_PAUSE = 0.5  # seconds


async def start_over(
    carrier: "Carrier", agent: str, change: Change, running: Round | None, ways: Ways | None
) -> None:
    """Let the agent's mail flow by its new configuration; with none, its mail stays where it is.

    `running` and `ways` are what the agent worked with until now, and are ended here.
    """
    try:
        if running is not None:
            running.stop()
            await running.ended.wait()
    finally:
        if ways is not None:
            await ways.aclose()
    for channel in change.channels_gone(agent):
        with suppress(KeyError):
            carrier.metrics.channel_up.remove(agent, channel)
    if agent not in carrier.config.agents:
        carrier.metrics.forget(agent)
    # Not before the round has ended: until then it may still meet the fault that was mended.
    await _reconcile(carrier, agent, change)
    if agent in carrier.config.agents and not carrier.draining:
        carrier.ring_soon(agent)


async def _reconcile(carrier: "Carrier", agent: str, change: Change) -> None:
    """Let what the ledger knows of the agent's channels follow its configuration."""
    while not carrier.draining and agent in carrier.config.agents:
        channels = [channel.name for channel in carrier.config.agents[agent].channels]
        try:
            gone = await carrier.delivery.reconcile(agent, change.channels_to_try(agent), channels)
        except (LedgerUnavailableError, LedgerUnconfirmedError) as error:
            carrier.ledger_failed(error)
            await asyncio.sleep(LEDGER_PAUSE)
        except LedgerError as error:
            carrier.ledger_failed(error)
            return
        else:
            for channel in gone:
                carrier.log.info("breaker.closed", agent=agent, channel=channel)
                carrier.notes("breaker.closed", agent=agent, channel=channel)
            return
