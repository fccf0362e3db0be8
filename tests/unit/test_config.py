"""The configuration file: the whole of it is right, or every fault is told with its place."""

import re
from textwrap import dedent

import pytest

from postroom.config.advice import find_warnings
from postroom.config.load import BY_REFERENCE, load_config
from postroom.config.rules import allowed_domains
from postroom.config.units import milliseconds, per_second, seconds
from postroom.decode import Fault
from postroom.errors import ConfigError
from postroom.secret import Secret

SHA = "ab" * 32
CANARY = "Kanarienvogel"
CHANNEL = """
[[agents.orders.channels]]
name = "relay"
kind = "smtp"
host = "relay.example"
port = 587
tls = "starttls"
"""
AGENT = f"""
[agents.orders]
from = {{ address = "orders@shop.example", name = "Shop" }}
{CHANNEL}
"""
CALLER = f"""
[callers.checkout]
agents = ["orders"]
tokens = [{{ id = "k7", sha256 = "{SHA}" }}]
"""
GOOD = AGENT + CALLER
ENVIRON = {
    "PASSWORD": "hunter2",
    "TOKEN": "zepto-token",
    "COPIED": ' "Zoho-enczapikey zepto-token"\n',
}


@pytest.fixture
def load(tmp_path):
    """Load a configuration from text; the folder stands in for the file's own."""

    def load(text, environ=ENVIRON):
        path = tmp_path / "postroom.toml"
        path.write_text(dedent(text))
        return load_config(path, environ)

    return load


@pytest.fixture
def faults(load):
    """Return the faults of a configuration as (pointer, text)."""

    def faults(text, environ=ENVIRON):
        with pytest.raises(ConfigError) as caught:
            load(text, environ)
        return [(fault.pointer, fault.detail) for fault in caught.value.faults]

    return faults


def smtp(**options):
    """Return the good configuration with other options of its channel."""
    given = {"name": '"relay"', "kind": '"smtp"', "host": '"relay.example"', "port": "587"}
    given |= {"tls": '"starttls"'} | options
    lines = "\n".join(f"{key} = {value}" for key, value in given.items() if value is not None)
    sender = '[agents.orders]\nfrom = { address = "orders@shop.example" }\n'
    return f"{sender}[[agents.orders.channels]]\n{lines}\n{CALLER}"


def zepto(agent="", **options):
    """Return a configuration with a ZeptoMail channel."""
    given = {"name": '"api"', "kind": '"zeptomail"', "token": '{ env = "TOKEN" }'} | options
    lines = "\n".join(f"{key} = {value}" for key, value in given.items() if value is not None)
    sender = f'[agents.orders]\nfrom = {{ address = "orders@shop.example" }}\n{agent}\n'
    return f"{sender}[[agents.orders.channels]]\n{lines}\n{CALLER}"


def agent(*lines):
    """Return the good configuration with more lines in its agent."""
    start = '[agents.orders]\nfrom = { address = "orders@shop.example" }\n'
    return start + "\n".join(lines) + CHANNEL + CALLER


def caller(*lines):
    """Return the good configuration with another caller."""
    return f'{AGENT}\n[callers.checkout]\nagents = ["orders"]\n' + "\n".join(lines)


