"""Case 25: clocks that are wrong, two sweepers, mail that cannot be made, credentials that are taken away."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from postroom.ledger.codec import decode_payload, encode_payload
from postroom.ledger.keys import payload_key
from tests.faults.mail import SECONDS, Receiver, assert_delivered
from tests.stack import PATIENCE, Stack, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
HOUR = 3600
LOGIN = 'tls = "none"\nusername = "user"\npassword = { env = "TEST_SMTP_PASSWORD" }\ninsecure = true'


def skew(seconds: int) -> tuple[str, ...]:
    return ("--clock", str(seconds))


async def test_case_25_clocks_an_hour_off(folder: Path):
    """Workers an hour ahead and behind, the API too: mail is due, leased and retried when Redis's clock says so."""
    script = {"RCPT:later@example.com": ["451 4.2.1 later", "ok"]}
    interactive = 'retry_profile = "interactive"'
    async with Receiver(script) as receiver, Stack(folder, receiver.port, agent=interactive) as stack:
        await asyncio.gather(
            stack.start_api(launch=skew(HOUR)),
            stack.start_worker("ahead", launch=skew(HOUR)),
            stack.start_worker("behind", launch=skew(-HOUR)),
        )
        for name, off in (("api", HOUR), ("ahead", HOUR), ("behind", -HOUR)):
            stamp = datetime.fromisoformat(stack.logs(name)[-1]["ts"])
            assert abs(stamp - datetime.now(UTC) - timedelta(seconds=off)) < timedelta(minutes=1), name
        began = time.time()
        soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
        scheduled = await stack.accept(sample("scheduled", send_at=soon))
        deferred = await stack.accept(sample("deferred", to=[{"address": "later@example.com"}]))
        ids = [scheduled, deferred, *[await stack.accept(sample(f"now-{n}")) for n in range(100)]]
        await assert_delivered(stack, receiver, ids)
        assert dict.fromkeys(ids, 1) == receiver.copies()
        arrived = dict(zip(receiver.order(), receiver.arrivals.times, strict=True))
        assert 2 <= arrived[scheduled] - began < 6
        assert 2.5 <= arrived[deferred] - began < 12
        assert max(arrived[i] for i in ids[2:]) - began < 8


async def test_case_25_two_sweepers_at_once(folder: Path):
    """One of two workers sweeps at a time; killed, it is followed by the other, who rings for what was lost."""
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        calls = (await stack.script_calls(2))["sweep"]
        # One sweep is a call for each of 16 partitions, every 100 ms.
        assert 16 * 8 <= calls <= 16 * 23
        leader = await stack.ledger.get("pr:sweeper") or b""
        while not leader:
            leader = await stack.ledger.get("pr:sweeper") or b""
        pid = int(leader.rpartition(b":")[2])
        victim = next(name for name in ("one", "two") if stack.processes[name].pid == pid)
        stack.kill(victim)
        message_id = await stack.accept(sample("after"))
        await stack.ledger.delete("pr:rounds")
        await assert_delivered(stack, receiver, [message_id])


async def test_case_25_poison_and_big_messages(folder: Path):
    """What cannot be read or rendered fails as our fault, at once and alone; a big one is sent; nobody else waits."""
    attachment = {"name": "a.bin", "content_type": "application/octet-stream", "content": "A" * 12_000_000}
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        await stack.start_api()
        unreadable, unknown, unrenderable = [await stack.accept(sample(f"poison-{n}")) for n in range(3)]
        big = await stack.accept(sample("big", attachments=[attachment]))
        others = [await stack.accept(sample(f"other-{n}")) for n in range(50)]
        await stack.ledger.set(payload_key(unreadable), b"\x01neither msgpack nor zlib")
        await damage(stack, unknown, version="0123456789ab")
        await damage(stack, unrenderable, variables={})
        await stack.start_worker()
        messages = await stack.until_all_finished([unreadable, unknown, unrenderable], 10)
        for message in messages.values():
            assert ("failed", "postroom", 1) == (
                message["state"],
                message["reason"]["fault"],
                len(message["attempts"]),
            )
        await assert_delivered(stack, receiver, [big, *others], 10)
        assert dict.fromkeys([big, *others], 1) == receiver.copies()


async def damage(stack: Stack, message_id: str, **changes: object) -> None:
    """Store a message's request with another use of its template, as no request could be."""
    key = payload_key(message_id)
    payload = decode_payload(await stack.ledger.get(key))
    template = msgspec.structs.replace(payload.template, **changes)
    await stack.ledger.set(key, encode_payload(msgspec.structs.replace(payload, template=template)))


async def test_case_25_credentials_revoked(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """The channel stops with `auth` and says what to do; mail waits and nothing fails; it flows when they hold again."""
    monkeypatch.setenv("TEST_SMTP_PASSWORD", "swordfish")
    async with Receiver({}, auth=("PLAIN",)) as receiver, Receiver() as logins:
        login = channel("orders", receiver.port, options=LOGIN)
        async with Stack(folder, logins.port, channels=login) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            ids = [await stack.accept(sample("before"))]
            await assert_delivered(stack, receiver, ids)
            receiver.script = {"AUTH": "535 5.7.8 no", "MAIL": "530 5.7.0 log in"}
            ids += [await stack.accept(sample(f"revoked-{number}")) for number in range(20)]

            async def all_wait() -> bool:
                reasons = [(m.get("reason") or {}) for m in (await stack.get_many(ids[1:])).values()]
                return {"channel_auth"} == {reason.get("code") for reason in reasons}

            await stack.until(all_wait, "all wait for the credentials")
            messages = await stack.get_many(ids[1:])
            assert {("queued", "agent", 0)} == {
                (m["state"], m["reason"]["fault"], len(m["attempts"])) for m in messages.values()
            }
            other = await stack.accept(sample("other", agent="logins"))
            await assert_delivered(stack, logins, [other], 5)
            receiver.script = {}
            messages = await assert_delivered(stack, receiver, ids, PATIENCE)
            assert {1} == {len(message["attempts"]) for message in messages.values()}
            assert dict.fromkeys(ids, 1) == receiver.copies()
