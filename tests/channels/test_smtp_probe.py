"""Probes over SMTP: where a session ends is told at its step, and what was seen up to there is told too."""

import ssl

import pytest
from msgspec import structs

from tests.channels.relay import LOGIN, relay_to
from tests.smtpd import Smtpd
from workers.channels.seam import Probe
from workers.channels.smtp_session import SmtpTimeouts

PATIENT = SmtpTimeouts(*[10.0] * len(SmtpTimeouts.__struct_fields__))
TURNED_AWAY = "the server takes no mail from our address: ask the provider whether this host's IP is allowed"
PAIRS = "check `port` and `tls` (465 goes with implicit, 587 with starttls)"
LATE = "the server does not answer in time"
REFUSED = "the server refuses the credentials: check `username` and `password` of this channel"


async def probe(server: Smtpd, ca_file: str, tls: str, **short: float) -> Probe:
    """Probe with patience, but for the waits that are named."""
    login = LOGIN if tls != "none" else {}
    relay = relay_to(server, tls=tls, ca_file=ca_file, **login)
    relay.timeouts = structs.replace(PATIENT, **short)
    found = await relay.probe()
    await relay.aclose()
    return found


def rows(found: Probe) -> dict[str, str]:
    """Each step with its sign and text, as far as it is the same with every run."""
    signs = {True: "ok", False: "FAILS", None: "-"}
    shown = {check.name: f"{signs[check.ok]} {check.text}".strip() for check in found.checks}
    return {name: text.partition(", certificate good for")[0] for name, text in shown.items()}


CONNECTED = {"connect", "tls", "greeting"}
# script, tls, (step that fails, text), the steps that are told beside it
ENDS = [
    ({"EHLO": "554 5.7.1 go"}, "starttls", ("ehlo", f"{TURNED_AWAY} (554)"), {"connect", "greeting"}),
    ({"EHLO": "554 5.7.1 go"}, "none", ("ehlo", f"{TURNED_AWAY} (554)"), CONNECTED),
    ({"EHLO": ["ok", "550 5.7.1 go"]}, "starttls", ("ehlo", f"{TURNED_AWAY} (550)"), CONNECTED),
    ({"EHLO": ["ok", "drop"]}, "starttls", ("ehlo", "the server ends the connection"), CONNECTED),
    ({"CONNECT": "554 no"}, "implicit", ("greeting", f"{TURNED_AWAY} (554)"), {"connect", "tls"}),
    ({"CONNECT": "554 no"}, "starttls", ("greeting", f"{TURNED_AWAY} (554)"), {"connect"}),
    ({"STARTTLS": "454 4.7.0 no"}, "starttls", ("tls", "the server cannot start TLS now (454)"), {"connect", "greeting", "ehlo"}),
    ({"AUTH": "535 5.7.8 no"}, "implicit", ("auth", f"{REFUSED} (535)"), {*CONNECTED, "ehlo"}),
    ({"AUTH": "535 5.7.8 no"}, "starttls", ("auth", f"{REFUSED} (535)"), {*CONNECTED, "ehlo"}),
    ({"AUTH": "drop"}, "starttls", ("auth", "the server ends the connection"), {*CONNECTED, "ehlo"}),
]  # fmt: skip


@pytest.mark.parametrize(("script", "tls", "failing", "told"), ENDS)
async def test_the_step_that_fails_is_named_and_what_was_seen_is_told(
    context: ssl.SSLContext, ca_file: str, script: dict, tls: str, failing: tuple[str, str], told: set[str]
):
    """One row fails; those that were seen say what was seen, and only the others were not looked at."""
    offered = {"tls": tls, "context": context} if tls != "none" else {}
    async with Smtpd(script, auth=("PLAIN",), **offered) as server:
        shown = rows(await probe(server, ca_file, tls))

    seen = {
        "connect": f"ok port {server.port} answers",
        "tls": "ok none: mail travels in the clear" if tls == "none" else "ok TLSv1.3",
        "greeting": "ok ready",
        "ehlo": shown["ehlo"],
        "auth": "",
    }
    wanted = {name: text if name in told else "-" for name, text in seen.items()}
    step, text = failing
    assert {"resolve": "ok 127.0.0.1", **wanted, step: f"FAILS {text}"} == shown
    assert "ehlo" not in told or "8BITMIME" in shown["ehlo"]
    assert "ehlo" not in told or "(up to 20000000 bytes)" in shown["ehlo"]


SILENT = f"the server connects, and does not greet in time: {PAIRS}"
# the server's TLS and script, our tls, (step that fails, text)
CROSSED = [
    (None, {"CONNECT": "hang"}, "implicit", ("tls", f"the server does not answer the TLS handshake in time: {PAIRS}")),
    (None, {}, "implicit", ("tls", f"the TLS handshake fails: {PAIRS}")),
    (None, {"CONNECT": "raw SSH-2.0-x\r\n"}, "implicit", ("tls", f"the TLS handshake fails: {PAIRS}")),
    ("implicit", {}, "starttls", ("greeting", SILENT)),
    ("implicit", {}, "none", ("greeting", SILENT)),
    ("implicit", {"CONNECT": "hang"}, "implicit", ("greeting", LATE)),
    ("starttls", {"EHLO": ["ok", "hang"]}, "starttls", ("ehlo", LATE)),
    ("starttls", {"AUTH": "hang"}, "starttls", ("auth", LATE)),
]  # fmt: skip
SHORT = {
    "tls": {"connect": 0.5},
    "greeting": {"greeting": 0.5},
    "ehlo": {"command": 1.0},
    "auth": {"command": 1.0},
}


@pytest.mark.parametrize(("served", "script", "tls", "failing"), CROSSED)
async def test_silence_names_the_ports_where_tls_may_not_fit(
    context: ssl.SSLContext,
    ca_file: str,
    served: str | None,
    script: dict,
    tls: str,
    failing: tuple[str, str],
):
    """Who hears nothing, or nonsense, where TLS and port may be crossed is told which go together; else they are not."""
    step, text = failing
    async with Smtpd(script, tls=served, context=context, auth=("PLAIN",)) as server:
        short = SHORT[step] if "time" in text else {}  # who answers may take its time
        shown = rows(await probe(server, ca_file, tls, **short))

    assert (f"FAILS {text}", f"ok port {server.port} answers") == (shown[step], shown["connect"])
    assert 1 == sum(row.startswith("FAILS") for row in shown.values())


async def test_what_was_never_connected_is_not_called_connected(context: ssl.SSLContext):
    """A `ca_file` that cannot be read ends it before the network is touched."""
    async with Smtpd(tls="implicit", context=context) as server:
        shown = rows(await probe(server, "/nowhere/ca.pem", "implicit"))

    assert ("-", "FAILS the certificates in `ca_file` cannot be read") == (shown["connect"], shown["tls"])
    assert 0 == server.connections
