"""The whole product as real processes, for tests of the path: API, workers, Redis, and whatever takes the mail."""

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

from tests.redisd import RedisServer

ROOT = Path(__file__).parents[1]
TOKEN = "pr_test_token"
OTHER_TOKEN = "pr_test_other"
PATIENCE = 30.0

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
[[agents.orders.channels]]
name = "relay"
kind = "smtp"
host = "127.0.0.1"
port = {smtp_port}
tls = "none"
[agents.logins]
from = {{ address = "login@shop.example" }}
[[agents.logins.channels]]
name = "relay"
kind = "smtp"
host = "127.0.0.1"
port = {smtp_port}
tls = "none"
[callers.shop]
agents = ["orders", "logins"]
tokens = [{{ id = "t1", sha256 = "{sha}" }}]
[callers.other]
agents = ["logins"]
tokens = [{{ id = "t2", sha256 = "{other_sha}" }}]
{more}
"""
QUICK = 'lease = "1s"\nlinger = "500ms"\nsweep = "100ms"\nround = "3s"'


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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

    def __init__(
        self, folder: Path, smtp_port: int, *, worker: str = QUICK, agent: str = "", more: str = ""
    ) -> None:
        self.folder = folder
        self.redis = RedisServer(folder)
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "postroom.toml"
        digests = [hashlib.sha256(token.encode()).hexdigest() for token in (TOKEN, OTHER_TOKEN)]
        text = CONFIG.format(
            templates=ROOT / "templates",
            worker=worker,
            agent=agent,
            smtp_port=smtp_port,
            sha=digests[0],
            other_sha=digests[1],
            more=more,
        )
        self.config.write_text(text)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.worker_metrics: dict[str, int] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Stack":
        self.redis.start()
        connector = aiohttp.TCPConnector(limit=200)
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {TOKEN}"}, connector=connector
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.redis.kill()

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    async def start_api(self) -> None:
        """Start the API and wait until it sees Redis."""
        self._start("api", "service", {"POSTROOM_PORT": str(self.port)}, self.metrics_port)
        await self.until(self._api_ready, "the API is ready")

    async def start_worker(self, name: str = "worker") -> subprocess.Popen[bytes]:
        """Start a worker and wait until it works."""
        port = self.worker_metrics[name] = free_port()
        process = self._start(name, "workers", {}, port)
        await self.until(lambda: self._answers(f"http://127.0.0.1:{port}/readyz"), f"{name} is ready")
        return process

    def _start(self, name: str, package: str, more: dict[str, str], metrics: int) -> subprocess.Popen[bytes]:
        environ = {
            **os.environ,
            "POSTROOM_CONFIG": str(self.config),
            "POSTROOM_REDIS_URL": self.redis.url,
            "POSTROOM_METRICS_PORT": str(metrics),
            "POSTROOM_LOG_FORMAT": "json",
            **more,
        }
        command = [sys.executable, "-m", package]
        options: dict[str, Any] = {"env": environ, "cwd": ROOT, "start_new_session": True}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        self.processes[name] = process
        return process

    def logs(self, name: str) -> list[dict[str, Any]]:
        """Return a process's log lines."""
        text = (self.folder / f"{name}.log").read_text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    async def post(self, body: dict[str, Any], **options: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        """POST a message once; return status, body and header fields."""
        async with self.session.post(f"{self.url}/v1/messages", json=body, **options) as response:
            answer = await response.json(content_type=None)
            return response.status, answer, {k.lower(): v for k, v in response.headers.items()}

    async def accept(self, body: dict[str, Any]) -> str:
        """POST like a good caller, the same ref again on 503 and broken connections; return the id."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                status, answer, _ = await self.post(body)
            except (aiohttp.ClientError, TimeoutError):
                status = 503
            if status in (200, 202):
                return str(answer["id"])
            assert status == 503, (status, answer)
            await asyncio.sleep(0.05)
        raise AssertionError("not accepted in time")

    async def get(self, message_id: str) -> dict[str, Any]:
        """GET a message; {} where it cannot be had now."""
        async with self.session.get(f"{self.url}/v1/messages/{message_id}") as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            return answer if response.status == 200 else {}

    async def until_finished(self, message_id: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until a message has ended and return it."""
        found: dict[str, Any] = {}

        async def finished() -> bool:
            nonlocal found
            found = await self.get(message_id)
            return bool(found.get("finished"))

        await self.until(finished, f"{message_id} has ended", seconds)
        return found

    async def metrics(self, port: int) -> dict[str, float]:
        """Scrape a process: `name{labels}` → value."""
        async with self.session.get(f"http://127.0.0.1:{port}/metrics") as response:
            lines = (await response.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Wait until an async condition holds."""
        deadline = time.monotonic() + seconds
        while not await condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not in time: {what}\n{self._last_words()}")
            await asyncio.sleep(0.02)

    def _last_words(self) -> str:
        parts = []
        for name in self.processes:
            parts += [f"--- {name}", *(self.folder / f"{name}.log").read_text().splitlines()[-15:]]
        return "\n".join(parts)

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
