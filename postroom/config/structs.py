"""The configuration file as frozen structs: every option with its type, default and meaning."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from postroom.secret import Secret

A_NAME = {"expected": "a name of a-z, 0-9 and -, at most 32 characters, beginning with a letter"}
A_RATE = {"expected": "a rate such as 50/s, 600/min or 1000/h"}
A_DURATION = {"expected": "a duration such as 90s, 10min, 2h or 1.5d"}
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,31}\Z", extra=A_NAME)]
Rate = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,8}/(s|min|h)\Z", extra=A_RATE)]
Duration = Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|min|h|d)\Z", extra=A_DURATION)]
A_DIGEST = {"expected": "64 hex digits in lower case, as `postroom token new` prints them"}
AN_ID = {"expected": "1 to 32 of A-Z, a-z, 0-9, _ and -"}
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", extra=A_DIGEST)]
Priority = Literal["high", "normal", "bulk"]
RetryProfile = Literal["interactive", "standard"]
OnAmbiguous = Literal["retry", "hold"]
Scope = Literal["send", "read", "templates", "admin"]
Port = Annotated[int, Meta(ge=1, le=65535)]


class Strict(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every section: a key that is not declared stops the start."""


class SmtpChannel(Strict, frozen=True, tag="smtp", tag_field="kind"):
    """A relay spoken to over SMTP."""

    name: Name
    host: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Port
    tls: Literal["implicit", "starttls", "none"]  # starttls is required, never opportunistic
    username: str | None = None
    password: Secret | None = None
    insecure: bool = False  # lets credentials travel with tls = "none"
    ca_file: str | None = None  # trusted instead of the system's authorities
    provider: Literal["zeptomail", "ses", "generic"] | None = None  # unset: told from the host
    messages_per_connection: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    idle: Duration = "30s"  # a connection without work for so long is used no more
    file_cache: Name | None = (
        None  # the channel of kind `zeptomail` whose mail agent's file cache it may name
    )

    @property
    def dialect(self) -> str:
        """Whose own replies and header fields the relay speaks: `zeptomail`, `ses` or `generic`."""
        if self.provider is not None:
            return self.provider
        host = self.host.lower()
        if host.startswith(("smtp.zeptomail.", "smtp.transmail.")):
            return "zeptomail"
        is_ses = host.startswith("email-smtp") and host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        return "ses" if is_ses else "generic"

    @property
    def is_zeptomail(self) -> bool:
        """True where the relay understands ZeptoMail's X-TM-* header fields."""
        return self.dialect == "zeptomail"


class ZeptomailChannel(Strict, frozen=True, tag="zeptomail", tag_field="kind"):
    """ZeptoMail's HTTP API (`/v1.1/email`)."""

    name: Name
    token: Secret
    second_token: Secret | None = None  # tried where the first one is refused, so that tokens can be changed
    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s?#@]+\Z")] = "https://api.zeptomail.com"
    ca_file: str | None = None


class PostmarkChannel(Strict, frozen=True, tag="postmark", tag_field="kind"):
    """Postmark's HTTP API (`/email`)."""

    name: Name
    token: Secret  # of the server, not of the account
    stream: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,64}\Z")] = "outbound"
    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s?#@]+\Z")] = "https://api.postmarkapp.com"
    ca_file: str | None = None


ChannelConfig = SmtpChannel | ZeptomailChannel | PostmarkChannel


def kind_of(channel: ChannelConfig) -> str:
    """Return the `kind` that the file calls a channel by."""
    return str(type(channel).__struct_config__.tag)


class From(Strict, frozen=True):
    """The author an agent writes as, unless a message names another of the agent's domains."""

    address: str
    name: str = ""


class Storm(Strict, frozen=True):
    """The storm brake: beyond `limit` messages of one template to one recipient within `window`, mail waits."""

    limit: Annotated[int, Meta(ge=1)]
    window: Duration = "10min"
    exempt: tuple[str, ...] = ()  # addresses it never holds up


class Canary(Strict, frozen=True):
    """A message of our own that goes the way of all others, again and again, to see that the way is free."""

    to: str  # an address that takes mail and forgets it
    every: Duration = "5min"
    priority: Priority = "normal"


