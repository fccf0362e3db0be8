"""Forty thousand wrong mails are called back by filter, and nobody else notices."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from tests.desk import OPERATOR, postroom
from tests.scale.town import SECONDS, only_long, percentile, put, say, sink, tally, town, waits
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = [pytest.mark.timeout(SECONDS), only_long]
WRONG = 40_000
LEAST_OTHERS, GAP = 60, 0.05


async def others(stack: Stack, run: str, done: asyncio.Event) -> list[float]:
    """Let another agent have a message every moment until it is done; return their waits."""
    ids: list[str] = []
    while not done.is_set() or len(ids) < LEAST_OTHERS:
        ids.append(await stack.accept(sample(f"{run}-{len(ids)}", agent="logins")))
        await asyncio.sleep(GAP)
    return await waits(stack, ids)


async def test_forty_thousand_wrong_mails_are_cancelled_in_ten_seconds(folder: Path):
    """In less than 10 s, as many as are printed, and another agent's p99 stays within 50 ms of what it is without."""
    async with sink() as port:
        crowd = {"wrong": agent_toml("wrong", channel("wrong", port))}
        async with town(folder, port, 0, agents=crowd, more=OPERATOR) as stack:
            await postroom(stack, "pause", "wrong", "--reason", "wrong price")
            await put(stack, "wrong", WRONG)
            await stack.start_worker("w0")
            done = asyncio.Event()
            done.set()
            alone = percentile(await others(stack, "alone", done), 0.99)
            done.clear()
            beside = asyncio.create_task(others(stack, "beside", done))
            await asyncio.sleep(0.5)
            started = time.monotonic()
            said = await postroom(stack, "cancel", "--agent", "wrong", "--reason", "wrong price", "--yes")
            took = time.monotonic() - started
            done.set()
            printed = int(re.findall(r"(\d+) message\(s\) cancelled", said)[0])
            unmoved = percentile(await beside, 0.99)
            cancelled = await tally(stack, "wrong", "cancelled")
            await postroom(stack, "ledger", "check")  # ends with 0 only where everything fits
    say(
        f"{cancelled} cancelled in {took:.1f} s; another agent's p99 {alone * 1000:.0f} ms alone, {unmoved * 1000:.0f} beside"
    )
    assert WRONG == cancelled == printed
    assert took < 10
    assert unmoved <= alone + 0.05
