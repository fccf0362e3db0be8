"""What can be wrong with a template when it is loaded, and with one rendering of it."""

from collections.abc import Iterable

from msgspec import Struct


class Problem(Struct, frozen=True, order=True):
    """Something wrong on a line of a file; without a name, of the one that is looked at."""

    line: int
    message: str
    file: str = ""


class TemplateFault(Struct, frozen=True, order=True):
    """Something wrong in a template's files, and where."""

    template: str
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.template}/{self.file}:{self.line}: {self.message}"


class TemplatesError(Exception):
    """Templates that cannot be used: every fault of every one of them."""

    def __init__(self, faults: Iterable[TemplateFault]) -> None:
        self.faults = sorted(faults)
        super().__init__("\n".join(map(str, self.faults)))


class RenderError(Exception):
    """A rendering that failed. Names the template and the reason, never a value."""

    def __init__(self, template: str, reason: str) -> None:
        self.template = template
        self.reason = reason
        super().__init__(f"{template}: {reason}")
