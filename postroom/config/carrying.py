"""Which channels can carry what: only SMTP has a place for a Sender, and few can name a file of the provider's own."""

from collections.abc import Collection

from postroom.config.structs import Agent, ChannelConfig, SmtpChannel, ZeptomailChannel
from postroom.file_header import can_name
from postroom.message import Address, AttachmentRef


def able_channels(
    channels: Collection[ChannelConfig], submitter: Address | None, files: Collection[AttachmentRef]
) -> frozenset[str]:
    """Return the names of the channels that can carry a message with this Sender and these files as it is."""
    own = [file for file in files if file.provider_key]
    return frozenset(
        channel.name
        for channel in channels
        if (submitter is None or isinstance(channel, SmtpChannel)) and (not own or _can_name(channel, own))
    )


def _can_name(channel: ChannelConfig, files: Collection[AttachmentRef]) -> bool:
    return names_provider_files(channel) and (isinstance(channel, ZeptomailChannel) or can_name(files))


def names_provider_files(channel: ChannelConfig) -> bool:
    """True where the channel can name a file that only the provider has."""
    return isinstance(channel, ZeptomailChannel) or (
        isinstance(channel, SmtpChannel) and channel.is_zeptomail
    )


def carries_provider_keys(agent: Agent) -> bool:
    """True where some channel of the agent can name a file that only the provider has."""
    return any(map(names_provider_files, agent.channels))


def carries_provider_images(agent: Agent) -> bool:
    """True where some channel of the agent is ZeptoMail's API, which names files of any number and by their cid."""
    return any(isinstance(channel, ZeptomailChannel) for channel in agent.channels)


def carries_sender(agent: Agent) -> bool:
    """True where some channel of the agent is SMTP: the providers' APIs have no place for a Sender."""
    return any(isinstance(channel, SmtpChannel) for channel in agent.channels)
