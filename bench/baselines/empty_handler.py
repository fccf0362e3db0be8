"""The edge's baseline, an empty typed Litestar handler: `python -m bench.baselines.empty_handler PORT`.

It decodes the same body into the same structs, which is what "typed" means, and answers 202 with an id; no token is
looked at, nothing is checked, recorded, logged or counted. The server's settings are those of `service/__main__.py`.
"""

import sys
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from litestar import Litestar, post
from msgspec import Struct


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
    """Serve until SIGTERM."""
    Granian(
        "bench.baselines.empty_handler:create_app",
        factory=True,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        loop=Loops.uvloop,
        address="127.0.0.1",
        port=int(sys.argv[1]),
        workers=1,
        backlog=2048,
        log_access=False,
        websockets=False,
        workers_kill_timeout=30,
    ).serve()


if __name__ == "__main__":
    main()
