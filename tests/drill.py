"""The drill: seven faults, told apart by what was written down before them. `python -m tests.drill` writes docs/drill.md.

For every fault the same is asked: the dashboard's question "Why?" (its own queries, by a real Prometheus that scrapes
real processes). `told` says by that alone which fault it is. Needs `prometheus`.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.desk import OPERATOR, postroom
from tests.faults.mail import Receiver
from tests.stack import QUICK, ROOT, TOKEN, Stack, agent_toml, channel, free_port, sample

PAGE = ROOT / "docs" / "drill.md"
DASHBOARD = json.loads((ROOT / "deploy/helm/postroom/files/dashboard.json").read_text())
WHY = [target["expr"] for target in next(p for p in DASHBOARD["panels"] if p["title"] == "Why?")["targets"]]
PATIENCE = 75.0

# What is looked for in the panel "Why?": the first that fits.
RULES = (
    ("Redis full", "Redis is nearly full"),
    ("workers gone", "no worker runs"),
    ("credentials revoked", "stands still: auth"),
    ("provider throttles", "stands still: throttle"),
    ("a poison template", "cannot be rendered"),
    ("a caller retrying in a loop", "a caller repeats itself"),
    ("one agent flooded", "its own rate holds mail up"),
)


def told(why: str) -> str:
    """Return which fault it is, by the rules above."""
    return next((fault for fault, words in RULES if words in why), "nothing is found")


class Prometheus:
    """A real one, scraping the processes of a stack every second."""

    def __init__(self, folder: Path, binary: str) -> None:
        self._folder = folder
        self._binary = binary
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ports: list[int]) -> None:
        """Scrape these ports."""
        targets = [f"127.0.0.1:{port}" for port in ports]
        config = {"scrape_configs": [{"job_name": "postroom", "scrape_interval": "1s", "scrape_timeout": "1s",
                                      "static_configs": [{"targets": targets, "labels": {"namespace": "mail"}}]}]}  # fmt: skip
        (self._folder / "prometheus.yml").write_text(json.dumps(config))
        command = [
            self._binary, f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.port}", "--query.lookback-delta=5s", "--log.level=error",
        ]  # fmt: skip
        self.process = subprocess.Popen(command)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)

    async def why(self, stack: Stack) -> str:
        """Return what the dashboard's panel would show, a line a finding."""
        lines = []
        for expr in WHY:
            query = (
                expr.replace("$namespace", "mail")
                .replace("$agent", ".*")
                .replace("[5m]", "[15s]")
                .replace("[15m]", "[30s]")
            )
            async with stack.session.get(
                f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": query}
            ) as answer:
                body = await answer.json()
            assert body["status"] == "success", body
            for row in body["data"]["result"]:
                labels = {
                    k: v
                    for k, v in row["metric"].items()
                    if k not in ("why", "namespace", "job", "instance", "cause")
                }
                about = ", ".join(f"{k} {v}" for k, v in sorted(labels.items()))
                lines.append(f"{row['metric']['why']} ({about or 'all'}): {float(row['value'][1]):.3g}")
        return "\n".join(dict.fromkeys(lines))


async def throttles(stack: Stack, receiver: Receiver) -> None:
    """The provider asks to come back later."""
    receiver.script = {"CONNECT": "421 4.3.2 busy"}
    for number in range(5):
        await stack.accept(sample(f"t-{number}"))


async def revoked(stack: Stack, receiver: Receiver) -> None:
    """The provider no longer takes the password."""
    receiver.script = {"AUTH": "535 5.7.8 no"}
    for number in range(5):
        await stack.accept(sample(f"c-{number}"))


async def flooded(stack: Stack, _: Receiver) -> None:
    """One caller sends an agent far more than its rate."""
    await stack.accept_many((sample(f"f-{number}", agent="slow") for number in range(600)), callers=20)


async def full(stack: Stack, _: Receiver) -> None:
    """Redis has used 90 % of what it may."""
    used = int(re.search(rb"used_memory:(\d+)", stack.redis.command("INFO", "memory"))[1])  # type: ignore[index]
    stack.redis.command("CONFIG", "SET", "maxmemory", str(int(used / 0.9)))


async def gone(stack: Stack, _: Receiver) -> None:
    """All workers are killed, and mail goes on coming."""
    stack.kill("worker")
    for number in range(5):
        await stack.accept(sample(f"g-{number}"))


async def poison(stack: Stack, _: Receiver) -> None:
    """A template's messages cannot be rendered: what was stored of them is broken."""
    from tests.faults.test_case_oddities import damage

    stack.pause("worker")
    for number in range(5):
        await damage(stack, await stack.accept(sample(f"p-{number}")), variables={})
    stack.resume("worker")


async def loops(stack: Stack, _: Receiver) -> None:
    """A caller sends the same ref with new content, over and over."""
    await stack.accept(sample("loop"))
    deadline = time.monotonic() + 12
    while time.monotonic() < deadline:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with stack.session.post(
            f"{stack.url}/v1/messages", json=sample("loop", deliver_within=77), headers=headers
        ) as answer:
            assert 409 == answer.status
        await asyncio.sleep(0.05)


