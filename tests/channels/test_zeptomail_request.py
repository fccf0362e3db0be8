"""What goes to ZeptoMail's API: the body, the token, the URL, and what never leaves."""

from base64 import b64encode
from contextlib import nullcontext

import msgspec
import pytest
from structlog.testing import capture_logs

from postroom.config.structs import Agent, From, ZeptomailChannel
from postroom.message import Address, Attachment, Content
from postroom.outcome import Cause, Sent
from postroom.secret import Secret
from postroom.zeptomail_token import normalise_token
from tests.channels.conformance import (
    BAD_RECIPIENT,
    MAILS,
    Mark,
    attempt,
    order_for,
    same,
)
from tests.channels.zepto import FULL, MESSAGE, PLAIN, channel_to, send, verdict
from tests.fakezepto import TOKEN, FakeZepto, RefusalError, Script, check_limits, check_shape, error
from workers.channels.registry import open_channels
from workers.channels.seam import Order
from workers.channels.zeptomail import EMAIL
from workers.channels.zeptomail_body import MAX_ENCODED
from workers.channels.zeptomail_client import base_of

FULL_BODY = {
    "from": {"address": "orders@shop.example", "name": "Shop"},
    "to": [
        {"email_address": {"address": "ada@example.com", "name": "Ada"}},
        {"email_address": {"address": "eve@example.com"}},
    ],
    "cc": [{"email_address": {"address": "cy@example.com"}}],
    "bcc": [{"email_address": {"address": "bo@example.com", "name": "Bo"}}],
    "reply_to": [{"address": "help@shop.example", "name": "Help"}],
    "subject": "Your order",
    "htmlbody": "<p>Hello</p>",
    "textbody": "Hello",
    "attachments": [
        {"name": "a.pdf", "mime_type": "application/pdf", "content": b64encode(b"%PDF").decode()}
    ],
    "inline_images": [
        {"cid": "logo", "mime_type": "image/png", "content": b64encode(b"\x89PNG").decode()}
    ],
    "track_clicks": False,
    "track_opens": True,
    "client_reference": "orders-01JD8X0000000000000000009",
    "mime_headers": {"List-Id": "<orders.shop.example>", "X-Postroom-Id": "orders-01JD8X0000000000000000009"},
    "bounce_address": "bounce@bounce.shop.example",
}  # fmt: skip


async def test_the_body_is_exactly_what_the_api_describes():
    """Every field has its documented name and nesting, and no structural header goes along."""
    async with FakeZepto() as fake:
        ended = await send(fake, order_for(FULL), bounce_address="bounce@bounce.shop.example")

        same([FULL_BODY], [one.body for one in fake.accepted])
        assert fake.accepted[0].request_id == verdict(ended).provider_id
        assert {"application/json"} == {fake.accepted[0].headers[name] for name in ("Content-Type", "Accept")}


async def test_empty_members_are_left_out_and_a_retry_of_cc_goes_without_to():
    """A retry carries only its recipients; what is empty is not sent, except for tracking switched off."""
    mail = msgspec.structs.replace(MAILS["three"], track_opens=True)  # no HTML to track in
    async with FakeZepto() as fake:
        order = Order(mail=mail, recipients=(1,), bounce_address="b@bounce.shop.example")
        await send(fake, order, bounce_address="other@bounce.shop.example")

        expected = {
            "from": {"address": "orders@shop.example", "name": "Shop"},
            "cc": [{"email_address": {"address": BAD_RECIPIENT}}],
            "subject": "Your order",
            "textbody": "Hello",
            "track_clicks": False,
            "track_opens": False,
            "client_reference": mail.id,
            "mime_headers": {"X-Postroom-Id": mail.id},
            "bounce_address": "b@bounce.shop.example",
        }
        assert [expected] == [one.body for one in fake.accepted]


