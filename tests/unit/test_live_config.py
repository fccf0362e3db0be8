"""The configuration is read again when its files change: the whole of it, or nothing."""

import asyncio
import hashlib
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from postroom.config.live import LiveConfig
from postroom.errors import ConfigError
from postroom.ledger.clients import end_tasks
from postroom.metrics import ConfigMetrics
from postroom.secret import Secret
from tests.faults.mail import until

CANARY = "Kanarienvogel"
EVERY = 0.02  # seconds between two looks
AGENT = """
[agents.{name}]
from = {{ address = "{name}@shop.example" }}
[[agents.{name}.channels]]
name = "relay"
kind = "smtp"
host = "relay.example"
port = 587
tls = "starttls"
username = "shop"
password = {{ file = "{password}" }}
"""
ORDERS = AGENT.format(name="orders", password="password")


class Watched:
    """A configuration in a folder, what is heard of it, and its metrics."""

    def __init__(self, folder, text):
        self.folder = folder
        self.path = folder / "postroom.toml"
        self.path.write_text(text)
        self.live = LiveConfig.load(self.path, {})
        self.changes = []
        self.live.subscribe(self.changes.append)
        self.registry = CollectorRegistry()
        self.metrics = ConfigMetrics(self.registry)

    @asynccontextmanager
    async def watching(self):
        """Watch while the block runs; gives the log's lines."""
        with capture_logs() as lines:
            task = asyncio.create_task(self.live.keep_watching(self.metrics, EVERY))
            try:
                yield lines
            finally:
                await end_tasks(task)

    def value(self, name, **labels):
        """Return a metric's value."""
        return self.registry.get_sample_value(f"postroom_config_{name}", labels)

    async def until_generation(self, number):
        """Wait until so many configurations were taken over."""
        await until(lambda: self.live.generation >= number, f"generation {number}", 5)
        assert number == self.live.generation

    async def until_invalid(self, number):
        """Wait until so many changes were refused."""
        await until(lambda: self.value("invalid_total") >= number, f"{number} refused", 5)
        assert number == self.value("invalid_total")

    def password(self, agent="orders"):
        """Return the password that is in force."""
        return self.live.current.agents[agent].channels[0].password.reveal()


@pytest.fixture
def watched(tmp_path):
    """A configuration with one agent, whose password lies in a file."""
    (tmp_path / "password").write_text("old\n")
    return Watched(tmp_path, ORDERS)


def events(lines, name):
    """Return the lines of one event."""
    return [line for line in lines if line["event"] == name]


async def test_a_change_is_taken_over_as_a_whole(watched):
    """Agents are told by what became of them; generation, hash and time move on."""
    (watched.folder / "other").write_text("x")
    before = watched.live.current
    async with watched.watching() as lines:
        await until(lambda: watched.value("generation") == 1, "metrics are shown", 5)
        old = watched.live.digest
        started = watched.live.loaded_at
        text = AGENT.format(name="logins", password="other")
        watched.path.write_text(text)
        await watched.until_generation(2)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    (line,) = events(lines, "config.reloaded")
    assert {"generation": 2, "config_hash": digest, "added": ["logins"], "removed": ["orders"]}.items() <= (
        line.items()
    )
    assert [] == line["changed"]
    (change,) = watched.changes
    assert before is change.old
    assert watched.live.current is change.new
    assert ["logins"] == list(change.new.agents)
    assert (2, 1.0, None) == (
        watched.value("generation"),
        watched.value("info", hash=digest),
        watched.value("info", hash=old),
    )
    assert watched.value("reload_timestamp_seconds") >= started