SECRET = {"username": '"user"', "password": '{ env = "PASSWORD" }'}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # form
        ("x = ", [("", re.compile("is not TOML: .*"))]),
        ("[a]\n[a]", [("", re.compile("is not TOML: .*"))]),
        ("bcx = 1", [("/bcx", "unknown field")]),
        ("agents = []", [("/agents", "expected `object`, got `array`")]),
        ('environment = "Prod"', [("/environment", re.compile("must be a name of .*"))]),
        ("[redis]\nurl = 1", [("/redis/url", "expected `str`, got `int`")]),
        ("[redis]\nhost = 'x'", [("/redis/host", "unknown field")]),
        ("[redis]\nmin_replicas_ack = -1", [("/redis/min_replicas_ack", "expected `int` >= 0")]),
        ("[redis]\nmin_replicas_ack = 6", [("/redis/min_replicas_ack", "expected `int` <= 5")]),
        ("[redis]\nurl = 'http://x'", [("/redis/url", "must start with one of: redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster://")]),
        ("[retention]\ncontent = 3600", [("/retention/content", "expected `str`, got `int`")]),
        ("[retention]\nmessage = '3 days'", [("/retention/message", re.compile("must be a duration such as .*"))]),
        ("[retention]\nmessage = '-1h'", [("/retention/message", re.compile("must be a duration such as .*"))]),
        ("[worker]\nmax_lanes = 0", [("/worker/max_lanes", "expected `int` >= 1")]),
        ("[worker]\nmax_lanes = '9'", [("/worker/max_lanes", "expected `int`, got `str`")]),
        ("[worker]\nlease = '199ms'", [("/worker/lease", "must be at least 200ms")]),
        ("[worker]\nleese = '10s'", [("/worker/leese", "unknown field")]),
        # names
        ("[agents.Orders]\n", [("/agents/Orders", re.compile("must be a name of .*")),
                               ("/agents/Orders/from", "required, but missing"),
                               ("/agents/Orders/channels", "required, but missing")]),
        ("[callers.a_b]\nagents = ['x']", [("/callers/a_b", re.compile("must be a name of .*"))]),
        (f"[callers.{'a' * 33}]\nagents = ['x']", [(f"/callers/{'a' * 33}", re.compile("must be a name of .*"))]),
        # agents
        ("[agents.orders]", [("/agents/orders/from", "required, but missing"),
                             ("/agents/orders/channels", "required, but missing")]),
        ("[agents.a]\nfrom = {}\nchannels = []", [
            ("/agents/a/from/address", "required, but missing"),
            ("/agents/a/channels", "expected `array` of length >= 1"),
        ]),
        ("[agents.a]\nfrom = 'a@x.example'" + CHANNEL.replace("orders", "a"), [
            ("/agents/a/from", "expected `object`, got `str`"),
        ]),
        (agent("connections = 0"), [("/agents/orders/connections", "expected `int` >= 1")]),
        (agent("connections = 1001"), [("/agents/orders/connections", "expected `int` <= 1000")]),
        (agent("rate = 50"), [("/agents/orders/rate", "expected `str | null`, got `int`")]),
        (agent("rate = '0/s'"), [("/agents/orders/rate", re.compile("must be a rate such as .*"))]),
        (agent("rate = '50/d'"), [("/agents/orders/rate", re.compile("must be a rate such as .*"))]),
        (agent("rate = '1.5/s'"), [("/agents/orders/rate", re.compile("must be a rate such as .*"))]),
        (agent("burst = 0"), [("/agents/orders/burst", "expected `int` >= 1")]),
        (agent("per_day = 0"), [("/agents/orders/per_day", "expected `int` >= 1")]),
        (agent("retry_profile = 'fast'"), [
            ("/agents/orders/retry_profile", "must be one of: interactive, standard"),
        ]),
        (agent("on_ambiguous = 'drop'"), [("/agents/orders/on_ambiguous", "must be one of: retry, hold")]),
        (agent("track_opens = 'yes'"), [("/agents/orders/track_opens", "expected `bool`, got `str`")]),
        (agent("labels = { a = 1 }"), [("/agents/orders/labels/a", "expected `str`, got `int`")]),
        (agent("timezone = 'Mars/Olympus'"), [
            ("/agents/orders/timezone", "is not a known time zone, such as UTC or Europe/Vienna"),
        ]),
        (agent("timezone = '../etc/passwd'"), [
            ("/agents/orders/timezone", "is not a known time zone, such as UTC or Europe/Vienna"),
        ]),
        (agent("bounce_address = 'bounce'"), [("/agents/orders/bounce_address", "has no '@'")]),
        (agent("domains = ['other.example']"), [
            ("/agents/orders/from/address", "its domain is not among the agent's domains"),
        ]),
        (agent("domains = ['shop.example', 'a b', 'x@y.example']"), [
            ("/agents/orders/domains/1", "is not a domain"), ("/agents/orders/domains/2", "is not a domain"),
        ]),
        (GOOD.replace("orders@shop.example", "shop.example"), [
            ("/agents/orders/from/address", "has no '@'"),
        ]),
        (GOOD.replace('name = "Shop"', 'name = "a@b.example"'), [
            ("/agents/orders/from/name", "must not look like an address"),
        ]),
        (agent('sender = { address = "x@other.example", name = "a@b.example" }'), [
            ("/agents/orders/sender/address", "its domain is not among the agent's domains"),
            ("/agents/orders/sender/name", "must not look like an address"),
        ]),
        (zepto('sender = { address = "x@shop.example" }'), [
            ("/agents/orders/sender", "no channel of the agent can carry a Sender: only SMTP can"),
        ]),
        # channels
        (smtp(kind=None), [("/agents/orders/channels/0", re.compile(".*kind.*"))]),
        (smtp(kind='"imap"'), [("/agents/orders/channels/0", "must be one of: smtp, zeptomail, postmark")]),
        (smtp(host='""'), [("/agents/orders/channels/0/host", "expected `str` of length >= 1")]),
        (smtp(host=None), [("/agents/orders/channels/0/host", "required, but missing")]),
        (smtp(port="0"), [("/agents/orders/channels/0/port", "expected `int` >= 1")]),
        (smtp(port="65536"), [("/agents/orders/channels/0/port", "expected `int` <= 65535")]),
        (smtp(port='"587"'), [("/agents/orders/channels/0/port", "expected `int`, got `str`")]),
        (smtp(tls='"tls"'), [
            ("/agents/orders/channels/0/tls", "must be one of: implicit, starttls, none"),
        ]),
        (smtp(tls=None), [("/agents/orders/channels/0/tls", "required, but missing")]),
        (smtp(host='"smtp.zeptomail.eu"', username='"orders@shop.example"', password='{ env = "PASSWORD" }'), [
            ("/agents/orders/channels/0/username", re.compile("is an address, and .*say only_from = true.*")),
        ]),
        (smtp(host='"smtp.zeptomail.eu"', username='"else@shop.example"', password='{ env = "PASSWORD" }'), [
            ("/agents/orders/channels/0/username", re.compile("is an address, so it must be the agent's From.*")),
        ]),
        (smtp(messages_per_connection="0"), [
            ("/agents/orders/channels/0/messages_per_connection", "expected `int` >= 1"),
        ]),
        (smtp(idle='"soon"'), [("/agents/orders/channels/0/idle", re.compile("must be a duration such as .*"))]),
        (zepto(second_token='"abc"'), [("/agents/orders/channels/0/second_token", re.compile("give a secret.*"))]),
        (smtp(name='"Relay 1"'), [("/agents/orders/channels/0/name", re.compile("must be a name of .*"))]),
        (smtp(verify="false"), [("/agents/orders/channels/0/verify", "unknown field")]),
        (smtp(tls='"implicit"'), [
            ("/agents/orders/channels/0/tls", 'port 587 goes with tls = "starttls", not "implicit"'),
        ]),
        (smtp(port="465"), [
            ("/agents/orders/channels/0/tls", 'port 465 goes with tls = "implicit", not "starttls"'),
        ]),
        (smtp(username='"user"'), [
            ("/agents/orders/channels/0/password", "username and password go together"),
        ]),
        (smtp(password='{ env = "PASSWORD" }'), [
            ("/agents/orders/channels/0/username", "username and password go together"),
        ]),
        (smtp(port="25", tls='"none"', **SECRET), [
            ("/agents/orders/channels/0/tls", re.compile("credentials would travel in the clear: .*")),
        ]),
        (GOOD.replace(CHANNEL, CHANNEL + CHANNEL), [
            ("/agents/orders/channels/1/name", "is used by another channel of this agent"),
        ]),
        (zepto(base_url='"ftp://x"'), [("/agents/orders/channels/0/base_url", re.compile("expected.*"))]),
        (zepto(base_url='"https://u:p@x"'), [("/agents/orders/channels/0/base_url", re.compile("expected.*"))]),
        (zepto(host='"x"'), [("/agents/orders/channels/0/host", "unknown field")]),
        (zepto(base_url='"http://api.example"'), [
            ("/agents/orders/channels/0/base_url", "must be https: the token would travel in the clear"),
        ]),
        *[(zepto(base_url=f'"https://api.zeptomail.eu/v1.1/{call}"'), [
            ("/agents/orders/channels/0/base_url",
             "names a call: leave out all that begins with /v1.1, which Postroom adds itself"),
        ]) for call in ("email/batch", "email/template/", "files", "v1.1")],
        (zepto(base_url='"https://gateway.example/zepto/v1.1/email/batch"'), [
            ("/agents/orders/channels/0/base_url", re.compile("names a call: .*")),
        ]),
        (zepto(ca_file='"none.pem"'), [
            ("/agents/orders/channels/0/ca_file", "is not a file that can be read"),
        ]),
        ("[retention]\ncontent = '2h'\nmessage = '1h'", [
            ("/retention/message", "must not be shorter than retention.content"),
        ]),
        (zepto(token=None), [("/agents/orders/channels/0/token", "required, but missing")]),
        # secrets
        (zepto(token=f'"{CANARY}"'), [("/agents/orders/channels/0/token", BY_REFERENCE)]),
        (zepto(token="12"), [("/agents/orders/channels/0/token", BY_REFERENCE)]),
        (zepto(token="{}"), [("/agents/orders/channels/0/token", BY_REFERENCE)]),
        (zepto(token='{ env = "TOKEN", file = "x" }'), [("/agents/orders/channels/0/token", BY_REFERENCE)]),
        (zepto(token="{ env = 1 }"), [("/agents/orders/channels/0/token", BY_REFERENCE)]),
        (zepto(token='{ env = "NONE" }'), [
            ("/agents/orders/channels/0/token", "environment variable NONE is not set"),
        ]),
        (zepto(token='{ file = "none" }'), [
            ("/agents/orders/channels/0/token", "file none cannot be read or is empty"),
        ]),
        (smtp(username='"user"', password='{ env = "NONE" }'), [
            ("/agents/orders/channels/0/password", "environment variable NONE is not set"),
        ]),
        # callers
        (AGENT + "[callers.checkout]\nagents = ['orders', 'nope']", [
            ("/callers/checkout/agents/1", "no agent is called nope"),
        ]),
        (caller("priorities = ['high', 'low']"), [
            ("/callers/checkout/priorities/1", "must be one of: high, normal, bulk"),
        ]),
        (caller("rate = '1/d'"), [("/callers/checkout/rate", re.compile("must be a rate such as .*"))]),
        (caller("networks = ['10.0.0.0/8', '10.0.0.1/8', 'x']"), [
            ("/callers/checkout/networks/1", "is not a network such as 10.0.0.0/8"),
            ("/callers/checkout/networks/2", "is not a network such as 10.0.0.0/8"),
        ]),
        (caller("tokens = [{ id = 'k' }]"), [("/callers/checkout/tokens/0/sha256", "required, but missing")]),
        (caller(f"tokens = [{{ id = 'k k', sha256 = '{SHA}' }}]"), [
            ("/callers/checkout/tokens/0/id", "must be 1 to 32 of A-Z, a-z, 0-9, _ and -"),
        ]),
        (caller(f"tokens = [{{ id = 'k', sha256 = '{SHA.upper()}' }}]"), [
            ("/callers/checkout/tokens/0/sha256", re.compile("must be 64 hex digits .*")),
        ]),
        (caller(f"tokens = [{{ id = 'k', sha256 = '{SHA}', scopes = ['root'] }}]"), [
            ("/callers/checkout/tokens/0/scopes/0", "must be one of: send, read, templates, admin"),
        ]),
        (caller(f"tokens = [{{ id = 'k', sha256 = '{SHA}', expires = '2027-01-31' }}]"), [
            ("/callers/checkout/tokens/0/expires", "is not a time with zone such as 2027-01-31T12:00:00Z"),
        ]),
        (caller(f"tokens = [{{ id = 'k', sha256 = '{SHA}', not_before = 'soon' }}]"), [
            ("/callers/checkout/tokens/0/not_before", "is not a time with zone such as 2027-01-31T12:00:00Z"),
        ]),
        (GOOD + f"[callers.b]\nagents = ['orders']\ntokens = [{{ id = 'k', sha256 = '{SHA}' }}]", [
            ("/callers/b/tokens/0/sha256", "is also at /callers/checkout/tokens/0"),
        ]),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(faults, text, expected):
    """Every fault is told by JSON pointer and in words that say what is right, without the value."""
    found = faults(text)
    assert [pointer for pointer, _ in expected] == [pointer for pointer, _ in found]
    for (_, wanted), (_, detail) in zip(expected, found, strict=True):
        if isinstance(wanted, re.Pattern):
            assert wanted.fullmatch(detail), detail
        else:
            assert wanted == detail
    assert CANARY not in repr(found)


