"""The operator's hand on mail that moves: pauses, preferences, acts by filter, storms, superseded codes."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_delivered
from tests.stack import QUICK, ROOT, Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
ADMIN = "pr_test_admin"
OPERATOR = f"""\
[callers.operator]
tokens = [{{ id = "t9", sha256 = "{hashlib.sha256(ADMIN.encode()).hexdigest()}", scopes = ["admin"] }}]
"""


@asynccontextmanager
async def running(folder: Path, port: int, *names: str, **options: object) -> AsyncIterator[Stack]:
    more = OPERATOR + str(options.pop("more", ""))
    async with Stack(folder, port, **{"worker": QUICK, "more": more} | options) as stack:
        await asyncio.gather(stack.start_api(), stack.start_workers(*(names or ("w1", "w2"))))
        yield stack


async def postroom(stack: Stack, *words: str, status: int = 0) -> str:
    """Run the command line as an operator at his desk; return what it printed."""
    environ = {
        **os.environ,
        "POSTROOM_CONFIG": str(stack.config),
        "POSTROOM_REDIS_URL": stack.redis.url,
        "POSTROOM_ADMIN_URL": f"http://127.0.0.1:{stack.metrics_port}",
        "POSTROOM_ADMIN_TOKEN": ADMIN,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "postroom", *words, cwd=ROOT, env=environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed = (await process.communicate())[0].decode()
    assert status == process.returncode, printed
    return printed


async def test_a_pause_stops_lanes_at_once_and_resume_lets_them_go_on(folder: Path):
    """In the midst of a load: at most the messages in hand still go; callers see why; nothing is lost or burnt."""
    async with (
        Receiver({"DOT": "slow 0.2"}) as receiver,
        running(folder, receiver.port, agent="connections = 2") as stack,
    ):
        accepted = await stack.accept_many(sample(f"p-{n}") for n in range(400))
        await receiver.until_mails(20)
        await postroom(stack, "pause", "orders", "--reason", "provider incident", "--for", "1h")

        async def quiet() -> bool:
            before = len(receiver.mails)
            await asyncio.sleep(0.3)
            return before == len(receiver.mails) and receiver.open == 0

        await stack.until(quiet, "nothing moves", 5)
        waiting = [i for i, m in (await stack.get_many(accepted)).items() if not m["finished"]]
        assert len(waiting) > 100, "the load was over too soon"
        message = await stack.get(waiting[-1])
        assert ("queued", "paused", []) == (message["state"], message["reason"]["code"], message["attempts"])
        assert "provider incident" in message["reason"]["text"]
        assert "team-shop" == message["reason"]["owner"]
        assert "paused" in await postroom(stack, "agents")
        receiver.script = {}
        await postroom(stack, "resume", "orders")
        messages = await assert_delivered(stack, receiver, accepted)
        assert {1} == {len(m["attempts"]) for m in messages.values()}
        changes = await postroom(stack, "changes", "--since", "1h")
        for kind in ("process.started", "template.published", "agent.paused", "agent.resumed"):
            assert kind in changes
        acted = [line for line in stack.logs("api") if line["event"] == "operator.acted"]
        assert [("pause", "provider incident"), ("resume", None)] == [(a["verb"], a["reason"]) for a in acted]
        assert {("operator", "t9")} == {(a["caller"], a["token_id"]) for a in acted}


async def test_a_preferred_channel_takes_over_within_moments(folder: Path):
    """The second channel is used while it is preferred, by all workers, without a restart."""
    async with Receiver() as first, Receiver() as second:
        two = agent_toml("two", channel("two", first.port, "first"), channel("two", second.port, "second"))
        async with running(folder, first.port, agents={"two": two}) as stack:
            await stack.until_finished(await stack.accept(sample("one", agent="two")))
            await postroom(stack, "agents", "prefer", "two", "--channel", "second", "--for", "2h")
            ids = [await stack.accept(sample(f"t-{n}", agent="two")) for n in range(10)]
            messages = await stack.until_all_finished(ids)
            assert {"second"} == {m["attempts"][0]["channel"] for m in messages.values()}
            await postroom(stack, "agents", "prefer", "two", "--clear")
            message = await stack.until_finished(await stack.accept(sample("back", agent="two")))
            assert "first" == message["attempts"][0]["channel"]


async def test_of_three_codes_behind_a_pause_only_the_last_arrives(folder: Path):
    """Older messages with the same collapse_key and recipient end as cancelled, superseded."""
    async with Receiver() as receiver, running(folder, receiver.port, "w1") as stack:
        await postroom(stack, "pause", "logins", "--reason", "maintenance")
        codes = [sample(f"code-{n}", agent="logins", collapse_key="login") for n in range(3)]
        ids = [await stack.accept(code) for code in codes]
        await postroom(stack, "resume", "logins")
        messages = await stack.until_all_finished(ids)
        assert ["cancelled", "cancelled", "sent"] == [messages[i]["state"] for i in ids]
        assert ["superseded"] * 2 == [messages[i]["reason"]["code"] for i in ids[:2]]
        assert [0, 0, 1] == [receiver.copies()[i] for i in ids]


async def test_a_storm_waits_until_somebody_lets_it_go(folder: Path):
    """Beyond two of one template to one recipient mail waits; released by filter, all of it goes."""
    brake = 'storm = { limit = 2, window = "1h" }'
    async with Receiver() as receiver, running(folder, receiver.port, "w1", agent=brake) as stack:
        ids = [await stack.accept(sample(f"s-{n}")) for n in range(5)]
        await stack.until_all_finished(ids[:2])
        held = [await stack.get(i) for i in ids[2:]]
        assert ["storm"] * 3 == [message["reason"]["code"] for message in held]
        braked = [line for line in stack.logs("api") if line["event"] == "storm.braked"]
        assert 1 == len(braked)
        assert "3 message(s) released" in await postroom(stack, "release", "--agent", "orders", "--yes")
        await assert_delivered(stack, receiver, ids)


async def test_wrong_mail_is_cancelled_by_filter_while_the_rest_goes_on(folder: Path):
    """What is printed is what was cancelled; another agent's mail goes on, and the ledger's balance is drawn."""
    async with (
        Receiver({"DOT": "slow 0.2"}) as receiver,
        running(folder, receiver.port, agent="connections = 1") as stack,
    ):
        wrong = await stack.accept_many(sample(f"w-{n}") for n in range(300))
        assert "would be cancelled" in await postroom(stack, "cancel", "--agent", "orders")
        done = asyncio.create_task(
            postroom(stack, "cancel", "--template", "order_shipped", "--agent", "orders", "--yes")
        )
        other = [await stack.accept(sample(f"o-{n}", agent="logins")) for n in range(5)]
        printed = int((await done).split()[0])
        messages = await stack.until_all_finished(wrong)
        states = [message["state"] for message in messages.values()]
        assert printed == states.count("cancelled") > 200
        assert {"cancelled", "sent"} >= set(states)
        await stack.until_all_finished(other)
        assert "Everything that was accepted is accounted for" in await postroom(stack, "ledger", "check")


async def test_a_message_in_doubt_is_settled_by_a_person(folder: Path):
    """`resolve --sent` ends it as sent; `--retry` sends it again, once, and the account holds."""
    script = {"DOT": ["accept drop", "drop", "ok"]}
    agent = 'on_ambiguous = "hold"'
    async with Receiver(script) as receiver, running(folder, receiver.port, "w1", agent=agent) as stack:
        ids = []
        for number in range(2):
            ids.append(await stack.accept(sample(f"d-{number}")))
            assert "unconfirmed" == (await stack.until_finished(ids[-1]))["state"]
        await postroom(stack, "resolve", ids[0], "--sent")
        await postroom(stack, "resolve", ids[1], "--retry")
        messages = await stack.until_all_finished(ids)
        assert ["sent", "sent"] == [messages[i]["state"] for i in ids]
        assert [1, 1] == [receiver.copies()[i] for i in ids]
        await postroom(stack, "resolve", ids[0], "--sent", status=1)
        assert "0 misfits" in await postroom(stack, "ledger", "check")
