"""One API process with its Redis and no worker, for all tests of the edge."""

import asyncio
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.ledger.harness import Ledger
from tests.nursery import NURSERY
from tests.redisd import RedisServer
from tests.stack import CONFIG, OTHER_TOKEN, QUICK, ROOT, TOKEN, agent_toml, channel, free_port

NARROW = """\
[callers.narrow]
agents = ["orders"]
priorities = ["normal", "bulk"]
tokens = [{{ id = "t3", sha256 = "{sha}" }}]
[callers.writer]
agents = ["orders"]
tokens = [{{ id = "t5", sha256 = "{writer}", scopes = ["templates"] }}]
[callers.operator]
tokens = [{{ id = "t4", sha256 = "{admin}", scopes = ["admin"] }}]
"""
BRAKED = """\
owner = "team-ops"
per_day = 3
only_from = true
labels = { business = "shop", kind = "alerts" }
storm = { limit = 2, window = "1h", exempt = ["Watch@EXAMPLE.com"] }
"""
# An agent without SMTP: its token is never shown to anybody.
OVER_API = """\
[[agents.newsletters.channels]]
name = "api"
kind = "zeptomail"
base_url = "http://127.0.0.1:1"
token = { file = "zepto-token" }
"""
ADMIN_TOKEN = "pr_test_admin"
# A caller that dawdles, and a Redis that hangs, are waited for less long.
IMPATIENT = [
    *("--set", "service.edge:BODY_SECONDS=2.0"),
    *("--set", "service.admin_edge:BODY_SECONDS=1.0"),
    *("--set", "service.operator_desk:LEDGER_SECONDS=1.5"),
]


class Api:
    """The process, and a plain client of it."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder)
        self.port, self.metrics_port = free_port(), free_port()
        self.log = folder / "api.log"
        self.config = folder / "postroom.toml"
        sha, other, narrow, admin, writer = (
            hashlib.sha256(token.encode()).hexdigest()
            for token in (TOKEN, OTHER_TOKEN, "pr_test_narrow", ADMIN_TOKEN, "pr_test_writer")
        )
        (folder / "zepto-token").write_text("none")
        alerts = agent_toml("alerts", channel("alerts", 1), options=BRAKED)
        text = CONFIG.format(
            templates=ROOT / "templates",
            worker=QUICK,
            agent="",
            channels=channel("orders", 1),
            logins=channel("logins", 1),
            agents=alerts + agent_toml("newsletters", OVER_API),
            names='["orders", "logins", "alerts", "newsletters"]',
            sha=sha,
            other_sha=other,
            more=NARROW.format(sha=narrow, admin=admin, writer=writer),
        )
        self.config.write_text(text)

    def start(self) -> subprocess.Popen[bytes]:
        """Start everything and wait for it."""
        self.redis.start()
        environ = {
            **os.environ,
            "POSTROOM_CONFIG": str(self.config),
            "POSTROOM_REDIS_URL": self.redis.url,
            "POSTROOM_PORT": str(self.port),
            "POSTROOM_METRICS_PORT": str(self.metrics_port),
            "POSTROOM_LOG_FORMAT": "json",
        }
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.launch", *IMPATIENT, "service"],
                env=environ,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 15
        while not self._ready():
            if time.monotonic() > deadline:
                process.kill()
                process.wait(10)
                raise AssertionError(self.log.read_text())
            time.sleep(0.02)
        return process

    def post(
        self,
        body: Any,
        *,
        method: str = "POST",
        path: str = "/v1/messages",
        authorization: str | None = f"Bearer {TOKEN}",
        content_type: str = "application/json",
    ) -> tuple[int, dict[str, Any], bytes]:
        """Send a request; return status, the document with its type and header fields added, and the bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": content_type, "Content-Length": str(len(data))}
        if authorization is not None:
            headers["Authorization"] = authorization
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        connection.request(method, path, data, headers)
        response = connection.getresponse()
        raw = response.read()
        fields = {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        kind = fields.get("content-type", "")
        document = json.loads(raw) if "json" in kind else {}
        return response.status, {**document, "content_type": kind, "headers": fields}, raw

    def command(self, *words: str) -> str:
        """Run `postroom` with the same configuration; return what it printed."""
        environ = {**os.environ, "POSTROOM_CONFIG": str(self.config), "POSTROOM_REDIS_URL": self.redis.url}
        ran = NURSERY.run("postroom", *words, environ=environ)
        if ran.code:
            raise subprocess.CalledProcessError(ran.code, words, ran.out, ran.err)
        return ran.out

    def exchange(self, raw: bytes) -> bytes:
        """Send bytes and return everything that comes back within a moment, also where the server reads no further."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(raw)
            connection.settimeout(0.5)
            answer = b""
            try:
                while more := connection.recv(65536):
                    answer += more
            except (TimeoutError, ConnectionResetError):
                pass
            return answer

    def _ready(self) -> bool:
        try:
            return self.post(b"", method="GET", path="/readyz")[1].get("redis") == "ok"
        except OSError:
            return False


@pytest.fixture(scope="session")
def api() -> Iterator[Api]:
    """The API, started once."""
    with tempfile.TemporaryDirectory(prefix="pr") as folder:
        running = Api(Path(folder))
        process = running.start()
        yield running
        process.terminate()
        process.wait(15)
        running.redis.kill()


def in_ledger(api: Api, use: Callable[[Ledger], Awaitable[Any]]) -> Any:
    """Use the API's Redis with the product's own classes."""

    async def run() -> Any:
        ledger = Ledger(api.redis.url)
        try:
            return await use(ledger)
        finally:
            await ledger.aclose()

    return asyncio.run(run())
