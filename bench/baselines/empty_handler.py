"""The edge's baseline, an empty typed Litestar handler: `python -m bench.baselines.empty_handler PORT`.

It decodes the same body into the same structs, which is what "typed" means, and answers 202 with an id; no token is
looked at, nothing is checked, recorded, logged or counted. The server is the product's own (`service.server`).
"""

import sys
from typing import Any

import uvloop
from litestar import Litestar, post
from msgspec import Struct

from service.server import ApiServer


class Mailbox(Struct, frozen=True, forbid_unknown_fields=True):
    """An address."""

    address: str
    name: str | None = None


class Template(Struct, frozen=True, forbid_unknown_fields=True):
    """A template and its variables."""

    name: str
    variables: dict[str, Any] = {}


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """The body."""

    client_ref: str
    agent: str
    to: tuple[Mailbox, ...]
    template: Template
    metadata: dict[str, str] = {}


class Accepted(Struct, frozen=True):
    """The answer."""

    id: str
    state: str


@post("/v1/messages", status_code=202)
async def accept(data: Message) -> Accepted:
    """Do nothing."""
    return Accepted(data.client_ref, "queued")


def create_app() -> Litestar:
    """Return the application with nothing in it that costs."""
    return Litestar([accept], openapi_config=None, logging_config=None)


def main() -> None:
    """Serve until SIGTERM, as the product does."""
    uvloop.run(ApiServer("127.0.0.1", int(sys.argv[1])).run(create_app))


if __name__ == "__main__":
    main()
