"""Reading the parameters of a list, all faults at once."""

import re

from multidict import MultiMapping

from postroom.inbox.guard import ProblemError
from postroom.inbox.mail import Query

MAX_LIMIT = 1000
MAX_WAIT_SECONDS = 60
MAX_ID = 2**63 - 1
UNITS = {"ms": 0.001, "s": 1, "m": 60}
NAMES = frozenset({"to", "client_ref", "subject", "q", "before", "after", "limit", "wait"})


def read_query(parameters: MultiMapping[str]) -> tuple[Query, float]:
    """Return what to list and how many seconds to wait for it. An empty parameter counts as absent."""
    reader = _Reader(parameters)
    query = Query(
        to=reader.text("to"),
        client_ref=reader.text("client_ref"),
        subject=reader.text("subject"),
        text=reader.text("q"),
        after=reader.number("after", 0, MAX_ID) or 0,
        before=reader.number("before", 1, MAX_ID),
        limit=reader.number("limit", 1, MAX_LIMIT) or Query().limit,
    )
    wait = reader.duration("wait")
    if reader.faults:
        raise ProblemError(400, "bad_parameter", "The parameters cannot be read", reader.faults)
    return query, wait


class _Reader:
    def __init__(self, parameters: MultiMapping[str]) -> None:
        self._parameters = parameters
        self.faults: list[dict[str, str]] = []
        for name in dict.fromkeys(parameters):
            if name not in NAMES:
                self._fault(name, f"unknown; known are {', '.join(sorted(NAMES))}")
            elif len(parameters.getall(name)) > 1:
                self._fault(name, "given more than once")

    def _fault(self, name: str, detail: str) -> None:
        self.faults.append({"parameter": name, "detail": detail})

    def text(self, name: str) -> str | None:
        return self._parameters.get(name) or None

    def number(self, name: str, low: int, high: int) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not re.fullmatch(r"[0-9]{1,19}", value) or not low <= int(value) <= high:
            self._fault(name, f"must be a whole number from {low} to {high}")
            return None
        return int(value)

    def duration(self, name: str) -> float:
        value = self.text(name)
        if value is None:
            return 0
        match = re.fullmatch(r"([0-9]{1,6})(ms|s|m)", value)
        seconds = int(match[1]) * UNITS[match[2]] if match else MAX_WAIT_SECONDS + 1
        if seconds > MAX_WAIT_SECONDS:
            self._fault(name, f"must be a duration such as 500ms or 5s, at most {MAX_WAIT_SECONDS}s")
            return 0
        return seconds
