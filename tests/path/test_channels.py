"""What an agent's configuration and a message ask of a channel, on the wire; and channels one after the other."""

import asyncio
import email
from pathlib import Path

import pytest

from tests.fakezepto import TOKEN as ZEPTO_TOKEN
from tests.fakezepto import FakeZepto
from tests.faults.mail import SECONDS, Receiver, assert_delivered, until
from tests.stack import QUICK, Stack, agent_toml, channel, sample

pytestmark = pytest.mark.timeout(SECONDS)
ZEPTO = """\
[[agents.{agent}.channels]]
name = "api"
kind = "zeptomail"
token = {{ file = "zepto-token" }}
base_url = "{url}"
"""
TRACKED = 'bounce_address = "b@bounce.shop.example"\ntrack_opens = true'
BREAKER = '[breaker]\nshortest = "100ms"\nlongest = "500ms"'


def html(ref: str, agent: str, **more):
    content = {"subject": "Hello", "html": "<p>Hello</p>", "text": "Hello"}
    return sample(ref, agent=agent, template=None, content=content, **more)


async def test_tracking_bounce_address_and_reference_reach_the_provider(folder: Path):
    """The agent's options, a message's own before them, and our id: over the API and over SMTP alike."""
    (folder / "zepto-token").write_text(f"Zoho-enczapikey {ZEPTO_TOKEN}\n")
    async with FakeZepto() as fake, Receiver() as receiver:
        smtp = channel("smtp", receiver.port, options='tls = "none"\nprovider = "zeptomail"')
        agents = {
            "api": agent_toml("api", ZEPTO.format(agent="api", url=fake.url), options=TRACKED),
            "smtp": agent_toml("smtp", smtp, options=TRACKED),
            "bare": agent_toml("bare", ZEPTO.format(agent="bare", url=fake.url)),
        }
        async with Stack(folder, receiver.port, agents=agents) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            ids = {}
            for agent in agents:
                ids[agent] = await stack.accept(html(f"{agent}-1", agent))
                await stack.until_all_finished([ids[agent]])
            own = {"track_opens": False, "track_clicks": True}
            for agent in agents:
                ids[f"{agent}-own"] = await stack.accept(html(f"{agent}-2", agent, **own))
                await stack.until_all_finished([ids[f"{agent}-own"]])

            said = {one.body["client_reference"]: one.body for one in fake.accepted}
            shown = ("track_opens", "track_clicks", "bounce_address")
            assert {
                ids["api"]: [True, False, "b@bounce.shop.example"],
                ids["api-own"]: [False, True, "b@bounce.shop.example"],
                ids["bare"]: [False, False, None],
                ids["bare-own"]: [False, True, None],
            } == {ref: [body.get(name) for name in shown] for ref, body in said.items()}
            headers = {
                mail["X-TM-CLIENT-REF"]: mail
                for mail in (email.message_from_bytes(m.data) for m in receiver.mails)
            }
            names = ("X-TM-OPEN-TRACK", "X-TM-CLICK-TRACK")
            assert {ids["smtp"]: ["true", "false"], ids["smtp-own"]: ["false", "true"]} == {
                ref: [mail[name] for name in names] for ref, mail in headers.items()
            }
            assert {"b@bounce.shop.example"} == {mail.sender for mail in receiver.mails}
            ends = [line for line in stack.logs("worker") if line["event"] == "message.sent"]
            assert {"api-1", "api-2", "smtp-1", "smtp-2", "bare-1", "bare-2"} == {
                e["client_ref"] for e in ends
            }


async def test_the_next_channel_is_never_silent(folder: Path):
    """While the first channel's token is refused mail goes over the second, told in log, metric and journal; then back."""
    (folder / "zepto-token").write_text("wrong\n")
    async with FakeZepto() as fake, Receiver() as receiver:
        channels = "\n".join([ZEPTO.format(agent="orders", url=fake.url), channel("orders", receiver.port)])
        async with Stack(folder, receiver.port, worker=QUICK, channels=channels, more=BREAKER) as stack:
            await asyncio.gather(stack.start_api(), stack.start_worker())
            first = await stack.accept(sample("one"))
            messages = await assert_delivered(stack, receiver, [first])
            assert ["relay"] == [attempt["channel"] for attempt in messages[first]["attempts"]]

            def told(event: str) -> list[tuple[object, object]]:
                found = [line for line in stack.logs("worker") if line["event"] == event]
                return [(line["instead_of"], line["channel"]) for line in found]

            assert [("api", "relay")] == told("channel.switched")
            metrics = await stack.metrics(stack.worker_metrics["worker"])
            switches = 'postroom_channel_switches_total{agent="orders",channel="relay",instead_of="api"}'
            assert (1, 0) == (
                metrics[switches],
                metrics['postroom_channel_up{agent="orders",channel="api"}'],
            )
            journal = b"".join(v for _, e in await stack.ledger.xrange("pr:changes") for v in e.values())
            assert b"channel.switched" in journal

            fake._token = "wrong"  # the provider takes it now
            count = 0

            async def is_back() -> bool:
                nonlocal count
                count += 1
                await stack.accept(sample(f"back-{count}"))
                return len(fake.accepted) > 0

            await stack.until(is_back, "the first channel has mail again")
            await until(
                lambda: told("channel.returned")[:1] == [("relay", "api")],
                f"that is told, not {told('channel.returned')}",
            )
