"""Cases 12 and 13: SIGTERM, as a rollout sends it."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.faults.mail import BRISK, SECONDS, Receiver, ambiguous, assert_delivered
from tests.stack import Stack, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
LEASE = 'lease = "20s"\nlinger = "500ms"\nsweep = "200ms"\nround = "30s"'


async def test_case_12_sigterm_during_a_send(folder: Path):
    """At a slow server: exit 0, what it had claimed goes to another worker at once, one attempt and copy each."""
    quick, slow = 30, 60
    script = {"DOT": ["ok"] * quick + ["slow 0.7"] * 2 + ["ok"]}
    async with (
        Receiver(script) as receiver,
        Stack(folder, receiver.port, worker=LEASE, agent="connections = 2") as stack,
    ):
        await asyncio.gather(stack.start_api(), stack.start_worker("old"))
        accepted = await stack.accept_many((sample(f"t-{n}") for n in range(quick + slow)), callers=32)
        await receiver.until("DOT", quick + 1)
        await stack.start_worker("new")
        assert 0 == await stack.end("old")
        gone = time.time()
        messages = await assert_delivered(stack, receiver, accepted)
        assert quick + slow == len(receiver.mails)
        assert {1} == {len(message["attempts"]) for message in messages.values()}
        assert max(receiver.arrivals.times) - gone <= 3, "the rest waited for a lease"


async def test_case_13_sigterm_and_the_receiver_hangs_past_the_grace(folder: Path):
    """Exit 0 all the same. Before the mark: sent by another worker, no attempt burnt. After it: ambiguous, by policy."""
    patience = ("--set", "workers.worker:DRAIN_SECONDS=1")
    async with Receiver({"RCPT": "hang"}) as early, Receiver({"DOT": "accept hang"}) as late:
        channels = channel("orders", early.port)
        async with Stack(folder, late.port, worker=BRISK, channels=channels) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker("old", launch=patience))
            before = await stack.accept(sample("before"))
            after = {
                policy: await stack.accept(sample(policy, agent="logins", on_ambiguous=policy))
                for policy in ("retry", "hold")
            }
            await early.until("RCPT")
            await late.until("DOT", 2)
            assert 0 == await stack.end("old", 10)
            early.script = late.script = {}
            await stack.start_worker("new")
            messages = await stack.until_all_finished([before, *after.values()])
            assert ("sent", 1, 1) == (
                messages[before]["state"],
                early.copies()[before],
                len(messages[before]["attempts"]),
            )
            told = {
                p: (messages[i]["state"], late.copies()[i], ambiguous(messages[i])) for p, i in after.items()
            }
            assert {"retry": ("sent", 2, 1), "hold": ("unconfirmed", 1, 1)} == told
