"""What one transaction will say, and what is known before a word of it is said."""

import re

from msgspec import Struct

from postroom.compose import Composed
from postroom.outcome import Answer, Phase, Refused
from workers.channels.seam import Order
from workers.channels.smtp_session import Features

TOO_BIG = Answer(Refused(Phase.MAIL, "message"), enhanced_code="5.3.4")
NOT_SEVEN_BIT = Answer(Refused(Phase.MAIL, "message"), enhanced_code="5.6.3")
SENDER_NOT_ASCII = Answer(Refused(Phase.MAIL, "message"), enhanced_code="5.6.7")
RECIPIENT_NOT_ASCII = Answer(Refused(Phase.RCPT, "recipient"), enhanced_code="5.6.7")
SENDER_MALFORMED = Answer(Refused(Phase.MAIL, "message"), enhanced_code="5.1.7")
RECIPIENT_MALFORMED = Answer(Refused(Phase.RCPT, "recipient"), enhanced_code="5.1.3")

# What could end the path, the argument or the command line (RFC 5321 §4.1.2). Addresses were checked at the
# edge; this is the last line before the wire.
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f<>\u2028\u2029]")


class Envelope(Struct):
    """The commands, the content, and per recipient of the order the answer already known."""

    mail: bytes
    rcpts: list[bytes]  # of the recipients without an answer, in their order
    data: bytes
    answers: list[Answer | None]
    opened: bool = False  # its opening has been written

    def open(self) -> bytes:
        """Return what opens its transaction, to be written at once: MAIL, every RCPT, and DATA."""
        self.opened = True
        return b"".join((self.mail, *self.rcpts, b"DATA\r\n"))

    @property
    def commands(self) -> int:
        """How many replies its opening asks for."""
        return len(self.rcpts) + 2


def envelope_for(order: Order, sender: str, composed: Composed, features: Features) -> Envelope:
    """Decide what can be said to this server: what it cannot take by its own EHLO is refused here."""
    mail = order.mail
    everybody = mail.to + mail.cc + mail.bcc
    recipients = [everybody[index].address for index in order.recipients]
    refusal = _refusal(sender, composed, features)
    if refusal is not None:
        return Envelope(b"", [], composed.data, [refusal] * len(recipients))
    plain = not features.wire.smtputf8
    answers = [_recipient_refusal(recipient, plain=plain) for recipient in recipients]
    named = [one for one, answer in zip(recipients, answers, strict=True) if answer is None]
    international = composed.smtputf8 or not (sender.isascii() and all(map(str.isascii, named)))
    return Envelope(
        f"MAIL FROM:<{sender}>{_parameters(composed, features, international=international)}\r\n".encode(),
        [f"RCPT TO:<{one}>\r\n".encode() for one in named],
        composed.data,
        answers,
    )


def _refusal(sender: str, composed: Composed, features: Features) -> Answer | None:
    """Return why the whole message cannot go through this server, or None."""
    if _UNSAFE.search(sender):
        return SENDER_MALFORMED
    if features.size and len(composed.data) > features.size:
        return TOO_BIG
    if not features.wire.smtputf8 and (composed.smtputf8 or not sender.isascii()):
        return SENDER_NOT_ASCII
    if composed.eight_bit and not any(features.wire):  # SMTPUTF8 alone allows for eight bits in the header
        return NOT_SEVEN_BIT
    return None


def _recipient_refusal(recipient: str, *, plain: bool) -> Answer | None:
    if _UNSAFE.search(recipient):
        return RECIPIENT_MALFORMED
    return RECIPIENT_NOT_ASCII if plain and not recipient.isascii() else None


def _parameters(composed: Composed, features: Features, *, international: bool) -> str:
    """Return MAIL's parameters (RFC 1870, RFC 6152, RFC 6531), each with its leading space."""
    size = f" SIZE={len(composed.data)}" if "SIZE" in features.keywords else ""
    body = " BODY=8BITMIME" if composed.eight_bit and features.wire.eight_bit else ""
    return size + body + (" SMTPUTF8" if international else "")
