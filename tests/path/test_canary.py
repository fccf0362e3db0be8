"""Canaries: one an interval whatever the number of processes, over the way all mail goes, and a dead man's handle."""

import asyncio
import itertools
import time
from pathlib import Path

from tests.faults.mail import Receiver, until
from tests.stack import Stack, free_port, sample

EVERY = 1.0
CANARY = '[agents.orders.canary]\nto = "canary@sink.example"\nevery = "1s"\npriority = "high"'
GOOD = 'postroom_canary_last_good_timestamp_seconds{agent="orders"}'


async def start_another_api(stack):
    """Start a second API, on ports of its own."""
    port = stack.worker_metrics["other"] = free_port()
    process = stack._start("other", "service", {"POSTROOM_PORT": str(free_port())}, port, ())
    await stack._until_up("other", process, lambda: stack._answers(f"http://127.0.0.1:{port}/readyz"))


async def test_one_an_interval_and_the_moment_of_the_last_good_one(folder: Path):
    """Of two APIs one sends them; the handle moves while the provider says yes, and stands still when it says no."""
    async with Receiver() as receiver, Stack(folder, receiver.port, agent=CANARY) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
        await start_another_api(stack)
        await receiver.until_mails(4)
        assert {1} == set(receiver.copies().values())
        assert [["canary@sink.example"]] * 4 == [mail.recipients for mail in receiver.mails[:4]]
        assert all(b"\r\nAuto-Submitted: auto-generated\r\n" in mail.data for mail in receiver.mails)
        gaps = [later - earlier for earlier, later in itertools.pairwise(receiver.arrivals.times)]
        assert sum(gaps) / len(gaps) > 0.6 * EVERY, gaps  # each in an interval of its own
        senders = {
            line["caller"]
            for name in ("api", "other")
            for line in stack.logs(name)
            if line["event"] == "message.accepted"
        }
        assert {"postroom.canary"} == senders

        async def is_good():
            return ((await stack.shared_metrics()).get(GOOD, 0)) > receiver.arrivals.times[0] - 1

        await stack.until(is_good, "the last good one is told")
        assert abs(time.time() - (await stack.shared_metrics())[GOOD]) < 10
        told = await stack.shared_metrics()
        assert 1.0 == told['postroom_canary_interval_seconds{agent="orders"}']
        sent, accept = (
            told[f'postroom_canary_duration_seconds{{agent="orders",stage="{stage}"}}']
            for stage in ("sent", "accept")
        )
        assert 0 < accept < sent < 5

        receiver.script["RCPT"] = "550 5.1.1 no such sink"

        def failed():
            return [
                line
                for name in ("api", "other")
                for line in stack.logs(name)
                if line["event"] == "canary.failed"
            ]

        await until(lambda: len(failed()) == 1, "the first of a row is told")
        stood = (await stack.shared_metrics())[GOOD]
        count = len(receiver.mails)
        await until(lambda: len(refused(stack)) >= 3, "more of them are refused")
        assert (stood, count, "failed") == (
            (await stack.shared_metrics())[GOOD],
            len(receiver.mails),
            failed()[-1]["how"],
        )
        assert 1 == len(failed())
        assert 0 == (await stack.shared_metrics())['postroom_messages_unaccounted{agent="orders"}']
        assert [] == stack.mishaps()


def refused(stack):
    """Return the canaries that failed, as the workers tell it."""
    lines = [line for name in ("one", "two") for line in stack.logs(name)]
    return [line for line in lines if line["event"] == "message.failed"]


async def test_without_the_section_there_is_none_and_with_it_only_operators_see_it(folder: Path):
    """A reload begins it; its messages are nobody's but Postroom's, and `postroom failed` asks for them by name."""
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        await stack.until_finished(await stack.accept(sample("m-1")))
        assert GOOD not in await stack.shared_metrics()
        stack.config.write_text(stack.config.read_text() + CANARY)
        await receiver.until_mails(2)
        canary = receiver.order()[1]
        assert [["canary@sink.example"]] == receiver.recipients_of(canary)
        assert {} == await stack.get(canary)
