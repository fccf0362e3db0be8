"""What both do-it-yourself stacks share: the request's model, the templates by Jinja2, the mail by `EmailMessage`.

Templates are compiled once. `EmailMessage` is used as its documentation shows; other transfer encodings (base64, 8bit)
were tried and take as long, for it is the header fields that cost, parsed and folded in Python.
"""

import hmac
from datetime import date
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import make_msgid
from typing import Annotated, Any

from fastapi import Header, HTTPException
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from pydantic import BaseModel, ConfigDict

from bench.bodies import TEMPLATES, TOKEN

SENDER = Address("The Corner Shop", "orders", "shop.example")
DEFAULTS = {"carrier": "", "eta": "", "items": [], "support_email": "", "company_address": ""}
EXPECTED = f"Bearer {TOKEN}".encode()


def long_date(value: str) -> str:
    """`2026-03-09` as `9 March 2026`."""
    day = date.fromisoformat(value)
    return f"{day.day} {day:%B %Y}"


def link(value: str) -> str:
    """A link as it is, if it is one."""
    if not value.startswith(("https://", "http://")):
        raise ValueError("not a link")
    return value


environment = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
)
environment.filters |= {"date": long_date, "url": link}
subject, text, html = (
    environment.get_template(f"order_shipped/{n}") for n in ("subject.txt", "body.txt", "body.html")
)


class Strict(BaseModel):
    """Base of all parts: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Mailbox(Strict):
    """An address."""

    address: str
    name: str = ""


class Template(Strict):
    """A template and its variables."""

    name: str
    variables: dict[str, Any]


class Message(Strict):
    """The body."""

    client_ref: str
    agent: str
    to: list[Mailbox]
    template: Template
    metadata: dict[str, str] = {}


def check_token(authorization: Annotated[str, Header()]) -> None:
    """Refuse a call without the token."""
    if not hmac.compare_digest(authorization.encode(), EXPECTED):
        raise HTTPException(401)


def compose(message: dict[str, Any]) -> tuple[str, list[str], bytes]:
    """Return envelope sender, recipients and the mail's bytes."""
    variables = DEFAULTS | message["template"]["variables"]
    mail = EmailMessage(policy=SMTP)
    mail["From"] = SENDER
    mail["To"] = [Address(box["name"], addr_spec=box["address"]) for box in message["to"]]
    mail["Subject"] = subject.render(variables).strip()
    mail["Message-ID"] = make_msgid(domain="shop.example")
    mail["X-Reference"] = message["client_ref"]
    mail.set_content(text.render(variables))
    mail.add_alternative(html.render(variables), subtype="html")
    return SENDER.addr_spec, [box["address"] for box in message["to"]], mail.as_bytes()