def test_all_faults_of_the_form_are_told_at_once(faults):
    """Unknown keys, wrong types and missing secrets of all sections are told by one error."""
    text = """
        colour = "red"
        [redis]
        min_replicas_ack = "2"
        [worker]
        lease = 10
        [agents.orders]
        from = { address = "orders@shop.example", nick = "Shop" }
        rate = "fast"
        [[agents.orders.channels]]
        name = "api"
        kind = "zeptomail"
        token = { env = "NONE" }
        [[agents.orders.channels]]
        name = "relay"
        kind = "smtp"
        host = "relay.example"
        port = 0
        tls = "maybe"
        [callers.checkout]
        agents = "orders"
        tokens = [{ id = "k" }, { sha256 = "x" }]
    """
    expected = {
        "/colour",
        "/redis/min_replicas_ack",
        "/worker/lease",
        "/agents/orders/from/nick",
        "/agents/orders/rate",
        "/agents/orders/channels/0/token",
        "/agents/orders/channels/1/port",
        "/agents/orders/channels/1/tls",
        "/callers/checkout/agents",
        "/callers/checkout/tokens/0/sha256",
        "/callers/checkout/tokens/1/id",
        "/callers/checkout/tokens/1/sha256",
    }
    assert expected == {pointer for pointer, _ in faults(text)}


