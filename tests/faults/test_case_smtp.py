"""Cases 18 to 23: the SMTP side blackholed, cut, slow, of two minds and in a storm."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, ambiguous, assert_delivered, moment, until, waited
from tests.proxy import Proxy
from tests.stack import PATIENCE, QUICK, Stack, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
INTERACTIVE = 'retry_profile = "interactive"'  # 2.5 to 5 s until the second attempt
# The waits of one attempt, shortened; which wait it is that ends makes the outcome, not its length.
IMPATIENT = (
    *("--set", "workers.channels.smtp_session:DEFAULT_TIMEOUTS.data_block=1.5"),
    *("--set", "workers.channels.smtp_session:DEFAULT_TIMEOUTS.data_done=1.5"),
)
LONG_BODY = [{"name": "a.bin", "content_type": "application/octet-stream", "content": "A" * 8_000_000}]


@contextmanager
def blackhole() -> Iterator[int]:
    """A port on which the kernel drops every SYN, because nobody takes the connections that wait there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for one in waiting:
            one.close()


async def until_reason(stack: Stack, message_id: str, code: str, seconds: float = PATIENCE) -> dict:
    """Wait until a message waits for this reason."""
    found: dict = {}

    async def is_so() -> bool:
        nonlocal found
        found = await stack.get(message_id)
        return (found.get("reason") or {}).get("code") == code

    await stack.until(is_so, f"{message_id} waits for {code}", seconds)
    return found


async def fate_of(
    stack: Stack,
    receiver: Receiver,
    policy: str,
    spoil: Callable[[], None],
    mend: Callable[[], None] = lambda: None,
) -> tuple[str, int, int]:
    """Post a message, spoil its connection where the server has just taken it, and return how it ends."""

    def once() -> None:
        receiver.arrivals.then = lambda: None
        spoil()

    receiver.arrivals.then = once
    message_id = await stack.accept(sample(policy, on_ambiguous=policy))

    async def told() -> bool:
        return ambiguous(await stack.get(message_id)) == 1

    await stack.until(told, "the outcome is on record")
    mend()
    message = await stack.until_finished(message_id)
    return message["state"], receiver.copies()[message_id], ambiguous(message)


async def test_case_18_blackhole_at_connect(folder: Path):
    """Within 10 s a fault of the channel and no attempt; the other agent feels nothing; it flows once somebody answers."""
    hole = ExitStack()
    port = hole.enter_context(blackhole())
    channels = channel("orders", port)
    async with Receiver() as logins, Stack(folder, logins.port, channels=channels) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        stuck = await stack.accept(sample("stuck"))
        other = [await stack.accept(sample(f"other-{n}", agent="logins")) for n in range(50)]
        messages = await assert_delivered(stack, logins, other, 5)
        assert max(waited(message) for message in messages.values()) < 1.5
        message = await until_reason(stack, stuck, "channel_connect", 15)
        assert ("queued", [], "agent") == (message["state"], message["attempts"], message["reason"]["fault"])
        metrics = await stack.metrics(stack.worker_metrics["worker"])
        labels = '{agent="orders",cause="connect",channel="relay"}'
        assert metrics[f"postroom_channel_faults_total{labels}"] >= 1
        hole.close()
        async with Receiver(port=port) as orders:
            messages = await assert_delivered(stack, orders, [stuck])
            assert (1, 1) == (orders.copies()[stuck], len(messages[stuck]["attempts"]))


async def test_case_19_blackhole_in_mid_data(folder: Path):
    """Before the dot it is deferred, and sent once later; after it, it is ambiguous, by policy."""
    async with (
        Receiver() as receiver,
        Proxy(("127.0.0.1", receiver.port)) as proxy,
        Stack(folder, proxy.port, agent=INTERACTIVE) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker(launch=IMPATIENT))
        proxy.stall("up", after=500_000)
        early = await stack.accept(sample("early", attachments=LONG_BODY))
        message = await until_reason(stack, early, "retrying")
        assert [("deferred", "body")] == [(a["outcome"], a["phase"]) for a in message["attempts"]]
        assert 0 == len(receiver.mails)
        proxy.cut()
        proxy.resume()
        messages = await assert_delivered(stack, receiver, [early])
        assert ("sent", 1, 0) == (
            messages[early]["state"],
            receiver.copies()[early],
            ambiguous(messages[early]),
        )
        assert ("unconfirmed", 1, 1) == await fate_of(
            stack, receiver, "hold", lambda: proxy.stall("down"), proxy.resume
        )
        assert ("sent", 2, 1) == await fate_of(
            stack, receiver, "retry", lambda: proxy.stall("down"), proxy.resume
        )


