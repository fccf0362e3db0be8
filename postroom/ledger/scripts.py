"""The ledger's Lua scripts, called by hash."""

import hashlib
import re
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
    "held",
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


# A function at the left margin, on one line or up to the `end` that stands there as well.
_FUNCTION = re.compile(r"^(local function (\w+)\((?:[^\n]* end\n|(?s:.*?)^end\n))", re.MULTILINE)
_WORD = re.compile(r"--[^\n]*|(\w+)")


class Script(Struct, frozen=True):
    """One script with what it uses of the prelude in front of it, and the hash Redis knows it by."""

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
    prelude = (folder / "prelude.lua").read_text()
    scripts = {}
    for name in NAMES:
        body = (folder / f"{name}.lua").read_text()
        source = (GUARD if guarded else b"") + (used_of(prelude, body) + body).encode()
        scripts[name] = Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
    return scripts


@cache
def read_source(name: str) -> bytes:
    """Return a script that stands alone, for it touches no partition: it is sent as it is."""
    return (files("postroom.ledger") / "scripts" / f"{name}.lua").read_bytes()


def used_of(prelude: str, body: str) -> str:
    """Return the prelude without the functions that neither the body nor another function it uses calls.

    Redis runs the whole text at every call, and makes each function anew: all of them cost more than many a script.
    """
    pieces = _FUNCTION.split(prelude)  # text, function, its name, text, function, …
    functions = dict(zip(pieces[2::3], pieces[1::3], strict=True))
    used: set[str] = set()
    found = {body, *pieces[0::3]}
    while found:
        words = set(_WORD.findall("\n".join(found)))  # what comments say is no use
        found = {functions[name] for name in (words & functions.keys()) - used}
        used |= words & functions.keys()
    return _FUNCTION.sub(lambda match: match[1] if match[2] in used else "", prelude)
