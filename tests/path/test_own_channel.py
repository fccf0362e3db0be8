"""Messages that may go over one of their agent's channels only, while the others work."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, ambiguous
from tests.faults.strikes import QUICK_RETRIES
from tests.stack import QUICK, Stack, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)

BREAKER = '[breaker]\nfaults = 1\nshortest = "200ms"\nlongest = "1s"'
SOON = ("--set", f'workers.retry:PROFILES={{"standard": {QUICK_RETRIES}, "interactive": {QUICK_RETRIES}}}')
ZEPTO = 'tls = "none"\nprovider = "zeptomail"'


def a_file(ref: str):
    """A message with a file that only the second channel can name."""
    files = [{"name": "terms.pdf", "content_type": "application/pdf", "provider_key": "key-1"}]
    return sample(ref, attachments=files)


async def test_what_one_channel_may_have_taken_is_tried_over_no_other(folder: Path):
    """It waits for its own channel while other mail goes over the next one; a file of the provider's own goes where it can."""
    # The first takes a message, says nothing, and is gone.
    gone = {"CONNECT": ["ok", "drop"], "DOT": "accept drop"}
    async with Receiver(gone) as first, Receiver() as second:
        channels = (
            channel("orders", first.port, "first") + "\n" + channel("orders", second.port, "second", ZEPTO)
        )
        async with Stack(folder, second.port, worker=QUICK, channels=channels, more=BREAKER) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker(launch=SOON))
            doubtful = await stack.accept(sample("doubtful"))
            await first.until_mails(1)

            async def waits_for_its_own() -> bool:
                reason = (await stack.get(doubtful))["reason"] or {}
                return reason.get("code") == "own_channel" and "looked at again" in reason["text"]

            await stack.until(waits_for_its_own, "it waits for its own channel")
            others = [await stack.accept(sample(f"other-{n}")) for n in range(3)]
            messages = await stack.until_all_finished(others)
            assert {"second"} == {a["channel"] for m in messages.values() for a in m["attempts"]}

            first.script = {}
            message = await stack.until_finished(doubtful)
            tried = [(attempt["channel"], attempt["outcome"]) for attempt in message["attempts"]]
            assert [("first", "ambiguous"), ("first", "sent")] == tried
            assert (2, None) == (first.copies()[doubtful], second.copies().get(doubtful))

            named = await stack.until_finished(await stack.accept(a_file("named")))
            assert [("second", "sent")] == [(a["channel"], a["outcome"]) for a in named["attempts"]]
            assert b"X-TM-FILE-KEY: key-1" in second.mails[-1].data
            assert [] == stack.mishaps()


async def test_a_channel_that_left_the_file_holds_nothing(folder: Path):
    """Once the channel that may have taken a message is not configured any more, the message goes over another one."""
    gone = {"CONNECT": ["ok", "drop"], "DOT": "accept drop"}
    async with Receiver(gone) as first, Receiver() as second:
        old, new = channel("orders", first.port, "first"), channel("orders", second.port, "second")
        async with Stack(folder, second.port, worker=QUICK, channels=f"{old}\n{new}", more=BREAKER) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker(launch=SOON))
            doubtful = await stack.accept(sample("doubtful"))
            await first.until_mails(1)
            stack.config.write_text(stack.config.read_text().replace(old, ""))
            message = await stack.until_finished(doubtful)
            assert ["first", "second"] == [attempt["channel"] for attempt in message["attempts"]]
            assert 1 == ambiguous(message)
