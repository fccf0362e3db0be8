"""What a configuration is warned about: it starts, but probably not as it was meant."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from postroom.config.carrying import carries_provider_keys, names_provider_files
from postroom.config.structs import (
    Agent,
    ChannelConfig,
    Config,
    PostmarkChannel,
    SmtpChannel,
    ZeptomailChannel,
)
from postroom.decode import Fault
from postroom.zeptomail_token import normalise_token

ZEPTOMAIL_HOSTS = ("api.zeptomail.", "api.transmail.", "zeptomail.zoho.", "cpaas.zoho.")
CALLS = ("", "/v1.1", "/v1.1/email")  # paths that are left out of a base_url without a word


def find_warnings(config: Config) -> list[Fault]:
    """Return what `postroom check` warns about, and a start logs."""
    warnings = [w for name, agent in config.agents.items() for w in _agent_warnings(f"/agents/{name}", agent)]
    if not config.agents:
        warnings.append(Fault("/agents", "no agent is configured, so nothing can be sent"))
    used = {name for caller in config.callers.values() for name in caller.agents}
    unused = [name for name in config.agents if name not in used]
    warnings += [Fault(f"/agents/{name}", "no caller may use this agent") for name in unused]
    for name, caller in config.callers.items():
        if not caller.agents and not any("admin" in token.scopes for token in caller.tokens):
            text = "has neither agents nor a token with the scope admin, so it can do nothing"
            warnings.append(Fault(f"/callers/{name}/agents", text))
        elif not caller.tokens:
            text = f"has no token, so it cannot send; make one with: postroom token new {name}"
            warnings.append(Fault(f"/callers/{name}/tokens", text))
    return warnings


def _agent_warnings(at: str, agent: Agent) -> Iterator[Fault]:
    if carries_provider_keys(agent) and agent.bounce_address is None:
        text = "is not set: ZeptoMail would use an address of its own, and bounces would not reach you"
        yield Fault(f"{at}/bounce_address", text)
    if agent.bounce_address is not None and all(isinstance(c, PostmarkChannel) for c in agent.channels):
        yield Fault(f"{at}/bounce_address", "has no effect: Postmark sets the envelope sender itself")
    if not any(map(_can_track, agent.channels)):
        for field, wanted in (("track_opens", agent.track_opens), ("track_clicks", agent.track_clicks)):
            if wanted:
                yield Fault(
                    f"{at}/{field}", "has no effect: no channel of this agent has a provider that tracks"
                )
    for index, channel in enumerate(agent.channels):
        yield from _channel_warnings(f"{at}/channels/{index}", channel)


def _can_track(channel: ChannelConfig) -> bool:
    return isinstance(channel, PostmarkChannel) or names_provider_files(channel)


def _channel_warnings(at: str, channel: ChannelConfig) -> Iterator[Fault]:
    if isinstance(channel, SmtpChannel) and channel.is_zeptomail and channel.username is None:
        text = (
            'is not set: ZeptoMail takes no mail without a login, with "emailapikey" and the agent\'s token'
        )
        yield Fault(f"{at}/username", text)
    if not isinstance(channel, ZeptomailChannel):
        return
    if channel.second_token is not None and normalise_token(channel.second_token) == normalise_token(
        channel.token
    ):
        text = "is the same as token: where that one is refused, so is this one"
        yield Fault(f"{at}/second_token", text)
    url = urlsplit(channel.base_url)
    if (url.hostname or "").startswith(ZEPTOMAIL_HOSTS) and url.path.rstrip("/") not in CALLS:
        yield Fault(f"{at}/base_url", "has a path that ZeptoMail does not have: give scheme and host only")
