"""The ledger's Lua scripts, called by hash."""

import hashlib
from functools import cache
from importlib.resources import files

from msgspec import Struct

NAMES = (
    "accept",
    "claim",
    "advance",
    "renew",
    "release",
    "finish",
    "cancel",
    "sweep",
    "fault",
    "probe",
    "mend",
    "reconcile",
    "expire",
    "lapse",
    "depth",
    "pause",
    "resume",
    "prefer",
    "act",
    "retry",
    "resolve",
    "balance",
    "inspect",
    "keep_file",
    "touch_file",
    "held_files",
    "drop_files",
)


class Script(Struct, frozen=True):
    """One script with the prelude in front of it, and the hash Redis knows it by."""

    name: str
    source: bytes
    sha: str


@cache
def load_scripts() -> dict[str, Script]:
    """Read all scripts from the package."""
    folder = files("postroom.ledger") / "scripts"
    prelude = (folder / "prelude.lua").read_bytes()
    scripts = {}
    for name in NAMES:
        source = prelude + b"\n" + (folder / f"{name}.lua").read_bytes()
        scripts[name] = Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
    return scripts
