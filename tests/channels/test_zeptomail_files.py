"""ZeptoMail's file cache: uploaded once for an agent, referred to from then on, attached where that does not work."""

import asyncio
import email.policy
from base64 import b64decode, b64encode
from email.parser import BytesParser

import pytest
from msgspec import structs

from postroom.compose.body import base64_lines
from postroom.config.structs import ZeptomailChannel
from postroom.message import Attachment
from postroom.outcome import Deferred, Phase, Refused, Sent
from postroom.secret import Secret
from tests.channels.conformance import MAILS, PDF, Mark, attempt, order_for, same
from tests.channels.relay import QUICK, relay_to
from tests.channels.zepto import Keys, channel_to, verdict
from tests.fakezepto import TOKEN, FakeZepto, Script, error
from tests.smtpd import Smtpd
from workers.channels import zeptomail_files
from workers.channels.smtp import SmtpRelay
from workers.channels.zeptomail_client import ZeptomailClient
from workers.channels.zeptomail_files import ZeptomailFiles, file_key_of, in_header

CACHED = order_for(MAILS["cached"])
NAME = "price list.pdf"


def cached(name: str, file: str = "a-cached-file", cid: str | None = None) -> Attachment:
    return Attachment(name, "application/pdf", b"", cid, file=file, encoded=base64_lines(PDF))


def with_files(*files: Attachment):
    return order_for(structs.replace(MAILS["plain"], attachments=files))


async def send_all(fake: FakeZepto, keys: Keys, *orders):
    channel = channel_to(fake.url, keys=keys)
    connection = await channel.connect()
    try:
        return [await connection.submit(order, Mark()) for order in orders]
    finally:
        await channel.aclose()


async def test_a_file_is_uploaded_once_and_named_from_then_on():
    """However many mails carry it, the bytes go to the provider once, as they are, under their name and type."""
    async with FakeZepto() as fake:
        channels = [channel_to(fake.url, keys=keys) for keys in [Keys()] * 2]
        connections = [await channel.connect() for channel in channels]
        ends = await asyncio.gather(*(c.submit(CACHED, Mark()) for c in connections * 5))
        for channel in channels:
            await channel.aclose()

        assert {Sent} == {type(verdict(end)) for end in ends}
        same([(NAME, "application/pdf", PDF)], list(fake.files.values()))
        named = [{"name": NAME, "file_cache_key": next(iter(fake.files))}]
        assert [named] * 10 == [one.body["attachments"] for one in fake.accepted]


async def test_an_inline_image_is_named_by_its_cid():
    """What html shows by its cid is named there, and not among the attachments."""
    async with FakeZepto() as fake:
        await send_all(fake, Keys(), with_files(cached("logo.png", cid="logo")))

        body = fake.accepted[0].body
        assert [{"cid": "logo", "file_cache_key": next(iter(fake.files))}] == body["inline_images"]
        assert "attachments" not in body


async def test_a_forgotten_file_is_uploaded_again_once():
    """Where the provider does not know its key any more, one upload and one request more bring the mail through."""
    async with FakeZepto() as fake:
        keys = Keys()
        await send_all(fake, keys, CACHED)
        fake.files.clear()
        ends = await send_all(fake, keys, CACHED, CACHED)

        assert [Sent, Sent] == [type(verdict(end)) for end in ends]
        same((2, 4, 3), (fake.uploads, fake.requests, len(fake.accepted)))


async def test_a_provider_that_forgets_at_once_gets_no_third_chance():
    """A key that was made a moment ago and is unknown refuses the message, under one mark."""
    async with FakeZepto() as fake:
        fake.play(*[Script(422, error("TM_3501", "UE_106"))] * 3)
        keys, mark = Keys(), Mark()
        keys.known["a-cached-file"] = "an.old.key"
        channel = channel_to(fake.url, keys=keys)
        ended = await attempt(channel, CACHED, mark)
        await channel.aclose()

        same((Refused(Phase.REQUEST, "message"), "UE_106"), (verdict(ended), ended.answers[0].enhanced_code))
        same((1, 2), (len(mark.told), fake.requests))


ATTACHED = {"name": NAME, "mime_type": "application/pdf", "content": b64encode(PDF).decode()}


@pytest.mark.parametrize("keys", [None, Keys()], ids=["nowhere to remember", "upload refused"])
async def test_a_file_that_cannot_be_cached_is_attached(keys, monkeypatch):
    """A failed upload costs the mail nothing: it carries the bytes."""
    async with FakeZepto("another token") as fake:
        await send_all(fake, keys, CACHED)  # refused: neither uploaded nor sent
        fake._token = TOKEN
        if keys is not None:
            keys.resting.clear()
            keys.known["a-cached-file"] = ""  # somebody uploads it, and does not come back
        monkeypatch.setattr(zeptomail_files, "UPLOAD_SECONDS", 0.1)
        await send_all(fake, keys, CACHED)

        same([[ATTACHED]], [one.body["attachments"] for one in fake.accepted])
        same(0, fake.uploads)


