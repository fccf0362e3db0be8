"""A template is published while mail flows: every process sees it within a second, and no accepted message changes."""

import asyncio
import email
import email.policy
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.mail import SECONDS, Receiver
from tests.stack import Stack, channel, free_port

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


async def put(stack: Stack, body: dict[str, Any], url: str = "") -> dict[str, Any]:
    """PUT the template; return what it says."""
    headers = {"Authorization": f"Bearer {WRITER}"}
    async with stack.session.put(
        f"{url or stack.url}/v1/templates/hello", json=body, headers=headers
    ) as response:
        answer: dict[str, Any] = await response.json(content_type=None)
        assert 200 == response.status, answer
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
    """While callers send as fast as they can, publishing makes none of their calls fail."""
    async with Receiver({}) as receiver:
        channels = channel("orders", receiver.port)
        async with Stack(folder, receiver.port, channels=channels, more=MORE) as stack:
            await stack.start_api()
            versions = {(await put(stack, {"files": files("Hello")}))["version"]}
            going = True
            answers: list[tuple[int, str]] = []

            async def send(caller: int) -> None:
                number = 0
                while going:
                    status, answer, _ = await stack.post(request(f"c{caller}-{number}"))
                    answers.append((status, answer["template"]["version"] if status == 202 else ""))
                    number += 1

            senders = [asyncio.create_task(send(caller)) for caller in range(20)]
            for word in ("Ciao", "Salut", "Hej"):
                versions.add((await put(stack, {"files": files(word)}))["version"])
            going = False
            await asyncio.gather(*senders)

            assert {202} == {status for status, _ in answers}
            assert versions >= {version for _, version in answers}
            assert 100 < len(answers)
            assert [] == stack.mishaps()


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