class Agent(Strict, frozen=True, rename={"sender": "from", "submitter": "sender"}):
    """A mail agent: one kind of mail, with its own channels, pace and policy."""

    sender: From
    channels: Annotated[tuple[ChannelConfig, ...], Meta(min_length=1)]  # in order of preference
    submitter: From | None = None  # who stands in Sender where a message has another From
    domains: tuple[str, ...] = ()  # allowed domains of From and Sender; empty: the domain of `from`
    only_from: bool = False  # messages may not name another From than this one
    bounce_address: str | None = None  # envelope sender; unset: the From address
    owner: str = ""
    labels: dict[str, str] = {}
    rate: Rate | None = None  # messages
    burst: Annotated[int, Meta(ge=1)] | None = None  # unset: one second's worth, at least 1
    per_day: Annotated[int, Meta(ge=1)] | None = None  # recipients
    timezone: str = "UTC"  # whose midnight ends the day of `per_day`
    connections: Annotated[int, Meta(ge=1, le=1000)] = 10  # over all workers
    retry_profile: RetryProfile = "standard"
    on_ambiguous: OnAmbiguous = "retry"
    ambiguous_retries: Annotated[int, Meta(ge=0, le=10)] = 1  # of one message, where the policy is "retry"
    storm: Storm | None = None  # unset: no brake
    canary: Canary | None = None  # unset: none is sent
    track_opens: bool = False
    track_clicks: bool = False


class Token(Strict, frozen=True):
    """A caller's bearer token, by its digest. Times are RFC 3339."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,32}\Z", extra=AN_ID)]
    sha256: Sha256  # of the whole token, as `postroom token new` prints it
    scopes: tuple[Scope, ...] = ("send", "read")
    not_before: str | None = None
    expires: str | None = None


class Caller(Strict, frozen=True):
    """An internal service that may send through some agents."""

    agents: tuple[Name, ...] = ()  # none for one that only operates
    priorities: tuple[Priority, ...] = ("high", "normal", "bulk")
    rate: Rate | None = None  # requests, counted by each API process on its own
    networks: tuple[str, ...] = ()  # allowed addresses of the peer; empty: any
    tokens: tuple[Token, ...] = ()


class Redis(Strict, frozen=True):
    """The ledger's Redis, and arq's where it is another one."""

    url: str = "redis://127.0.0.1:6379/0"
    arq_url: str | None = None
    min_replicas_ack: Annotated[int, Meta(ge=0, le=5)] = 0  # replicas that must have an accept before its 202


class Retention(Strict, frozen=True):
    """How long things stay after the end of a message's life."""

    content: Duration = "1h"
    message: Duration = "72h"


class Files(Strict, frozen=True):
    """The file cache: what `POST /v1/files` takes, and for how long."""

    largest: Annotated[int, Meta(ge=1, le=15_000_000)] = 10_000_000  # bytes
    lifetime: Duration = "24h"  # how long new messages may use a file, unless its upload says otherwise
    longest: Duration = "30d"  # the longest an upload may ask for
    types: tuple[str, ...] = ()  # `type/subtype` or `type/*`; empty: whatever may be attached


class Templates(Strict, frozen=True):
    """Where the templates lie; a relative folder is taken from the configuration file's own."""

    dir: str = "templates"


class Worker(Strict, frozen=True):
    """One worker process."""

    max_lanes: Annotated[int, Meta(ge=1, le=5000)] = 200
    lease: Duration = "10s"  # how long a dead worker keeps what it had claimed
    linger: Duration = "5s"  # how long an idle round keeps its connections
    sweep: Duration = "1s"
    round: Duration = "30s"  # when a round rings again, so that others may take it over


class Breaker(Strict, frozen=True):
    """When a channel stands still, and for how long. Wrong credentials and a plain "slow down" stop it at once."""

    faults: Annotated[int, Meta(ge=1)] = 3  # so many in `window`, and nothing sent in between
    window: Duration = "30s"
    refusals: Annotated[int, Meta(ge=2)] = 20  # so many in `refusal_window`, and nothing sent in between
    refusal_window: Duration = "10min"
    shortest: Duration = "1s"  # five times that where a person must mend it; doubles with every failed probe
    longest: Duration = "5min"


class Config(Strict, frozen=True):
    """The whole file."""

    environment: Name = "production"
    redis: Redis = Redis()
    retention: Retention = Retention()
    files: Files = Files()
    templates: Templates = Templates()
    worker: Worker = Worker()
    breaker: Breaker = Breaker()
    agents: dict[Name, Agent] = {}
    callers: dict[Name, Caller] = {}
