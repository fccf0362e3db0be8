"""Two versions side by side, as in every rollout: an old worker with a new API, and the reverse.

`POSTROOM_OLD` names the older version, a commit or a tag of this repository.
"""

import asyncio
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from postroom import __version__
from tests.faults.mail import Receiver, assert_delivered
from tests.nursery import Process
from tests.stack import ROOT, Stack, sample

OLD = os.environ.get("POSTROOM_OLD", "")
pytestmark = [
    pytest.mark.skipif(not OLD, reason="POSTROOM_OLD names no older version"),
    pytest.mark.timeout(120),
]


@pytest.fixture
def old(folder: Path) -> Path:
    """The folder of the older version's packages and templates."""
    packed = subprocess.run(
        ["git", "archive", OLD, "postroom", "service", "workers", "templates"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder / "old", filter="data")
    # Every line of a process has its version: so it shows which of them ran.
    with (folder / "old" / "postroom" / "__init__.py").open("a") as package:
        package.write('__version__ = "0.0.0"\n')
    return folder / "old"


class Mixed(Stack):
    """A stack of which one package is the older version's."""

    new_interpreters = True
    older: str
    place: Path

    def _start(self, name: str, package: str, *rest: Any) -> Process:
        if package != self.older:
            return super()._start(name, package, *rest)
        before = os.environ.get("PYTHONPATH")
        # In front of the working directory, which holds the new version.
        os.environ["PYTHONSAFEPATH"], os.environ["PYTHONPATH"] = "1", str(self.place)
        try:
            return super()._start(name, package, *rest)
        finally:
            del os.environ["PYTHONSAFEPATH"], os.environ["PYTHONPATH"]
            if before is not None:
                os.environ["PYTHONPATH"] = before


@pytest.mark.parametrize("older", ["workers", "service"])
async def test_an_old_one_works_with_a_new_one(folder: Path, old: Path, older: str):
    """Accepted by the one, delivered by the other, retries included; each once."""
    async with Receiver({"RCPT:late@example.com": ["451 4.3.0 later", "ok"]}) as receiver:
        stack = Mixed(folder, receiver.port)
        stack.older, stack.place = older, old
        async with stack:
            stack.config.write_text(
                stack.config.read_text().replace(str(folder / "templates"), str(old / "templates"))
            )
            await asyncio.gather(stack.start_api(), stack.start_worker())
            ids = [await stack.accept(sample(f"m-{n}")) for n in range(100)]
            ids.append(await stack.accept(sample("late", to=[{"address": "late@example.com"}])))
            await assert_delivered(stack, receiver, ids, 60)
            assert dict.fromkeys(ids, 1) == receiver.copies()
            for name, package in (("api", "service"), ("worker", "workers")):
                versions = {line["version"] for line in stack.logs(name) if "version" in line}
                assert {"0.0.0" if package == older else __version__} == versions
