"""`postroom top` and `postroom failed`, over real processes."""

import asyncio
import contextlib
import os
import pty
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver
from tests.path.test_operator import ADMIN, postroom, running
from tests.stack import ROOT, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)


async def fail_some(stack, receiver, count, agent="orders"):
    """Have so many messages refused for good; return their ids."""
    receiver.script = {"RCPT": "550 5.1.1 no such mailbox"}
    ids = [await stack.accept(sample(f"{agent}-bad-{n}", agent=agent)) for n in range(count)]
    await stack.until_all_finished(ids)
    receiver.script = {}
    return ids


async def test_failed_mail_is_listed_counted_and_sent_again(folder: Path):
    """What was sent is never sent again; a count does nothing; the second time nothing is left to do."""
    async with Receiver() as receiver:
        agents = {"other": agent_toml("other", channel("other", receiver.port))}
        async with running(folder, receiver.port, agents=agents) as stack:
            sent = await stack.accept(sample("good-1"))
            await stack.until_finished(sent)
            bad = await fail_some(stack, receiver, 3)
            others = await fail_some(stack, receiver, 1, "other")
            listed = await postroom(stack, "failed", "list", "--agent", "orders", "--since", "1h")
            assert set(bad) == set(re.findall(r"orders-\w{26}", listed))
            assert re.search(r"^ +3 +3  orders +failed +550 5\.1\.1 +order_shipped@", listed, re.MULTILINE), (
                listed
            )
            shown = await postroom(stack, "failed", "show", bad[0])
            assert "is failed" in shown
            assert "550 5.1.1" in shown
            counted = await postroom(stack, "failed", "replay", "--agent", "orders")
            assert "3 message(s) would be sent again, 10 a second" in counted
            fixed = re.search(r"--ended-before (\S+) --yes", counted)[1]
            assert 1 == len(receiver.mails)
            words = (
                "failed",
                "replay",
                "--agent",
                "orders",
                "--ended-before",
                fixed,
                "--rate",
                "100",
                "--yes",
            )
            assert "3 message(s) sent again." in await postroom(stack, *words, "--reason", "mended")
            await stack.until_all_finished(bad)
            assert 4 == len(receiver.mails)
            assert "Nothing to send again: 0 found" in await postroom(stack, *words)
            assert "sent" == (await stack.get(sent))["state"]
            assert "failed" == (await stack.get(others[0]))["state"]
            assert [3] == [len({a["message_id"] for a in stack.logs("api") if a.get("verb") == "retry"})]


async def test_a_replay_is_paced_broken_off_and_gone_on_with(folder: Path):
    """Ctrl-C says how far it came and how to go on; the bar shows on a terminal; nothing is sent twice."""
    async with Receiver() as receiver, running(folder, receiver.port) as stack:
        bad = await fail_some(stack, receiver, 18)  # 20 in a row would stop the channel
        environ = {
            **os.environ,
            "POSTROOM_ADMIN_URL": f"http://127.0.0.1:{stack.metrics_port}",
            "POSTROOM_ADMIN_TOKEN": ADMIN,
        }
        master, slave = pty.openpty()
        words = ("failed", "replay", "--agent", "orders", "--rate", "6", "--yes")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "postroom", *words, cwd=ROOT, env=environ, stdout=asyncio.subprocess.PIPE, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        await receiver.until_mails(5)
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
            stack, "failed", "replay", "--agent", "orders", "--ended-before", fixed, "--rate", "1000", "--yes"
        )
        assert f"{left} message(s) sent again." in rest
        await stack.until_all_finished(bad)
        assert 18 == len(receiver.mails)


async def test_what_expired_is_left_alone_unless_asked_for(folder: Path):
    """`--expired` adds it; a wrong option of the route is refused with its place."""
    async with Receiver({"CONNECT": "421 4.3.2 busy"}) as receiver, running(folder, receiver.port) as stack:
        late = await stack.accept(sample("late", deliver_within=1))
        await stack.until_finished(late)
        receiver.script = {}
        assert "Nothing has failed" in await postroom(stack, "failed", "list")
        assert late in await postroom(stack, "failed", "list", "--expired")
        assert "Nothing to send again" in await postroom(stack, "failed", "replay", "--yes")
        assert "1 message(s) sent again." in await postroom(stack, "failed", "replay", "--expired", "--yes")
        assert "sent" == (await stack.until_finished(late))["state"]
        assert "/since" in await postroom(stack, "failed", "list", "--since", "yesterday", status=1)


async def test_top_shows_the_agent_in_trouble_first(folder: Path):
    """Rates, depth, age, connections, breaker and what to do; on a pipe it prints once a turn and ends cleanly."""
    async with Receiver() as receiver, Receiver({"CONNECT": "421 4.3.2 busy"}) as busy:
        agents = {"other": agent_toml("other", channel("other", busy.port))}
        async with running(folder, receiver.port, agents=agents) as stack:
            waiting = await stack.accept(sample("w-1", agent="other"))
            await fail_some(stack, receiver, 1)

            async def stopped():
                return (await stack.get(waiting))["reason"]["code"] == "channel_throttle"

            await stack.until(stopped, "the other agent's channel stands still")
            asked = asyncio.create_task(postroom(stack, "top", "--once"))
            while not asked.done():
                await stack.accept(
                    sample(f"m-{asked.get_name()}-{len(receiver.mails)}-{os.urandom(3).hex()}")
                )
            lines = (await asked).splitlines()
            assert re.match(r"\d\d:\d\d:\d\d  3 agents, 1 not working; ", lines[0])
            assert lines[2].startswith("other ")
            assert "relay: throttle" in lines[2]
            row = next(line for line in lines if line.startswith("orders "))
            came, went, connections = float(row.split()[2]), float(row.split()[3]), int(row.split()[7])
            assert re.search(r"  relay: refused 550 5\.1\.1 at rcpt, \d+\.\ds ago$", row), row
            assert came > 1
            assert went > 1
            assert connections >= 1