def test_all_faults_of_the_rules_are_told_at_once(faults):
    """Crossed ports, unknown agents, bad networks and the rest are told by one error."""
    text = (
        smtp(port="465")
        + '[callers.b]\nagents = ["nope"]\nnetworks = ["x"]\n'
        + '[worker]\nlease = "1ms"\n[redis]\nurl = "x"\n'
    )
    expected = {
        "/agents/orders/channels/0/tls",
        "/callers/b/agents/0",
        "/callers/b/networks/0",
        "/worker/lease",
        "/redis/url",
    }
    assert expected == {pointer for pointer, _ in faults(text)}


def test_each_fault_is_one_line_for_a_terminal(faults, load):
    """A person reads file, place and what is wrong, a line a fault."""
    with pytest.raises(ConfigError) as caught:
        load("bcx = 1\nagents = 2")
    lines = caught.value.lines()
    assert 2 == len(lines)
    assert lines[0].endswith("postroom.toml: /bcx: unknown field")
    assert faults("x")[0][0] == ""


def test_a_file_that_cannot_be_read_is_a_fault_of_the_whole(tmp_path):
    """A missing file, a folder and bytes that are not UTF-8 are told in words."""
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "none.toml", {})
    assert caught.value.lines() == [
        f"{tmp_path}/none.toml: (whole file): cannot be read: No such file or directory"
    ]
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path, {})
    assert "cannot be read" in caught.value.faults[0].detail
    (tmp_path / "latin.toml").write_bytes(b'environment = "\xe9"')
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "latin.toml", {})
    assert "is not UTF-8" == caught.value.faults[0].detail


