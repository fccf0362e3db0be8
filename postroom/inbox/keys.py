"""What the handlers find in the application."""

from aiohttp import web
from msgspec import Struct

from postroom.inbox.mailbox import Mailbox


class Info(Struct, frozen=True):
    """Where things are: the SMTP address of the inbox, and the URL under which Postroom's API is expected."""

    smtp: str
    api_url: str


MAILBOX = web.AppKey("mailbox", Mailbox)
INFO = web.AppKey("info", Info)
