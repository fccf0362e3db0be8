"""A probe of a relay: resolve, connect, TLS, greeting, EHLO, login, and goodbye before MAIL."""

from postroom.config.structs import SmtpChannel
from postroom.outcome import Cause, ChannelFault, Phase
from workers.channels.probing import not_looked_at, tls_check
from workers.channels.seam import Check, Probe
from workers.channels.smtp_session import Features, Progress, credentials

STEPS = ("connect", "tls", "greeting", "ehlo", "auth")


def told(name: Check, progress: Progress, config: SmtpChannel, fault: ChannelFault | None = None) -> Probe:
    """Tell of a session what was seen at each step, and where it ended unless it was ready for mail."""
    seen = _seen(progress, config)
    if fault is not None:
        code = f" ({fault.reply_code})" if fault.reply_code else ""
        seen[progress.step] = Check(progress.step, ok=False, text=fault.text + code)
    else:
        login = "accepted" if credentials(config) else "none is configured"
        seen["auth"] = Check("auth", ok=True, text=login)
    return Probe((name, *(seen.get(step) or Check(step, ok=None) for step in STEPS)), fault)


def unknown(name: Check) -> Probe:
    """Tell of a host whose name leads nowhere."""
    fault = ChannelFault(Cause.CONNECT, Phase.CONNECT, name.text)
    return Probe((name, *not_looked_at(STEPS)), fault)


def _seen(progress: Progress, config: SmtpChannel) -> dict[str, Check]:
    seen: dict[str, Check] = {}
    if progress.connected:
        seen["connect"] = Check("connect", ok=True, text=f"port {config.port} answers")
    if progress.encrypted is not None:
        seen["tls"] = tls_check(progress.encrypted)
    elif progress.connected and config.tls == "none":
        seen["tls"] = Check("tls", ok=True, text="none: mail travels in the clear")
    if progress.greeted:
        seen["greeting"] = Check("greeting", ok=True, text="ready")
    if progress.features is not None:
        seen["ehlo"] = Check("ehlo", ok=True, text=_offers(progress.features))
    return seen


def _offers(features: Features) -> str:
    keywords = sorted(keyword for keyword in features.keywords if keyword not in ("", "AUTH"))
    size = f" (up to {features.size} bytes)" if features.size else ""
    return (" ".join(keywords) or "no extensions") + size
