"""Postroom as processes: a Redis, its configuration, an API, workers."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct
from redis import Redis

from bench.bodies import TEMPLATES, TOKEN
from bench.processes import Child, Children, answers, free_port, until
from postroom.dev.embedded import find_redis
from postroom.ledger.keys import place_of

# As a real one but for the rewriting of its log, which would fall into one leg and not into the next.
REDIS_OPTIONS = ("--auto-aof-rewrite-percentage", "0")

CONFIG = """\
environment = "bench"
[retention]
content = "{content}"
[templates]
dir = {templates}
[worker]
max_lanes = {lanes}
{agents}
[callers.bench]
agents = {names}
rate = "900000/s"
tokens = [{{ id = "t1", sha256 = "{digest}" }}]
"""
AGENT = """\
[agents.{name}]
from = {{ address = "{name}@shop.example", name = "The Corner Shop" }}
domains = ["shop.example"]
rate = "900000/s"
connections = {connections}
[[agents.{name}.channels]]
name = "way"
{channel}
"""
SMTP = 'kind = "smtp"\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n'
API = 'kind = "zeptomail"\nbase_url = "http://127.0.0.1:{port}"\ntoken = {{ env = "BENCH_TOKEN" }}\n'


class Agents(Struct, frozen=True):
    """Some agents that are alike."""

    names: tuple[str, ...]
    port: int
    channel: str = SMTP
    connections: int = 20

    def toml(self) -> str:
        """Return their part of the configuration."""
        channel = self.channel.format(port=self.port)
        return "\n".join(
            AGENT.format(name=name, connections=self.connections, channel=channel) for name in self.names
        )


class RedisServer:
    """A Redis of its own, pinned."""

    def __init__(self, children: Children, folder: Path, cores: frozenset[int]) -> None:
        found = find_redis(folder)
        self.url = found.url
        self.path = found.url.removeprefix("unix://")
        self.data = folder / "redis"
        self._children = children
        self.child = children.start(f"redis-{folder.name}", [*found.command, *REDIS_OPTIONS], cores)
        self.client = Redis(unix_socket_path=self.path)
        until(self._ready, "Redis answers", child=self.child)

    def _ready(self) -> bool:
        try:
            return bool(self.client.ping())
        except Exception:  # noqa: BLE001  not there yet, or loading: asked again until time is up
            return False

    def told(self, name: str) -> int:
        """Return one of the numbers that INFO tells."""
        found: Any = self.client.info()
        return int(found[name])

    def drop_expired(self) -> None:
        """Have everything dropped whose time is over: by itself Redis leaves up to a tenth of it for later."""
        for _ in self.client.scan_iter(count=1000):
            pass

    def end(self) -> None:
        """Stop it."""
        self.client.close()
        self._children.end(self.child)


class Product:
    """One installation. What it starts, `children` end."""

    def __init__(
        self,
        children: Children,
        folder: Path,
        redis: RedisServer,
        agents: Iterable[Agents],
        *,
        lanes: int = 200,
        content: str = "1h",
    ) -> None:
        self._children = children
        self.redis = redis
        self.folder = folder
        self.port = free_port()
        self.config = folder / "postroom.toml"
        agents = list(agents)
        self.names = [name for some in agents for name in some.names]
        text = CONFIG.format(
            content=content,
            templates=json.dumps(str(TEMPLATES)),
            lanes=lanes,
            agents="\n".join(some.toml() for some in agents),
            names=json.dumps(self.names),
            digest=hashlib.sha256(TOKEN.encode()).hexdigest(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text)

    def start_api(self, cores: frozenset[int]) -> Child:
        """Start an API process and wait until it is ready."""
        environ = {**self.environ(), "POSTROOM_PORT": str(self.port)}
        child = self._children.module(f"api-{self.folder.name}", "service", cores, environ=environ)
        until(lambda: answers(f"http://127.0.0.1:{self.port}/readyz"), "the API is ready", child=child)
        return child

    def start_worker(self, cores: frozenset[int], name: str = "worker") -> Child:
        """Start a worker process and wait until it is ready."""
        environ = self.environ()
        child = self._children.module(f"{name}-{self.folder.name}", "workers", cores, environ=environ)
        url = f"http://127.0.0.1:{environ['POSTROOM_METRICS_PORT']}/readyz"
        until(lambda: answers(url), "the worker is ready", child=child)
        return child

    def environ(self) -> dict[str, str]:
        """Return what a process of it needs in its environment: all as in production, INFO logs as JSON."""
        return {
            "POSTROOM_CONFIG": str(self.config),
            "POSTROOM_REDIS_URL": self.redis.url,
            "POSTROOM_METRICS_PORT": str(free_port()),
            "POSTROOM_LOG_FORMAT": "json",
            "POSTROOM_LOG_LEVEL": "INFO",
            "BENCH_TOKEN": "wSsVR60-bench",
        }

    def ended(self, names: Iterable[str] | None = None) -> dict[str, int]:
        """Return how many messages ended in which state, by the ledger's own count."""
        pipe = self.redis.client.pipeline(transaction=False)
        prefixes = sorted({place_of(name).prefix for name in names or self.names})
        for prefix in prefixes:
            pipe.hgetall(prefix + "tally")
        found: dict[str, int] = {}
        for tally in pipe.execute():
            self._add(tally, found)
        return found

    def sent(self) -> int:
        """Return how many messages were sent."""
        return self.ended().get("sent", 0)

    def waiting(self) -> int:
        """Return how many have been accepted and have not ended."""
        found = self.ended()
        return 2 * found.get("accepted", 0) - sum(found.values())

    @staticmethod
    def _add(tally: dict[bytes, bytes], found: dict[str, int]) -> None:
        for field, count in tally.items():
            state = field.decode().rpartition("|")[2]
            found[state] = found.get(state, 0) + int(count)


def failures(ended: dict[str, Any]) -> dict[str, Any]:
    """Return the states other than the good ones that messages ended in."""
    return {state: n for state, n in ended.items() if n and state not in ("sent", "accepted")}
