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


# A node of a cluster that is giving a slot away refuses a key it does not have: asked for first, so that a script
# runs where all keys of its partition are, or changes nothing.
GUARD = b"redis.call('EXISTS', ARGV[1] .. 'nowhere')\n"


@cache
def load_scripts(*, guarded: bool = False) -> dict[str, Script]:
    """Read all scripts from the package; `guarded` is for a Redis Cluster."""
    folder = files("postroom.ledger") / "scripts"
    prelude = (folder / "prelude.lua").read_bytes()
    scripts = {}
    for name in NAMES:
        source = (GUARD if guarded else b"") + prelude + b"\n" + (folder / f"{name}.lua").read_bytes()
        scripts[name] = Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
    return scripts
