"""Making the best of a faulty configuration, only to find what else is wrong with it: it is never used."""

import copy
from collections.abc import Iterable
from typing import Any

from postroom.config.structs import Config
from postroom.decode import Fault, convert
from postroom.secret import Secret

NAMED_SECTIONS = ("agents", "callers")


def decode_what_is_right(data: dict[str, Any], faults: list[Fault]) -> Config | None:
    """Decode without what the faults point at, and without agents and callers that cannot do without it."""
    data = copy.deepcopy(data)
    for steps in sorted((_steps(fault) for fault in faults), key=len, reverse=True):
        _remove(data, steps)
    config, left = convert(data, Config, dec_hook=_stand_in)
    if config is None:
        for steps in (_steps(fault) for fault in left):
            _remove(data, steps[:2] if steps and steps[0] in NAMED_SECTIONS else steps[:1])
        config, _ = convert(data, Config, dec_hook=_stand_in)
    return config


def is_news(fault: Fault, known: Iterable[Fault]) -> bool:
    """True for a fault that does not only follow from something having been left out."""
    return not any(
        k.pointer.startswith(f"{fault.pointer}/") or fault.pointer.startswith(k.pointer) for k in known
    )


def _stand_in(kind: type, _value: Any) -> Any:
    if kind is not Secret:
        raise NotImplementedError
    return Secret("-")


def _steps(fault: Fault) -> list[str]:
    steps = [s.replace("~1", "/").replace("~0", "~") for s in fault.pointer.split("/")[1:]]
    # A token lacks no part of itself: it goes as a whole, so that its caller stays.
    return steps[:4] if steps[2:3] == ["tokens"] else steps


def _remove(data: Any, steps: list[str]) -> None:
    for step in steps[:-1]:
        data = _step(data, step)
    if steps and isinstance(data, dict):
        # A secret that cannot be read is there all the same, so it is stood in for.
        if isinstance(data.get(steps[-1]), dict) and data[steps[-1]].keys() <= {"env", "file"}:
            return
        data.pop(steps[-1], None)
    elif steps and isinstance(data, list) and steps[-1].isdigit() and int(steps[-1]) < len(data):
        del data[int(steps[-1])]


def _step(data: Any, step: str) -> Any:
    if isinstance(data, dict):
        return data.get(step)
    if isinstance(data, list) and step.isdigit() and int(step) < len(data):
        return data[int(step)]
    return None
