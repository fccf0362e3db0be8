"""Requests as bytes, for what no HTTP client would send, and an application called without a server."""

import asyncio
import json
from typing import Any, NamedTuple

from tests.service.conftest import Api
from tests.stack import TOKEN

BEARER = f"Authorization: Bearer {TOKEN}"


class Answer(NamedTuple):
    """One response. `fields` have lower-case names; of a repeated one the last is kept."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.document["code"])


def request_bytes(
    body: Any = b"",
    *fields: str,
    method: str = "POST",
    path: str = "/v1/messages",
    drop: tuple[str, ...] = (),
) -> bytes:
    """Return a right request but for the changes; `drop` names fields to leave out."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = ["Host: x", BEARER, "Content-Type: application/json", f"Content-Length: {len(data)}"]
    lines = [line for line in (*given, "Connection: close") if line.partition(":")[0] not in drop]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, *fields, "", ""])
    return head.encode("latin-1") + data


def read_answers(raw: bytes) -> list[Answer]:
    """Read the responses out of what came back."""
    answers = []
    while raw:
        head, _, rest = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        length = int(fields.get("content-length", "0"))
        answers.append(Answer(int(first.split(" ")[1]), fields, rest[:length]))
        raw = rest[length:]
    return answers


def ask(api: Api, *args: Any, **options: Any) -> Answer:
    """Send a request and return the one answer to it."""
    (answer,) = read_answers(api.exchange(request_bytes(*args, **options)))
    return answer


async def call(
    app: Any,
    method: str = "GET",
    path: str = "/livez",
    fields: tuple[tuple[str, str], ...] = (),
    chunks: tuple[bytes | float | None, ...] = (b"",),
    peer: str | None = "127.0.0.1",
) -> Answer:
    """Call an ASGI application. Of the chunks a number is a wait in seconds, and None hangs up."""
    left = list(chunks)
    start: dict[str, Any] = {}
    body: list[bytes] = []

    async def receive() -> dict[str, Any]:
        while left:
            chunk = left.pop(0)
            if chunk is None:
                break
            if isinstance(chunk, float):
                await asyncio.sleep(chunk)
                continue
            return {"type": "http.request", "body": chunk, "more_body": bool(left)}
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            body.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path.partition("?")[0],
        "raw_path": path.partition("?")[0].encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": [(b"host", b"x"), *((n.lower().encode(), v.encode("latin-1")) for n, v in fields)],
        "client": None if peer is None else (peer, 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    got = {n.decode().lower(): v.decode() for n, v in start["headers"]}
    return Answer(start["status"], got, b"".join(body))
