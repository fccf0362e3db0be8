"""What running processes export: names, one teller of what is the same for all, liveness without Redis."""

import asyncio
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.faults.mail import Receiver
from tests.stack import ROOT, Stack, sample

pytestmark = pytest.mark.asyncio(loop_scope="session")
SHARED = (
    "postroom_queue_messages",
    "postroom_oldest_due_seconds",
    "postroom_messages_unaccounted",
    "postroom_agent_info",
)


async def families(stack, port):
    """Return the names of the series of a process."""
    return {name.partition("{")[0] for name in await stack.metrics(port)}


async def test_of_three_processes_one_tells_of_the_queues(folder: Path):
    """Queue gauges stand in one scrape only; the end of that process passes them on, and Redis's death changes no liveness."""
    async with Receiver({"CONNECT": "421 4.3.2 busy"}) as receiver, Stack(folder, receiver.port) as stack:
        await stack.start_api()
        await stack.start_workers("one", "two")
        waiting = [await stack.accept(sample(f"m-{n}")) for n in range(3)]
        assert 3 == len(waiting)
        ports = {"api": stack.metrics_port, **stack.worker_metrics}

        async def tellers():
            found = {name: await families(stack, ports[name]) for name in stack.processes}
            return [name for name, names in found.items() if names & set(SHARED)]

        assert ["api"] == await tellers()
        scraped = await stack.metrics(stack.metrics_port)
        assert 3 == scraped['postroom_queue_messages{agent="orders",priority="normal"}']
        assert 1 == scraped['postroom_agent_info{agent="orders",owner="team-shop",retry_profile="standard"}']
        assert 0 == scraped['postroom_messages_unaccounted{agent="orders"}']

        async def stopped():
            told = await stack.metrics(stack.metrics_port)
            return 1 == told.get('postroom_channel_stopped{agent="orders",cause="throttle",channel="relay"}')

        await stack.until(stopped, "the channel that stands still is told")
        assert 0 == await stack.end("api")
        ports.pop("api")
        assert 1 == len(await tellers())
        stack.redis.pause()
        try:
            await asyncio.sleep(1)
            for port in ports.values():
                async with stack.session.get(f"http://127.0.0.1:{port}/livez") as response:
                    assert 200 == response.status
        finally:
            stack.redis.resume()


async def test_round_trips_and_their_sizes_are_measured(stack: Stack):
    """Group commit shows: calls per round trip, and the time of one, for accepts and for the workers' work."""
    ports = (stack.metrics_port, *stack.worker_metrics.values())
    before = [await stack.metrics(port) for port in ports]
    ids = await asyncio.gather(*(stack.accept(sample(f"trip-{n}")) for n in range(40)))
    await stack.until_all_finished(ids)
    api, worker = [await stack.metrics(port) for port in ports]
    rise = [
        {name: value - was.get(name, 0) for name, value in now.items()}
        for now, was in zip((api, worker), before, strict=True)
    ]
    assert 40 == rise[0]['postroom_redis_batch_calls_sum{op="accept"}']
    assert 1 <= rise[0]['postroom_redis_batch_calls_count{op="accept"}'] <= 40
    assert (
        rise[0]['postroom_redis_op_duration_seconds_count{op="accept"}']
        == rise[0]['postroom_redis_batch_calls_count{op="accept"}']
    )
    assert rise[1]['postroom_redis_batch_calls_sum{op="work"}'] >= 80
    assert {1.0} == {api["postroom_redis_up"], worker["postroom_redis_up"]}
    assert 200 == worker["postroom_lanes_limit"]


async def test_promtool_has_nothing_to_say(stack: Stack):
    """`promtool check metrics` is content with both processes."""
    own = ROOT / ".venv" / "judges" / "promtool"
    promtool = str(own) if own.exists() else shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool IS NOT HERE: `make chart` fetches it")
    await stack.until_finished(await stack.accept(sample("promtool-1")))
    for port in (stack.metrics_port, *stack.worker_metrics.values()):
        async with stack.session.get(f"http://127.0.0.1:{port}/metrics") as response:
            text = await response.text()
        command = [promtool, "check", "metrics"]
        options = {"input": text, "capture_output": True, "text": True, "check": False}
        done = await asyncio.to_thread(subprocess.run, command, **options)
        assert (0, "") == (done.returncode, done.stdout + done.stderr)
