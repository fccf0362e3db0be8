"""The whole product as real processes, for tests of the path: API, workers, Redis, and whatever takes the mail."""

import asyncio
import hashlib
import io
import itertools
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from postroom.ledger.scripts import load_scripts
from tests.nursery import NURSERY, Process
from tests.redisd import RedisServer

ROOT = Path(__file__).parents[1]
TOKEN = "pr_test_token"
OTHER_TOKEN = "pr_test_other"
PATIENCE = 30.0
ONE_MS = 0.0011  # seconds, and some more than its name says

CONFIG = """\
environment = "test"
[templates]
dir = "{templates}"
[worker]
{worker}
[agents.orders]
owner = "team-shop"
from = {{ address = "orders@shop.example", name = "Shop" }}
domains = ["shop.example"]
{agent}
{channels}
[agents.logins]
from = {{ address = "login@shop.example" }}
{logins}
{agents}
[callers.shop]
agents = {names}
tokens = [{{ id = "t1", sha256 = "{sha}" }}]
[callers.other]
agents = ["logins"]
tokens = [{{ id = "t2", sha256 = "{other_sha}" }}]
{more}
"""
CHANNEL = """\
[[agents.{agent}.channels]]
name = "{name}"
kind = "smtp"
host = "127.0.0.1"
port = {port}
"""
AGENT = """\
[agents.{name}]
from = {{ address = "{name}@shop.example" }}
{options}
{channels}
"""
QUICK = 'lease = "1s"\nlinger = "500ms"\nsweep = "100ms"\nround = "3s"'


def _own_ports() -> Iterator[int]:
    """Go round this process's part of the ports below those that connections get for their own end (RFC 6335)."""
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    own = range(10_000 + number, 32_000, count)
    start = random.SystemRandom().randrange(len(own))
    return itertools.cycle([*own[start:], *own[:start]])


_PORTS = _own_ports()