def test_a_secret_comes_from_the_environment_or_a_file(load, tmp_path):
    """`{ env }` and `{ file }` give the value, without the newline an editor puts at a file's end."""
    for value in ("zepto-token", "zepto-token\r\n", "zepto-token\n\n"):
        found = load(zepto(token='{ env = "TOKEN" }'), {"TOKEN": value})
        assert "zepto-token" == found.agents["orders"].channels[0].token.reveal()
    (tmp_path / "secret").write_text("from-file\r\n")
    found = load(zepto(token='{ file = "secret" }'))
    assert "from-file" == found.agents["orders"].channels[0].token.reveal()
    found = load(zepto(token=f'{{ file = "{tmp_path}/secret" }}'))
    assert "from-file" == found.agents["orders"].channels[0].token.reveal()


def test_an_empty_secret_is_a_missing_one(faults, tmp_path):
    """An empty variable and an empty file are told as missing."""
    (tmp_path / "empty").write_text("\n")
    for value in ("", "\r\n"):
        assert "/agents/orders/channels/0/token" == faults(zepto(), {"TOKEN": value})[0][0]
    assert "/agents/orders/channels/0/token" == faults(zepto(token='{ file = "empty" }'))[0][0]


def test_a_secret_never_prints(load):
    """No way of printing a configuration shows a secret."""
    found = load(smtp(**SECRET))
    shown = f"{found!r} {found} {found.agents['orders'].channels[0].password:>30}"
    assert "hunter2" not in shown
    assert "Secret(…)" in shown
    assert Secret("hunter2") == found.agents["orders"].channels[0].password