Fault = Callable[[Stack, Receiver], Awaitable[None]]
FAULTS: tuple[tuple[str, Fault], ...] = (
    ("provider throttles", throttles),
    ("credentials revoked", revoked),
    ("one agent flooded", flooded),
    ("Redis full", full),
    ("workers gone", gone),
    ("a poison template", poison),
    ("a caller retrying in a loop", loops),
)


async def play(binary: str, name: str, strike: Fault) -> dict[str, Any]:
    """Play one fault; return what was seen, and after how long it was told."""
    with tempfile.TemporaryDirectory(prefix="pr") as path:
        folder = Path(path)
        async with Receiver(auth=("PLAIN",)) as receiver:
            login = 'tls = "none"\nusername = "shop"\npassword = { env = "DRILL_PASSWORD" }\ninsecure = true'
            os.environ["DRILL_PASSWORD"] = "secret"
            slow = agent_toml(
                "slow", channel("slow", receiver.port), options='owner = "team-news"\nrate = "5/s"\nburst = 1'
            )
            stack = Stack(
                folder, receiver.port, worker=QUICK, channels=channel("orders", receiver.port, options=login),
                agents={"slow": slow}, more=OPERATOR,
            )  # fmt: skip
            prometheus = Prometheus(folder, binary)
            async with stack:
                await asyncio.gather(stack.start_api(), stack.start_worker())
                prometheus.start([stack.metrics_port, *stack.worker_metrics.values()])
                try:
                    return await _watch(stack, receiver, prometheus, name, strike)
                finally:
                    prometheus.stop()


async def _watch(
    stack: Stack, receiver: Receiver, prometheus: Prometheus, name: str, strike: Fault
) -> dict[str, Any]:
    for number in range(3):
        await stack.until_finished(await stack.accept(sample(f"before-{number}")))
    await asyncio.sleep(6)
    quiet = await prometheus.why(stack)
    began = time.monotonic()
    striking = asyncio.create_task(strike(stack, receiver))
    why = ""
    while told(why) == "nothing is found" and time.monotonic() - began < PATIENCE:
        await asyncio.sleep(0.5)
        why = await prometheus.why(stack)
    took = time.monotonic() - began
    agents = await postroom(stack, "agents")
    queue = await postroom(stack, "queue")
    await striking
    return {
        "fault": name,
        "told": told(why),
        "seconds": round(took, 1),
        "quiet": quiet,
        "why": why,
        "agents": agents,
        "queue": queue,
    }


HEAD = """# The drill

Seven faults were put into a running installation (an API, a worker, a Redis, a mail server that misbehaves), one after the other. What to ask, and which answer means what, was written down
*before* (`RULES` in [tests/drill.py](../tests/drill.py)): the dashboard's panel "Why?", asked of a real Prometheus. The verdict is by that panel alone; what `postroom agents` and `postroom queue` said then stands beside it. Before each fault the panel was empty.

This page is written by `python -m tests.drill`; the outputs are as they came. Prometheus scraped every second and the windows of the rates were 15 s, so add the scrape interval of yours, and for rates up to five minutes.

| Fault | Told as | After |
|---|---|---|
"""


def written_before() -> str:
    """Return what was written down before the faults: each finding of the panel, its query, and the fault it means."""
    text = "\n## What was written down before\n\nThe first of these findings that shows tells the fault:\n\n"
    for fault, words in RULES:
        # The cause of a stopped channel is a label of its query.
        query = next(expr for expr in WHY if words.partition(": ")[0] in expr)
        query = re.sub(r',?(namespace|agent)=~"\$\w+"', "", query).replace("{}", "")
        text += f"* **{fault}**: *… {words} …*\n\n  ```promql\n  {query}\n  ```\n"
    return text + "\nBeside it `postroom agents` and `postroom queue` were asked.\n"


def page(seen: list[dict[str, Any]]) -> str:
    """Return the page's text."""
    text = HEAD + "".join(f"| {s['fault']} | {s['told']} | {s['seconds']} s |\n" for s in seen)
    text += written_before()
    docs = {name: (strike.__doc__ or "").strip() for name, strike in FAULTS}
    for s in seen:
        text += f"\n## {s['fault'][0].upper() + s['fault'][1:]}\n\n{docs[s['fault']]}\n\n"
        text += f"*Why?*\n\n```\n{s['why']}\n```\n\n```\n$ postroom agents\n{s['agents'].rstrip()}\n\n$ postroom queue\n{s['queue'].rstrip()}\n```\n"
    return text + "\nWhat to do about each: [runbook.md](runbook.md#told-apart).\n"


async def main() -> int:
    """Play all faults, write the page, and return 1 where one was not told rightly."""
    own = ROOT / ".venv" / "judges" / "prometheus"
    binary = str(own) if own.exists() else shutil.which("prometheus")
    if binary is None:
        sys.exit("prometheus is not here: `make chart` fetches it where it can be had")
    seen = []
    for name, strike in FAULTS:
        seen.append(await play(binary, name, strike))
        last = seen[-1]
        words = (
            name,
            "- told as",
            last["told"],
            "after",
            last["seconds"],
            "s; before:",
            last["quiet"] or "-",
        )
        print(*words, flush=True)  # noqa: T201
    PAGE.write_text(page(seen))
    return int(any(s["fault"] != s["told"] or s["quiet"] for s in seen))


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
