"""The bench's side of a sink."""

import os
import re
from typing import Any, Protocol

from bench.processes import Child, Children, free_port, listens, until


class Sink(Protocol):
    """What takes mail at a port, and counts it."""

    port: int

    def count(self) -> int:
        """Return how many messages it took."""

    def end(self) -> None:
        """Stop it."""


class OwnSink:
    """A sink of ours; `kind` is `smtp` or `zeptomail`."""

    def __init__(self, children: Children, cores: frozenset[int], kind: str, *words: str) -> None:
        self._children = children
        self._child: Child = children.module(f"sink-{kind}", f"bench.sinks.{kind}", cores, *words, talks=True)
        self.port: int = self._child.read()["port"]

    def count(self) -> int:
        """Return how many messages it took."""
        return int(self.stats()["count"])

    def stats(self) -> dict[str, Any]:
        """Return how many messages it took, and when the first and the last."""
        found: dict[str, Any] = self._child.ask("stats")
        return found

    def times(self) -> dict[str, float]:
        """Return when it had the last byte of each message, by marker, on the machine's monotonic clock."""
        found: dict[str, float] = self._child.ask("times")["times"]
        return found

    def sample(self) -> str:
        """Return the first message it took."""
        return str(self._child.ask("sample")["sample"])

    def clear(self) -> None:
        """Let it forget all."""
        self._child.ask("clear")

    def end(self) -> None:
        """Stop it."""
        self._children.end(self._child)


class PostfixSink:
    """`smtp-sink`, which counts on its standard output."""

    def __init__(self, children: Children, cores: frozenset[int], binary: str) -> None:
        self.port = free_port()
        self._children = children
        rights = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [binary, "-c", *rights, f"127.0.0.1:{self.port}", "1000"]
        self._child = children.start(f"sink-{self.port}", command, cores)
        until(lambda: listens(self.port), "smtp-sink listens", child=self._child)

    def count(self) -> int:
        """Return how many messages it took."""
        size = self._child.log.stat().st_size
        with self._child.log.open("rb") as log:
            log.seek(max(0, size - 200))
            found = re.findall(rb"mesg=([0-9]+)", log.read())
        return int(found[-1]) if found else 0

    def end(self) -> None:
        """Stop it."""
        self._children.end(self._child)
