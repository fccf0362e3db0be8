"""What a configuration must fulfil beyond its types; what it is only warned about is in `advice`."""

import ipaddress
import re
import zoneinfo
from collections.abc import Collection, Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from postroom.address import AddressError, domain_of, parse_address
from postroom.config.carrying import carries_sender
from postroom.config.structs import (
    Agent,
    Caller,
    ChannelConfig,
    Config,
    From,
    SmtpChannel,
    Token,
    ZeptomailChannel,
)
from postroom.config.units import seconds
from postroom.decode import Fault
from postroom.ledger.redis_url import find_url_problem, is_cluster

CROSSED = {(587, "implicit"): "starttls", (465, "starttls"): "implicit"}
# ZeptoMail's base URL with one of its calls behind the version, or the version twice.
BEYOND_BASE = re.compile(r"/v1\.1/+(?:email/+[^/]|files(?:/|\Z)|v1\.1)")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHORTEST_STORM = 0.1  # seconds
SHORTEST_CANARY = 1.0  # seconds
SHORTEST_LEASE = 0.2  # seconds; below it a lease ends between two renewals of a healthy worker


def find_faults(config: Config, *, known_agents: Collection[str] = ()) -> list[Fault]:
    """Return everything that forbids a start; `known_agents` are named in the file although they are faulty."""
    faults = [fault for name, agent in config.agents.items() for fault in _agent_faults(name, agent)]
    digests: dict[str, str] = {}
    for name, caller in config.callers.items():
        faults += _caller_faults(name, caller, {*config.agents, *known_agents}, digests)
    faults += _duration_faults(config)
    for name, url in (("url", config.redis.url), ("arq_url", config.redis.arq_url)):
        if url is not None and (problem := find_url_problem(url)):
            faults.append(Fault(f"/redis/{name}", problem))
    if is_cluster(config.redis.arq_url or config.redis.url):
        text = "must name another Redis, which is no cluster: arq's keys do not fit into one"
        faults.append(Fault("/redis/arq_url", text))
    return faults


def _shortest(config: Config) -> dict[str, tuple[str, float]]:
    """Return durations by their place, with the fewest seconds of each."""
    shortest = {
        "/worker/lease": (config.worker.lease, SHORTEST_LEASE),
        "/worker/sweep": (config.worker.sweep, 0.01),
        "/worker/round": (config.worker.round, 0.1),
        "/retention/message": (config.retention.message, 1.0),
        "/breaker/window": (config.breaker.window, 0.1),
        "/breaker/refusal_window": (config.breaker.refusal_window, 0.1),
        "/breaker/shortest": (config.breaker.shortest, 0.01),
    }
    for name, agent in config.agents.items():
        if agent.storm is not None:
            shortest[f"/agents/{name}/storm/window"] = (agent.storm.window, SHORTEST_STORM)
        if agent.canary is not None:
            shortest[f"/agents/{name}/canary/every"] = (agent.canary.every, SHORTEST_CANARY)
    return shortest


def _duration_faults(config: Config) -> Iterator[Fault]:
    for pointer, (duration, least) in _shortest(config).items():
        if seconds(duration) < least:
            yield Fault(pointer, f"must be at least {round(least * 1000)}ms")
    if seconds(config.retention.message) < seconds(config.retention.content):
        yield Fault("/retention/message", "must not be shorter than retention.content")
    if seconds(config.files.longest) < seconds(config.files.lifetime):
        yield Fault("/files/longest", "must not be shorter than files.lifetime")
    for index, kind in enumerate(config.files.types):
        if not re.fullmatch(r"[a-z0-9.+-]+/(\*|[a-z0-9.+-]+)", kind):
            yield Fault(f"/files/types/{index}", "is not of the form type/subtype or type/*, in lower case")
    if seconds(config.breaker.longest) < seconds(config.breaker.shortest):
        yield Fault("/breaker/longest", "must not be shorter than breaker.shortest")


