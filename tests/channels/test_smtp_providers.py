"""What single providers say over SMTP, in their own words: every row that is known of them."""

import pytest
from msgspec import structs

from postroom.message import Address
from postroom.outcome import Cause, ChannelFault, Deferred, Refused, Sent
from tests.channels.conformance import CANARY, MAILS, Mark, attempt, order_for
from tests.channels.relay import LOGIN, QUICK, relay_to, submit_to
from tests.smtpd import Smtpd
from workers.channels.smtp import SmtpRelay

ZEPTOMAIL = [
    ({"AUTH": "530 5.7.0 Must issue a STARTTLS command first"}, Cause.AUTH),
    ({"AUTH": "535 Authentication Failed"}, Cause.AUTH),
    ({"MAIL": "553 Relaying disallowed as orders@shop.example"}, Cause.POLICY),
    ({"RCPT": "552 Relaying disallowed as orders@shop.example"}, Cause.POLICY),
    ({"DOT": "553 Relaying disallowed as orders@shop.example"}, Cause.POLICY),
    ({"DOT": "552 5.7.1 virus detected"}, Refused),
    ({"DOT": "553 5.7.1 content breaks the policy"}, Refused),
    ({"DOT": "550 5.2.1 Subject is mandatory"}, Refused),
    ({"DOT": "552 5.2.0 size exceeds the policy"}, Refused),
    ({"DOT": "451 4.3.0 try again"}, Deferred),
    ({"DATA": "drop"}, Deferred),
]
SES = [
    ({"DOT": "454 Throttling failure: Maximum sending rate exceeded."}, Cause.THROTTLE),
    ({"DOT": "454 Throttling failure: Daily message quota exceeded."}, Cause.QUOTA),
    ({"DOT": "454 Temporary service failure."}, Deferred),
    ({"AUTH": "454 Temporary authentication failure"}, Cause.THROTTLE),
    ({"CONNECT": "421 Too many concurrent SMTP connections"}, Cause.THROTTLE),
    ({"DATA": "451 4.4.2 Timeout waiting for data from client."}, Deferred),
    ({"AUTH": "535 Authentication Credentials Invalid"}, Cause.AUTH),
    ({"MAIL": "530 Authentication required"}, Cause.AUTH),
    ({"DOT": "554 Message rejected: Email address is not verified."}, Cause.POLICY),
    ({"DOT": "554 Access denied: User is not authorized to perform ses:SendRawEmail"}, Cause.AUTH),
    ({"DOT": "554 Message rejected: Sending paused for this account."}, Cause.POLICY),
    ({"DOT": "554 Transaction failed: Duplicate header 'Date'."}, Refused),
    ({"DOT": "552 5.3.4 Message is too long."}, Refused),
]
ROWS = [("zeptomail", *row) for row in ZEPTOMAIL] + [("ses", *row) for row in SES]


@pytest.mark.parametrize(("provider", "script", "expected"), ROWS, ids=str)
async def test_each_known_reply_has_its_end(provider, script, expected):
    """Every reply that a provider documents ends in its outcome, and none of its words come out."""
    script = {point: f"{said} {CANARY}" if said[0].isdigit() else said for point, said in script.items()}
    async with Smtpd(script, auth=("PLAIN",)) as server:
        ended = await submit_to(server, provider=provider, insecure=True, **LOGIN)

    kind = ended.cause if isinstance(ended, ChannelFault) else type(ended.answers[0].outcome)
    assert expected == kind
    assert CANARY not in repr(ended)


@pytest.mark.parametrize(
    ("script", "bounce_address", "expected"),
    [
        ({"MAIL": "553 Relaying disallowed as a@other.example"}, None, Refused),
        ({"DOT": "553 Relaying disallowed as a@other.example"}, "b@bounce.shop.example", Refused),
        ({"MAIL": "553 Relaying disallowed as b@bounce.example"}, "b@bounce.shop.example", Cause.POLICY),
        ({"MAIL": "550 5.7.1 sender not allowed"}, None, Refused),
    ],
    ids=str,
)
async def test_a_from_domain_its_caller_chose_is_the_messages_own_fault(script, bounce_address, expected):
    """One message's unverified From stops nobody else's mail; the agent's own addresses stop the channel."""
    mail = structs.replace(MAILS["plain"], sender=Address("a@other.example"))
    async with Smtpd(script) as server:
        config = relay_to(server, provider="zeptomail").config
        relay = SmtpRelay(config, bounce_address=bounce_address, own_domain="shop.example", timeouts=QUICK)
        ended = await attempt(relay, order_for(mail), Mark())

    kind = ended.cause if isinstance(ended, ChannelFault) else type(ended.answers[0].outcome)
    assert expected == kind


@pytest.mark.parametrize(
    ("host", "provider", "expected"),
    [
        ("smtp.zeptomail.com", None, "zeptomail"),
        ("SMTP.zeptomail.com.au", None, "zeptomail"),
        ("email-smtp.eu-west-1.amazonaws.com", None, "ses"),
        ("email-smtp-fips.us-east-1.amazonaws.com", None, "ses"),
        ("email-smtp.example.com", None, "generic"),
        ("relay.example", None, "generic"),
        ("relay.example", "ses", "ses"),
        ("smtp.zeptomail.com", "generic", "generic"),
    ],
)
async def test_whose_relay_it_is_shows_in_the_host(host, provider, expected):
    """A provider is told from its host name, unless the configuration says whose it is."""
    async with Smtpd() as server:
        assert expected == relay_to(server, host=host, provider=provider).config.dialect


@pytest.mark.parametrize("point", ["CONNECT", "EHLO", "AUTH", "MAIL", "RCPT", "DATA", "DOT", "RSET", "QUIT"])
async def test_421_may_come_anywhere(point):
    """421 ends a connection, never a message for good, at whatever step it comes."""
    script = {point: f"421 4.3.2 {CANARY}"}
    if point == "RSET":
        script["DATA"] = "451 4.3.0 later"
    async with Smtpd(script, auth=("PLAIN",)) as server:
        ended = await submit_to(server, insecure=True, **LOGIN)
        await server.idle()

    sent = {"QUIT": Sent, "DOT": Deferred, "RSET": Deferred}
    kind = ended.cause if isinstance(ended, ChannelFault) else type(ended.answers[0].outcome)
    assert sent.get(point, Cause.THROTTLE) == kind
