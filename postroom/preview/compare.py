"""An old and a new version of a template: which files differ, and what each makes of its examples."""

import difflib
import re
from collections.abc import Sequence

from msgspec import Struct

from postroom.preview.showings import Showing, show
from postroom.templates import Template

TAGS = re.compile(r"(?<=>)|(?=<)|\n")


class Pair(Struct, frozen=True):
    """One rendering and the same one of the other version; None where a version has no such locale or example."""

    locale: str
    example: str
    old: Showing | None
    new: Showing | None

    @property
    def differs(self) -> bool:
        """True where a reader would get something else."""
        return self.old != self.new


class Change(Struct, frozen=True):
    """What became of a template. `old` or `new` is None where it is not there; `files` are those that differ."""

    name: str
    old: Template | None
    new: Template | None
    files: list[str]
    pairs: list[Pair]


def compare(name: str, old: Template | None, new: Template | None) -> Change:
    """Compare two versions of a template, each rendered on its own examples."""
    old_files, new_files = (template.files if template else {} for template in (old, new))
    names = sorted({*old_files, *new_files})
    return Change(
        name,
        old,
        new,
        [file for file in names if old_files.get(file) != new_files.get(file)],
        _pairs(show(old) if old else [], show(new) if new else []),
    )


def _pairs(old: Sequence[Showing], new: Sequence[Showing]) -> list[Pair]:
    before, after = ({one.place: one for one in showings} for showings in (old, new))
    places = dict.fromkeys([*after, *before])
    return [Pair(*place, before.get(place), after.get(place)) for place in places]


def changed_lines(old: str | None, new: str | None) -> list[str]:
    """Return the difference of two texts as lines that begin with `-`, `+`, ` ` or `@`; none where there is none."""
    before, after = ((text or "").splitlines() for text in (old, new))
    return list(difflib.unified_diff(before, after, n=1, lineterm=""))[2:]


def lines_of_html(html: str | None) -> str | None:
    """Put tags and texts of HTML on lines of their own, so that a difference is a few words and not a whole mail."""
    return None if html is None else "\n".join(filter(None, map(str.strip, TAGS.split(html))))
