"""Starts a process of Postroom with another clock or with shorter patience: `-m tests.faults.launch … PACKAGE`.

    --clock 3600                                the machine's clock as this process sees it, in seconds off
    --set workers.worker:DRAIN_SECONDS=1.5      a constant, before anything else has read it
    --set workers.channels.smtp_session:DEFAULT_TIMEOUTS.command=2     one field of a constant struct
    --hang hang.test                            a name server that never answers for this host

What is set is a length of time; nothing else about the process differs from the one that is shipped.
"""

import argparse
import datetime as dt
import importlib
import json
import runpy
import socket
import time
from typing import Any

import msgspec


def shift_clock(seconds: float, package: str) -> None:
    """Let this process read a wall clock that is so far off; what is monotonic stays."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)

    class Shifted(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            return dt.datetime.fromtimestamp(time.time(), tz)

    # The class itself must stay for those who decode into it; these are the ones that ask it for the time.
    for name in ("postroom.log", *(("service.auth",) if package == "service" else ())):
        importlib.import_module(name).datetime = Shifted


def set_constant(text: str) -> None:
    """Set one constant of a module."""
    place, _, value = text.partition("=")
    module_name, _, path = place.partition(":")
    name, _, field = path.partition(".")
    module = importlib.import_module(module_name)
    new: Any = json.loads(value)
    if field:
        new = msgspec.structs.replace(getattr(module, name), **{field: new})
    assert hasattr(module, name), text
    setattr(module, name, new)


def hang_name_server(host: str) -> None:
    """Let this process's look-ups of one host never end."""
    real = socket.getaddrinfo

    def look_up(name: Any, *args: Any, **options: Any) -> Any:
        if name == host:
            time.sleep(3600)
        return real(name, *args, **options)

    socket.getaddrinfo = look_up


def main() -> None:
    """Prepare this process, then be the package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clock", type=float, default=0)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--hang")
    parser.add_argument("package")
    given = parser.parse_args()
    if given.clock:
        shift_clock(given.clock, given.package)
    if given.hang:
        hang_name_server(given.hang)
    for text in given.set:
        set_constant(text)
    runpy.run_module(given.package, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
