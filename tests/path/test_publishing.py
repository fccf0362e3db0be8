"""A template is published while mail flows: every process sees it within a second, and no accepted message changes."""

import asyncio
import email
import email.policy
import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.mail import SECONDS, Receiver, meanwhile, scaled
from tests.stack import TOKEN, Stack, channel, free_port

pytestmark = pytest.mark.timeout(SECONDS)

WRITER = "pr_test_writer"
MORE = f"""
[callers.writer]
agents = ["orders"]
tokens = [{{ id = "t9", sha256 = "{hashlib.sha256(WRITER.encode()).hexdigest()}", scopes = ["templates"] }}]
"""
MANIFEST = 'description = "Says hello."\n[variables.name]\ntype = "string"\nexample = "Ada"\n'


def files(word: str) -> dict[str, str]:
    """A template that says a word."""
    body = '{% extends "_shared/frame.txt" %}{% block main %}' + word + " {{ name }}{% endblock %}"
    frame = "[{% block main %}{% endblock %}]\n"
    return {
        "template.toml": MANIFEST,
        "subject.txt": f"{word}!",
        "body.txt": body,
        "_shared/frame.txt": frame,
    }


async def put(
    stack: Stack, body: dict[str, Any], url: str = "", *, name: str = "hello", status: int = 200
) -> dict[str, Any]:
    """PUT the template; return what it says."""
    headers = {"Authorization": f"Bearer {WRITER}"}
    async with stack.session.put(
        f"{url or stack.url}/v1/templates/{name}", json=body, headers=headers
    ) as response:
        answer: dict[str, Any] = await response.json(content_type=None)
        assert status == response.status, answer
        return answer


async def current(stack: Stack, url: str) -> str | None:
    """Return the version that a process uses now."""
    async with stack.session.get(f"{url}/v1/templates/hello") as response:
        return (await response.json(content_type=None)).get("version")


def request(ref: str, **template: Any) -> dict[str, Any]:
    """A message of the template."""
    return {
        "client_ref": ref,
        "agent": "orders",
        "to": [{"address": f"{ref}@example.com"}],
        "template": {"name": "hello", "variables": {"name": "Ada"}, **template},
    }


async def test_publishing_changes_what_comes_and_not_what_is_queued(folder: Path):
    """Each message keeps the version it was accepted with; the change, and the way back, are seen by all within a second."""
    async with Receiver({}) as receiver:
        channels = channel("orders", receiver.port)
        async with Stack(folder, receiver.port, channels=channels, more=MORE) as stack:
            await stack.start_api()
            other = await second_api(stack)

            first = (await put(stack, {"files": files("Hello")}))["version"]
            await seen(stack, other, first)
            for ref in ("one", "two"):
                await stack.accept(request(ref))
            second = (await put(stack, {"files": files("Ciao")}, other))["version"]
            await seen(stack, stack.url, second)
            await stack.accept(request("three"))
            await stack.accept(request("four", version=first))
            assert first == (await put(stack, {"version": first}))["version"]
            await seen(stack, other, first)
            await stack.accept(request("five"))

            await stack.start_worker()
            await receiver.until_mails(5)

            texts = {mail["To"].split("@")[0]: mail for mail in mails(receiver)}
            said = {ref: mail.get_content().strip() for ref, mail in texts.items()}
            assert {
                "one": "[Hello Ada]",
                "two": "[Hello Ada]",
                "three": "[Ciao Ada]",
                "four": "[Hello Ada]",
                "five": "[Hello Ada]",
            } == said
            assert "Ciao!" == texts["three"]["Subject"]
            assert [] == stack.mishaps()


async def test_publishing_disturbs_no_call(folder: Path):
    """At a steady rate, 1,000 sends a second with POSTROOM_LONG=1, no call fails while versions are published."""
    rate, seconds = scaled(200, 1000), scaled(2, 60)
    async with Stack(folder, free_port(), more=MORE) as stack:
        await stack.start_api()
        versions = {(await put(stack, {"files": files("Hello")}))["version"]}
        pacer = Pacer(stack, rate, seconds)
        load = asyncio.create_task(pacer.run())
        while not load.done():
            versions.add((await put(stack, {"files": files(f"Hej {len(versions)}")}))["version"])
            await asyncio.wait({load}, timeout=0.5)
        await load

        assert ({202}, rate * seconds) == (set(pacer.statuses), len(pacer.statuses))
        assert versions >= pacer.versions
        assert 1 < len(pacer.versions)
        assert [] == stack.mishaps()
        print(f"{rate}/s for {seconds} s, {len(versions)} publications: {pacer.figures()}")  # noqa: T201


