"""ZeptoMail's API under the suite that all channels pass."""

from types import MappingProxyType

import msgspec
import pytest

from postroom.outcome import Cause, Deferred, Refused
from tests.channels.conformance import (
    BAD_RECIPIENT,
    CANARY,
    ChannelConformance,
    Expected,
    Seen,
    same,
)
from tests.channels.zepto import PATIENT, QUICK, Keys, RawServer, channel_to, free_port, tls_server
from tests.fakezepto import TOKEN, FakeZepto, Script, error, success
from workers.channels.zeptomail import ZeptomailApi

REFUSED = error("TM_3201", "GE_102", remark=CANARY, target="subject", target_value=CANARY)
SCRIPTS = {
    "refused": Script(400, REFUSED),
    "deferred": Script(500, error("TM_9000", "XX_900", remark=CANARY)),
    "throttled": Script(429, {"error": {"message": CANARY}}),
    "throttled_for_7s": Script(429, {"error": {"message": CANARY}}, {"Retry-After": "7"}),
    "quota": Script(429, error("TM_5001", "LE_102", remark=CANARY)),
    "blocked": Script(403, error("TM_3601", "AE_101", remark=CANARY)),
    "html_answer": Script(200, f"<!DOCTYPE html><html>{CANARY}</html>".encode(), accept=True),
    "timeout_after_mark": Script(accept=True, then="hang"),
    "reset_after_mark": Script(accept=True, then="reset"),
    "drop_after_mark": Script(accept=True, then="drop"),
    "lost_after_mark": Script(then="reset"),
    "garbage_after_mark": Script(200, CANARY.encode(), accept=True),
    "empty_answer": Script(201, b"", accept=True),
    "huge_answer": Script(201, success("an-id", CANARY * 100_000), accept=True),
    "slow_answer": Script(accept=True, delay=0.1),
    "hang_in_request": Script(then="hang"),
    "hang_in_answer": Script(accept=True, then="stall"),
}


class ZeptoHarness:
    """The suite's other side: a fake ZeptoMail."""

    overrides = MappingProxyType(
        {
            # The one request comes after the mark, so whatever it meets does too.
            "throttled": Expected(Cause.THROTTLE, 1, 0),
            "unreachable": Expected(Cause.CONNECT, 1, 0),
            "bad_credentials": Expected(Cause.AUTH, 1, 0),
            "bad_certificate": Expected(Cause.CONNECT, 1, 0),
            # One bad address makes ZeptoMail refuse the request; the others go with the next attempt.
            "one_refused_of_three": Expected((Deferred, Refused, Deferred), 1, 0),
        }
    )
    impossible = MappingProxyType(
        dict.fromkeys(
            ("timeout_before_mark", "reset_before_mark", "garbage_before_mark"),
            "HTTP says nothing before the mark",
        )
    )
    cancel_points = MappingProxyType(
        {"hang_in_handshake": True, "hang_in_request": True, "hang_in_answer": True}
    )

    def __init__(self) -> None:
        self._fake: FakeZepto | None = None
        self._silent: RawServer | None = None

    async def start(self, scenario: str) -> ZeptomailApi:
        if scenario == "hang_in_handshake":
            self._silent = RawServer()
            return channel_to(f"https://{await self._silent.start()}")
        context = tls_server()[1] if scenario == "bad_certificate" else None
        bad = (BAD_RECIPIENT,) if scenario == "one_refused_of_three" else ()
        self._fake = FakeZepto(tls=context, bad_addresses=bad, remark=CANARY)
        await self._fake.start()
        if scenario in SCRIPTS:
            self._fake.play(SCRIPTS[scenario])
        url = f"http://127.0.0.1:{free_port()}" if scenario == "unreachable" else self._fake.url
        keys = Keys()
        token = "wrong" if scenario == "bad_credentials" else TOKEN
        return channel_to(
            url, token=token, keys=keys, timeouts=QUICK if scenario == "timeout_after_mark" else PATIENT
        )

    async def reached(self) -> None:
        waited_for = self._silent.reached if self._silent else self._fake.hanging
        await waited_for.wait()

    async def settled(self) -> None:
        if self._fake:
            await self._fake.settled()

    async def stop(self) -> None:
        fake, silent, self._fake, self._silent = self._fake, self._silent, None, None
        if silent:
            await silent.stop()
        if fake:
            await fake.stop()
            same([], fake.broken)

    @property
    def accepted(self) -> int:
        return len(self._fake.accepted) if self._fake else 0

    def seen(self) -> Seen:
        body = self._fake.accepted[-1].body
        boxes = [
            one["email_address"]["address"] for kind in ("to", "cc", "bcc") for one in body.get(kind, ())
        ]
        files = [
            (one["name"], self._fake.files[one["file_cache_key"]][2])
            if "file_cache_key" in one
            else (one["name"], msgspec.convert(one["content"], bytes))
            for one in body.get("attachments", ())
        ]
        return Seen(boxes, body["subject"], body["textbody"], files)


class TestConformance(ChannelConformance):
    @pytest.fixture
    async def harness(self):
        harness = ZeptoHarness()
        yield harness
        await harness.stop()