def with_file(name: str = "a.pdf", data: bytes = b"x", times: int = 1) -> dict:
    return {"attachments": (Attachment(name, "application/pdf", data),) * times}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"content": Content("s" * 501, "x")}, "SM_129"),
        ({"to": (Address("ada@example.com", "n" * 251),)}, "SM_129"),
        ({"reply_to": (Address("ada@example.com", "n" * 251),)}, "SM_129"),
        (with_file("f" * 147 + ".pdf"), "SM_129"),
        (with_file(data=b"x" * (MAX_ENCODED * 3 // 4 + 2)), "SM_129"),
        ({"content": Content("s", "\n" * (MAX_ENCODED // 2))}, "SM_129"),  # two bytes each when encoded
        (with_file(times=61), "SM_127"),
        ({"to": tuple(Address(f"a{n}@example.com") for n in range(501))}, "SM_127"),
        ({"reply_to": tuple(Address(f"a{n}@example.com") for n in range(41))}, "SM_127"),
        (with_file("report.pdf.EXE"), "TM_3501"),
        (with_file("setup.exe. "), "TM_3501"),
    ],
)
async def test_what_is_over_a_limit_never_leaves(changes, code):
    """A breach of the provider's limits is the message's, and costs neither a mark nor a request."""
    mark, mail = Mark(), msgspec.structs.replace(MAILS["plain"], **changes)
    async with FakeZepto() as fake:
        ended = await send(fake, order_for(mail), mark)

        assert (MESSAGE, None, code) == (
            verdict(ended),
            ended.answers[0].reply_code,
            ended.answers[0].enhanced_code,
        )
        same(([], 0), (mark.told, fake.requests))


async def test_a_message_just_below_the_limits_leaves():
    """The limits are the provider's, not tighter: what stands exactly at them is sent."""
    changes = {
        "content": Content("s" * 500, "x"),
        "to": (Address("ada@example.com", "n" * 250),),
        "attachments": (Attachment("exe" + "f" * 147, "application/pdf", b"x" * 2_000_000),),
    }
    async with FakeZepto() as fake:
        ended = await send(fake, order_for(msgspec.structs.replace(MAILS["plain"], **changes)))

        assert Sent(fake.accepted[0].request_id) == verdict(ended)


@pytest.mark.parametrize(
    "written",
    [
        "abc.DEF=",
        " abc.DEF=\n",
        '"abc.DEF="',
        "Zoho-enczapikey abc.DEF=",
        "zoho-ENCZAPIKEY   abc.DEF=",
        "'Zoho-enczapikey abc.DEF='\r\n",
        'Zoho-enczapikey "abc.DEF="',
        "Zoho-enczapikey Zoho-enczapikey abc.DEF=",
        "Authorization: Zoho-enczapikey abc.DEF=",
        'authorization:Zoho-enczapikey "abc.DEF="',
        "\u201cabc.DEF=\u201d",
        "\ufeffabc.DEF=\u00a0\n",
    ],
)
def test_a_token_is_the_same_however_it_was_pasted(written):
    """Blanks, quotes and the scheme's name around a token are not part of it."""
    assert Secret("abc.DEF=") == normalise_token(Secret(written))


async def test_the_scheme_is_said_once():
    """The provider gets the scheme and the token, whatever the configuration holds."""
    async with FakeZepto() as fake:
        await send(fake, token=f'"zoho-enczapikey {TOKEN}"\n')

        assert [f"Zoho-enczapikey {TOKEN}"] == [one.headers["Authorization"] for one in fake.accepted]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("https://api.zeptomail.com", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/v1.1", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/v1.1/", "https://api.zeptomail.com/v1.1/email"),
        ("https://api.zeptomail.com/v1.1/email", "https://api.zeptomail.com/v1.1/email"),
        ("https://proxy.example/zepto", "https://proxy.example/zepto/v1.1/email"),
        ("https://proxy.example/zepto/v1.1//", "https://proxy.example/zepto/v1.1/email"),
        ("http://127.0.0.1:8099", "http://127.0.0.1:8099/v1.1/email"),
    ],
)
def test_a_base_url_may_be_written_in_any_way(base, expected):
    """One joiner knows the path, so slashes, prefixes and the version may be there or not."""
    assert expected == base_of(base) + EMAIL


SECOND = "wSsVR60-second-token"


async def test_a_second_token_is_tried_where_the_first_is_refused():
    """While tokens are changed the mail goes on, with one request more; then the good one goes first."""
    async with FakeZepto(SECOND) as fake:
        channel = channel_to(fake.url, second_token=f"Zoho-enczapikey {SECOND}")
        connection = await channel.connect()
        ends = [verdict(await connection.submit(PLAIN, Mark())) for _ in range(3)]
        await channel.aclose()

        assert [Sent] * 3 == [type(end) for end in ends]
        same((4, 3), (fake.requests, len(fake.accepted)))


async def test_a_refused_token_is_told_with_its_agent():
    """The configuration's agent and channel stand in the line, so that somebody knows whose token it is."""
    async with FakeZepto(SECOND) as fake:
        config = ZeptomailChannel(
            name="api", token=Secret(TOKEN), second_token=Secret(SECOND), base_url=fake.url
        )
        agent = Agent(sender=From(address="orders@shop.example"), channels=(config,))
        [channel] = open_channels("orders", agent, lambda _: None)
        with capture_logs() as lines:
            await attempt(channel, PLAIN, Mark())
        await channel.aclose()

        told = [(line["event"], line["agent"], line["channel"]) for line in lines]
        same([("channel.token_refused", "orders", "api")], told)


def files(**changes):
    return {"attachments": [{"name": "a.pdf", "mime_type": "application/pdf", "content": "eA=="} | changes]}


def people(kind: str, count: int):
    return {kind: [{"email_address": {"address": f"{kind}-{n}@example.com"}} for n in range(count)]}


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, None),
        (files(), None),
        (files(mime_type="pdf"), "SM_120"),
        (files(mime_type="application/pdf; charset=utf-8"), "SM_120"),
        ({"mime_headers": {"X-Ok": "fine"}}, None),
        ({"mime_headers": {"X Not": "fine"}}, "SM_113"),
        ({"mime_headers": {"X-Not:": "fine"}}, "SM_113"),
        ({"mime_headers": {"X-Not": "a\nb"}}, "SM_113"),
        (people("to", 200) | people("cc", 200) | people("bcc", 100), None),
        (people("to", 200) | people("cc", 200) | people("bcc", 101), "SM_127"),
    ],
)
def test_the_fake_refuses_what_the_provider_does(changes, refused):
    """What it took too lightly, the channel could get wrong unnoticed."""
    body = msgspec.json.decode(msgspec.json.encode(FULL_BODY)) | changes
    with nullcontext() if refused is None else pytest.raises(RefusalError, match=refused):
        check_shape(body)
        check_limits(body, 1000)


