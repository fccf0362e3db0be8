"""Judging templates in a process of its own, which may not take much: whatever a template does, only that process ends.

A template is judged by making it: its files are compiled, and every example is rendered in every locale. What has
been judged here may be made in the processes that carry mail.
"""

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import msgspec

from postroom.templates.faults import TemplateFault, TemplatesError
from postroom.templates.sources import MANIFEST
from postroom.templates.template import Template

CPU_SECONDS = 0.7  # of one template; those that ship take a twentieth
MEMORY_BYTES = 160 * 1024 * 1024  # beyond what the process has when it begins
WALL_SECONDS = 10.0  # without a verdict, on a machine that has other things to do
START_SECONDS = 20.0

Files = Mapping[str, str]

_decoder = msgspec.msgpack.Decoder(list[TemplateFault])
_SIZE_BYTES = 4


def judge(templates: Mapping[str, Files]) -> list[TemplateFault]:
    """Return everything that is wrong with the templates, each given by its name as its files.

    It forks, so it belongs into a process that has no threads; elsewhere there is `judge_apart`.
    """
    faults: list[TemplateFault] = []
    left = list(templates.items())
    while left:
        child = _Child(left)
        judged = 0
        for verdict in child.verdicts():
            faults += verdict
            judged += 1
        ending = child.ending()
        if judged < len(left):
            faults.append(TemplateFault(left[judged][0], MANIFEST, 1, ending))
            judged += 1
        left = left[judged:]
    return sorted(set(faults))


def judge_apart(name: str, files: Files) -> list[TemplateFault]:
    """Do the same for one template from a process that has threads, in a new interpreter. It blocks."""
    command = [sys.executable, "-P", "-m", "postroom.templates.judging"]
    question = msgspec.msgpack.encode({name: dict(files)})
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter and module
            command, input=question, capture_output=True, check=True, timeout=START_SECONDS + WALL_SECONDS
        )
        return _decoder.decode(done.stdout)
    except (subprocess.SubprocessError, msgspec.DecodeError):
        return [
            TemplateFault(name, MANIFEST, 1, "could not be judged: the process that judges it ended early")
        ]


class _Child:
    """A process that judges templates one after the other, and tells each verdict as soon as it is known."""

    def __init__(self, templates: list[tuple[str, Files]]) -> None:
        self._reading, writing = os.pipe()
        self._late = False
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._reading)
                _judge_each(templates, writing)
            finally:
                os._exit(0)  # nothing of the parent is to be closed or flushed here
        os.close(writing)

    def verdicts(self) -> Iterator[list[TemplateFault]]:
        """Yield the faults of one template after the other, until the process ends or has been too slow."""
        while (head := self._read(_SIZE_BYTES)) and (body := self._read(int.from_bytes(head))):
            yield _decoder.decode(body)
        os.close(self._reading)

    def ending(self) -> str:
        """Wait until the process has ended; say why it did, as the fault of the template it was judging."""
        if self._late:
            os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        if self._late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGXCPU)):
            return "takes too long: its examples do not come to an end"
        return "takes too much memory, or brings its compiler down"

    def _read(self, size: int) -> bytes:
        read = b""
        deadline = time.monotonic() + WALL_SECONDS
        while len(read) < size:
            ready, _, _ = select.select([self._reading], [], [], max(0.0, deadline - time.monotonic()))
            self._late = not ready
            piece = os.read(self._reading, size - len(read)) if ready else b""
            if not piece:
                return b""
            read += piece
        return read


def _judge_each(templates: list[tuple[str, Files]], writing: int) -> None:
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    limit = _memory_in_use() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # an engine that aborts has a lot to say
    for name, files in templates:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        verdict = msgspec.msgpack.encode(_verdict(name, files))
        os.write(writing, len(verdict).to_bytes(_SIZE_BYTES) + verdict)


def _verdict(name: str, files: Files) -> list[TemplateFault]:
    try:
        Template(name, files)
    except TemplatesError as error:
        return error.faults
    except MemoryError:
        return [TemplateFault(name, MANIFEST, 1, "takes too much memory, or brings its compiler down")]
    except RecursionError:
        return [TemplateFault(name, MANIFEST, 1, "is nested too deep")]
    return []


def _memory_in_use() -> int:
    """Return the size of the process's address space; where the system does not tell, leave it enough."""
    try:
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123  a fork of a process should do little
            return int(stream.read().split()[0]) * resource.getpagesize()
    except OSError:
        return MEMORY_BYTES


def _answer() -> None:
    templates = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=dict[str, dict[str, str]])
    sys.stdout.buffer.write(msgspec.msgpack.encode(judge(templates)))


if __name__ == "__main__":
    _answer()
