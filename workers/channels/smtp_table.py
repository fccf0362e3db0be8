"""What ends in which outcome over SMTP: literal tables, read from the top; the first row that fits decides.

A row is (reply code, enhanced code, end, text), both codes by their beginning ("none": no enhanced code).
The first digit decides what happens to mail (RFC 5321 §4.2.1); longer codes only tell whose failure it is.
Nothing is told from the server's words, except in a provider's own rows, which go first.
"""

from enum import StrEnum

from postroom.outcome import Answer, Cause, ChannelFault, Deferred, Phase, Refused
from workers.channels.smtp_reply import Reply


class Step(StrEnum):
    """What a reply answers."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"  # a reply before the terminating dot: the server does not want to read on
    DONE = "done"


class End(StrEnum):
    """How a message or a recipient ends; a `Cause` in a row stops the channel instead."""

    DEFER = "defer"
    REFUSE = "refuse"
    SENDER = "sender"  # the message's own where its caller chose the From domain, else `Cause.POLICY`


Row = tuple[str, str, End | Cause, str]

BUSY = "the server asks us to come back later: lower `rate` or `connections` if this stays"
TURNED_AWAY = "the server takes no mail from our address: ask the provider whether this host's IP is allowed"
LOGIN_REFUSED = "the server refuses the credentials: check `username` and `password` of this channel"
LOGIN_NEEDED = "the server wants a login before it takes mail: set `username` and `password` of this channel"
LOGIN_LATER = "the server cannot check credentials now"
NO_STARTTLS = 'the server does not offer STARTTLS: check `port` and `tls` (465 goes with "implicit")'
SENDER_REFUSED = "the server refuses the envelope sender: verify its domain and `bounce_address` there"
OUT_OF_ORDER = "the server does not take mail on this connection: check `port`, `tls` and the login"

# The login rows hold at every step: these codes are about the session, never about the mail (RFC 4954 §6).
_LOGIN: tuple[Row, ...] = (
    ("530", "", Cause.AUTH, LOGIN_NEEDED),
    ("534", "", Cause.AUTH, LOGIN_REFUSED),
    ("535", "", Cause.AUTH, LOGIN_REFUSED),
    ("538", "", Cause.AUTH, LOGIN_REFUSED),
)
_CONTENT: tuple[Row, ...] = (
    ("421", "", Cause.THROTTLE, BUSY),
    ("454", "", Cause.THROTTLE, BUSY),  # Amazon SES: "Throttling failure", after DATA
    ("4", "", End.DEFER, ""),
    *_LOGIN,
    ("5", "", End.REFUSE, ""),
)

TABLE: dict[Step, tuple[Row, ...]] = {
    Step.GREETING: (
        ("421", "", Cause.THROTTLE, BUSY),
        ("4", "", Cause.CONNECT, "the server is not ready to talk"),
        ("5", "", Cause.POLICY, TURNED_AWAY),
    ),
    Step.EHLO: (
        ("421", "", Cause.THROTTLE, BUSY),
        ("4", "", Cause.CONNECT, "the server is not ready to talk"),
        ("55", "", Cause.POLICY, TURNED_AWAY),
        ("5", "", Cause.CONNECT, "the server refuses EHLO"),
    ),
    Step.STARTTLS: (
        ("421", "", Cause.THROTTLE, BUSY),
        ("4", "", Cause.CONNECT, "the server cannot start TLS now"),  # 5yz: as if it was not offered
    ),
    Step.AUTH: (
        ("421", "", Cause.THROTTLE, BUSY),
        ("454", "", Cause.THROTTLE, LOGIN_LATER),
        ("4", "4.7", Cause.THROTTLE, LOGIN_LATER),
        ("4", "", Cause.CONNECT, LOGIN_LATER),
        ("5", "", Cause.AUTH, LOGIN_REFUSED),
    ),
    # Before any recipient is named a refusal is about us: our pace, our login, our sender.
    Step.MAIL: (
        ("421", "", Cause.THROTTLE, BUSY),
        ("454", "", Cause.THROTTLE, BUSY),
        ("4", "4.7", Cause.THROTTLE, BUSY),
        ("4", "4.3.2", Cause.THROTTLE, BUSY),  # "system not accepting network messages"
        ("4", "", End.DEFER, ""),
        *_LOGIN,
        ("500", "", Cause.POLICY, OUT_OF_ORDER),
        ("502", "", Cause.POLICY, OUT_OF_ORDER),
        ("503", "", Cause.POLICY, OUT_OF_ORDER),
        ("5", "5.7", End.SENDER, SENDER_REFUSED),
        ("550", "none", End.SENDER, SENDER_REFUSED),
        ("553", "none", End.SENDER, SENDER_REFUSED),
        ("5", "", End.REFUSE, ""),  # too big, malformed sender, unknown parameter: this message's own
    ),
    Step.RCPT: (
        ("421", "", Cause.THROTTLE, BUSY),
        ("4", "", End.DEFER, ""),  # 4.7.x too: greylisting is per recipient
        *_LOGIN,
        ("5", "5.2.2", End.DEFER, ""),  # a full mailbox empties
        ("5", "5.5.3", End.DEFER, ""),  # too many recipients: the rest goes with the next attempt
        ("552", "none", End.DEFER, ""),  # the same, as RFC 821 had it (RFC 5321 §4.5.3.1.10)
        ("5", "", End.REFUSE, ""),
    ),
    Step.DATA: _CONTENT,
    Step.BODY: _CONTENT,
    # After the dot 421 says "not accepted" like any 4yz, about this message; the next connect tells the rest.
    Step.DONE: (("421", "", End.DEFER, ""), *_CONTENT[1:]),
}

# What providers say in words: (reply code, words, end, text).
PROVIDERS: dict[str, tuple[Row, ...]] = {
    "zeptomail": (  # its pages swap 552 and 553, so the words decide
        (
            "5",
            "relaying disallowed",
            End.SENDER,
            "ZeptoMail refuses the sender: verify its domain in this mail agent",
        ),
        (
            "535",
            "",
            Cause.AUTH,
            "ZeptoMail refuses the login: wrong token or username, credits used up, or account blocked",
        ),
    ),
    "ses": (
        (
            "454",
            "daily message quota",
            Cause.QUOTA,
            "Amazon SES: the account's daily sending quota is used up; have it raised, or wait",
        ),
        ("454", "throttling", Cause.THROTTLE, "Amazon SES: too fast for the account; lower `rate`"),
        ("454", "", End.DEFER, ""),  # "Temporary service failure", and whatever else may pass
        (
            "554",
            "not verified",
            End.SENDER,
            "Amazon SES: an address is not verified in this region; verify it, or leave the sandbox",
        ),
        ("554", "access denied", Cause.AUTH, "Amazon SES: this user may not send; look at its IAM policy"),
        ("554", "sending paused", Cause.POLICY, "Amazon SES has paused sending for this account"),
        ("554", "sending suspended", Cause.POLICY, "Amazon SES has suspended sending for this account"),
    ),
    "generic": (),
}

_PHASES = {
    Step.GREETING: Phase.CONNECT,
    Step.EHLO: Phase.CONNECT,
    Step.STARTTLS: Phase.CONNECT,
    Step.AUTH: Phase.AUTH,
}


def judge(
    step: Step, reply: Reply, *, dialect: str = "generic", chosen_sender: bool = False
) -> Answer | ChannelFault | None:
    """Say what a reply that is not the hoped-for one means; `chosen_sender`: a caller chose the From domain.

    Returns:
        The answer for whoever the reply is about, a fault, or None for a reply that is out of step (a
        2yz or 3yz that nothing here could have asked for): then nothing on the connection can be trusted.
    """
    code, enhanced = str(reply.code), reply.enhanced
    row = _provider_row(step, code, reply, dialect) or _row(step, code, enhanced)
    return None if row is None else _end(step, row, reply.code, enhanced, chosen=chosen_sender)


def _provider_row(step: Step, code: str, reply: Reply, dialect: str) -> Row | None:
    rows = PROVIDERS[dialect]
    if not rows:
        return None
    said = " ".join(reply.lines).lower()
    found = next((row for row in rows if code.startswith(row[0]) and row[1] in said), None)
    # Before MAIL there is no message that could be put off: the step's own rows name the fault.
    return None if found and step in _PHASES and isinstance(found[2], End) else found


def _row(step: Step, code: str, enhanced: str | None) -> Row | None:
    said = f"{enhanced or 'none'}."
    for row in TABLE[step]:
        if code.startswith(row[0]) and (not row[1] or said.startswith(f"{row[1]}.")):
            return row
    return None


def _end(step: Step, row: Row, code: int, enhanced: str | None, *, chosen: bool) -> Answer | ChannelFault:
    _, _, end, text = row
    phase = _PHASES.get(step) or Phase(step.value)
    if end is End.SENDER:
        end = End.REFUSE if chosen else Cause.POLICY
    if isinstance(end, Cause):
        return ChannelFault(end, phase, text, code, enhanced)
    if end is End.DEFER:
        return Answer(Deferred(phase), code, enhanced)
    whose = "recipient" if step is Step.RCPT and row[2] is not End.SENDER else "message"
    return Answer(Refused(phase, whose), code, enhanced)
