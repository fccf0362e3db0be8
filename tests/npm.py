"""Judges from npm: other people's readers of HTML and mail, pinned in `tests/judges/package-lock.json`.

They are installed once, into `.venv/npm`. Without npm, or without a registry that it can reach, the tests that
ask them are skipped, and say so.
"""

import fcntl
import json
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path

import pytest

JUDGES = Path(__file__).parent / "judges"
INSTALLED = Path(__file__).parents[1] / ".venv" / "npm"
FILES = ("package.json", "package-lock.json")
INSTALL_SECONDS = 50


@cache
def _why_not() -> str | None:
    """Install the judges unless they are; return why that cannot be done."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "there is no npm on this machine"
    INSTALLED.mkdir(parents=True, exist_ok=True)
    with (INSTALLED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        wanted = b"".join((JUDGES / name).read_bytes() for name in FILES)
        stamp = INSTALLED / "stamp"
        if stamp.exists() and stamp.read_bytes() == wanted:
            return None
        for name in FILES:
            shutil.copy(JUDGES / name, INSTALLED / name)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
        try:
            done = subprocess.run(
                command, cwd=INSTALLED, capture_output=True, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"npm did not install the judges within {INSTALL_SECONDS} s"
        if done.returncode:
            return f"npm cannot install the judges: {done.stderr.decode()[-300:]}"
        stamp.write_bytes(wanted)
    return None


def ask(script: str, question: object) -> object:
    """Run a script of `tests/judges` with a question in JSON, and return its answer; skip where that cannot be."""
    reason = _why_not()
    if reason is not None:
        warnings.warn(pytest.PytestWarning(f"NOT JUDGED by {script}: {reason}"), stacklevel=2)
        pytest.skip(f"NOT JUDGED: {reason}")
    done = subprocess.run(
        ["node", str(JUDGES / script)],
        input=json.dumps(question).encode(),
        capture_output=True,
        cwd=INSTALLED,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr.decode()[-2000:]
    return json.loads(done.stdout)
