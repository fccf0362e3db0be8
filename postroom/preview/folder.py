"""A folder of templates that is looked at again and again: what is in it now, judged and rendered."""

from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from postroom.preview.showings import Showing, show
from postroom.templates import Template, TemplateFault
from postroom.templates.folder import read_folder
from postroom.templates.judging import judge

Stamp = frozenset[tuple[str, int, int]]


class Seen(Struct, frozen=True):
    """A template as it was saved last. Where that has faults, the renderings are those of the time before."""

    name: str
    files: dict[str, str]
    faults: list[TemplateFault]
    template: Template | None = None
    showings: tuple[Showing, ...] = ()


class WatchedFolder:
    """The templates under a path; `names` are those to be looked at (none: all of them)."""

    def __init__(self, path: Path, names: frozenset[str] = frozenset()) -> None:
        self.path = path
        self._names = names
        self._stamp: Stamp | None = None
        self.seen: dict[str, Seen] = {}

    def look(self) -> bool:
        """Read what has changed since the last look, and return whether anything has.

        A template is judged in a process of its own first, so one that never ends costs a moment and nothing more.

        Raises:
            TemplatesError: the folder is not there.
        """
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return False
        unread: list[TemplateFault] = []
        files = read_folder(self.path, unread)
        faulty = {fault.template for fault in unread}
        found = {*files, *faulty} - {"_shared"}
        names = sorted(name for name in found if not self._names or name in self._names)
        self.seen = {name: self._read(name, files.get(name, {}), unread) for name in names}
        self._stamp = stamp
        return True

    def _read(self, name: str, files: dict[str, str], unread: list[TemplateFault]) -> Seen:
        before = self.seen.get(name, Seen(name, {}, []))
        # What lies in the shared folder is every template's.
        faults = [fault for fault in unread if fault.template in (name, "_shared")]
        if files == before.files and not faults and before.template is not None and not before.faults:
            return before
        faults += judge({name: files}) if files else []
        if faults:
            return replace(before, files=files, faults=faults)
        template = Template(name, files)
        return Seen(name, files, [], template, tuple(show(template)))


def _stamp(path: Path) -> Stamp:
    """Return what tells that a file was saved: editors write in place, or put a new file over the old one."""
    found = []
    for file in path.glob("*/*"):
        try:
            about = file.stat()
        except OSError:  # gone in the meantime: the next look has what took its place
            continue
        found.append((str(file), about.st_mtime_ns, about.st_size))
    return frozenset(found)
