"""`postroom templates`: what the owner of a template runs before a change is merged, and to publish it."""

import argparse
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from postroom.errors import PostroomError
from postroom.templates import Template, TemplateFault, TemplatesError
from postroom.templates.folder import read_folder
from postroom.templates.judging import judge

TIMEOUT = 60.0


def check(options: argparse.Namespace) -> int:
    """Judge every template of a folder; print each fault with file and line, and 1 where there is any."""
    files, faults = _judged(options.dir)
    for fault in faults:
        print(f"{options.dir}/{_path(fault)}:{fault.line}: {fault.message}", file=sys.stderr)
    if faults:
        print(f"{len(faults)} fault(s) in {len({f.template for f in faults})} template(s)", file=sys.stderr)
        return 1
    for name, of_one in files.items():
        template = Template(name, of_one)
        print(f"{name} {template.version} ({', '.join(template.locales)})")
    return 0


def push(options: argparse.Namespace) -> int:
    """Publish the templates of a folder, or those named, that differ from what is current there."""
    files, faults = _judged(options.dir)
    if faults:
        return check(options)
    if unknown := sorted(set(options.names) - files.keys()):
        raise PostroomError(f"no such template in {options.dir}: {', '.join(unknown)}")
    target = _Target(options.url, options.token)
    current = target.versions()
    refused = 0
    for name in options.names or files:
        template = Template(name, files[name])
        if current.get(name) == template.version:
            print(f"{name} {template.version} is current already")
        elif options.dry_run:
            print(f"{name} {template.version} would take the place of {current.get(name, 'nothing')}")
        else:
            refused += not target.publish(template)
    return 1 if refused else 0


def _judged(folder: Path) -> tuple[dict[str, dict[str, str]], list[TemplateFault]]:
    faults: list[TemplateFault] = []
    try:
        files = read_folder(folder, faults)
    except TemplatesError:
        raise PostroomError(f"there is no folder {folder}") from None
    if not files and not faults:
        raise PostroomError(f"no templates in {folder}: each is a folder of its own, with a template.toml")
    return files, sorted(set(faults + judge(files)))


def _path(fault: TemplateFault) -> str:
    """Where the file lies under the folder; what is shared is beside the template, not in it."""
    return fault.file if fault.file.startswith("_shared/") else f"{fault.template}/{fault.file}"


class _Target:
    """A Postroom to publish to."""

    def __init__(self, url: str, token: str | None) -> None:
        if not url.startswith(("http://", "https://")):
            raise PostroomError("the URL must start with http:// or https://")
        self._url = url.rstrip("/")
        self._token = token or os.environ.get("POSTROOM_TOKEN")
        if not self._token:
            raise PostroomError("no token: give --token or set POSTROOM_TOKEN; it needs the scope templates")

    def versions(self) -> dict[str, str]:
        """Return the current version of each template there."""
        status, answer = self._call("GET", "/v1/templates", None)
        if status != 200:
            raise PostroomError(_explain(status, answer))
        return {template["name"]: template["version"] for template in answer["templates"]}

    def publish(self, template: Template) -> bool:
        """Publish one template and say so; say what is wrong where it is refused."""
        status, answer = self._call("PUT", f"/v1/templates/{template.name}", {"files": template.files})
        if status == 200:
            print(f"{template.name} {answer['version']} is current now")
            return True
        print(f"{template.name}: {_explain(status, answer)}", file=sys.stderr)
        return False

    def _call(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)  # noqa: S310  checked above
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
                return response.status, _decode(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decode(error.read())
        except OSError:
            raise PostroomError(f"nothing answers at {self._url}") from None


def _decode(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _explain(status: int, answer: dict[str, Any]) -> str:
    faults = [f"  {fault['pointer']}: {fault['detail']}" for fault in answer.get("errors", [])]
    return "\n".join(
        [f"{status} {answer.get('code', '')}: {answer.get('detail', 'no explanation')}", *faults]
    )