async def test_a_cache_that_hangs_holds_up_no_mail_but_one(monkeypatch):
    """The upload is given up soon and not tried again for a while, for no file: all mails carry the bytes."""
    monkeypatch.setattr(zeptomail_files, "UPLOAD_SECONDS", 0.2)
    async with FakeZepto() as fake:
        fake.play_uploads(Script(then="hang"))
        keys, other = Keys(), with_files(cached("other.pdf", "another"))
        ends = await send_all(fake, keys, with_files(*CACHED.mail.attachments, *other.mail.attachments))
        ends += await send_all(fake, keys, CACHED, other)

        assert {Sent} == {type(verdict(end)) for end in ends}
        same((0, 3), (fake.uploads, len(fake.accepted)))
        assert not any("file_cache_key" in file for one in fake.accepted for file in one.body["attachments"])
        same(({}, {None}), (keys.known, keys.resting))


async def test_who_waits_for_an_upload_elsewhere_hears_of_its_failure():
    """A lane that met the upload under way attaches the file as soon as that has failed."""
    async with FakeZepto() as fake:
        fake.play_uploads(Script(500, delay=0.2))
        ends = await asyncio.gather(*(send_all(fake, keys, CACHED) for keys in [Keys()] * 5))

        assert {Sent} == {type(verdict(end)) for [end] in ends}
        same([[ATTACHED]] * 5, [one.body["attachments"] for one in fake.accepted])
        same(0, fake.uploads)


@pytest.mark.parametrize(
    ("script", "resting"),
    [
        (Script(422, error("TM_3501")), "a-cached-file"),
        (Script(413, b"<html>too large</html>"), "a-cached-file"),
        (Script(201, b"{}"), None),
        (Script(404, b"<html>no such page</html>"), None),
        (Script(401, error("TM_4001", "SERR_157")), None),
        (Script(429), None),
        (Script(500), None),
        (Script(then="reset"), None),
    ],
)
async def test_a_failed_upload_is_remembered_for_what_it_says_something_about(script, resting):
    """A file that is refused is attached from then on; where the cache itself fails, all files are."""
    async with FakeZepto() as fake:
        fake.play_uploads(script)
        keys = Keys()
        await send_all(fake, keys, CACHED, CACHED, with_files(cached("other.pdf", "another")))

        same({resting}, keys.resting)
        same(0 if resting is None else 1, fake.uploads)
        same([ATTACHED], fake.accepted[1].body["attachments"])


async def test_a_file_of_the_providers_console_is_named_by_its_key():
    """`provider_key` goes out as it is; one that the provider does not know refuses the message."""
    async with FakeZepto() as fake:
        fake.files["their.key"] = ("terms.pdf", "application/pdf", b"x")
        known = Attachment("terms.pdf", "application/pdf", b"", provider_key="their.key")
        ends = await send_all(
            fake, Keys(), with_files(known), with_files(structs.replace(known, provider_key="no.key"))
        )

        same([Sent, Refused], [type(verdict(end)) for end in ends])
        same([{"name": "terms.pdf", "file_cache_key": "their.key"}], fake.accepted[0].body["attachments"])


class OverSmtp:
    """A relay that sends for the agent whose file cache it names."""

    def __init__(self, server: Smtpd, fake: FakeZepto, keys: Keys) -> None:
        config = ZeptomailChannel(name="api", token=Secret(TOKEN), base_url=fake.url)
        files = ZeptomailFiles(ZeptomailClient(config, agent="orders"), keys)
        self.relay = SmtpRelay(relay_to(server, provider="zeptomail").config, files=files, timeouts=QUICK)

    async def send(self, order):
        return await attempt(self.relay, order, Mark())


def parse(data: bytes):
    return BytesParser(policy=email.policy.default).parsebytes(data)


async def test_over_smtp_a_file_is_named_in_a_header_field():
    """Uploaded over the API, named in X-TM-FILE-KEY, and not attached."""
    async with FakeZepto() as fake, Smtpd() as server:
        over = OverSmtp(server, fake, Keys())
        files = (cached("a.pdf", "one"), cached("b c.pdf", "two"))
        ends = [await over.send(with_files(*files)) for _ in range(2)]
        await over.relay.aclose()

        assert {Sent} == {type(verdict(end)) for end in ends}
        first, second = fake.files
        for mail in server.mails:
            parsed = parse(mail.data)
            same(f"{first}:a.pdf,{second}:b c.pdf", parsed["X-TM-FILE-KEY"])
            same([], list(parsed.iter_attachments()))


@pytest.mark.parametrize("name", ["a,b.pdf", "a:b.pdf", "Größe.pdf", "a  b.pdf", "=?x?=.pdf"])
async def test_over_smtp_a_name_without_escape_is_attached(name):
    """A name that the header cannot hold sends its file along; the others are named."""
    async with FakeZepto() as fake, Smtpd() as server:
        over = OverSmtp(server, fake, Keys())
        await over.send(with_files(cached(name, "one"), cached("plain.pdf", "two")))
        await over.relay.aclose()

        parsed = parse(server.mails[0].data)
        same([(name, PDF)], [(part.get_filename(), part.get_content()) for part in parsed.iter_attachments()])
        assert parsed["X-TM-FILE-KEY"].endswith(":plain.pdf")


