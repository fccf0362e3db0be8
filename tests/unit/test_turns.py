"""Turns of lanes: an agent with many does not hold up one with a few."""

import asyncio

from workers.turns import Turns


async def take(turns: Turns, agent: str, order: list[str]) -> None:
    await turns.take(agent)
    order.append(agent)


async def test_a_turn_that_nobody_else_wants_is_there_at_once():
    """It costs no pass of the event loop."""
    turns = Turns()
    waiting = turns.take("quiet")
    try:
        waiting.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


async def test_an_agent_that_comes_late_is_next_but_one():
    """Twenty lanes of a busy agent are in line; the quiet agent's one is let through after one of them."""
    turns, order = Turns(), []
    busy = [asyncio.create_task(take(turns, "busy", order)) for _ in range(20)]
    await asyncio.sleep(0)
    quiet = asyncio.create_task(take(turns, "quiet", order))
    await asyncio.gather(*busy, quiet)
    assert order.count("busy") == 20
    assert order.index("quiet") <= 3


async def test_few_begin_in_one_pass():
    """What becomes ready meanwhile is looked at between two attempts."""
    turns, order, seen = Turns(), [], []
    tasks = [asyncio.create_task(take(turns, "busy", order)) for _ in range(5)]
    while len(order) < 5:
        await asyncio.sleep(0)
        seen.append(len(order))
    await asyncio.gather(*tasks)
    assert max(after - before for before, after in zip([0, *seen], seen, strict=False)) == 1


async def test_a_cancelled_lane_takes_nobody_s_turn():
    """The others go on."""
    turns, order = Turns(), []
    tasks = [asyncio.create_task(take(turns, name, order)) for name in ("a", "b", "c", "d")]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a", "c", "d"]
