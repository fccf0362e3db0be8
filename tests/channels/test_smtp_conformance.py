"""The SMTP channel under the suite that all channels pass, on both event loops."""

import email.policy
import ssl
from email.parser import BytesParser
from typing import ClassVar

import pytest
import uvloop

from postroom.outcome import (
    Cause,
    Refused,
)
from tests.channels.conformance import (
    BAD_RECIPIENT,
    CANARY,
    SCENARIOS,
    ChannelConformance,
    Expected,
    Seen,
)
from tests.channels.relay import GARBAGE, LOGIN, relay_to
from tests.smtpd import Smtpd
from workers.channels.smtp import SmtpRelay

PHASES = ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA")
SCRIPTS = {
    "refused": {"MAIL": f"550 5.1.7 {CANARY}"},
    "one_refused_of_three": {f"RCPT:{BAD_RECIPIENT}": f"550 5.1.1 {CANARY} <{BAD_RECIPIENT}>"},
    "deferred": {"DOT": f"451 4.3.0 {CANARY}"},
    "throttled": {"MAIL": f"421 4.7.0 {CANARY}"},
    "quota": {"DOT": f"454 Throttling failure: Daily message quota exceeded {CANARY}"},
    "blocked": {"MAIL": f"550 5.7.1 {CANARY}"},
    "garbage_before_mark": {"RCPT": GARBAGE},
    "html_answer": {"DOT": f"accept raw <!DOCTYPE html><html>{CANARY}</html>\r\n"},
    "bad_credentials": {"AUTH": f"535 5.7.8 {CANARY}"},
    "timeout_before_mark": {"RCPT": "hang"},
    "reset_before_mark": {"DATA": "reset"},
    "timeout_after_mark": {"DOT": "accept hang"},
    "reset_after_mark": {"DOT": "accept reset"},
    "drop_after_mark": {"DOT": "accept drop"},
    "lost_after_mark": {"DOT": "reset"},
    "garbage_after_mark": {"DOT": f"accept {GARBAGE}"},
    "empty_answer": {"DOT": "accept raw \r\n"},
    "huge_answer": {"DOT": "accept raw 250-" + "a" * 1_000_000},
    "slow_answer": {"DOT": "slow 0.1"},
    **{f"hang_{point}": {point: "hang"} for point in PHASES},
    "hang_DOT": {"DOT": "accept hang"},
}


class SmtpHarness:
    """The scripted server and a relay that logs in over TLS."""

    # What MAIL is answered comes before the mark.
    overrides: ClassVar = {
        "refused": Expected((Refused,), 0, 0),
        "blocked": Expected(Cause.POLICY, 0, 0),
    }
    impossible: ClassVar = {"throttled_for_7s": "no SMTP reply names a time"}
    cancel_points: ClassVar = {
        **{f"hang_{point}": False for point in PHASES},
        "hang_DOT": True,
    }

    def __init__(self, context: ssl.SSLContext, ca_file: str) -> None:
        self.context, self.ca_file = context, ca_file
        self.server = Smtpd()
        self.scenario = ""

    async def start(self, scenario: str) -> SmtpRelay:
        self.scenario = scenario
        self.server = Smtpd(SCRIPTS.get(scenario), tls="starttls", context=self.context, auth=("PLAIN",))
        await self.server.__aenter__()
        if scenario == "unreachable":
            await self.stop()
        ca_file = None if scenario == "bad_certificate" else self.ca_file
        provider = "ses" if scenario == "quota" else None
        return relay_to(self.server, tls="starttls", ca_file=ca_file, provider=provider, **LOGIN)

    async def reached(self) -> None:
        await self.server.until(self.scenario.removeprefix("hang_"))

    async def settled(self) -> None:
        await self.server.idle()

    async def stop(self) -> None:
        if hasattr(self.server, "_server"):
            await self.server.__aexit__()

    @property
    def accepted(self) -> int:
        return len(self.server.mails)

    def seen(self) -> Seen:
        mail = self.server.mails[-1]
        parsed = BytesParser(policy=email.policy.default).parsebytes(mail.data)
        return Seen(
            mail.recipients,
            parsed["subject"],
            parsed.get_body(("plain",)).get_content(),
            [(part.get_filename(), part.get_content()) for part in parsed.iter_attachments()],
        )


class TestSmtp(ChannelConformance):
    @pytest.fixture
    async def harness(self, context, ca_file):
        harness = SmtpHarness(context, ca_file)
        yield harness
        await harness.stop()


class TestSmtpOnUvloop:
    """Workers run on uvloop, whose transports differ from asyncio's where it hurts: at their ends."""

    def run(self, harness: SmtpHarness, test) -> None:
        async def body():
            try:
                await test(harness)
            finally:
                await harness.stop()

        uvloop.run(body())

    @pytest.mark.parametrize("name", SCENARIOS)
    def test_ends_as_the_table_says(self, context, ca_file, name):
        """Each scenario ends on uvloop as it does on asyncio."""
        if name in SmtpHarness.impossible:
            pytest.skip(SmtpHarness.impossible[name])
        suite = ChannelConformance()
        self.run(SmtpHarness(context, ca_file), lambda h: suite.test_ends_as_the_table_says(h, name))

    def test_terminated_at_any_phase(self, context, ca_file):
        """A SIGTERM on uvloop closes the connection as hard as on asyncio."""
        self.run(SmtpHarness(context, ca_file), ChannelConformance().test_terminated_at_any_phase)
