"""The machine: its cores, who is pinned where, and which versions run."""

import os
import platform
import resource
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from msgspec import Struct

DISTRIBUTIONS = (
    *("granian", "litestar", "redis", "hiredis", "arq", "aiohttp", "minijinja", "msgspec", "uvloop"),
    *("fastapi", "uvicorn", "celery", "kombu", "Jinja2", "aiosmtplib"),
)


class Cores(Struct, frozen=True):
    """Two cores, whatever the machine has: what is measured gets `first`, all around it `second`."""

    first: frozenset[int]
    second: frozenset[int]

    @property
    def both(self) -> frozenset[int]:
        """Both of them."""
        return self.first | self.second


def choose_cores() -> Cores:
    """Take the first two cores this process may use.

    Raises:
        SystemExit: there is only one, or they cannot be chosen here.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("make bench pins processes to cores, which only Linux lets it do.")
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("make bench needs two cores: one for what is measured, one for load and sinks.")
    return Cores(frozenset(allowed[:1]), frozenset(allowed[1:2]))


def busy_ticks(cores: frozenset[int]) -> tuple[int, int]:
    """Return (busy, all) ticks of these cores since boot."""
    busy = total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(field) for field in fields[:8]]
            total += sum(ticks)
            busy += sum(ticks) - ticks[3] - ticks[4]  # idle, iowait
    return busy, total


class Busy:
    """How busy some cores are, over a while: tells whether the load was the bottleneck."""

    def __init__(self, cores: frozenset[int]) -> None:
        self._cores = cores
        self._began = busy_ticks(cores)

    def share(self) -> float:
        """Return the share of its time a core was busy since this was made."""
        busy, total = busy_ticks(self._cores)
        return (busy - self._began[0]) / max(1, total - self._began[1])


def own_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Others:
    """How much of two cores others took since this was made: the figures of a machine in use are worth less."""

    def __init__(self, cores: Cores) -> None:
        self._cores = cores.both
        self._began = (*busy_ticks(self._cores), own_seconds())

    def share(self) -> float:
        """Return their share of the two cores' time; to be asked when all children have ended."""
        busy, total = busy_ticks(self._cores)
        ticks = os.sysconf("SC_CLK_TCK")
        used = (busy - self._began[0]) - (own_seconds() - self._began[2]) * ticks
        return max(0.0, used / max(1, total - self._began[1]))


def describe_machine() -> dict[str, str]:
    """Return what a reader needs to compare: processor, cores, memory, kernel."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{kilobytes / 1024**2:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
    }


def describe_versions(redis_server: str) -> dict[str, str]:
    """Return the versions of everything that runs."""
    found = {"python": platform.python_version(), "postroom": metadata.version("postroom")}
    for name in DISTRIBUTIONS:
        try:
            found[name.lower()] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name.lower()] = "not installed"
    found["redis-server"] = _first_line([redis_server, "--version"])
    if postconf := find_postfix("postconf"):
        found["postfix"] = _first_line([postconf, "-h", "-d", "mail_version"])
    return found


def find_postfix(name: str) -> str | None:
    """Return the path of one of postfix's tools, which often lie outside of PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.splitlines() or ["unknown"])[0]