async def test_a_foreign_bounce_address_stops_the_channel():
    """It comes from the configuration, so every message would fall to it."""
    async with FakeZepto(bounce_addresses=("bounce@bounce.shop.example",)) as fake:
        ends = [await send(fake, bounce_address=f"{one}@bounce.shop.example") for one in ("bounce", "other")]

        same([Sent, Cause.POLICY], [type(verdict(ends[0])), verdict(ends[1])])


async def test_two_bad_tokens_stop_the_channel():
    """Each token is tried once."""
    async with FakeZepto("a third one") as fake:
        same(Cause.AUTH, verdict(await send(fake, second_token=SECOND)))
        same(2, fake.requests)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, error("TM_4001", "SM_113", target="to")),
        (401, error("TM_4001", "SM_111", target="from")),
        (401, b""),
        (403, error("TM_4001", "SERR_157")),
        (403, error("TM_3601", "SERR_156")),
        (429, error("TM_5001", "LE_102")),
        (500, b""),
    ],
)
async def test_the_second_token_is_tried_for_nothing_else(status, body):
    """Whatever is not a plain "bad token" ends the one request: a second one could send the mail twice."""
    async with FakeZepto() as fake:
        fake.play(Script(status, body))
        await send(fake, second_token=SECOND)

        same(1, fake.requests)


@pytest.mark.parametrize("code", ["SM_111", "SM_145", "SM_147"])
@pytest.mark.parametrize(("own", "expected"), [("shop.example", Cause.POLICY), ("other.example", MESSAGE)])
async def test_an_unverified_from_domain_is_the_messages_where_its_caller_chose_it(code, own, expected):
    """A From of another domain than the agent's own fails alone; the agent's own stops the channel."""
    async with FakeZepto() as fake:
        fake.play(Script(401, error("TM_4001", code, target="from")))

        same(expected, verdict(await send(fake, own_domain=own)))


@pytest.mark.parametrize(
    "base",
    [
        *(f"https://api.zeptomail.{dc}" for dc in ("com", "eu", "in", "jp", "ca", "sa", "com.au", "com.cn")),
        *(
            f"https://{host}.zoho.{dc}"
            for host in ("zeptomail", "cpaas")
            for dc in ("com", "eu", "in", "com.au")
        ),
    ],
)
def test_every_data_centre_has_the_same_path(base):
    """The base URL is configuration: classic, alternate and CPaaS hosts differ in nothing else."""
    assert f"{base}/v1.1/email" == base_of(base) + EMAIL
