"""Which channels can carry a Sender and files of the provider's own, and what is said where none can."""

from types import SimpleNamespace

import pytest
from msgspec import structs

from postroom.config.carrying import able_channels
from postroom.config.structs import Agent, Breaker, From, PostmarkChannel, SmtpChannel, ZeptomailChannel
from postroom.ledger.claimed import Claimed
from postroom.log import get_logger
from postroom.message import Address, AttachmentRef
from postroom.secret import Secret
from service.carrying import find_uncarried
from tests.ledger.harness import make_offer
from workers.ways import Ways

RELAY = SmtpChannel(name="relay", host="relay.example", port=25, tls="none")
ZSMTP = SmtpChannel(name="zsmtp", host="smtp.zeptomail.eu", port=587, tls="starttls")
ZAPI = ZeptomailChannel(name="zapi", token=Secret("t"))
POSTMARK = PostmarkChannel(name="postmark", token=Secret("t"))
ALL = (RELAY, ZSMTP, ZAPI, POSTMARK)
SENDER = Address("desk@shop.example")
KEY, NAME, CID = (f"/attachments/0/{part}" for part in ("provider_key", "name", "cid"))
FILES = "/attachments"


def theirs(key: str = "their.key", name: str = "terms.pdf", cid: str | None = None) -> AttachmentRef:
    return AttachmentRef(name, "application/pdf", 0, cid, provider_key=key)


PLAIN = AttachmentRef("a  b, c.pdf", "application/pdf", 5, "logo", file="ours")
LONG = tuple(theirs(f"{n}" * 90) for n in range(10))
FITS = tuple(theirs(f"{n}" * 89) for n in range(10))


@pytest.mark.parametrize(
    ("submitter", "files", "able"),
    [
        (None, (), {"relay", "zsmtp", "zapi", "postmark"}),
        (None, (PLAIN,), {"relay", "zsmtp", "zapi", "postmark"}),
        (SENDER, (PLAIN,), {"relay", "zsmtp"}),
        (None, (PLAIN, theirs()), {"zsmtp", "zapi"}),
        (SENDER, (theirs(),), {"zsmtp"}),
        (None, (theirs(cid="logo"),), {"zapi"}),
        (None, FITS, {"zsmtp", "zapi"}),
        (None, LONG, {"zapi"}),
        (None, (theirs("=?key"),), {"zapi"}),
        (SENDER, (theirs(cid="logo"),), set()),
    ],
)
def test_a_message_goes_over_channels_that_can_carry_it_whole(submitter, files, able):
    """Images and many files of the provider's own go over its API only, a Sender over SMTP only."""
    assert able == able_channels(ALL, submitter, files)


@pytest.mark.parametrize(
    ("submitter", "files", "own"),
    [
        (None, (), None),
        (None, (PLAIN,), None),
        (SENDER, (), {"relay", "zsmtp"}),
        (None, LONG, {"zapi"}),
        (None, (PLAIN, theirs(cid="logo")), {"zapi"}),
        (SENDER, (theirs(cid="logo"),), None),
    ],
)
async def test_a_lane_looks_for_such_a_channel(submitter, files, own):
    """Most mail goes over any channel; so does what none can carry any more, which its channel then says."""
    agent = Agent(sender=From(address="orders@shop.example"), channels=ALL)
    ledger = SimpleNamespace(provider_keys=lambda *_: None)
    ways = Ways("orders", agent, Breaker(), None, ledger, None, None, get_logger())
    payload = structs.replace(make_offer().payload, submitter=submitter, attachments=files)
    claimed = Claimed(
        id="orders-1", agent="orders", fence=1, attempts=0, accepted_at=0, waiting=(0,), recipients=1, caller="shop",
        client_ref="a", priority="normal", retry_profile="standard", template="", blobs=0, payload=payload,
    )  # fmt: skip

    assert own == ways.own(claimed)
    await ways.aclose()


@pytest.mark.parametrize(
    ("channels", "submitter", "files", "pointers"),
    [
        (ALL, SENDER, (theirs(),), []),
        (ALL, None, LONG, []),
        (ALL, None, (theirs(cid="logo"), theirs("=?key")), []),
        (ALL, SENDER, (theirs(cid="logo"),), [FILES]),
        (ALL, SENDER, LONG, [FILES]),
        ((RELAY, ZAPI), SENDER, (theirs(),), [FILES]),
        ((ZAPI, POSTMARK), SENDER, (), ["/sender"]),
        ((RELAY, POSTMARK), None, (PLAIN,), []),
        ((RELAY, POSTMARK), None, (theirs(cid="logo"),), [KEY]),
        ((ZSMTP,), None, FITS, []),
        ((ZSMTP, RELAY), None, LONG, [FILES]),
        ((ZSMTP,), None, (theirs("=?key", "a:b", "logo"),), [KEY, NAME, CID]),
        ((ZAPI,), None, (theirs(name="a  b.pdf"),), [NAME]),
        ((ZAPI,), None, (theirs(name="=?x?=.pdf"),), [NAME]),
        ((ZAPI,), None, (theirs(name="Größe.pdf"),), [NAME]),
    ],
)
def test_what_no_channel_can_carry_is_told_by_its_place(channels, submitter, files, pointers):
    """Every fault at once; what is asked of names is what the header field can hold."""
    agent = Agent(sender=From(address="orders@shop.example"), channels=channels)
    found = list(find_uncarried(agent, submitter, files))

    assert pointers == [fault.pointer for fault in found]
    assert not any(word in fault.detail for fault in found for word in ("their.key", "a:b", "999"))
