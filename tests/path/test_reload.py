"""Configuration and secrets change while everything runs: no restart, no mail lost or failed."""

import asyncio
import hashlib
import itertools
from pathlib import Path

import pytest

from tests.faults.mail import SECONDS, Receiver, assert_delivered, meanwhile, until
from tests.stack import Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)

GOOD, NEW = "right horse", "new horse"
SCRIPT = {"AUTH": "535 5.7.8 no", f"AUTH:{GOOD}": "ok"}
PLAIN = 'tls = "none"\ninsecure = true\nusername = "shop"\npassword = { file = "password" }'
RELOAD_SECONDS = 5
TO = {"address": "grace@example.com"}


def rewrite(stack: Stack, old: str, new: str) -> None:
    """Change one thing in the configuration file."""
    text = stack.config.read_text()
    assert text.count(old) == 1, old
    stack.config.write_text(text.replace(old, new))


async def until_event(stack: Stack, process: str, event: str, **fields: object) -> None:
    """Wait until a process has logged an event with these fields."""

    async def logged() -> bool:
        return any(line["event"] == event and fields.items() <= line.items() for line in stack.logs(process))

    await stack.until(logged, f"{process} says {event}", RELOAD_SECONDS)


async def until_reason(stack: Stack, message_id: str, code: str, seconds: float) -> None:
    """Wait until a message waits for this reason."""

    async def waits() -> bool:
        found = await stack.get(message_id)
        return bool(found) and found["state"] == "queued" and found["reason"]["code"] == code

    await stack.until(waits, f"{message_id} waits for {code}", seconds)


async def test_a_wrong_password_stops_a_channel_until_it_is_mended(folder: Path):
    """In the middle of a run: mail waits with the reason, and flows by itself after the file is right again."""
    (folder / "password").write_text(GOOD)
    async with Receiver(dict(SCRIPT), auth=("PLAIN",)) as receiver:
        channels = channel("orders", receiver.port, options=PLAIN)
        async with Stack(folder, receiver.port, channels=channels) as stack:
            await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
            accepted: list[str] = []

            numbers = itertools.count()

            async def send() -> None:
                accepted.append(await stack.accept(sample(f"pw-{next(numbers)}")))

            async with meanwhile(send, 0.05):
                await receiver.until_mails(5)
                (folder / "password").write_text("wrong horse")
                for name in ("one", "two"):
                    await until_event(stack, name, "config.reloaded", generation=2, changed=["orders"])
                await send()
                await until_reason(stack, accepted[-1], "channel_auth", 10)
                # After its second try the channel is to stand still for 10 s more.
                await until(lambda: receiver.times.get("AUTH", 0) >= 2, "a second try", 10)
                assert {"queued", "sent"} >= {
                    m["state"] for m in (await stack.get_many(list(accepted))).values()
                }
                receiver.script[f"AUTH:{NEW}"] = "ok"
                (folder / "password").write_text(NEW)
                assert "sent" == (await stack.until_finished(accepted[-1], RELOAD_SECONDS))["state"]
            messages = await assert_delivered(stack, receiver, accepted)
            assert {1} == {len(message["attempts"]) for message in messages.values()}
            logs = str([stack.logs(name) for name in stack.processes])
            assert [] == [word for word in (GOOD, NEW, "wrong horse") if word in logs]


async def test_an_agent_that_is_gone_keeps_its_mail(folder: Path):
    """Its mail waits with the reason `agent_unknown`, and is delivered once the agent is back in the file.

    Meanwhile a repeated call is answered by its message, its ref is found, and no new one is taken.
    """
    async with Receiver() as receiver:
        slow = agent_toml("guests", channel("guests", receiver.port), options='rate = "2/s"\nburst = 1')
        async with Stack(folder, receiver.port, agents={"guests": slow}) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            ids = [await stack.accept(sample(f"g-{n}", agent="guests")) for n in range(8)]
            await receiver.until_mails(1)
            whole = stack.config.read_text()
            stack.config.write_text(whole.replace(slow, "").replace(', "guests"]', "]"))
            for name in ("api", "worker"):
                await until_event(stack, name, "config.reloaded", removed=["guests"])
            await until_reason(stack, ids[-1], "agent_unknown", RELOAD_SECONDS)
            status, answer, _ = await stack.post(sample("g-new", agent="guests"))
            assert (403, "agent_not_allowed") == (status, answer["code"])
            repeated = [await stack.post(sample("g-0", agent="guests", cc=cc)) for cc in ([], [TO])]
            assert [(200, ids[0]), (409, None)] == [(code, said.get("id")) for code, said, _ in repeated]
            for query in ("client_ref=g-0", "client_ref=g-0&agent=guests"):
                assert [ids[0]] == [message["id"] for message in await stack.find(query)]
            assert [] == await stack.find("client_ref=g-0&agent=orders")
            await stack.until_finished(await stack.accept(sample("others-go-on")))
            stack.config.write_text(whole)
            await assert_delivered(stack, receiver, ids)
            assert 9 == len(receiver.mails)