def test_defaults_are_those_of_the_contract(load):
    """What a file does not say is what DESIGN.md §8 says."""
    found = load(GOOD)
    agent = found.agents["orders"]
    assert ("production", "redis://127.0.0.1:6379/0", 0) == (
        found.environment,
        found.redis.url,
        found.redis.min_replicas_ack,
    )
    assert ("1h", "72h") == (found.retention.content, found.retention.message)
    worker = found.worker
    assert (200, "10s", "5s", "1s") == (worker.max_lanes, worker.lease, worker.linger, worker.sweep)
    assert (10, "standard", "retry") == (agent.connections, agent.retry_profile, agent.on_ambiguous)
    assert (False, False, None) == (agent.track_opens, agent.track_clicks, agent.rate)
    assert ("send", "read") == found.callers["checkout"].tokens[0].scopes
    assert ("high", "normal", "bulk") == found.callers["checkout"].priorities


def test_the_environment_overrides_redis_and_the_file_anchors_its_folders(load, tmp_path):
    """Variables win over the file, and a relative folder is taken from the file's own."""
    found = load("[redis]\nurl = 'redis://a'\n[templates]\ndir = 'mine'", {"POSTROOM_REDIS_URL": "redis://b"})
    assert ("redis://b", str(tmp_path / "mine")) == (found.redis.url, found.templates.dir)
    assert "/srv/t" == load("[templates]\ndir = '/srv/t'").templates.dir
    environ = {"POSTROOM_ARQ_URL": "redis://c", "POSTROOM_TEMPLATES_DIR": "/app/templates"}
    found = load("[redis]\narq_url = 'redis://a'\n[templates]\ndir = 'mine'", environ)
    assert ("redis://c", "/app/templates") == (found.redis.arq_url, found.templates.dir)


def test_an_agents_domains_are_those_of_its_from_unless_it_names_others(load):
    """Without `domains` an agent writes as the domain of its From; names are compared as A-labels."""
    assert frozenset({"shop.example"}) == allowed_domains(load(GOOD).agents["orders"])
    text = agent("domains = ['SHOP.example', 'bücher.example']")
    assert frozenset({"shop.example", "xn--bcher-kva.example"}) == allowed_domains(
        load(text).agents["orders"]
    )


NO_BOUNCE = (
    "/agents/orders/bounce_address",
    "is not set: ZeptoMail would use an address of its own, and bounces would not reach you",
)
NO_TOKEN = (
    "/callers/checkout/tokens",
    "has no token, so it cannot send; make one with: postroom token new checkout",
)


NO_LOGIN = (
    "/agents/orders/channels/0/username",
    'is not set: ZeptoMail takes no mail without a login, with "emailapikey" and the agent\'s token',
)
BOUNCE_OF_POSTMARK = (
    "/agents/orders/bounce_address",
    "has no effect: Postmark sets the envelope sender itself",
)
UNTRACKED = [
    (f"/agents/orders/track_{what}", "has no effect: no channel of this agent has a provider that tracks")
    for what in ("opens", "clicks")
]
SAME_TOKEN = (
    "/agents/orders/channels/0/second_token",
    "is the same as token: where that one is refused, so is this one",
)
NO_PATH = (
    "/agents/orders/channels/0/base_url",
    "has a path that ZeptoMail does not have: give scheme and host only",
)
WITH_A_PATH = ("api.zeptomail.eu/email", "cpaas.zoho.eu/v1", "api.zeptomail.com/V1.1/email/")
WITHOUT_A_PATH = (
    "api.zeptomail.eu/",
    "api.zeptomail.eu/v1.1/",
    "api.zeptomail.eu/v1.1/email",
    "gateway.example/zepto",
)
LOGIN = {"username": '"emailapikey"', "password": '{ env = "PASSWORD" }'}
ANOTHER = CHANNEL.replace('"relay"', '"another"')


