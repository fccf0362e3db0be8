"""Starts the product's processes by forking one that has imported everything: a start costs a twentieth of a second, not two.

What is started is what `python -m PACKAGE` would run, in a process of its own, with its own environment and log. Only
the interpreter is not new, so whatever is decided while modules are imported (failpoints, the constants that
`tests.faults.launch` sets) needs a new one. All are new with POSTROOM_LONG=1, and where libraries do not bear forking.
"""

import atexit
import gc
import json
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).parents[1]
FORKS = sys.platform == "linux" and os.environ.get("POSTROOM_LONG") != "1"
# What `__main__` of each package imports; runpy insists that `__main__` itself was not.
IMPORTED = ("service.app", "granian", "postroom.startup", "workers.worker", "postroom.cli")


class Born:
    """A process that was forked; what is used of `subprocess.Popen`."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        if self.returncode is None:
            self.returncode = self._nursery.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait until it has ended; return its exit code."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Ran(NamedTuple):
    """A command that has ended: its exit code, and what it said on standard output and error."""

    code: int
    out: str
    err: str


class Nursery:
    """The process that forks, for one process of tests; it starts with its first child and ends with the tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._answers = b""

    def start(
        self,
        package: str,
        *arguments: str,
        environ: Mapping[str, str],
        log: Path,
        errors: Path | None = None,
        new: bool = False,
    ) -> "Process":
        """Start `python -m PACKAGE ARGUMENTS…` in a session of its own; what it prints is appended to the log.

        With `new` in a new interpreter.
        """
        if new or not FORKS:
            command = [sys.executable, "-m", package, *arguments]
            options: dict[str, Any] = {"env": dict(environ), "cwd": ROOT, "start_new_session": True}
            with log.open("ab") as out, (errors or log).open("ab") as err:
                return subprocess.Popen(command, stdout=out, stderr=err, **options)
        outputs = [str(log), str(errors or log)]
        words = {"argv": [package, *arguments], "environ": dict(environ), "outputs": outputs}
        return Born(self, self.ask(start=words))

    def run(self, package: str, *arguments: str, environ: Mapping[str, str], seconds: float = 30) -> Ran:
        """Run `python -m PACKAGE ARGUMENTS…` to its end. It blocks."""
        with NamedTemporaryFile(prefix="pr") as out, NamedTemporaryFile(prefix="pr") as err:
            places = {"log": Path(out.name), "errors": Path(err.name)}
            code = self.start(package, *arguments, environ=environ, **places).wait(seconds)
            return Ran(code, out.read().decode(), err.read().decode())

    def ask(self, **question: Any) -> Any:
        """Ask the process something and return its answer."""
        with self._lock:
            control = self._control or self._open()
            control.sendall(json.dumps(question).encode() + b"\n")
            while b"\n" not in self._answers:
                more = control.recv(65536)
                assert more, "the nursery has ended"
                self._answers += more
            answer, _, self._answers = self._answers.partition(b"\n")
            return json.loads(answer)

    def _open(self) -> socket.socket:
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
        options: dict[str, Any] = {"pass_fds": [theirs.fileno()], "cwd": ROOT, "start_new_session": True}
        process = subprocess.Popen(command, **options)
        theirs.close()
        atexit.register(_close, self._control, process)
        return self._control


def _close(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.wait(10)


Process = subprocess.Popen[bytes] | Born
NURSERY = Nursery()


def main() -> None:
    """Be the process that forks, until the other end of the socket is closed."""
    control = socket.socket(fileno=int(sys.argv[1]))
    for name in IMPORTED:
        __import__(name)
    from postroom.templates import TemplateSet

    TemplateSet.load_folder(ROOT / "templates")  # what libraries read from disk the first time
    gc.collect()
    gc.freeze()
    questions = control.makefile("rb")
    for line in questions:
        question = json.loads(line)
        answer = _fork(control, **question["start"]) if "start" in question else _poll(question["poll"])
        control.sendall(json.dumps(answer).encode() + b"\n")


def _fork(
    control: socket.socket, argv: Sequence[str], environ: Mapping[str, str], outputs: Sequence[str]
) -> int:
    pid = os.fork()
    if pid == 0:
        control.close()
        _be(argv, environ, outputs)
    return pid


def _be(argv: Sequence[str], environ: Mapping[str, str], outputs: Sequence[str]) -> NoReturn:
    """Be `python -m` in the process that was forked."""
    code = 1
    try:
        os.setsid()
        for number, path in enumerate((os.devnull, *outputs)):
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        os.environ.clear()
        os.environ.update(environ)
        random.seed()
        sys.argv = [argv[0], *argv[1:]]
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(end.code + "\n")
    except BaseException:  # noqa: BLE001  as an interpreter does
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    main()
