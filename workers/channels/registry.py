"""Which channel a configuration's `kind` becomes: one line a kind."""

from postroom.address import domain_of, parse_address
from postroom.config.structs import Agent, ChannelConfig, SmtpChannel
from workers.channels.seam import Channel
from workers.channels.smtp import SmtpRelay
from workers.channels.zeptomail import ZeptomailApi


def open_channels(agent: Agent) -> tuple[Channel, ...]:
    """Return the agent's channels in the order of its configuration, none of them connected yet."""
    return tuple(_open(agent, config) for config in agent.channels)


def _open(agent: Agent, config: ChannelConfig) -> Channel:
    bounce_address, own_domain = agent.bounce_address, domain_of(parse_address(agent.sender.address))
    if isinstance(config, SmtpChannel):
        return SmtpRelay(config, bounce_address=bounce_address, own_domain=own_domain)
    return ZeptomailApi(config, bounce_address=bounce_address, own_domain=own_domain)