async def test_a_faulty_file_changes_nothing_and_is_told_once(watched):
    """One line for one content, with pointers and no word of the file; mended, it is taken over."""
    before = watched.live.current
    broken = ORDERS.replace("port = 587", f'port = "{CANARY}"').replace("file =", f'env = "{CANARY}", x =')
    async with watched.watching() as lines:
        watched.path.write_text(broken)
        await watched.until_invalid(1)
        await asyncio.sleep(10 * EVERY)
        assert 1 == watched.value("invalid_total")
        assert before is watched.live.current
        watched.path.write_text(ORDERS + "connections = [")
        await watched.until_invalid(2)
        assert (1, []) == (watched.live.generation, watched.changes)
        watched.path.write_text(ORDERS.replace("587", "2525"))
        await watched.until_generation(2)
    first, second = events(lines, "config.invalid")
    assert ["/agents/orders/channels/0/port", "/agents/orders/channels/0/password"] == first["pointers"]
    assert 2 == first["faults"]
    assert ["(whole file)"] == second["pointers"]
    assert CANARY not in str(lines)
    assert 2525 == watched.live.current.agents["orders"].channels[0].port


@pytest.mark.parametrize("size", [0, 20, 200])
async def test_a_half_written_file_is_never_taken_over(watched, size):
    """Cut off anywhere it is faulty or not yet quiet; the next look finds the whole."""
    text = ORDERS.replace("587", "2525")
    async with watched.watching():
        watched.path.write_text(text[:size])
        await watched.until_invalid(1)
        assert 587 == watched.live.current.agents["orders"].channels[0].port
        watched.path.write_text(text)
        await watched.until_generation(2)
    assert 2525 == watched.live.current.agents["orders"].channels[0].port


async def test_a_file_that_is_being_written_is_waited_for(watched):
    """What is right by itself, but grows on, is not taken over before it is quiet."""
    (watched.folder / "other").write_text("x")
    whole = ORDERS + AGENT.format(name="logins", password="other") + "# the end\n"
    async with watched.watching() as lines:
        with watched.path.open("w") as file:
            for line in whole.splitlines(keepends=True):
                file.write(line)
                file.flush()
                await asyncio.sleep(0.03)
        await watched.until_generation(2)
    assert [["logins"]] == [line["added"] for line in events(lines, "config.reloaded")]
    assert [] == events(lines, "config.invalid")


async def test_a_secret_file_alone_is_a_change(watched):
    """A new password reloads although the configuration file is the same; it shows nowhere."""
    digest = watched.live.digest
    async with watched.watching() as lines:
        (watched.folder / "password").write_text(CANARY)
        await watched.until_generation(2)
    assert CANARY == watched.password()
    assert digest == watched.live.digest
    (change,) = watched.changes
    assert ((), (), ("orders",)) == (change.added, change.removed, change.changed)
    assert ("relay",) == change.channels_to_try("orders")
    assert CANARY not in str(lines) + repr(change)


async def test_a_secret_file_that_is_gone_or_empty_is_a_fault(watched):
    """The last password stays in force until there is one again."""
    async with watched.watching() as lines:
        (watched.folder / "password").unlink()
        await watched.until_invalid(1)
        (watched.folder / "password").write_text("\n")
        await watched.until_invalid(2)
        assert "old" == watched.password()
        (watched.folder / "password").write_text("new")
        await watched.until_generation(2)
    assert "new" == watched.password()
    assert {"/agents/orders/channels/0/password"} == {
        pointer for line in events(lines, "config.invalid") for pointer in line["pointers"]
    }