def postmark(more=""):
    """Return a configuration with a Postmark channel, and more channels of that agent."""
    channel = '[[agents.orders.channels]]\nname = "pm"\nkind = "postmark"\ntoken = { env = "TOKEN" }\n'
    return f'[agents.orders]\nfrom = {{ address = "orders@shop.example" }}\n{channel}{more}{CALLER}'


def bounced(text):
    """Return the configuration with a bounce address in its agent."""
    return text.replace("[agents.orders]\n", "[agents.orders]\nbounce_address = 'b@bounce.shop.example'\n")


def tracked(text):
    """Return the configuration with tracking in its agent."""
    return text.replace("[agents.orders]\n", "[agents.orders]\ntrack_opens = true\ntrack_clicks = true\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, []),
        ("", [("/agents", "no agent is configured, so nothing can be sent")]),
        (AGENT, [("/agents/orders", "no caller may use this agent")]),
        (caller(), [NO_TOKEN]),
        (zepto(), [NO_BOUNCE]),
        (zepto("bounce_address = 'b@bounce.shop.example'"), []),
        (smtp(host='"smtp.zeptomail.eu"', **LOGIN), [NO_BOUNCE]),
        (smtp(host='"smtp.zeptomail.eu"'), [NO_BOUNCE, NO_LOGIN]),
        (smtp(provider='"zeptomail"'), [NO_BOUNCE, NO_LOGIN]),
        (bounced(smtp(host='"relay.example"')), []),
        (postmark(), []),
        (bounced(postmark()), [BOUNCE_OF_POSTMARK]),
        (bounced(postmark(CHANNEL)), []),
        (tracked(smtp()), UNTRACKED),
        (tracked(smtp(host='"email-smtp.eu-west-1.amazonaws.com"')), UNTRACKED),
        (tracked(agent(ANOTHER)), UNTRACKED),
        (tracked(postmark()), []),
        (tracked(postmark(CHANNEL)), []),
        (tracked(bounced(zepto())), []),
        (tracked(bounced(smtp(host='"smtp.zeptomail.eu"', **LOGIN))), []),
        (bounced(zepto(second_token='{ env = "TOKEN" }')), [SAME_TOKEN]),
        (bounced(zepto(second_token='{ env = "COPIED" }')), [SAME_TOKEN]),
        (bounced(zepto(second_token='{ env = "PASSWORD" }')), []),
        *[(bounced(zepto(base_url=f'"https://{url}"')), [NO_PATH]) for url in WITH_A_PATH],
        *[(bounced(zepto(base_url=f'"https://{url}"')), []) for url in WITHOUT_A_PATH],
        (smtp(host='"smtp.zeptomail.eu"', provider='"generic"'), []),
        (zepto("bounce_address = 'b@x.example'", base_url='"http://127.0.0.1:9"'), []),
    ],
)  # fmt: skip
def test_a_warning_is_told_and_stops_nothing(load, text, expected):
    """What starts, but probably not as it was meant, is told with its place."""
    assert expected == [(warning.pointer, warning.detail) for warning in find_warnings(load(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (smtp(port="465", tls='"implicit"'), 465),
        (smtp(port="587", tls='"starttls"'), 587),
        (smtp(port="2525", tls='"starttls"'), 2525),
        (smtp(port="25", tls='"none"'), 25),
        (smtp(port="25", tls='"none"', insecure="true", **SECRET), 25),
        (smtp(**SECRET), 587),
    ],
)
def test_ports_and_tls_that_go_together_are_taken(load, text, expected):
    """587 with starttls, 465 with implicit, any other port with any word, and plain text when it is said."""
    assert expected == load(text).agents["orders"].channels[0].port


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        ("10s", 10_000),
        ("500ms", 500),
        ("1.5h", 5_400_000),
        ("2m", 120_000),
        ("2min", 120_000),
        ("1d", 86_400_000),
    ],
)
def test_durations(duration, expected):
    """A duration is a number and a unit."""
    assert expected == milliseconds(duration)
    assert expected / 1000 == seconds(duration)


@pytest.mark.parametrize(
    ("rate", "expected"), [("50/s", 50), ("60/min", 1), ("3600/h", 1), ("1/h", 1 / 3600)]
)
def test_rates(rate, expected):
    """A rate is a number and a unit of time."""
    assert expected == per_second(rate)


