"""Child processes: pinned, logged, and ended with us, whatever ends us."""

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
PR_SET_PDEATHSIG = 1


class Child:
    """A process in a session of its own: Ctrl-C reaches only the bench, which ends its children in order."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def ask(self, word: str) -> Any:
        """Say a word to a sink and return its answer, one line of JSON."""
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        return self.read()

    def read(self, seconds: float = 180.0) -> Any:
        """Return the next line of JSON that it prints."""
        ready, _, _ = select.select([self.stdout], [], [], seconds)  # it prints no second line unasked
        line = self.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"{self.name} ended early: {self.last_words()}")
        return json.loads(line)

    def pin(self, cores: frozenset[int]) -> None:
        """Move it, with all its threads, to these cores."""
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)

    def wait(self, seconds: float) -> int:
        """Wait for it to end by itself and return its exit code; woken at once, for this is timed.

        Raises:
            RuntimeError: it did not end in time.
        """
        handle = os.pidfd_open(self.process.pid)
        try:
            if not select.select([handle], [], [], seconds)[0]:
                raise RuntimeError(f"{self.name} did not end in time: {self.last_words()}")
        finally:
            os.close(handle)
        return self.process.wait()

    def end(self, seconds: float = 15.0) -> None:
        """End it with SIGTERM, and with SIGKILL if that does not help; then whatever it had started."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def last_words(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""

    def cpu(self) -> float:
        """Return the seconds of processor that it and everything below it have taken."""
        return sum(_processor_seconds(pid) for pid in _family(self.process.pid))

    def memory(self) -> int:
        """Return the resident bytes of the process and everything below it."""
        return sum(_resident(pid) for pid in _family(self.process.pid))


class Children:
    """All children of a run; leaving the block ends them, the newest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._running):
            child.end()
        self._running.clear()

    def start(
        self,
        name: str,
        command: list[str],
        cores: frozenset[int],
        *,
        environ: dict[str, str] | None = None,
        talks: bool = False,
    ) -> Child:
        """Start a process on these cores. One that `talks` has its stdin and stdout here, else they go to its log."""
        path = self.folder / f"{name}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**inherited(), **(environ or {})},
                cwd=ROOT,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_settle(cores),
            )
        child = Child(name, process, path)
        self._running.append(child)
        return child

    def module(
        self,
        name: str,
        module: str,
        cores: frozenset[int],
        *words: str,
        environ: dict[str, str] | None = None,
        talks: bool = False,
    ) -> Child:
        """Start `python -m module`."""
        command = [sys.executable, "-m", module, *words]
        return self.start(name, command, cores, environ=environ, talks=talks)

    def end(self, *children: Child) -> None:
        """End some of them now."""
        for child in children:
            child.end()
            self._running.remove(child)


def inherited() -> dict[str, str]:
    """Return our environment without what would change how Python or Postroom behave: a shell's is no place's."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "POSTROOM_"))}


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(
    condition: Callable[[], bool], what: str, *, child: Child | None = None, seconds: float = PATIENCE
) -> None:
    """Wait until a condition holds.

    Raises:
        RuntimeError: it did not in time, or the child it depends on has ended.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if child is not None and child.process.poll() is not None:
            raise RuntimeError(f"{child.name} ended: {child.last_words()}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"not in time: {what}\n{child.last_words() if child else ''}")
        time.sleep(0.01)


def listens(port: int) -> bool:
    """Return whether somebody takes connections at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    """Return whether a GET is answered with 200."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return bool(response.status == 200)
    return False


def _settle(cores: frozenset[int]) -> Callable[[], None]:
    def settle() -> None:
        os.sched_setaffinity(0, cores)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return settle


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with suppress(OSError):
            found += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


def _processor_seconds(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
