"""Starting: everything that is wrong is told at once, and nothing starts; what is only unwise is warned of."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nursery import NURSERY
from tests.redisd import RedisServer
from tests.stack import ROOT, free_port

SECRET = "sesam-4711-open"
MOMENTS, LAST_MOMENT = 20, 0.1  # seconds
GOOD = """
[templates]
dir = "{templates}"
[agents.orders]
from = {{ address = "orders@shop.example" }}
[[agents.orders.channels]]
name = "api"
kind = "zeptomail"
token = {{ env = "PR_TEST_SECRET" }}
[[agents.orders.channels]]
name = "relay"
kind = "smtp"
host = "127.0.0.1"
port = 2525
tls = "starttls"
username = "user"
password = {{ file = "secret" }}
[callers.shop]
agents = ["orders"]
"""
BAD = """
colour = "red"
[agents.orders]
from = { address = "orders@shop.example" }
rate = "fast"
[[agents.orders.channels]]
name = "relay"
kind = "smtp"
host = "relay.example"
port = 587
tls = "starttls"
password = "sesam-4711-open"
[[agents.orders.channels]]
name = "api"
kind = "zeptomail"
token = { env = "PR_TEST_NOT_SET" }
[callers.shop]
agents = ["orders", 7]
tokens = [{ id = "k", sha256 = "short" }]
"""
BAD_PLACES = [
    "/colour: unknown field",
    "/agents/orders/rate: must be a rate such as 50/s",
    "/agents/orders/channels/0/password: give a secret by reference",
    "/agents/orders/channels/1/token: environment variable PR_TEST_NOT_SET is not set",
    "/callers/shop/agents/1: expected `str`, got `int`",
    "/callers/shop/tokens/0/sha256: must be 64 hex digits",
]


def environ(folder: Path, redis: str, **more: str) -> dict[str, str]:
    """Return the environment of a process of the API."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    (folder / "secret").write_text(SECRET)
    return {
        **given,
        "PR_TEST_SECRET": SECRET,
        "POSTROOM_CONFIG": str(folder / "postroom.toml"),
        "POSTROOM_REDIS_URL": redis,
        "POSTROOM_LOG_FORMAT": "json",
        "POSTROOM_PORT": str(free_port()),
        "POSTROOM_METRICS_PORT": str(free_port()),
        **more,
    }


def run(env: dict[str, str], *words: str) -> tuple[int, str]:
    """Run a package to its end; return its status and all it said."""
    ran = NURSERY.run(*(words or ("service",)), environ=env)
    return ran.code, ran.out + ran.err


def until(condition: Callable[[], bool], log: Path) -> None:
    """Wait for it, often."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.0005)


def answers(url: str) -> bool:
    """Whether there is an answer of 200."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture
def good(folder: Path) -> Path:
    """A folder with a right configuration."""
    (folder / "postroom.toml").write_text(GOOD.format(templates=ROOT / "templates"))
    return folder


@pytest.mark.parametrize("module", ["service", "workers"])
def test_every_fault_is_told_and_nothing_starts(folder, module):
    """Both processes end with 1 and name every fault with its place, and no secret."""
    (folder / "postroom.toml").write_text(BAD)
    status, said = run(environ(folder, "unix:///nowhere"), module)
    assert 1 == status
    for place in BAD_PLACES:
        assert place in said, said
    assert len(BAD_PLACES) == len(said.splitlines())
    assert all(line.startswith("postroom: ") for line in said.splitlines())
    assert SECRET not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"POSTROOM_PORT": "tcp://10.0.0.1:80"}, "POSTROOM_PORT: must be a port number"),
        ({"POSTROOM_PORT": "65536"}, "POSTROOM_PORT: must be a port number"),
        ({"POSTROOM_LOG_FORMAT": "xml", "POSTROOM_LOG_LEVEL": "LOUD"}, "POSTROOM_LOG_LEVEL: must be one of"),
        ({"POSTROOM_CONFIG": "/nowhere.toml"}, "/nowhere.toml: (whole file): cannot be read"),
        (
            {"POSTROOM_REDIS_URL": "http://localhost"},
            "postroom: environment: POSTROOM_REDIS_URL: must start with",
        ),
        (
            {"POSTROOM_ARQ_URL": "redis://h:70000"},
            "postroom: environment: POSTROOM_ARQ_URL: is not a URL",
        ),
    ],
)
def test_a_wrong_environment_is_told(good, more, expected):
    """A variable that holds what it cannot hold is named."""
    status, said = run(environ(good, "unix:///nowhere") | more)
    assert (1, True) == (status, expected in said), said
    assert "Traceback" not in said