def free_port() -> int:
    """Return a port that is free now, and that no other test gets while this one has yet to listen on it."""
    while True:
        port = next(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def channel(agent: str, port: int, name: str = "relay", options: str = 'tls = "none"') -> str:
    """Return one SMTP channel of an agent as TOML."""
    return CHANNEL.format(agent=agent, name=name, port=port) + options


def agent_toml(name: str, *channels: str, options: str = "") -> str:
    """Return a further agent as TOML; `channels` come from `channel`."""
    return AGENT.format(name=name, options=options, channels="\n".join(channels))


def sample(ref: str, **changes: Any) -> dict[str, Any]:
    """Return a request body that is right, but for the changes."""
    variables = {
        "first_name": "Ada",
        "order_number": "10023",
        "tracking_url": "https://shop.example/track/10023",
    }
    body = {
        "client_ref": ref,
        "agent": "orders",
        "to": [{"address": "ada@example.com", "name": "Ada Lovelace"}],
        "template": {"name": "order_shipped", "variables": variables},
    }
    return {**body, **changes}


class Stack:
    """Processes around one Redis. Use `async with`; everything started is stopped, by its own id."""

    new_interpreters = False  # else processes are forked, where that can be (`tests.nursery`)

    def __init__(
        self,
        folder: Path,
        smtp_port: int,
        *,
        worker: str = QUICK,
        agent: str = "",
        channels: str = "",
        agents: dict[str, str] | None = None,
        more: str = "",
    ) -> None:
        """`agent` are options of the agent `orders`, `channels` its channels instead of the one at `smtp_port`.

        `agents` are further ones (`agent_toml`) by name, `worker` options of the section, `more` sections.
        """
        self.folder = folder
        self.redis = RedisServer(folder)
        self.redis_url = ""  # what processes are given instead, for something to stand in between
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "postroom.toml"
        digests = [hashlib.sha256(token.encode()).hexdigest() for token in (TOKEN, OTHER_TOKEN)]
        text = CONFIG.format(
            templates=_few_templates(folder),
            worker=worker,
            agent=agent,
            channels=channels or channel("orders", smtp_port),
            logins=channel("logins", smtp_port),
            agents="\n".join((agents or {}).values()),
            names=json.dumps(["orders", "logins", *(agents or {})]),
            sha=digests[0],
            other_sha=digests[1],
            more=more,
        )
        self.config.write_text(text)
        self.processes: dict[str, Process] = {}
        self.worker_metrics: dict[str, int] = {}
        self._logs_read: dict[str, int] = {}
        self._session: aiohttp.ClientSession | None = None
        self._ledger: Redis | None = None

    async def __aenter__(self) -> Self:
        self.redis.start()
        self._ledger = Redis.from_url(self.redis.url, retry=Retry(ExponentialBackoff(), 5))
        connector = aiohttp.TCPConnector(limit=200)
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {TOKEN}"}, connector=connector
        )
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        # Not `wait`: what takes the mail may live in this event loop, and must hear their QUIT.
        with suppress(AssertionError):
            await self.until(self._all_over, "all have ended", 10)
        stuck = [name for name, process in self.processes.items() if process.poll() is None]
        for name in stuck:
            os.killpg(self.processes[name].pid, signal.SIGKILL)
            self.processes[name].wait(10)
        if self._session is not None:
            await self._session.close()
        if self._ledger is not None:
            await self._ledger.aclose()
        self.redis.kill()
        assert not stuck or kind is not None, f"not ended by SIGTERM: {stuck}\n{self._last_words()}"

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    @property
    def ledger(self) -> Redis:
        """A client of the stack's Redis, for looking behind the door."""
        assert self._ledger is not None
        return self._ledger

    async def start_api(self, *, failpoint: str = "", launch: tuple[str, ...] = ()) -> None:
        """Start the API and wait until it sees Redis.

        `failpoint` arms one (`postroom.failpoint`), `launch` are options of `tests/faults/launch.py`.
        """
        environ = {"POSTROOM_PORT": str(self.port), **_arming(failpoint)}
        process = self._start("api", "service", environ, self.metrics_port, launch)
        await self._until_up("api", process, self._api_ready)

    async def start_worker(
        self, name: str = "worker", *, failpoint: str = "", launch: tuple[str, ...] = ()
    ) -> Process:
        """Start a worker and wait until it works; the options are those of `start_api`."""
        port = self.worker_metrics[name] = free_port()
        process = self._start(name, "workers", _arming(failpoint), port, launch)
        await self._until_up(name, process, lambda: self._answers(f"http://127.0.0.1:{port}/readyz"))
        return process

    async def start_workers(self, *names: str, failpoint: str = "", launch: tuple[str, ...] = ()) -> None:
        """Start several workers at once."""
        starts = (self.start_worker(name, failpoint=failpoint, launch=launch) for name in names)
        await asyncio.gather(*starts)

    def kill(self, name: str) -> None:
        """End a process, and what it has started, with SIGKILL."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):  # it has ended already, with all it had started
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    async def end(self, name: str, seconds: float = PATIENCE) -> int:
        """End a process with SIGTERM and return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            await self.until(lambda: _is_over(process), f"{name} has ended", seconds)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(10)
        return process.returncode

    async def until_dead(self, *names: str) -> str:
        """Wait until one of these processes has ended by itself, take it off the list and return its name."""

        async def is_dead() -> bool:
            return any(self.processes[name].poll() is not None for name in names)

        await self.until(is_dead, f"one of {names} is dead")
        dead = next(name for name in names if self.processes[name].poll() is not None)
        del self.processes[dead]
        return dead

    def pause(self, name: str) -> None:
        """Freeze a process, and what it has started."""
        os.killpg(self.processes[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen process go on."""
        os.killpg(self.processes[name].pid, signal.SIGCONT)

    def exited(self) -> list[str]:
        """Return the processes that ended by themselves."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def mishaps(self) -> list[str]:
        """Return what no process should ever log, whatever is done to it: errors, crashes, tracebacks."""
        found = []
        for path in sorted(self.folder.glob("*.log")):
            if path.name == "redis.log":
                continue
            for line in path.read_text().splitlines():
                entry = json.loads(line) if line.startswith("{") else {"event": line, "level": "error"}
                if entry["level"] in ("error", "critical") or "crashed" in entry["event"]:
                    found.append(f"{path.stem}: {line}")
        return found

    async def commands(self, seconds: float) -> list[str]:
        """Return the commands that clients give to Redis in that time; those inside of scripts are not counted."""
        reader, writer = await asyncio.open_unix_connection(str(self.redis.path))
        writer.write(b"MONITOR\r\n")
        lines: list[bytes] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    lines.append(await reader.readline())
        writer.close()
        return [line.decode("latin-1") for line in lines[1:] if b" lua] " not in line]

    async def script_calls(self, seconds: float) -> Counter[str]:
        """Return how often each of the ledger's scripts is called in that time."""
        names = {script.sha: name for name, script in load_scripts().items()}
        calls = [line.split('"') for line in await self.commands(seconds)]
        return Counter(names.get(words[3], "unknown") for words in calls if words[1].upper() == "EVALSHA")

    def _start(
        self, name: str, package: str, more: dict[str, str], metrics: int, launch: tuple[str, ...]
    ) -> Process:
        environ = {
            **os.environ,
            "POSTROOM_CONFIG": str(self.config),
            "POSTROOM_REDIS_URL": self.redis_url or self.redis.url,
            "POSTROOM_METRICS_PORT": str(metrics),
            "POSTROOM_LOG_FORMAT": "json",
            **more,
        }
        words = ("tests.faults.launch", *launch, package) if launch else (package,)
        new = bool(launch) or self.new_interpreters or "POSTROOM_FAILPOINT" in more
        process = NURSERY.start(*words, environ=environ, log=self.folder / f"{name}.log", new=new)
        self.processes[name] = process
        return process

    def logs(self, name: str) -> list[dict[str, Any]]:
        """Return a process's log lines."""
        with (self.folder / f"{name}.log").open() as log:
            log.seek(self._logs_read.get(name, 0))
            return [json.loads(line) for line in log.read().splitlines() if line.startswith("{")]

    def forget_logs(self) -> None:
        """Let `logs` return what comes from now on."""
        self._logs_read = {name: (self.folder / f"{name}.log").stat().st_size for name in self.processes}

    async def post(self, body: dict[str, Any], **options: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """POST a message once; return status, body and header fields."""
        data = io.BytesIO(json.dumps(body).encode())
        kind = {"Content-Type": "application/json"}
        async with self.session.post(
            f"{self.url}/v1/messages", data=data, headers=kind, **options
        ) as response:
            answer = await response.json(content_type=None)
            return response.status, answer, {k.lower(): v for k, v in response.headers.items()}

    async def accept(self, body: dict[str, Any]) -> str:
        """POST like a good caller, the same ref again on 503 and broken connections; return the id.

        What is accepted after that is accepted in a later millisecond, and so comes behind it.
        """
        deadline = time.monotonic() + 3 * PATIENCE
        while time.monotonic() < deadline:
            try:
                status, answer, _ = await self.post(body)
            except (aiohttp.ClientError, TimeoutError):
                status = 503
            if status in (200, 202):
                await asyncio.sleep(ONE_MS)
                return str(answer["id"])
            assert status == 503, (status, answer)
            await asyncio.sleep(0.05)
        raise AssertionError("not accepted in time")

    async def accept_many(
        self,
        bodies: Iterable[dict[str, Any]],
        callers: int = 16,
        *,
        pause: float = 0,
        into: dict[str, float] | None = None,
    ) -> dict[str, float]:
        """POST many like `callers` good callers; return (and fill in) when each id was accepted, in Unix time."""
        todo, accepted = iter(bodies), {} if into is None else into

        async def call() -> None:
            for body in todo:
                accepted[await self.accept(body)] = time.time()
                await asyncio.sleep(pause)

        await asyncio.gather(*(call() for _ in range(callers)))
        return accepted

    async def get_many(self, ids: Iterable[str], callers: int = 16) -> dict[str, dict[str, Any]]:
        """GET many messages, by id."""
        todo, found = iter(ids), {}

        async def call() -> None:
            for message_id in todo:
                found[message_id] = await self.get(message_id)

        await asyncio.gather(*(call() for _ in range(callers)))
        return found

    async def get(self, message_id: str) -> dict[str, Any]:
        """GET a message; {} where it cannot be had now."""
        async with self.session.get(f"{self.url}/v1/messages/{message_id}") as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            return answer if response.status == 200 else {}

    async def find(self, query: str) -> list[dict[str, Any]]:
        """GET the messages that a query finds."""
        async with self.session.get(f"{self.url}/v1/messages?{query}") as response:
            return list((await response.json())["messages"])

    async def until_finished(self, message_id: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until a message has ended and return it."""
        found: dict[str, Any] = {}

        async def finished() -> bool:
            nonlocal found
            found = await self.get(message_id)
            return bool(found.get("finished"))

        await self.until(finished, f"{message_id} has ended", seconds)
        return found

    async def until_all_finished(
        self, ids: Iterable[str], seconds: float = PATIENCE
    ) -> dict[str, dict[str, Any]]:
        """Wait until all these messages have ended and return them by id."""
        waiting, ended = list(dict.fromkeys(ids)), {}

        async def all_finished() -> bool:
            nonlocal waiting
            found = await self.get_many(waiting)
            ended.update({i: m for i, m in found.items() if m.get("finished")})
            waiting = [i for i in waiting if i not in ended]
            if waiting:
                await asyncio.sleep(0.1)
            return not waiting

        try:
            await self.until(all_finished, "all have ended", seconds)
        except AssertionError as late:
            raise AssertionError(f"{len(waiting)} wait: {await self.get(waiting[0])}\n{late}") from None
        return ended

    async def metrics(self, port: int) -> dict[str, float]:
        """Scrape a process: `name{labels}` → value."""
        async with self.session.get(f"http://127.0.0.1:{port}/metrics") as response:
            lines = (await response.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    async def shared_metrics(self) -> dict[str, float]:
        """Scrape all processes: what is the same for all is told by one of them."""
        found: dict[str, float] = {}
        ports = {"api": self.metrics_port, **self.worker_metrics}
        for name in self.processes:
            found |= await self.metrics(ports[name])
        return found

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Wait until an async condition holds."""
        deadline = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not in time: {what}\n{self._last_words()}")
            await asyncio.sleep(0.02)

    async def _until_up(self, name: str, process: Process, is_up: Callable[[], Awaitable[bool]]) -> None:
        async def up_or_over() -> bool:
            return process.poll() is not None or await is_up()

        await self.until(up_or_over, f"{name} is ready")
        assert process.poll() is None, f"{name} did not start\n{self._last_words()}"

    def _last_words(self) -> str:
        parts = []
        for name in self.processes:
            lines = (self.folder / f"{name}.log").read_text().splitlines()
            lines = [line for line in lines if '"event":"http.request"' not in line]
            parts += [f"--- {name}", *lines[-15:]]
        return "\n".join(parts)

    async def _all_over(self) -> bool:
        return all(process.poll() is not None for process in self.processes.values())

    async def _api_ready(self) -> bool:
        try:
            async with self.session.get(f"{self.url}/readyz") as response:
                return response.status == 200 and (await response.json())["redis"] == "ok"
        except aiohttp.ClientError:
            return False

    async def _answers(self, url: str) -> bool:
        try:
            async with self.session.get(url) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False


def _few_templates(folder: Path) -> Path:
    """Return a folder with the one template that `sample` uses: every process judges and makes all it is given."""
    few = folder / "templates"
    few.mkdir()
    for name in ("_shared", "order_shipped"):
        (few / name).symlink_to(ROOT / "templates" / name)
    return few


def _arming(failpoint: str) -> dict[str, str]:
    return {"POSTROOM_TEST_FAILPOINTS": "1", "POSTROOM_FAILPOINT": failpoint} if failpoint else {}


async def _is_over(process: Process) -> bool:
    return process.poll() is not None