def test_arqs_url_is_checked_like_the_ledgers(faults):
    """A wrong `arq_url` is told like a wrong `url`."""
    assert "/redis/arq_url" == faults("[redis]\narq_url = 'http://x'")[0][0]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"/redis/url", "/redis/arq_url"}),
        ({"POSTROOM_REDIS_URL": "http://x"}, {"POSTROOM_REDIS_URL", "/redis/arq_url"}),
        ({"POSTROOM_ARQ_URL": "http://x"}, {"/redis/url", "POSTROOM_ARQ_URL"}),
        ({"POSTROOM_REDIS_URL": "redis://right"}, {"/redis/arq_url"}),
        ({"POSTROOM_REDIS_URL": ""}, {"/redis/url", "/redis/arq_url"}),
    ],
)
@pytest.mark.parametrize("more", ["", "\n[retention]\ncontent = 1"])
def test_a_url_of_the_environment_is_a_fault_of_its_variable(faults, environ, expected, more):
    """Who gave a wrong URL by a variable finds that variable named, and not the file; whatever else is wrong."""
    found = faults(f"[redis]\nurl = 'http://a'\narq_url = 'http://b'{more}", environ)

    assert expected == {pointer for pointer, _ in found} - {"/retention/content"}
    lines = ConfigError("postroom.toml", [Fault(pointer, detail) for pointer, detail in found]).lines()
    for (pointer, _), line in zip(found, lines, strict=True):
        source = "postroom.toml" if pointer.startswith("/") else "environment"
        assert line.startswith(f"{source}: {pointer}: ")


@pytest.mark.parametrize("url", ["redis://h:port/0", "redis://h:70000", "redis://[::1"])
def test_a_url_is_checked_beyond_its_scheme(faults, url):
    """A port or a host that cannot be is told as a fault of the file."""
    assert "/redis/url" == faults(f"[redis]\nurl = '{url}'")[0][0]


@pytest.mark.parametrize(
    "line", ["[retention]\nmessage = '0s'", "[worker]\nsweep = '0s'", "[worker]\nround = '0s'"]
)
def test_a_duration_of_nothing_is_refused_where_it_makes_no_sense(faults, line):
    """Keeping messages for no time, and sweeping or working without a pause, are faults."""
    assert "must be at least" in faults(line)[0][1]


def test_faults_of_every_kind_are_told_in_one_run(faults):
    """An unknown key, a missing secret, crossed ports, a bad token and an unknown agent are all told at once."""
    found = {
        pointer
        for pointer, _ in faults("""
[bogus]
x = 1
[agents.orders]
from = { address = "a@x.example" }
extra = 1
[[agents.orders.channels]]
name = "z"
kind = "smtp"
host = "h.example"
port = 587
tls = "implicit"
username = "u"
password = { env = "NOBODY_SETS_THIS" }
[callers.c]
agents = ["orders", "nope"]
tokens = [{ id = "k", sha256 = "zz" }]
""")
    }
    assert {
        "/bogus",
        "/agents/orders/extra",
        "/agents/orders/channels/0/password",
        "/agents/orders/channels/0/tls",
        "/callers/c/agents/1",
        "/callers/c/tokens/0/sha256",
    } == found


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ('["admin"]', []),
        ('["send"]', ["has neither agents nor a token with the scope admin, so it can do nothing"]),
    ],
)
def test_a_caller_without_agents_is_an_operator_or_a_mistake(load, scopes, expected):
    """Who only operates needs no agents; who has neither is warned of."""
    text = f'{GOOD}\n[callers.ops]\ntokens = [{{ id = "k1", sha256 = "{"cd" * 32}", scopes = {scopes} }}]'
    assert [("/callers/ops/agents", detail) for detail in expected] == [
        (warning.pointer, warning.detail) for warning in find_warnings(load(text))
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"host": '"smtp.zeptomail.eu"', "username": '"Orders@shop.example"'},
        {"host": '"smtp.zeptomail.eu"', "username": '"emailappsmtp.1a2b"'},
        {"host": '"relay.example"', "username": '"anybody@other.example"'},
    ],
)
def test_a_from_address_may_log_in_where_it_is_the_only_one(load, options):
    """ZeptoMail binds a connection to the address that logged in; other relays, and other names, do not."""
    only = smtp(**SECRET | options).replace("[[agents", "only_from = true\n[[agents", 1)

    assert "orders" in load(only).agents