async def test_case_20_reset_after_the_dot(folder: Path):
    """Ambiguous. `hold`: one copy, unconfirmed. `retry`: two copies."""
    async with (
        Receiver() as receiver,
        Proxy(("127.0.0.1", receiver.port)) as proxy,
        Stack(folder, proxy.port, agent=INTERACTIVE) as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker())
        assert ("unconfirmed", 1, 1) == await fate_of(stack, receiver, "hold", proxy.reset)
        assert ("sent", 2, 1) == await fate_of(stack, receiver, "retry", proxy.reset)


async def test_case_21_slow_server(folder: Path):
    """250 after three leases: sent once, with the lease renewed and an idle worker beside."""
    async with Receiver({"DOT": "slow 3.2"}) as receiver, Stack(folder, receiver.port, worker=QUICK) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        ids = [await stack.accept(sample(f"slow-{number}")) for number in range(2)]
        messages = await assert_delivered(stack, receiver, ids)
        assert dict.fromkeys(ids, 1) == receiver.copies()
        assert [(1, 0)] * 2 == [(len(m["attempts"]), ambiguous(m)) for m in messages.values()]
        for name in ("one", "two"):
            metrics = await stack.metrics(stack.worker_metrics[name])
            assert [] == [k for k, v in metrics.items() if k.startswith("postroom_lease_expired_total") and v]


async def test_case_22_mixed_answers_to_rcpt(folder: Path):
    """250, 450 and 550: sent, retried, failed, each for itself; the retry has only the one that was deferred."""
    script = {
        "RCPT:later@example.com": ["450 4.2.1 later", "ok"],
        "RCPT:nobody@example.com": "550 5.1.1 nobody",
    }
    to = [{"address": f"{name}@example.com"} for name in ("ada", "later", "nobody")]
    async with Receiver(script) as receiver, Stack(folder, receiver.port, agent=INTERACTIVE) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        message_id = await stack.accept(sample("mixed", to=to))
        message = await until_reason(stack, message_id, "retrying")
        assert ["sent", "queued", "failed"] == [recipient["state"] for recipient in message["recipients"]]
        later, nobody = (message["recipients"][index]["reason"] for index in (1, 2))
        assert (450, "4.2.1") == (later["reply_code"], later["enhanced_code"])
        assert ("refused", "recipient", 550, "5.1.1", None) == tuple(nobody.values())
        message = await stack.until_finished(message_id)
        assert ["sent", "sent", "failed"] == [recipient["state"] for recipient in message["recipients"]]
        assert ("partly_sent", ["deferred", "sent"]) == (
            message["state"],
            [attempt["outcome"] for attempt in message["attempts"]],
        )
        assert [["ada@example.com"], ["later@example.com"]] == receiver.recipients_of(message_id)


async def test_case_23_storm_of_421(folder: Path):
    """The channel stands still, probes are few, the queue's age shows; then it drains in order, over its connections only."""
    async with (
        Receiver({"CONNECT": "421 4.3.2 busy"}) as receiver,
        Stack(folder, receiver.port, agent="connections = 1") as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker())
        ids = [await stack.accept(sample(f"storm-{number:02}")) for number in range(40)]
        await until_reason(stack, ids[0], "channel_throttle")
        began = time.monotonic()
        await until(lambda: receiver.connections >= 3, "it is tried again", 20)
        assert time.monotonic() - began > 1.5, "the stops do not grow"
        metrics = await stack.shared_metrics()
        assert metrics['postroom_oldest_due_seconds{agent="orders",priority="normal"}'] >= 1
        messages = await stack.get_many(ids)
        assert {("queued", 0)} == {(m["state"], len(m["attempts"])) for m in messages.values()}
        receiver.script = {}
        messages = await assert_delivered(stack, receiver, ids)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        assert ids == receiver.order()
        assert 1 == receiver.peak


async def test_case_23_everything_is_deferred(folder: Path):
    """All 4xx: each message waits for itself, spread by jitter and growing; then all is sent once."""
    async with (
        Receiver({"RCPT": "451 4.3.0 later"}) as receiver,
        Stack(folder, receiver.port, agent=f"connections = 3\n{INTERACTIVE}") as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker())
        ids = [await stack.accept(sample(f"later-{number}")) for number in range(15)]

        async def all_deferred() -> bool:
            return all(m.get("attempts") for m in (await stack.get_many(ids)).values())

        await stack.until(all_deferred, "all were tried")
        messages = await stack.get_many(ids)
        waits = [
            moment(m["next_attempt_at"]) - moment(m["attempts"][0]["at"])
            for m in messages.values()
            if len(m["attempts"]) == 1 and (m["reason"] or {}).get("code") == "retrying"
        ]
        assert len(waits) >= 10
        assert 2.5 <= round(min(waits), 3) <= round(max(waits), 3) <= 5
        assert max(waits) - min(waits) > 0.5, "a herd"
        receiver.script = {}
        await assert_delivered(stack, receiver, ids)
        assert dict.fromkeys(ids, 1) == receiver.copies()
        assert receiver.peak <= 3