def test_a_broken_template_stops_the_start(good):
    """A template that cannot be used is told with its file."""
    broken = good / "templates" / "hello"
    broken.mkdir(parents=True)
    (broken / "template.toml").write_text('description = "x"')
    (broken / "subject.txt").write_text("Hello {{ nobody }}")
    (broken / "body.txt").write_text("{% if %}")
    text = GOOD.format(templates="templates")
    (good / "postroom.toml").write_text(text)
    status, said = run(environ(good, "unix:///nowhere"))
    assert (1, True) == (status, "hello" in said), said
    assert "Traceback" not in said


def test_a_taken_port_is_named_with_the_remedy(good):
    """Who finds the port taken learns which variable to set."""

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for name in ("POSTROOM_PORT", "POSTROOM_METRICS_PORT"):
            status, said = run(environ(good, "unix:///nowhere", **{name: str(port)}))
            assert (1, f"postroom: port {port} is taken: set {name} to a free one\n") == (status, said)


def test_a_port_that_is_taken_while_it_starts_is_told_in_a_line(good):
    """Another program listens on it between the look at the ports and the server: that is not taken for ourselves."""
    with socket.socket() as redis, socket.socket() as taken:
        redis.bind(("127.0.0.1", 0))
        redis.listen()
        env = environ(good, f"redis://127.0.0.1:{redis.getsockname()[1]}")
        log = good / "start.log"
        process = NURSERY.start("service", environ=env, log=log)
        # It has looked at the ports when it asks Redis, and goes on without it.
        asked, _ = redis.accept()
        taken.bind(("127.0.0.1", int(env["POSTROOM_PORT"])))
        taken.listen()
        asked.close()
        redis.close()
        assert 1 == process.wait(20)
        said = [line for line in log.read_text().splitlines() if not line.startswith("{")]
    refused = f"cannot listen on 127.0.0.1:{env['POSTROOM_PORT']}: Address already in use (os error 98)"
    assert [f"postroom: {refused}"] == said


def test_one_port_for_both_is_told(good):
    """The API and its metrics cannot share a port."""
    port = str(free_port())
    status, said = run(environ(good, "unix:///nowhere", POSTROOM_PORT=port, POSTROOM_METRICS_PORT=port))
    remedy = "set POSTROOM_METRICS_PORT to another than POSTROOM_PORT"
    assert (1, f"postroom: port {port} cannot serve both: {remedy}\n") == (status, said)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_a_redis_that_evicts_refuses_the_start(good, policy):
    """A Redis that would delete queued mail is refused, with the setting to change."""
    redis = RedisServer(good, "--maxmemory-policy", policy)
    redis.start()
    status, said = run(environ(good, redis.url))
    redis.kill()
    assert 1 == status
    assert f"postroom: Redis has maxmemory-policy {policy}" in said
    assert "set maxmemory-policy noeviction" in said
    assert SECRET not in said


