"""`postroom top` and `postroom failed`, over real processes."""

import asyncio
import contextlib
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.desk import ADMIN, OPERATOR, postroom
from tests.faults.mail import SECONDS
from tests.stack import ROOT
from tests.street import House, Street, open_street

pytestmark = [pytest.mark.timeout(SECONDS), pytest.mark.asyncio(loop_scope="module")]
HOUSES = ["lost", "other", "paced", "late", "busy", "flowing"]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def street() -> AsyncIterator[Street]:
    async with open_street(dict.fromkeys(HOUSES, ""), more=OPERATOR) as opened:
        yield opened


async def fail_some(house: House, count: int) -> list[str]:
    """Have so many messages refused for good; return their ids."""
    house.receiver.script = {"RCPT": "550 5.1.1 no such mailbox"}
    ids = [await house.accept(f"bad-{n}") for n in range(count)]
    await house.stack.until_all_finished(ids)
    house.receiver.script = {}
    return ids


async def test_failed_mail_is_listed_counted_and_sent_again(street: Street):
    """What was sent is never sent again; a count does nothing; the second time nothing is left to do."""
    house, other, stack = street.house("lost"), street.house("other"), street.stack
    receiver = house.receiver
    sent = await house.accept("good-1")
    await stack.until_finished(sent)
    bad = await fail_some(house, 3)
    others = await fail_some(other, 1)
    listed = await postroom(stack, "failed", "list", "--agent", "lost", "--since", "1h")
    assert set(bad) == set(re.findall(r"lost-\w{26}", listed))
    row = r"^ +3 +3  lost +failed +550 5\.1\.1 +order_shipped@"
    assert re.search(row, listed, re.MULTILINE), listed
    shown = await postroom(stack, "failed", "show", bad[0])
    assert "is failed" in shown
    assert "550 5.1.1" in shown
    counted = await postroom(stack, "failed", "replay", "--agent", "lost")
    assert "3 message(s) would be sent again, 10 a second" in counted
    fixed = re.search(r"--ended-before (\S+) --yes", counted)[1]
    assert 1 == len(receiver.mails)
    words = ("failed", "replay", "--agent", "lost", "--ended-before", fixed, "--rate", "100", "--yes")
    assert "3 message(s) sent again." in await postroom(stack, *words, "--reason", "mended")
    await stack.until_all_finished(bad)
    assert 4 == len(receiver.mails)
    assert "Nothing to send again: 0 found" in await postroom(stack, *words)
    assert "sent" == (await stack.get(sent))["state"]
    assert "failed" == (await stack.get(others[0]))["state"]
    assert set(bad) == {a["message_id"] for a in stack.logs("api") if a.get("verb") == "retry"}


async def test_a_replay_is_paced_broken_off_and_gone_on_with(street: Street):
    """Ctrl-C says how far it came and how to go on; the bar shows on a terminal; nothing is sent twice."""
    house, stack = street.house("paced"), street.stack
    bad = await fail_some(house, 18)  # 20 in a row would stop the channel
    environ = {
        **os.environ,
        "POSTROOM_ADMIN_URL": f"http://127.0.0.1:{stack.metrics_port}",
        "POSTROOM_ADMIN_TOKEN": ADMIN,
    }
    master, slave = pty.openpty()
    words = ("failed", "replay", "--agent", "paced", "--rate", "1", "--yes")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "postroom", *words, cwd=ROOT, env=environ, stdout=asyncio.subprocess.PIPE, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    await house.receiver.until_mails(5)
    process.send_signal(signal.SIGINT)
    printed = (await process.communicate())[0].decode()
    bar = b""
    with contextlib.suppress(OSError):  # a terminal whose other end is closed
        while part := os.read(master, 65536):
            bar += part
    os.close(master)
    assert 130 == process.returncode
    done, left = map(int, re.search(r"Broken off: (\d+) sent again, (\d+) are left", printed).groups())
    assert 18 == done + left
    assert 5 <= done < 16
    assert f"{done}/18".encode() in bar
    fixed = re.search(r"--ended-before (\S+) --yes", printed)[1]
    rest = await postroom(
        stack, "failed", "replay", "--agent", "paced", "--ended-before", fixed, "--rate", "1000", "--yes"
    )
    assert f"{left} message(s) sent again." in rest
    await stack.until_all_finished(bad)
    assert 18 == len(house.receiver.mails)


async def test_what_expired_is_left_alone_unless_asked_for(street: Street):
    """`--expired` adds it; a wrong option of the route is refused with its place."""
    house, stack = street.house("late", {"CONNECT": "421 4.3.2 busy"}), street.stack
    late = await house.accept("late", deliver_within=1)
    await stack.until_finished(late)
    house.receiver.script = {}
    of_late = ("--agent", "late")
    assert "Nothing has failed" in await postroom(stack, "failed", "list", *of_late)
    assert late in await postroom(stack, "failed", "list", "--expired", *of_late)
    assert "Nothing to send again" in await postroom(stack, "failed", "replay", "--yes", *of_late)
    replay = ("failed", "replay", "--expired", "--yes", *of_late)
    assert "1 message(s) sent again." in await postroom(stack, *replay)
    assert "sent" == (await stack.until_finished(late))["state"]
    assert "/since" in await postroom(stack, "failed", "list", "--since", "yesterday", status=1)


async def test_top_shows_the_agent_in_trouble_first(street: Street):
    """Rates, depth, age, connections, breaker and what to do; on a pipe it prints once a turn and ends cleanly."""
    busy, flowing = street.house("busy", {"CONNECT": "421 4.3.2 busy"}), street.house("flowing")
    waiting = await busy.accept("w-1")
    await fail_some(flowing, 1)
    await busy.until_reason(waiting, "channel_throttle")
    asked = asyncio.create_task(postroom(street.stack, "top", "--once"))
    while not asked.done():
        await flowing.accept(f"m-{os.urandom(5).hex()}")
    lines = (await asked).splitlines()
    assert re.match(rf"\d\d:\d\d:\d\d  {2 + len(HOUSES)} agents, 1 not working; ", lines[0])
    assert lines[2].startswith("busy ")
    assert "relay: throttle" in lines[2]
    row = next(line for line in lines if line.startswith("flowing "))
    assert re.search(r"  relay: refused 550 5\.1\.1 at rcpt, \d+\.\ds ago$", row), row
    came, went, connections = float(row.split()[2]), float(row.split()[3]), int(row.split()[7])
    assert came > 1
    assert went > 1
    assert connections >= 1
