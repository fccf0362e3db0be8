"""The ports of a development run: the API's, and those that follow it."""

import errno
import socket

from msgspec import Struct

from postroom.errors import PostroomError

HOST = "127.0.0.1"


class Ports(Struct, frozen=True):
    """Where everything listens, counted from the API's port."""

    api: int

    @property
    def inbox(self) -> int:
        """The inbox's page and JSON API."""
        return self.api + 1

    @property
    def smtp(self) -> int:
        """The inbox's SMTP."""
        return self.api + 2

    @property
    def metrics(self) -> int:
        """The metrics of API and worker together."""
        return self.api + 3


def check_ports(ports: Ports) -> None:
    """Name every taken port, and what to do about it.

    Raises:
        PostroomError: one is taken, or may not be listened on.
    """
    wanted = {"API": ports.api, "inbox": ports.inbox, "inbox SMTP": ports.smtp, "metrics": ports.metrics}
    problems = [f"port {port} ({name}) {why}" for name, port in wanted.items() if (why := _why_not(port))]
    if problems:
        remedy = "choose others, for example: make run PORT=9080 (the three ports after it are used too)"
        raise PostroomError("\n".join([*problems, remedy]))


def free_port() -> int:
    """Return a port that is free now, for what nobody needs to find."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _why_not(port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            return (
                "is taken by another program"
                if error.errno == errno.EADDRINUSE
                else f"cannot be used: {error.strerror}"
            )
    return None
