"""Which channel a configuration's `kind` becomes: one branch a kind."""

from collections.abc import Callable

from postroom.address import domain_of, parse_address
from postroom.config.structs import Agent, ChannelConfig, PostmarkChannel, SmtpChannel, ZeptomailChannel
from workers.channels.http_pool import TIMEOUTS, Timeouts
from workers.channels.postmark import PostmarkApi
from workers.channels.seam import Channel, FileKeys
from workers.channels.smtp import SmtpRelay
from workers.channels.smtp_session import DEFAULT_TIMEOUTS, SmtpTimeouts
from workers.channels.zeptomail import ZeptomailApi
from workers.channels.zeptomail_client import ZeptomailClient
from workers.channels.zeptomail_files import ZeptomailFiles

KeysOf = Callable[[str], FileKeys | None]  # by the name of the channel


def open_channels(
    name: str, agent: Agent, keys_of: KeysOf, *, seconds: float | None = None
) -> tuple[Channel, ...]:
    """Return the channels of the agent of this name in the order of its configuration, none of them connected yet.

    `seconds` bounds every single wait of theirs, for somebody who looks on; unset, they are as patient as mail needs.
    """
    smtp = (
        DEFAULT_TIMEOUTS
        if seconds is None
        else SmtpTimeouts(*[seconds] * len(SmtpTimeouts.__struct_fields__))
    )
    http = TIMEOUTS if seconds is None else Timeouts(seconds, seconds)
    return tuple(_open(name, agent, config, keys_of, smtp, http) for config in agent.channels)


def _open(
    name: str, agent: Agent, config: ChannelConfig, keys_of: KeysOf, smtp: SmtpTimeouts, http: Timeouts
) -> Channel:
    bounce_address, own_domain = agent.bounce_address, domain_of(parse_address(agent.sender.address))
    if isinstance(config, SmtpChannel):
        files = _file_cache(name, agent, config.file_cache, keys_of)
        return SmtpRelay(
            config, bounce_address=bounce_address, own_domain=own_domain, files=files, timeouts=smtp
        )
    if isinstance(config, PostmarkChannel):
        return PostmarkApi(config, timeouts=http)
    keys = keys_of(config.name)
    return ZeptomailApi(
        config, agent=name, bounce_address=bounce_address, own_domain=own_domain, keys=keys, timeouts=http
    )


def _file_cache(name: str, agent: Agent, channel: str | None, keys_of: KeysOf) -> ZeptomailFiles | None:
    """Return the file cache of the ZeptoMail agent behind another channel, with connections of its own."""
    for config in agent.channels:
        if isinstance(config, ZeptomailChannel) and config.name == channel:
            return ZeptomailFiles(ZeptomailClient(config, agent=name), keys_of(config.name))
    return None
