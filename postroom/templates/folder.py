"""Reading a folder of templates: one folder each, all faults of all of them at once."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from postroom.templates.faults import TemplateFault, TemplatesError
from postroom.templates.sources import SHARED
from postroom.templates.template import Template

MAX_FILE_BYTES = 1024 * 1024


class TemplateSet:
    """The templates of a deployment, by name."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._templates = {template.name: template for template in templates}

    @classmethod
    def load_folder(cls, path: Path | str) -> Self:
        """Load `path/<name>/`, each with the shared files; raise one `TemplatesError` with the faults of all."""
        templates: list[Template] = []
        faults: list[TemplateFault] = []
        for name, files in read_folder(path, faults).items():
            try:
                templates.append(Template(name, files))
            except TemplatesError as error:
                faults += error.faults
        if faults:
            raise TemplatesError(set(faults))
        return cls(templates)

    @property
    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._templates)

    def get(self, name: str) -> Template | None:
        """The template of this name, if there is one."""
        return self._templates.get(name)

    def __iter__(self) -> Iterator[Template]:
        return iter(self._templates.values())


def read_folder(path: Path | str, faults: list[TemplateFault]) -> dict[str, dict[str, str]]:
    """Read the files of each template under `path`, the shared ones among them; add what cannot be read.

    Names that begin with a dot or an underscore are not templates, nor are files beside the folders.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise TemplatesError([TemplateFault(folder.name, ".", 1, "there is no such folder of templates")])
    shared = _read_files(folder / SHARED, SHARED, faults) if (folder / SHARED).is_dir() else {}
    places = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith((".", "_"))]
    found = {}
    for place in places:
        before = len(faults)
        files = _read_files(place, "", faults)
        if len(faults) == before:
            found[place.name] = {**files, **shared}
    return found


def _read_files(place: Path, prefix: str, faults: list[TemplateFault]) -> dict[str, str]:
    files: dict[str, str] = {}
    for file in sorted(place.iterdir()):
        if file.name.startswith("."):
            continue
        try:
            files[prefix + file.name] = _read(file)
        except (OSError, ValueError) as error:
            reason = (
                "is not UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read, or is too large"
            )
            faults.append(TemplateFault(place.name, file.name, 1, reason))
    return files


def _read(file: Path) -> str:
    """Read a text file, without the byte order mark that some editors put in front."""
    with file.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError
    return data.decode("utf-8-sig")
