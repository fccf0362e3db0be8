"""The way to the admin port: which address, which token, and what to say where something is wrong with them."""

import argparse
import getpass
import os
import re
import time
from pathlib import Path
from typing import Any

from postroom.cli.call import UNREACHABLE, call, read_token, read_url
from postroom.errors import Code, PostroomError

PATIENCE, PAUSE = 2.0, 0.5  # seconds; an API tells of a Redis that hangs after as long, and is asked once
TIMEOUT = 15.0
WHERE = "is it the metrics port of an API of this version?"
NO_PATH = "No such path"  # as any port of the API says it
DEV_TOKEN = Path(".postroom/admin-token")


class AdminApi:
    """Calls of the admin port. All acts may be repeated, so a broken connection or a 503 is tried again for a while."""

    def __init__(self, options: argparse.Namespace) -> None:
        url = _option(options, "admin_url", "POSTROOM_ADMIN_URL") or _default_url()
        self._url = read_url(url, "--admin-url")
        token = _option(options, "token", "POSTROOM_ADMIN_TOKEN") or _dev_token()
        self._token = read_token(token, "--token or POSTROOM_ADMIN_TOKEN")
        self._me = re.sub(r"[^A-Za-z0-9._-]", "", _user())[:64]

    def get(self, path: str) -> dict[str, Any]:
        """GET a path; raises PostroomError with what to do where that fails."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST an act, under the name of who is logged in here."""
        given = {name: value for name, value in body.items() if value is not None}
        return self._ask("POST", path, {"as": self._me, **given})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        last = time.monotonic() + PATIENCE
        while True:
            try:
                status, answer = call(method, self._url + path, self._token, body, timeout=TIMEOUT)
            except UNREACHABLE as error:
                reason = getattr(error, "reason", error)
                if isinstance(reason, TimeoutError):
                    raise PostroomError(
                        f"no answer from {self._url} in {TIMEOUT:.0f} seconds: what listens there hangs, "
                        "or is no API"
                    ) from None
                if time.monotonic() > last or isinstance(reason, ConnectionRefusedError):
                    raise PostroomError(
                        f"nothing answers at {self._url}: this is the metrics port of the API; "
                        "give it with --admin-url or POSTROOM_ADMIN_URL"
                    ) from None
            else:
                if status == 200:
                    return answer
                if status != 503 or time.monotonic() > last:
                    raise PostroomError(_explain(status, answer))
            time.sleep(PAUSE)


def names_admin_port(options: argparse.Namespace) -> bool:
    """True where an admin port, or a token for one, was given: as an option or in the environment."""
    given = (("admin_url", "POSTROOM_ADMIN_URL"), ("token", "POSTROOM_ADMIN_TOKEN"))
    return any(_option(options, name, variable) for name, variable in given)


def _option(options: argparse.Namespace, name: str, variable: str) -> str | None:
    return getattr(options, name, None) or os.environ.get(variable)


def _explain(status: int, answer: dict[str, Any]) -> str:
    if "code" not in answer:
        return f"status {status} from what answers there: {WHERE}"
    if status == 401:
        return "the token is not valid there: give --token or POSTROOM_ADMIN_TOKEN"
    if answer["code"] == "scope_missing":
        return "the token lacks the scope admin; make one with: postroom token new operator --scope admin"
    if answer["code"] == Code.NOT_FOUND and answer["detail"].startswith(NO_PATH):
        return f"what answers there has no such path: {WHERE}"
    faults = [f"  {fault['pointer']} {fault['detail']}" for fault in answer.get("errors", [])]
    return "\n".join([f"{answer['title']}: {answer['detail']}", *faults])


def _default_url() -> str:
    port = os.environ.get("POSTROOM_METRICS_PORT")
    if port is None:
        api = os.environ.get("POSTROOM_PORT") or os.environ.get("PORT") or "8080"
        port = str(int(api) + 3) if api.isascii() and api.isdigit() else "8083"
    return f"http://127.0.0.1:{port}"


def _dev_token() -> str:
    try:
        return DEV_TOKEN.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise PostroomError("no token: give --token, or set POSTROOM_ADMIN_TOKEN") from None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return ""