async def test_a_mounted_volume_is_swapped_at_once(tmp_path):
    """Kubernetes swaps a symlink above all files, which keep their own path."""
    for name, word in (("..1", "old"), ("..2", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "password").write_text(word)
        (tmp_path / name / "postroom.toml").write_text(ORDERS)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "password").symlink_to("..data/password")
    (tmp_path / "real.toml").symlink_to("..data/postroom.toml")
    live = LiveConfig.load(tmp_path / "real.toml", {})
    task = asyncio.create_task(live.keep_watching(ConfigMetrics(CollectorRegistry()), EVERY))
    (tmp_path / "..next").symlink_to("..2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    await until(lambda: live.generation == 2, "swapped", 5)
    await end_tasks(task)
    assert "new" == live.current.agents["orders"].channels[0].password.reveal()


async def test_what_is_opened_once_waits_for_a_restart(watched):
    """Redis, worker, retention, templates and environment stay; the rest of the same file holds at once."""
    before = watched.live.current
    sections = (
        'environment = "staging"\n[redis]\nurl = "redis://elsewhere"\n[worker]\nlease = "20s"\n'
        '[retention]\nmessage = "96h"\n[templates]\ndir = "elsewhere"\n'
    )
    async with watched.watching() as lines:
        watched.path.write_text(sections + ORDERS.replace("587", "2525"))
        await watched.until_generation(2)
        await asyncio.sleep(5 * EVERY)
    new = watched.live.current
    (line,) = events(lines, "config.restart_needed")
    assert ("environment", "redis", "retention", "templates", "worker") == line["sections"]
    for name in line["sections"]:
        assert getattr(before, name) == getattr(new, name)
    assert 2525 == new.agents["orders"].channels[0].port


async def test_other_authorities_are_a_change_of_their_channel(tmp_path):
    """A `ca_file` that holds something else lets its agent begin anew, and no other."""
    (tmp_path / "password").write_text("x")
    (tmp_path / "ca.pem").write_text("old")
    logins = AGENT.format(name="logins", password="password") + 'ca_file = "ca.pem"\n'
    watched = Watched(tmp_path, ORDERS + logins)
    async with watched.watching():
        (tmp_path / "ca.pem").write_text("new")
        await watched.until_generation(2)
    (change,) = watched.changes
    assert ("logins",) == change.changed == change.touched
    assert ("relay",) == change.channels_to_try("logins")
    assert () == change.channels_to_try("orders")


async def test_only_what_could_have_been_mended_is_tried_anew(watched):
    """A rate says nothing about a channel; a new channel, another host or sender does."""
    second = ORDERS[ORDERS.index("[[") :].replace("relay", "spare")
    steps = [
        (ORDERS.replace("[[", "connections = 3\n[["), ()),
        (ORDERS + second, ("spare",)),
        (ORDERS + second.replace("587", "2525"), ("spare",)),
        ((ORDERS + second).replace("@shop", "@store"), ("relay", "spare")),
        (ORDERS.replace("@shop", "@store"), ()),
    ]
    async with watched.watching():
        for number, (text, _) in enumerate(steps):
            watched.path.write_text(text)
            await watched.until_generation(number + 2)
    assert [names for _, names in steps] == [c.channels_to_try("orders") for c in watched.changes]
    assert ("spare",) == watched.changes[-1].channels_gone("orders")


async def test_another_breaker_touches_every_agent(watched):
    """Its options hold for all of them, though none has changed itself."""
    async with watched.watching():
        watched.path.write_text("[breaker]\nfaults = 7\n" + ORDERS)
        await watched.until_generation(2)
    (change,) = watched.changes
    assert ((), ("orders",)) == (change.changed, change.touched)


async def test_a_subscriber_that_fails_stops_neither_the_others_nor_the_watch(tmp_path):
    """It is logged, without what it said."""
    (tmp_path / "password").write_text("x")
    watched = Watched(tmp_path, ORDERS)
    heard = []

    def fail(_change):
        raise ValueError(CANARY)

    watched.live.subscribe(fail)
    watched.live.subscribe(heard.append)
    async with watched.watching() as lines:
        watched.path.write_text(ORDERS.replace("587", "2525"))
        await until(lambda: len(heard) == 1, "the second was told", 5)
        watched.path.write_text(ORDERS)
        await until(lambda: len(heard) == 2, "and again", 5)
    assert 2 == len(events(lines, "config.not_applied"))


def test_a_start_refuses_a_faulty_file(tmp_path):
    """What was never right is no configuration at all."""
    path = tmp_path / "postroom.toml"
    path.write_text("bcx = 1")
    with pytest.raises(ConfigError):
        LiveConfig.load(path, {})


def test_secrets_compare_by_value_and_never_show():
    """So that a change is found; neither value shows by it."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret(CANARY)
    assert Secret("a") != "a"
    assert 1 == len({Secret("a"), Secret("a")})
    assert CANARY not in f"{Secret(CANARY)!r}{Secret(CANARY)}"