LOOP = "{% for i in range(1000) %}"
HOSTILE = {
    "for ever": LOOP * 3 + "x" + "{% endfor %}" * 3,
    "much out of little": LOOP + "x" * 200_000 + "{% endfor %}",
    "into itself": '{% include "_self.txt" %}',
    "deep": "{{ " + "not " * 60_000 + "1 }}",
}
ROWS = """description = "Loops over what it is given."
[variables.rows]
type = "list"
example = [1]
[variables.rows.items]
type = "integer"
"""
OVER_ROWS = "{% for a in rows %}{% for b in rows %}{% for c in rows %}x{% endfor %}{% endfor %}{% endfor %}"


async def test_a_hostile_template_harms_nobody(folder: Path):
    """Published or fed by variables: it ends in words, soon and small, while mail flows on through the same processes."""
    async with Receiver({}) as receiver:
        channels = channel("orders", receiver.port)
        async with Stack(folder, receiver.port, channels=channels, more=MORE) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            await put(stack, {"files": files("Hello")})
            accepted: list[str] = []

            async def send() -> None:
                accepted.append(await stack.accept(request(f"m{len(accepted)}")))

            async with meanwhile(send, 0.02):
                for what, source in HOSTILE.items():
                    started = time.monotonic()
                    wrong = {**files("Hello"), "body.txt": source, "_self.txt": '{% include "_self.txt" %}'}
                    answer = await put(stack, {"files": wrong}, status=422)
                    seconds = time.monotonic() - started
                    print(f"{what}: {seconds:.2f} s, {answer['errors'][0]['detail']}")  # noqa: T201
                    assert ("invalid_template", True) == (answer["code"], seconds < 5), what
                rows = {"template.toml": ROWS, "subject.txt": "x", "body.txt": OVER_ROWS}
                await put(stack, {"files": rows}, name="rows")
                costly = {"name": "rows", "variables": {"rows": [1] * 1000}}
                status, answer, _ = await stack.post({**request("costly"), "template": costly})
                assert (422, "invalid_variables") == (status, answer["code"])

            messages = await stack.until_all_finished(accepted)
            assert {"sent"} == {message["state"] for message in messages.values()}
            assert 20 < len(accepted) == len(receiver.mails)
            assert [] == stack.mishaps()
            peaks = {name: peak_megabytes(process.pid) for name, process in stack.processes.items()}
            assert 256 > max(peaks.values()), peaks


def peak_megabytes(pid: int) -> float:
    """The most memory that a process has had."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


class Pacer:
    """Calls at a steady rate over kept connections, each at its time whatever became of the others."""

    def __init__(self, stack: Stack, rate: int, seconds: int, connections: int = 32) -> None:
        self._stack, self._rate, self._left = stack, rate, iter(range(rate * seconds))
        self._connections = connections
        self.statuses: list[int] = []
        self.versions: set[str] = set()
        self._waits: list[float] = []

    async def run(self) -> None:
        self._began = time.perf_counter() + 0.1
        await asyncio.gather(*(self._call() for _ in range(self._connections)))
        self._took = time.perf_counter() - self._began

    def figures(self) -> str:
        waits = sorted(self._waits)
        p50, p99 = (1000 * waits[int(len(waits) * part)] for part in (0.5, 0.99))
        return f"{len(waits) / self._took:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {1000 * waits[-1]:.0f} ms"

    async def _call(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._stack.port)
        for number in self._left:
            due = self._began + number / self._rate
            await asyncio.sleep(due - time.perf_counter())
            writer.write(self._request(number))
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(
                int(re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)[1])
            )
            self._waits.append(time.perf_counter() - due)
            self.statuses.append(int(head[9:12]))
            self.versions |= {found.decode() for found in re.findall(rb'"version":"(\w+)"', body)}
        writer.close()

    def _request(self, number: int) -> bytes:
        body = json.dumps(request(f"paced-{number}")).encode()
        fields = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
        return f"POST /v1/messages HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def second_api(stack: Stack) -> str:
    """Start another API process beside the first; return its address."""
    port = free_port()
    process = stack._start("api2", "service", {"POSTROOM_PORT": str(port)}, free_port(), ())
    url = f"http://127.0.0.1:{port}"
    await stack._until_up("api2", process, lambda: stack._answers(f"{url}/readyz"))
    return url


async def seen(stack: Stack, url: str, version: str) -> None:
    """Wait until a process uses a version: a second at most, and no less on a machine with other things to do."""
    started = time.monotonic()

    async def used() -> bool:
        return await current(stack, url) == version

    await stack.until(used, "the version is current", 3)
    assert 1.5 > time.monotonic() - started


def mails(receiver: Receiver) -> list[Any]:
    """What the receiver took, parsed."""
    return [
        email.message_from_bytes(data, policy=email.policy.default)
        for mail in receiver.mails
        for data in (mail.data,)
    ]