def _agent_faults(name: str, agent: Agent) -> Iterator[Fault]:
    at = f"/agents/{name}"
    yield from _sender_faults(at, agent)
    if agent.bounce_address and (fault := _address_fault(f"{at}/bounce_address", agent.bounce_address)):
        yield fault
    try:
        zoneinfo.ZoneInfo(agent.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        yield Fault(f"{at}/timezone", "is not a known time zone, such as UTC or Europe/Vienna")
    seen: set[str] = set()
    for index, channel in enumerate(agent.channels):
        if channel.name in seen:
            yield Fault(f"{at}/channels/{index}/name", "is used by another channel of this agent")
        seen.add(channel.name)
        yield from _channel_faults(f"{at}/channels/{index}", channel)
        if isinstance(channel, SmtpChannel) and (text := _username_problem(agent, channel)):
            yield Fault(f"{at}/channels/{index}/username", text)
        if isinstance(channel, SmtpChannel) and (text := _file_cache_problem(agent, channel)):
            yield Fault(f"{at}/channels/{index}/file_cache", text)


def _sender_faults(at: str, agent: Agent) -> Iterator[Fault]:
    for field, box in (("from", agent.sender), ("sender", agent.submitter)):
        if box is not None:
            yield from _mailbox_faults(f"{at}/{field}", box, agent)
    if agent.submitter is not None and not carries_sender(agent):
        yield Fault(f"{at}/sender", "no channel of the agent can carry a Sender: only SMTP can")
    for index, domain in enumerate(agent.domains):
        if fault := _address_fault(f"{at}/domains/{index}", f"a@{domain}"):
            yield Fault(fault.pointer, "is not a domain")
    if agent.canary and (fault := _address_fault(f"{at}/canary/to", agent.canary.to)):
        yield fault
    for index, exempt in enumerate(agent.storm.exempt if agent.storm else ()):
        if fault := _address_fault(f"{at}/storm/exempt/{index}", exempt):
            yield fault


def _mailbox_faults(at: str, box: From, agent: Agent) -> Iterator[Fault]:
    wrong = _address_fault(f"{at}/address", box.address)
    if wrong:
        yield wrong
    elif domain_of(parse_address(box.address)) not in allowed_domains(agent):
        yield Fault(f"{at}/address", "its domain is not among the agent's domains")
    if "@" in box.name:
        yield Fault(f"{at}/name", "must not look like an address")


def _channel_faults(at: str, channel: ChannelConfig) -> Iterator[Fault]:
    if channel.ca_file is not None and not Path(channel.ca_file).is_file():
        yield Fault(f"{at}/ca_file", "is not a file that can be read")
    if isinstance(channel, ZeptomailChannel) and BEYOND_BASE.search(channel.base_url):
        text = "names a call: leave out all that begins with /v1.1, which Postroom adds itself"
        yield Fault(f"{at}/base_url", text)
    if isinstance(channel, SmtpChannel):
        yield from _smtp_faults(at, channel)
    elif channel.base_url.startswith("http://") and urlsplit(channel.base_url).hostname not in LOOPBACK:
        yield Fault(f"{at}/base_url", "must be https: the token would travel in the clear")


def _username_problem(agent: Agent, channel: SmtpChannel) -> str | None:
    """ZeptoMail lets a From address log in; the connection then carries mail From that address only."""
    if not channel.is_zeptomail or "@" not in (channel.username or ""):
        return None
    if (channel.username or "").lower() != agent.sender.address.lower():
        return "is an address, so it must be the agent's From: ZeptoMail takes mail From this one only"
    if not agent.only_from:
        return (
            "is an address, and ZeptoMail then takes mail From this one only, while messages of this agent may name "
            'others: say only_from = true, or log in as "emailapikey"'
        )
    return None


def _file_cache_problem(agent: Agent, channel: SmtpChannel) -> str | None:
    if channel.file_cache is None:
        return None
    if not channel.is_zeptomail:
        return "only ZeptoMail's relay can name files of a cache"
    names = {other.name for other in agent.channels if isinstance(other, ZeptomailChannel)}
    return None if channel.file_cache in names else 'is no channel of this agent with kind = "zeptomail"'


def _smtp_faults(at: str, channel: SmtpChannel) -> Iterator[Fault]:
    right = CROSSED.get((channel.port, channel.tls))
    if right:
        yield Fault(f"{at}/tls", f'port {channel.port} goes with tls = "{right}", not "{channel.tls}"')
    if (channel.username is None) != (channel.password is None):
        missing = "password" if channel.password is None else "username"
        yield Fault(f"{at}/{missing}", "username and password go together")
    if channel.tls == "none" and channel.password is not None and not channel.insecure:
        text = 'credentials would travel in the clear: use "starttls" or "implicit", or say insecure = true'
        yield Fault(f"{at}/tls", text)


def _caller_faults(
    name: str, caller: Caller, agents: Collection[str], digests: dict[str, str]
) -> Iterator[Fault]:
    at = f"/callers/{name}"
    for index, agent in enumerate(caller.agents):
        if agent not in agents:
            yield Fault(f"{at}/agents/{index}", f"no agent is called {agent}")
    for index, network in enumerate(caller.networks):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            yield Fault(f"{at}/networks/{index}", "is not a network such as 10.0.0.0/8")
    for index, token in enumerate(caller.tokens):
        yield from _token_faults(f"{at}/tokens/{index}", token)
        if token.sha256 in digests:
            yield Fault(f"{at}/tokens/{index}/sha256", f"is also at {digests[token.sha256]}")
        digests[token.sha256] = f"{at}/tokens/{index}"


def _token_faults(at: str, token: Token) -> Iterator[Fault]:
    for field, text in (("not_before", token.not_before), ("expires", token.expires)):
        if text is not None and read_time(text) is None:
            yield Fault(f"{at}/{field}", "is not a time with zone such as 2027-01-31T12:00:00Z")


def allowed_domains(agent: Agent) -> frozenset[str]:
    """Return the From domains an agent may use, as A-labels."""
    return _a_labels(agent.domains or (agent.sender.address.rpartition("@")[2],))


@lru_cache(maxsize=4096)
def _a_labels(named: tuple[str, ...]) -> frozenset[str]:
    """Every request asks for them, so they are worked out once for each list of domains."""
    return frozenset(
        domain_of(parse_address(f"a@{d}")) for d in named if _address_fault("", f"a@{d}") is None
    )


def read_time(text: str) -> datetime | None:
    """Return an RFC 3339 time with its zone, or None."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


def _address_fault(pointer: str, text: str) -> Fault | None:
    try:
        parse_address(text)
    except AddressError as error:
        return Fault(pointer, str(error))
    return None
