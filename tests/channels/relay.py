"""What the tests of the SMTP channel share: a relay to the scripted server, and mails for it."""

import asyncio

from msgspec import structs

from postroom.compose import Composed
from postroom.config.structs import SmtpChannel
from postroom.message import Attachment, Mail
from postroom.secret import Secret
from tests.channels.conformance import (
    CANARY,
    MAILS,
    Mark,
    attempt,
    order_for,
)
from tests.smtpd import Smtpd
from workers.channels.smtp import SmtpRelay
from workers.channels.smtp_reply import Reply
from workers.channels.smtp_session import SmtpTimeouts

QUICK = SmtpTimeouts(
    resolve=1, connect=1, greeting=0.3, command=0.3, data_init=0.3, data_block=0.3, data_done=0.5, quit=0.2
)
LOGIN = {"username": "emailapikey", "password": Secret("open sesame")}

QUICK = SmtpTimeouts(
    resolve=1, connect=1, greeting=0.3, command=0.3, data_init=0.3, data_block=0.3, data_done=0.5, quit=0.2
)
LOGIN = {"username": "emailapikey", "password": Secret("open sesame")}
GARBAGE = f"raw \x00\xff {CANARY} <html>\r\n"


def relay_to(server: Smtpd, **options) -> SmtpRelay:
    """A relay to the server with short timeouts; options are those of the configuration."""
    given = {"name": "relay", "host": "127.0.0.1", "port": server.port, "tls": "none"} | options
    return SmtpRelay(SmtpChannel(**given), timeouts=QUICK)


async def submit_to(server: Smtpd, mail: Mail = MAILS["plain"], mark: Mark | None = None, **options):
    """One attempt over a relay to the server."""
    return await attempt(relay_to(server, **options), order_for(mail), mark or Mark())


async def until(condition) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # it is the event loop's own progress that is awaited
            await asyncio.sleep(0)


def reply(code: str, text: str) -> Reply:
    """A one-line reply."""
    return Reply(int(code), (text.encode(),))


def composing(server: Smtpd, data: bytes, *, eight_bit: bool = False) -> SmtpRelay:
    """A relay whose composer gives these bytes."""
    composed = Composed(data, eight_bit=eight_bit, smtputf8=False)
    return SmtpRelay(relay_to(server).config, timeouts=QUICK, compose=lambda *_: composed)


def big_mail(size: int) -> Mail:
    """A mail with an attachment of so many bytes."""
    return structs.replace(MAILS["plain"], attachments=(Attachment("a.bin", "application/pdf", bytes(size)),))