async def test_over_smtp_a_refusal_may_mean_a_forgotten_file():
    """No reply says so: the message is due again with a new key, and the next refusal counts."""
    async with FakeZepto() as fake, Smtpd({"DOT": ["ok", "554 5.6.0 no", "554 5.6.0 no"]}) as server:
        over = OverSmtp(server, fake, Keys())
        ends = [verdict(await over.send(CACHED)) for _ in range(3)]
        await over.relay.aclose()

        same([Sent(), Deferred(Phase.DONE), Refused(Phase.DONE, "message")], ends)
        same(2, fake.uploads)


@pytest.mark.parametrize("provider", ["generic", "zeptomail"])
async def test_elsewhere_a_cached_file_is_attached(provider):
    """A relay without a file cache gets the bytes, as they were encoded when the file was uploaded."""
    async with Smtpd() as server:
        await attempt(relay_to(server, provider=provider), CACHED, Mark())

        parsed = parse(server.mails[0].data)
        same([(NAME, PDF)], [(part.get_filename(), part.get_content()) for part in parsed.iter_attachments()])
        assert base64_lines(PDF).replace(b"\n", b"\r\n") in server.mails[0].data


async def test_a_relay_that_cannot_name_it_leaves_a_providers_file_to_others():
    """The message waits for a channel that can, and nothing is said of it."""
    order = with_files(Attachment("terms.pdf", "application/pdf", b"", provider_key="their.key"))
    async with Smtpd() as server:
        mark = Mark()
        ended = await attempt(relay_to(server), order, mark)
        named = await attempt(relay_to(server, provider="zeptomail"), order, Mark())

        same((Deferred(Phase.RENDER), []), (verdict(ended), mark.told))
        same((Sent(), 1), (verdict(named), len(server.mails)))
        same("their.key:terms.pdf", parse(server.mails[0].data)["X-TM-FILE-KEY"])


def theirs(name: str, key: str, cid: str | None = None) -> Attachment:
    return Attachment(name, "application/pdf", b"", cid, provider_key=key)


def test_the_header_holds_so_much():
    """What would make the line too long is attached."""
    files = tuple(cached(f"{n}.pdf", str(n)) for n in range(10))
    value, attached = in_header(files, {str(n): "k" * 200 for n in range(10)})

    same((4, 6), (value.count(",") + 1, len(attached)))
    assert len(value) <= 900


def test_what_only_the_provider_has_goes_first():
    """Cached files, which can be attached, take no room from it; the order is that of the request."""
    files = (*(cached(f"{n}.pdf", str(n)) for n in range(9)), theirs("terms.pdf", "t" * 100))
    value, attached = in_header(files, {str(n): "k" * 100 for n in range(9)})

    assert value.startswith("k" * 100 + ":0.pdf,")
    assert value.endswith("," + "t" * 100 + ":terms.pdf")
    same([f"{n}.pdf" for n in range(7, 9)], [file.name for file in attached])


def test_what_only_the_provider_has_goes_without_its_name_where_that_is_tight():
    """Its key is what counts: the provider has a name of its own for it."""
    files = tuple(theirs(f"{n}{'x' * 40}.pdf", f"{n}" * 89) for n in range(10))
    value, attached = in_header(files, {})

    same((), attached)
    entries = value.split(",")
    same([file.provider_key for file in files], [entry.partition(":")[0] for entry in entries])
    assert len(value) <= 900
    long = tuple(structs.replace(file, provider_key=file.provider_key + "kk") for file in files)
    same(("", long), in_header(long, {}))


@pytest.mark.parametrize("file", [theirs("logo.png", "k", cid="logo"), theirs("a.pdf", "=?x")])
def test_what_the_header_cannot_say_is_left_to_another_channel(file):
    """An image would lose its cid, and a key with `=?` in it would be encoded."""
    same(("", (file,)), in_header((file,), {}))


async def test_over_smtp_many_cached_files_leave_room_for_a_providers_own():
    """Such a mail is sent: what does not fit is attached."""
    async with FakeZepto() as fake, Smtpd() as server:
        over = OverSmtp(server, fake, Keys())
        files = [cached(f"price-list-of-the-spring-season-part-{n}.pdf", str(n)) for n in range(9)]
        ended = await over.send(with_files(*files, theirs("terms.pdf", "t" * 56)))
        await over.relay.aclose()

        same(Sent(), verdict(ended))
        parsed = parse(server.mails[0].data)
        assert parsed["X-TM-FILE-KEY"].endswith("t" * 56 + ":terms.pdf")
        named = parsed["X-TM-FILE-KEY"].count(",")
        same(9, named + len(list(parsed.iter_attachments())))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"file_cache_key": 7}',
        b'{"file_cache_key": "a,b"}',
        b'{"file_cache_key": "a\\r\\nb"}',
    ],
)
def test_an_answer_without_a_good_key_is_none(body):
    """Only a key that can stand in a header goes into one."""
    assert file_key_of(body) is None


def test_the_bytes_are_those_that_were_uploaded():
    """The stored form is base64 lines, which any reader decodes to the same bytes."""
    assert PDF == b64decode(base64_lines(PDF))
