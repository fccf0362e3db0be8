"""`postroom send`: one message over the API, retried rightly, and watched until it is sent."""

import argparse
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from postroom.cli.call import UNREACHABLE, call, read_token, read_url
from postroom.errors import PostroomError, UsageError

SAMPLE_VARIABLES = {
    "first_name": "Ada",
    "order_number": "10023",
    "tracking_url": "https://shop.example/track/10023",
}
TRIES, PAUSE, PATIENCE, TIMEOUT = 5, 1.0, 30.0, 10.0


def send(options: argparse.Namespace) -> int:
    """Send, print the id and the states it passes; 1 where it does not end as sent."""
    api = Api(options.url, options.token)
    body = _body(options)
    status, answer = api.post(body)
    if status not in (200, 202):
        _print_problem(status, answer)
        return 1
    if "id" not in answer:
        raise PostroomError(f"what answers at {options.url} is not Postroom's API")
    print(f"{status} {answer['id']} {answer['state']} (client_ref {answer['client_ref']})")
    if options.no_wait:
        return 0
    return _watch(api, answer["id"])


class Api:
    """The two calls a sender needs. A call without an answer, or with a 503, is made again: it stays one message."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = read_url(url, "--url")
        given = token or os.environ.get("POSTROOM_TOKEN") or _dev_token()
        self._token = read_token(given, "--token or POSTROOM_TOKEN")

    def post(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """POST a message."""
        return self._ask("POST", "/v1/messages", body)

    def get(self, message_id: str) -> dict[str, Any]:
        """GET a message."""
        return self._ask("GET", f"/v1/messages/{message_id}", None)[1]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        for tries in range(1, TRIES + 1):
            try:
                status, answer = call(method, self._url + path, self._token, body, timeout=TIMEOUT)
            except UNREACHABLE:
                if tries == TRIES:
                    raise PostroomError(f"cannot reach {self._url}: is `make run` running?") from None
            else:
                if status != 503 or tries == TRIES:
                    return status, answer
            time.sleep(PAUSE)
        raise AssertionError("unreachable")


def _body(options: argparse.Namespace) -> dict[str, Any]:
    body: dict[str, Any] = {
        "client_ref": options.ref or f"shell-{uuid.uuid4().hex[:12]}",
        "agent": options.agent,
        "to": [{"address": address} for address in options.to or ["ada@example.com"]],
    }
    if options.subject is not None:
        body["content"] = {"subject": options.subject, "text": options.text or options.subject}
        return body
    variables = dict(map(_variable, options.var))
    if options.template is None and not variables:
        variables = SAMPLE_VARIABLES
    body["template"] = {"name": options.template or "order_shipped", "variables": variables}
    return body


def _variable(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError("--var must be NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _dev_token() -> str:
    try:
        return Path(".postroom/token").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise PostroomError("no token: give --token, or set POSTROOM_TOKEN") from None


def _watch(api: Api, message_id: str) -> int:
    deadline, shown = time.monotonic() + PATIENCE, ""
    while time.monotonic() < deadline:
        message = api.get(message_id)
        state = message.get("state", "")
        reason = (message.get("reason") or {}).get("text", "")
        if (line := f"{state} {reason}".strip()) != shown:
            shown = line
            print(f"    {line}")
        if message.get("finished"):
            return 0 if state == "sent" else 1
        time.sleep(0.1)
    print(f"    still waiting; ask later: GET /v1/messages/{message_id}")
    return 1


def _print_problem(status: int, problem: dict[str, Any]) -> None:
    print(f"{status} {problem.get('code', '')}: {problem.get('detail', 'no explanation')}")
    for fault in problem.get("errors", []):
        print(f"    {fault.get('pointer')}: {fault.get('detail')}")
