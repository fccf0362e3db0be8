"""Background work begins anew after a defect, and ends when it is told to."""

import asyncio

import pytest
from structlog.testing import capture_logs

from postroom import supervise
from postroom.log import get_logger


async def test_a_defect_is_told_and_the_work_begins_anew(monkeypatch):
    """The second time it gets through, and the first is in the log by its class."""
    monkeypatch.setattr(supervise, "PAUSE_SECONDS", 0)
    times = []

    async def work():
        times.append(1)
        if len(times) == 1:
            raise ValueError

    with capture_logs() as lines:
        await supervise.supervise("work", work, get_logger())
    assert 2 == len(times)
    assert [("task.crashed", "work")] == [(line["event"], line["task"]) for line in lines]


async def test_a_cancelled_task_is_not_begun_anew():
    """The end of the process ends it."""
    task = asyncio.create_task(supervise.supervise("work", asyncio.Event().wait, get_logger()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
