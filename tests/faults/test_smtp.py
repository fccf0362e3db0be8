"""Faults of the SMTP side, seen end to end: what a caller reads, and what the receivers got."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import pytest_asyncio

from tests.faults.mail import SECONDS, Receiver, assert_delivered
from tests.stack import QUICK, Stack, agent_toml, channel, free_port, sample

pytestmark = [pytest.mark.timeout(SECONDS), pytest.mark.asyncio(loop_scope="module")]

SECURE = 'tls = "starttls"\nusername = "user"\npassword = { env = "TEST_SMTP_PASSWORD" }'
SCRIPTS: dict[str, dict[str, Any]] = {
    "mixed": {"RCPT:nobody@example.com": "550 5.1.1 nobody"},
    "insecure": {},
    "second": {},
    "plain": {},
}
ASCII_ONLY = ("PIPELINING", "ENHANCEDSTATUSCODES")


class Street:
    """One stack whose agents each have a receiver of their own."""

    def __init__(self, stack: Stack, receivers: dict[str, Receiver], closed_port: int) -> None:
        self.stack, self.receivers, self.closed_port = stack, receivers, closed_port

    async def post(self, ref: str, agent: str, *addresses: str) -> str:
        to = [{"address": address} for address in addresses or ("ada@example.com",)]
        return await self.stack.accept(sample(ref, agent=agent, to=to))

    async def until(self, message_id: str, **wanted: Any) -> dict[str, Any]:
        """Wait until these fields of a message have these values; `reason` is its code."""
        found: dict[str, Any] = {}

        async def is_so() -> bool:
            nonlocal found
            found = await self.stack.get(message_id)
            seen = {**found, "reason": (found["reason"] or {}).get("code")}
            return all(seen[name] == value for name, value in wanted.items())

        try:
            await self.stack.until(is_so, f"{wanted}", 15)
        except AssertionError as late:
            raise AssertionError(f"{found}\n{late}") from None
        return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def street() -> AsyncIterator[Street]:
    closed_port = free_port()
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("TEST_SMTP_PASSWORD", "swordfish")
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="pr")))
        receivers = {
            name: await stack.enter_async_context(Receiver(script)) for name, script in SCRIPTS.items()
        }
        logins = await stack.enter_async_context(Receiver())
        receivers["logins"] = logins
        receivers["plain"].extensions = ASCII_ONLY
        agents = {"mixed": agent_toml("mixed", channel("mixed", receivers["mixed"].port))}
        agents["plain"] = agent_toml("plain", channel("plain", receivers["plain"].port))
        agents["insecure"] = agent_toml(
            "insecure", channel("insecure", receivers["insecure"].port, "relay", SECURE)
        )
        agents["away"] = agent_toml("away", channel("away", closed_port))
        agents["spare"] = agent_toml(
            "spare",
            channel("spare", free_port(), "first"),
            channel("spare", receivers["second"].port, "second"),
        )
        running = await stack.enter_async_context(Stack(folder, logins.port, worker=QUICK, agents=agents))
        await asyncio.gather(running.start_api(), running.start_worker())
        yield Street(running, receivers, closed_port)
    monkeypatch.undo()


async def test_all_recipients_refused_is_failed(street: Street):
    """550 for all: failed after one attempt, and nothing is delivered."""
    message_id = await street.post("mixed-3", "mixed", "nobody@example.com")
    message = await street.until(message_id, state="failed", finished=True)
    assert ("refused", "recipient", 1) == (
        message["reason"]["code"],
        message["reason"]["fault"],
        len(message["attempts"]),
    )
    assert [] == street.receivers["mixed"].recipients_of(message_id)


async def test_an_address_beyond_ascii_ends_alone(street: Street):
    """Without SMTPUTF8 that recipient is refused with the cause, and the others have their mail: partly_sent."""
    message_id = await street.post(
        "plain-1", "plain", "jörg@example.com", "ada@xn--bcher-kva.example", "bo@bücher.example"
    )
    message = await street.until(message_id, state="partly_sent", finished=True)
    refused, *others = message["recipients"]
    assert ("failed", "recipient", "5.6.7") == (
        refused["state"],
        refused["reason"]["fault"],
        refused["reason"]["enhanced_code"],
    )
    assert "SMTPUTF8" in refused["reason"]["text"]
    assert [("sent", None)] * 2 == [(one["state"], one["reason"]) for one in others]
    reached = ["ada@xn--bcher-kva.example", "bo@xn--bcher-kva.example"]
    assert [reached] == street.receivers["plain"].recipients_of(message_id)
    assert street.receivers["plain"].mails[0].data.isascii()

    status, answer, _ = await street.stack.post(
        sample("plain-2", agent="plain", **{"from": {"address": "jörg@shop.example"}})
    )
    assert 202 == status
    message = await street.until(answer["id"], state="failed", finished=True)
    assert ("message", True) == (message["reason"]["fault"], "SMTPUTF8" in message["reason"]["text"])


async def test_without_starttls_no_credentials_are_sent(street: Street):
    """STARTTLS asked for and not offered: no AUTH, nothing failed, a clear reason, and no other agent suffers."""
    message_id = await street.post("insecure", "insecure")
    message = await street.until(message_id, state="queued", reason="channel_auth")
    assert "STARTTLS" in message["reason"]["text"]
    assert ("agent", []) == (message["reason"]["fault"], message["attempts"])
    receiver = street.receivers["insecure"]
    assert receiver.connections >= 1
    assert [] == [line for line in receiver.lines if line.upper().startswith(("AUTH", "MAIL"))]
    login = await street.post("login-1", "logins")
    await assert_delivered(street.stack, street.receivers["logins"], [login])


async def test_mail_flows_by_itself_once_the_server_appears(street: Street):
    """Connection refused: the mail waits with that reason, unharmed, and goes when somebody listens."""
    message_id = await street.post("away", "away")
    message = await street.until(message_id, state="queued", reason="channel_connect")
    assert ("agent", []) == (message["reason"]["fault"], message["attempts"])
    async with Receiver(port=street.closed_port) as receiver:
        messages = await assert_delivered(street.stack, receiver, [message_id], 15)
        assert 1 == len(messages[message_id]["attempts"])
        # The agent is whole again: the next one is quick.
        again = await street.post("away-again", "away")
        await assert_delivered(street.stack, receiver, [again], 2)


async def test_the_next_channel_is_used_when_the_first_is_away(street: Street):
    """With the first channel refusing connections the second is used, and the attempt says so."""
    ids = [await street.post(f"spare-{number}", "spare") for number in range(3)]
    messages = await assert_delivered(street.stack, street.receivers["second"], ids)
    assert {"second"} == {a["channel"] for m in messages.values() for a in m["attempts"]}
    assert {1} == {len(m["attempts"]) for m in messages.values()}


async def test_no_process_was_troubled(street: Street):
    """After all of that no process has ended or logged an error, and connections are closed."""
    assert ([], []) == (street.stack.exited(), street.stack.mishaps())
    logins = street.receivers["logins"]
    await street.stack.until(lambda: _closed(logins), "idle connections are closed")


async def _closed(receiver: Receiver) -> bool:
    return receiver.open == 0
