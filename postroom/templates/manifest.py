"""`template.toml`: who owns a template, which variables it takes, how its mail wants to be delivered."""

import re
import tomllib
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct

from postroom.config.structs import Duration, Name, OnAmbiguous, Priority, RetryProfile
from postroom.config.units import seconds
from postroom.decode import Fault, convert
from postroom.templates.checks import MAX_FAULTS, declaration_faults
from postroom.templates.faults import Problem
from postroom.templates.locales import is_locale
from postroom.templates.variables import Variable, VariableName

MAX_DELIVER_WITHIN = 30 * 86_400
RESERVED = frozenset(
    {
        "locale",
        "loop",
        "range",
        "self",
        "super",
        "true",
        "false",
        "none",
        "and",
        "or",
        "not",
        "in",
        "is",
        "if",
        "else",
    }
)

_HEADER = re.compile(r"\s*\[\[?([^\]]+)\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_.\"'-]+)\s*=")
_SYNTAX = re.compile(r"(?P<what>.*) \(at line (?P<line>[0-9]+), column [0-9]+\)")


class Delivery(Struct, frozen=True, kw_only=True):
    """How a template wants its mail delivered, where the message itself does not say. Unset is None."""

    priority: Priority | None = None
    retry_profile: RetryProfile | None = None
    deliver_within: int | None = None  # seconds; after them the message expires
    on_ambiguous: OnAmbiguous | None = None
    track_opens: bool | None = None
    track_clicks: bool | None = None


class DeliverySection(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[delivery]` as the file has it."""

    priority: Priority | None = None
    retry_profile: RetryProfile | None = None
    deliver_within: Annotated[int, Meta(ge=1, le=MAX_DELIVER_WITHIN)] | Duration | None = None
    on_ambiguous: OnAmbiguous | None = None
    track_opens: bool | None = None
    track_clicks: bool | None = None


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    description: Annotated[str, Meta(min_length=1, max_length=1_000)]
    owner: str = ""
    locales: Annotated[tuple[str, ...], Meta(min_length=1, max_length=50)] | None = (
        None  # the default one first
    )
    agents: Annotated[tuple[Name, ...], Meta(min_length=1)] | None = None  # unset: any agent
    variables: dict[VariableName, Variable] = {}
    delivery: DeliverySection = DeliverySection()

    @property
    def delivery_defaults(self) -> Delivery:
        """The section with its duration in seconds."""
        options = msgspec.structs.asdict(self.delivery)
        return Delivery(**options | {"deliver_within": _whole_seconds(self.delivery.deliver_within)})


def read_manifest(text: str) -> tuple[Manifest | None, list[Problem]]:
    """Read the file; return it and no problems, or None and all of them, each with its line."""
    try:
        manifest, faults = convert(tomllib.loads(text), Manifest)
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX.fullmatch(str(error))
        return None, [Problem(int(found["line"]), found["what"]) if found else Problem(1, str(error))]
    except RecursionError:
        return None, [Problem(1, "nested too deep")]
    if manifest is not None:
        faults = _judge(manifest)
    problems = [
        Problem(_line_of(text, fault.pointer), f"{fault.pointer}: {fault.detail}")
        for fault in faults[:MAX_FAULTS]
    ]
    return (None, problems) if problems else (manifest, [])


def _judge(manifest: Manifest) -> list[Fault]:
    faults = []
    for name, variable in manifest.variables.items():
        pointer = f"/variables/{name}"
        if name in RESERVED:
            faults.append(Fault(pointer, "the name is taken by the template language"))
        if variable.default is UNSET and variable.example is UNSET:
            faults.append(Fault(pointer, "needs an example, or a default"))
        faults += declaration_faults(variable, pointer)
    faults += _judge_locales(manifest.locales or ())
    within = _whole_seconds(manifest.delivery.deliver_within)
    if manifest.delivery.deliver_within is not None and (
        within is None or not 0 < within <= MAX_DELIVER_WITHIN
    ):
        faults.append(
            Fault("/delivery/deliver_within", 'expected whole seconds up to 30 days, like 600 or "10m"')
        )
    return faults


def _judge_locales(locales: tuple[str, ...]) -> list[Fault]:
    faults = []
    for index, locale in enumerate(locales):
        if not is_locale(locale):
            faults.append(Fault(f"/locales/{index}", 'expected a locale like "de" or "de-AT"'))
        elif locale in locales[:index]:
            faults.append(Fault(f"/locales/{index}", "stands here twice"))
    return faults


def _whole_seconds(duration: int | str | None) -> int | None:
    """A duration in seconds, or None for one that is not whole."""
    if not isinstance(duration, str):
        return duration
    exact = seconds(duration)
    return int(exact) if exact == int(exact) else None


def _line_of(text: str, pointer: str) -> int:
    """Find the line that a pointer leads to, or the nearest one around it.

    The TOML parser keeps no lines, so headers and keys are looked at once more; a value inside an inline
    table has the line of its key.
    """
    best, best_line, table = "", 1, ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(line):
            table = path = _path(header[1])
        elif key := _KEY.match(line):
            path = f"{table}{_path(key[1])}"
        else:
            continue
        if len(path) > len(best) and f"{pointer}/".startswith(f"{path}/"):
            best, best_line = path, number
    return best_line


def _path(dotted: str) -> str:
    return "".join("/" + step.strip().strip("\"'") for step in dotted.split("."))
