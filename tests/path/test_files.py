"""A file of the cache from its upload to the mails that carry it, over both kinds of channel."""

import asyncio
import email.policy
from email.parser import BytesParser
from pathlib import Path

import pytest

from postroom.ledger.keys import file_key
from tests.fakezepto import TOKEN as ZEPTO_TOKEN
from tests.fakezepto import FakeZepto
from tests.faults.mail import SECONDS, Receiver, assert_delivered
from tests.stack import Stack, agent_toml, sample

pytestmark = pytest.mark.timeout(SECONDS)
PDF = b"%PDF-1.7\n" + bytes(range(256)) * 400
ZEPTO = """\
[[agents.zepto.channels]]
name = "api"
kind = "zeptomail"
token = {{ file = "zepto-token" }}
base_url = "{url}"
"""


def mail(ref: str, key: str, agent: str = "orders"):
    attachment = {"name": "prices.pdf", "file": key}
    return sample(ref, agent=agent, attachments=[attachment])


async def test_one_upload_many_mails(folder: Path):
    """Attached over SMTP byte by byte; over ZeptoMail uploaded once, by either worker, and named in each mail."""
    (folder / "zepto-token").write_text(f"Zoho-enczapikey {ZEPTO_TOKEN}\n")
    async with FakeZepto() as fake, Receiver() as receiver:
        channels = ZEPTO.format(url=fake.url)
        agents = {"zepto": agent_toml("zepto", channels, options='bounce_address = "b@bounce.shop.example"')}
        async with Stack(folder, receiver.port, agents=agents) as stack:
            await asyncio.gather(stack.start_api(), stack.start_workers("one", "two"))
            headers = {"Content-Type": "application/pdf"}
            async with stack.session.post(f"{stack.url}/v1/files", data=PDF, headers=headers) as answer:
                assert 201 == answer.status
                key = (await answer.json())["key"]
            accepted = await stack.accept_many(mail(f"s-{n}", key) for n in range(20))
            await stack.accept_many(mail(f"z-{n}", key, "zepto") for n in range(20))
            await assert_delivered(stack, receiver, accepted)
            await stack.until(lambda: _taken(fake, 20), "ZeptoMail has all")

            for got in receiver.mails:
                parsed = BytesParser(policy=email.policy.default).parsebytes(got.data)
                assert [PDF] == [part.get_content() for part in parsed.iter_attachments()]
            assert [PDF] == [data for _, _, data in fake.files.values()]
            named = [{"name": "prices.pdf", "file_cache_key": next(iter(fake.files))}]
            assert [named] * 20 == [one.body["attachments"] for one in fake.accepted]
            assert 1 == await stack.ledger.exists(file_key(key))
            assert [] == stack.mishaps()


async def _taken(fake: FakeZepto, count: int) -> bool:
    return len(fake.accepted) == count