async def test_callers_and_tokens_hold_for_the_next_request(folder: Path):
    """A new caller's token opens, one that was taken out does not, a changed list of agents is obeyed."""
    async with Receiver() as receiver, Stack(folder, receiver.port) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        caller = "\n[callers.{name}]\nagents = [{agents}]\ntokens = [{{ id = 'n', sha256 = '{sha}' }}]\n"
        sha = hashlib.sha256(b"pr_test_new").hexdigest()
        text = stack.config.read_text()
        bearer = {"headers": {"Authorization": "Bearer pr_test_new"}}

        async def answers() -> int:
            async with stack.session.get(f"{stack.url}/v1/messages/none", **bearer) as response:
                return response.status

        assert 401 == await answers()
        stack.config.write_text(text + caller.format(name="new", agents="'orders'", sha=sha))
        await until_event(stack, "api", "config.reloaded", generation=2)
        assert 404 == await answers()
        stack.config.write_text(text)
        await until_event(stack, "api", "config.reloaded", generation=3)
        assert 401 == await answers()
        rewrite(stack, '"orders", "logins"', '"logins"')
        await until_event(stack, "api", "config.reloaded", generation=4)
        status, answer, _ = await stack.post(sample("no-more"))
        assert (403, "agent_not_allowed") == (status, answer["code"])
        await stack.until_finished(await stack.accept(sample("still", agent="logins")))
        assert [] == stack.mishaps()


async def test_a_broken_file_changes_nothing_and_says_so_once(own_stack: Stack):
    """Both processes go on by what they had, count the refusal, and name the place; both tell what they run by."""
    stack, text = own_stack, own_stack.config.read_text()
    ports = {"api": stack.metrics_port, "worker": stack.worker_metrics["worker"]}
    (started,) = [line for line in stack.logs("api") if line["event"] == "service.started"]
    stack.config.write_text(text.replace("[agents.orders]", "[agents.orders]\nratte = 1"))
    for name in ports:
        await until_event(stack, name, "config.invalid", pointers=["/agents/orders/ratte"])
    await stack.until_finished(await stack.accept(sample("goes-on")))
    for name, port in ports.items():
        metrics = await stack.metrics(port)
        assert (1, 1) == (metrics["postroom_config_generation"], metrics["postroom_config_invalid_total"])
        assert 1 == metrics[f'postroom_config_info{{hash="{started["config_hash"]}"}}']
        assert {1} == {line["generation"] for line in stack.logs(name) if "generation" in line}
    stack.config.write_text(text)
    for name, port in ports.items():
        await until_event(stack, name, "config.reloaded", generation=2, changed=[])
        assert 1 == len([line for line in stack.logs(name) if line["event"] == "config.invalid"])
        assert 2 == (await stack.metrics(port))["postroom_config_generation"]
    assert [] == stack.mishaps()


async def test_a_message_under_way_ends_as_it_began(folder: Path):
    """Its agent goes while the server thinks about it: it is sent once, and its outcome is written."""
    async with Receiver({"DOT": "slow 3"}) as receiver:
        guests = agent_toml(
            "guests", channel("guests", receiver.port), options='bounce_address = "back@shop.example"'
        )
        async with Stack(folder, receiver.port, agents={"guests": guests}) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            message_id = await stack.accept(sample("slow", agent="guests"))
            await receiver.until("DOT")
            text = stack.config.read_text()
            stack.config.write_text(text.replace(guests, "").replace(', "guests"]', "]"))
            for name in ("api", "worker"):
                await until_event(stack, name, "config.reloaded", removed=["guests"])
            assert not (await stack.get(message_id))["finished"]
            assert "sent" == (await stack.until_finished(message_id))["state"]
            assert ["back@shop.example"] == [mail.sender for mail in receiver.mails]
            assert [] == stack.mishaps()
