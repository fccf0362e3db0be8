"""Where templates are: a folder, or a Postroom behind a URL."""

import os
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from postroom.cli.call import UNREACHABLE, call, read_token, read_url
from postroom.errors import PostroomError
from postroom.templates import Template, TemplateFault, TemplatesError
from postroom.templates.folder import read_folder
from postroom.templates.judging import judge
from postroom.templates.sources import MANIFEST

TIMEOUT = 60.0


class Place(Protocol):
    """Templates at their current versions."""

    @property
    def versions(self) -> dict[str, str]:
        """The version of each template, by its name."""
        ...

    def load(self, name: str) -> Template:
        """Return one of them."""
        ...


def open_place(text: str, token: str | None) -> Place:
    """Return what a command line names: a URL, or else a folder.

    Raises:
        PostroomError: it is not there, cannot be asked, or has faults.
    """
    return Target(text, token) if text.startswith(("http://", "https://")) else Folder(Path(text))


def whole_folder(path: Path) -> tuple[Path, frozenset[str]]:
    """Return the folder of templates, and which of them are meant: a template's own folder means that one."""
    if (path / MANIFEST).is_file():
        resolved = path.resolve()
        return resolved.parent if path.name in ("", "..") else path.parent, frozenset({resolved.name})
    return path, frozenset()


def read_judged(path: Path) -> tuple[dict[str, dict[str, str]], list[TemplateFault]]:
    """Return the files of each template of a folder and everything that is wrong with them.

    Raises:
        PostroomError: there is no such folder, or nothing in it.
    """
    folder, names = whole_folder(path)
    faults: list[TemplateFault] = []
    try:
        files = read_folder(folder, faults)
    except TemplatesError:
        raise PostroomError(f"there is no folder {path}") from None
    meant = {name: of_one for name, of_one in files.items() if not names or name in names}
    unread = [fault for fault in faults if not names or fault.template in (*names, "_shared")]
    if not meant and not unread:
        raise PostroomError(f"no templates in {path}: each is a folder of its own, with a template.toml")
    return meant, sorted(set(unread + judge(meant)))


def place_of(fault: TemplateFault) -> str:
    """Return where a fault's file lies under the folder; what is shared is beside the template, not in it."""
    return fault.file if fault.file.startswith("_shared/") else f"{fault.template}/{fault.file}"


class Folder:
    """A folder's templates, all without faults."""

    def __init__(self, path: Path) -> None:
        files, faults = read_judged(path)
        if faults:
            lines = [f"{path}/{place_of(fault)}:{fault.line}: {fault.message}" for fault in faults]
            raise PostroomError("\n".join(["the templates have faults:", *lines]))
        self._templates = {name: Template(name, of_one) for name, of_one in files.items()}
        self.versions = {name: template.version for name, template in self._templates.items()}

    def load(self, name: str) -> Template:
        """Return one of them."""
        return self._templates[name]


class Target:
    """A Postroom behind a URL."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = read_url(url, "URL")
        given = token or os.environ.get("POSTROOM_TOKEN")
        if not given:
            raise PostroomError("no token: give --token or set POSTROOM_TOKEN; it needs the scope templates")
        self._token = read_token(given, "--token or POSTROOM_TOKEN")
        listed = self._get("/v1/templates", "templates", list)
        self.versions: dict[str, str] = {row["name"]: row["version"] for row in listed}

    def load(self, name: str) -> Template:
        """Return a template at its current version. What it is made of is judged here again."""
        version = self.versions[name]
        path = f"/v1/templates/{quote(name, safe='')}/versions/{quote(version, safe='')}"
        files: dict[str, str] = self._get(path, "files", dict)
        if faults := judge({name: files}):
            raise PostroomError(f"{self._url} has a template that this version cannot read: {faults[0]}")
        return Template(name, files)

    def publish(self, template: Template) -> tuple[str | None, str]:
        """Publish a template; return its version, or None and what is wrong with it."""
        status, answer = self._call("PUT", f"/v1/templates/{template.name}", {"files": template.files})
        return (str(answer["version"]), "") if status == 200 else (None, _explain(status, answer))

    def _get(self, path: str, field: str, kind: type) -> Any:
        status, answer = self._call("GET", path, None)
        if status != 200:
            raise PostroomError(_explain(status, answer))
        if not isinstance(answer.get(field), kind):
            raise PostroomError(f"what answers at {self._url} is no Postroom")
        return answer[field]

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        try:
            return call(method, self._url + path, self._token, body, timeout=TIMEOUT)
        except UNREACHABLE:
            raise PostroomError(f"nothing answers at {self._url}") from None


def _explain(status: int, answer: dict[str, Any]) -> str:
    faults = [f"  {fault['pointer']}: {fault['detail']}" for fault in answer.get("errors", [])]
    first = f"{status} {answer.get('code', '')}: {answer.get('detail', 'no explanation')}"
    return "\n".join([first, *faults])
