"""Patience ends what takes too long, and nothing else."""

import asyncio

import pytest

from postroom.patience import Patience

SHORT, LONG = 0.01, 30.0


async def test_what_is_in_time_is_returned():
    """And no timer is left that could end the task later."""
    with Patience(LONG) as patience:
        value = await asyncio.sleep(0, "done")
    assert value == "done"
    assert patience._timer.cancelled()


async def test_what_takes_longer_is_ended():
    """The task goes on behind it, and has not been cancelled."""
    with pytest.raises(TimeoutError), Patience(SHORT):
        await asyncio.sleep(LONG)
    assert 0 == asyncio.current_task().cancelling()
    await asyncio.sleep(0)


async def test_other_errors_go_through():
    """Also where they come with the end of patience."""

    async def turn_into_another():
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            raise ZeroDivisionError from None

    with pytest.raises(ZeroDivisionError), Patience(SHORT):
        await turn_into_another()
    assert 0 == asyncio.current_task().cancelling()


async def test_a_cancellation_by_somebody_else_is_none_of_it():
    """Nor is one that comes in the moment in which patience ends as well."""

    async def wait(patience):
        with patience:
            await asyncio.sleep(LONG)

    for ends_too in (False, True):
        patience = Patience(LONG)
        task = asyncio.create_task(wait(patience))
        await asyncio.sleep(0)
        task.cancel()
        if ends_too:
            patience._end()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_one_within_another():
    """The inner one ends by itself; the outer one goes on."""
    with Patience(LONG):
        with pytest.raises(TimeoutError), Patience(SHORT):
            await asyncio.sleep(LONG)
        assert "done" == await asyncio.sleep(0, "done")
