"""Two hundred agents on two workers."""

import asyncio
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_at_rest, assert_delivered, scaled
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
AGENTS = [f"team-{number}" for number in range(200)]
# As in production but for the linger, which would only make the test wait.
QUIET = 'linger = "500ms"'


async def test_two_hundred_agents_at_once(folder: Path):
    """All their mail arrives once, and a worker at rest asks Redis less than a hundred things a second."""
    async with Receiver() as receiver:
        crowd = {name: agent_toml(name, channel(name, receiver.port)) for name in AGENTS}
        async with Stack(folder, receiver.port, worker=QUIET, agents=crowd) as stack:
            await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
            each = scaled(1, 50)
            bodies = (sample(f"m-{n}", agent=name) for n in range(each) for name in AGENTS)
            accepted = await stack.accept_many(bodies, callers=50)
            messages = await assert_delivered(stack, receiver, accepted, SECONDS)
            assert {1} == {len(message["attempts"]) for message in messages.values()}
            assert each * len(AGENTS) == len(receiver.mails)
            await assert_at_rest(stack, receiver)
            unavailable = [line for name in ("one", "two") for line in stack.logs(name)]
            assert [] == [line for line in unavailable if line["event"] == "redis.unavailable"]
            assert 0 == await stack.end("api")
            # One of them leads the sweep.
            assert 0 == await stack.end("two")
            commands = await stack.commands(2.0)
            print(f"{len(commands) / 2:.0f} commands a second")  # noqa: T201
            assert len(commands) / 2 < 100