class Service:
    """An API process that is read from the outside."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.log = folder / "service.log"
        self.url = f"http://127.0.0.1:{env['POSTROOM_PORT']}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                env=env,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def until(self, event: str) -> dict:
        """Wait for a line of the log."""
        deadline = time.monotonic() + 20
        while True:
            for line in self.lines():
                if line["event"] == event:
                    return line
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def readiness(self) -> dict:
        """Ask as soon as it listens, which is a moment after it says that it has started."""
        self.until("service.started")
        deadline = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.01)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def test_without_an_append_only_file_a_warning_is_told(good):
    """A Redis that forgets on restart is used, and warned of; so is what is unwise in the file."""
    redis = RedisServer(good, "--appendonly", "no")
    redis.start()
    service = Service(good, environ(good, redis.url))
    try:
        assert "warning" == service.until("redis.not_durable")["level"]
        warned = {line["pointer"] for line in service.lines() if line["event"] == "config.warning"}
        assert {"/agents/orders/bounce_address", "/callers/shop/tokens"} <= warned
        assert {"ready": True, "redis": "ok"} == service.readiness()
    finally:
        status = service.stop()
        redis.kill()
    assert 0 == status
    assert "service.stopped" == service.until("service.stopped")["event"]
    assert SECRET not in service.log.read_text()


def test_told_to_stop_while_it_starts_it_ends(good, redis_server):
    """A SIGTERM is obeyed at whatever moment of the start it comes: each start is cut off a little later."""
    codes = []
    for moment in range(MOMENTS):
        env = environ(good, redis_server.url)
        log = good / f"{moment}.log"
        log.touch()
        process = NURSERY.start("service", environ=env, log=log)
        until(lambda log=log: "config.warning" in log.read_text(), log)
        time.sleep(moment * LAST_MOMENT / MOMENTS)
        process.terminate()
        codes.append(process.wait(15))
        told = log.read_text()
        assert "service.started" not in told or "service.stopped" in told, told
    assert {0} == set(codes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_even_in_a_callback_that_loses_exceptions(number, code):
    """Python drops what is raised in a destructor; a signal that comes there is obeyed all the same."""
    program = f"""
import os, sys
from postroom.startup import run_process

class Dying:
    def __del__(self):
        os.kill(os.getpid(), {int(number)})
        [None for _ in range(1000)]

def work():
    Dying()
    print("went on")

sys.exit(run_process(work))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, timeout=30
    )
    assert (code, b"", b"") == (ran.returncode, ran.stdout, ran.stderr)


def test_ready_means_that_it_listens(good, redis_server):
    """Whoever finds it ready on the port of the metrics is served on the other; told to stop then, it ends with 0."""
    for turn in range(3):
        env = environ(good, redis_server.url)
        log = good / f"{turn}.log"
        log.touch()
        process = NURSERY.start("service", environ=env, log=log)
        until(lambda env=env: answers(f"http://127.0.0.1:{env['POSTROOM_METRICS_PORT']}/readyz"), log)
        assert answers(f"http://127.0.0.1:{env['POSTROOM_PORT']}/readyz")
        process.terminate()
        assert 0 == process.wait(15), log.read_text()


def test_without_redis_it_starts_and_waits(good):
    """A Redis that is away at the start is waited for, and found when it comes."""
    redis = RedisServer(good)
    service = Service(good, environ(good, redis.url))
    try:
        assert {"ready": True, "redis": "unavailable"} == service.readiness()
        redis.start()
        service.until("redis.recovered")
    finally:
        assert 0 == service.stop()
        redis.kill()


def test_check_tells_faults_and_warnings(good):
    """`postroom check` ends with 0 and its warnings, or with 1 and every fault."""
    env = environ(good, "unix:///nowhere")
    status, said = run(env, "postroom", "check")
    assert 0 == status, said
    assert "warning: /agents/orders/bounce_address: is not set: ZeptoMail would use an address" in said
    assert "1 agent(s) with 2 channel(s)" in said
    (good / "postroom.toml").write_text(BAD)
    status, said = run(env, "postroom", "check")
    assert 1 == status
    assert all(place in said for place in BAD_PLACES)
    assert SECRET not in said
