"""A probe of a relay: resolve, connect, TLS, EHLO, login, and goodbye before MAIL."""

from postroom.config.structs import SmtpChannel
from postroom.outcome import Cause, ChannelFault, Phase
from workers.channels.probing import not_looked_at, tls_check
from workers.channels.seam import Check, Probe
from workers.channels.smtp_session import Features, credentials
from workers.channels.smtp_stream import SmtpStream

STEPS = ("resolve", "connect", "tls", "ehlo", "auth")
# Words of our own texts that name the step: faults know the phase, and these three are one.
_ABOUT_TLS = ("certificate", "TLS", "tampering", "ca_file")


def passed(name: Check, stream: SmtpStream, features: Features, config: SmtpChannel) -> Probe:
    """Tell of a session that was ready for mail."""
    encrypted = stream.encrypted()
    login = credentials(config)
    keywords = sorted(keyword for keyword in features.keywords if keyword not in ("", "AUTH"))
    size = f" (up to {features.size} bytes)" if features.size else ""
    return Probe(
        (
            name,
            Check("connect", ok=True, text=f"port {config.port} greets"),
            tls_check(encrypted)
            if encrypted
            else Check("tls", ok=True, text="none: mail travels in the clear"),
            Check("ehlo", ok=True, text=(" ".join(keywords) or "no extensions") + size),
            Check("auth", ok=True, text="accepted" if login else "none is configured"),
        )
    )


def failed(name: Check, fault: ChannelFault) -> Probe:
    """Tell where a session ended: what came before it worked, what comes after it was not looked at."""
    at = STEPS.index(_step(fault))
    before = tuple(Check(step, ok=True) for step in STEPS[1:at])
    code = f" ({fault.reply_code})" if fault.reply_code else ""
    return Probe(
        (name, *before, Check(STEPS[at], ok=False, text=fault.text + code), *not_looked_at(STEPS[at + 1 :])),
        fault,
    )


def unknown(name: Check) -> Probe:
    """Tell of a host whose name leads nowhere."""
    fault = ChannelFault(Cause.CONNECT, Phase.CONNECT, name.text)
    return Probe((name, *not_looked_at(STEPS[1:])), fault)


def _step(fault: ChannelFault) -> str:
    if fault.phase == Phase.AUTH:
        return "auth"
    return "tls" if any(word in fault.text for word in _ABOUT_TLS) else "connect"
