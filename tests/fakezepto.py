"""A ZeptoMail to try things against: as strict as the real one, and badly behaved on request.

Inside a test:

    async with FakeZepto() as fake:
        fake.play(Script(status=429, body=error("TM_5001", "LE_102")))
        ...
        assert 1 == len(fake.accepted)

By hand: `python tests/fakezepto.py --port 0` prints its URL; `GET /accepted` there lists what it took. With `--inbox HOST:PORT` it
passes what it accepts on to an SMTP server: `make run` shows mail of an API channel in its inbox so.
"""

import argparse
import asyncio
import json
import re
import smtplib
import socket
import ssl
import struct
import sys
import uuid
from base64 import b64decode
from binascii import Error as Base64Error
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import formataddr
from pathlib import Path
from typing import Any, Self

from aiohttp import web

TOKEN = "wSsVR60-fake-token"
MAX_SIZE = 15 * 1024 * 1024
MAILBOX = ("address", "name")
FIELDS = (
    *(
        "from",
        "to",
        "cc",
        "bcc",
        "reply_to",
        "subject",
        "htmlbody",
        "textbody",
        "attachments",
        "inline_images",
    ),
    *("track_clicks", "track_opens", "client_reference", "mime_headers", "bounce_address"),
)
STRINGS = ("subject", "htmlbody", "textbody", "client_reference", "bounce_address")
FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 §2.2
MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*")  # RFC 6838 §4.2
BLOCKED = {"exe", "bat", "cmd", "com", "js", "msi", "ps1", "scr", "vbs"}
ADDRESS = re.compile(r"[^\s@<>\"]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
COOKIES = ("fake_session", "fake_csrf", "fake_balancer")


@dataclass(frozen=True)
class Script:
    """What the next request or upload gets. Without a status it is judged honestly; `accept` takes the mail before."""

    status: int | None = None
    body: object = b""  # bytes as they are, anything else as JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    accept: bool = False
    delay: float = 0.0  # seconds between taking the mail and answering
    then: str = "answer"  # or: hang, stall (in the midst of the body), reset, drop


@dataclass(frozen=True)
class Accepted:
    """A mail the fake took responsibility for."""

    request_id: str
    body: dict[str, Any]
    headers: Mapping[str, str]


class RefusalError(Exception):
    """The provider's no, with its often odd status."""

    def __init__(self, status: int, group: str, detail: str | None = None, **more: object) -> None:
        super().__init__(group, detail)
        self.status = status
        self.group = group
        self.detail = detail
        self.more = more


def error(group: str, detail: str | None = None, *, remark: str = "no", **more: object) -> dict[str, Any]:
    """An error body of the usual shape; `more` goes into the detail (target, target_value, inner_error)."""
    details = [] if detail is None else [{"code": detail, "message": remark, **more}]
    said = {"code": group, "details": details, "message": remark, "request_id": request_id("m4")}
    return {"error": said}


def success(identity: str, remark: str = "Email request received") -> dict[str, Any]:
    """The body of a 201."""
    data = [{"code": "EM_104", "additional_info": [], "message": remark}]
    return {"data": data, "message": "OK", "request_id": identity, "object": "email"}


def request_id(kind: str = "m1") -> str:
    """A request id of the recorded shape."""
    return f"2d6f.{uuid.uuid4().hex[:16]}.{kind}.{uuid.uuid4()}.{uuid.uuid4().hex[:11]}"


class FakeZepto:
    """The fake. `accepted` grows at its commit point, whatever becomes of the answer."""

    def __init__(
        self,
        token: str = TOKEN,
        *,
        tls: ssl.SSLContext | None = None,
        bad_addresses: tuple[str, ...] = (),
        from_domains: tuple[str, ...] = (),
        bounce_addresses: tuple[str, ...] = (),
        remark: str = "a remark of the provider",
        deliver: Callable[[dict[str, Any], dict[str, tuple[str, str, bytes]]], None] | None = None,
    ) -> None:
        self.accepted: list[Accepted] = []
        self.files: dict[str, tuple[str, str, bytes]] = {}  # the file cache: name, type and bytes by key
        self.uploads = 0
        self.requests = 0
        self.hanging = asyncio.Event()
        self.broken: list[str] = []  # what no client may do
        self.url = ""
        self._token = token
        self._tls = tls
        self._bad_addresses = bad_addresses
        self._from_domains = from_domains
        self._bounce_addresses = bounce_addresses
        self._remark = remark
        self._deliver = deliver  # called in a thread with each accepted body, and the file cache
        self._scripts: deque[Script] = deque()
        self._upload_scripts: deque[Script] = deque()

    def play(self, *scripts: Script) -> None:
        """Let the next requests end like this, one each; the ones after are judged honestly."""
        self._scripts.extend(scripts)

    def play_uploads(self, *scripts: Script) -> None:
        """Let the next uploads to the file cache end like this."""
        self._upload_scripts.extend(scripts)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; `url` is known afterwards."""
        self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        bound_host, bound_port = self._runner.addresses[0][:2]
        self.url = f"http{'s' if self._tls else ''}://{bound_host}:{bound_port}"

    async def settled(self) -> None:
        """Wait until the end of every connection has been seen, so that `accepted` is final."""
        while self._server.connections:  # noqa: ASYNC110  # the server has no event for it
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        """Stop listening, drop what still hangs."""
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.stop()
        if kind is None:
            assert not self.broken

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.content.read()
        if (request.method, request.path) == ("GET", "/accepted"):
            return web.json_response([one.body for one in self.accepted])
        if "Cookie" in request.headers:
            self.broken.append("a client sent cookies back")
        if (request.method, request.path) == ("POST", "/v1.1/files"):
            if self._upload_scripts:
                return await self._play(self._upload_scripts.popleft(), request, "")
            return self._take_file(request, raw)
        if (request.method, request.path) != ("POST", "/v1.1/email"):
            return self._respond(404, b"<html>no such page</html>")
        self.requests += 1
        script = self._scripts.popleft() if self._scripts else Script(accept=True)
        try:
            body = self._judge(request, raw)
        except RefusalError as no:
            said = error(no.group, no.detail, remark=self._remark, **no.more)
            return self._respond(no.status, said)
        identity = request_id()
        if script.accept:
            self.accepted.append(Accepted(identity, body, request.headers.copy()))
            if self._deliver is not None:
                await asyncio.to_thread(self._deliver, body, self.files)
        return await self._play(script, request, identity)

    def _take_file(self, request: web.BaseRequest, raw: bytes) -> web.Response:
        """Keep a file under a new key, as the real one does even for bytes it has already."""
        try:
            self._check_token(request)
            name = request.query.get("name", "")
            check_upload(name, raw)
        except RefusalError as no:
            return self._respond(no.status, error(no.group, no.detail, remark=self._remark, **no.more))
        self.uploads += 1
        key = f"{uuid.uuid4().hex[:12]}.h1.{uuid.uuid4()}"
        self.files[key] = (name, request.content_type, raw)
        data = [{"code": "fm_101", "message": self._remark, "additional_info": []}]
        return self._respond(201, {"file_cache_key": key, "data": data, "message": "OK", "object": "file"})

    async def _play(self, script: Script, request: web.BaseRequest, identity: str) -> web.StreamResponse:
        await asyncio.sleep(script.delay)
        if script.then in ("reset", "drop"):
            _cut(request, hard=script.then == "reset")
            return web.Response()
        if script.then == "stall":
            response = web.StreamResponse(status=201, headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"{")
        if script.then in ("hang", "stall"):
            self.hanging.set()
            await asyncio.Event().wait()
        if script.status is None:
            return self._respond(201, success(identity, self._remark))
        return self._respond(script.status, script.body, script.headers)

    def _respond(self, status: int, body: object, headers: Mapping[str, str] | None = None) -> web.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "text/html" if raw.startswith(b"<") else "application/json"
        response = web.Response(status=status, body=raw, headers=headers, content_type=kind)
        response.headers["Server"] = "ZGS"
        for name in COOKIES:
            response.set_cookie(name, uuid.uuid4().hex, path="/", httponly=True)
        return response

    def _judge(self, request: web.BaseRequest, raw: bytes) -> dict[str, Any]:
        """Return the body if the real one would take it.

        Raises:
            RefusalError: it would not.
        """
        self._check_token(request)
        try:
            body = json.loads(raw)
        except ValueError:
            raise RefusalError(400, "TM_3301", "SM_101") from None
        if request.content_type != "application/json":
            raise RefusalError(400, "TM_3301", "SM_101")
        check_shape(body)
        check_limits(body, len(raw))
        self._check_addresses(body)
        self._check_keys(body)
        return body

    def _check_token(self, request: web.BaseRequest) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "zoho-enczapikey" or token != self._token:
            raise RefusalError(401, "TM_4001", "SERR_157")

    def _check_keys(self, body: dict[str, Any]) -> None:
        for kind in ("attachments", "inline_images"):
            keys = [file["file_cache_key"] for file in body.get(kind, []) if "file_cache_key" in file]
            if any(key not in self.files for key in keys):
                raise RefusalError(422, "TM_3501", "UE_106", target=kind)

    def _check_addresses(self, body: dict[str, Any]) -> None:
        found = {kind: [one["email_address"] for one in body.get(kind, [])] for kind in ("to", "cc", "bcc")}
        found |= {"from": [body["from"]], "reply_to": body.get("reply_to", [])}
        bad = {
            kind: [box["address"] for box in boxes if self._is_bad(box["address"])]
            for kind, boxes in found.items()
        }
        kinds = [kind for kind, addresses in bad.items() if addresses]
        if kinds:
            more: dict[str, object] = {"target": "|".join(kinds), "target_value": bad[kinds[0]][0]}
            if all(len(bad[kind]) == len(found[kind]) for kind in ("to", "cc", "bcc")):
                more["inner_error"] = {"code": "SMI_116", "message": self._remark}
            raise RefusalError(401, "TM_4001", "SM_113", **more)
        domain = body["from"]["address"].rpartition("@")[2]
        if self._from_domains and domain not in self._from_domains:
            raise RefusalError(401, "TM_4001", "SM_111", target="from", target_value=domain)
        bounce = body.get("bounce_address")
        if bounce and self._bounce_addresses and bounce not in self._bounce_addresses:
            raise RefusalError(401, "TM_4001", "SM_113", target="bounce_address", target_value=bounce)

    def _is_bad(self, address: str) -> bool:
        return address in self._bad_addresses or ADDRESS.fullmatch(address) is None


def check_upload(name: str, raw: bytes) -> None:
    """Refuse a file without bytes, without a name, or of a forbidden kind."""
    if not raw or not name:
        raise RefusalError(400, "TM_3301")
    if name.rpartition(".")[2].lower() in BLOCKED:
        raise RefusalError(400, "TM_3501")


def check_shape(body: object) -> None:
    """Refuse what is not nested and named exactly so."""
    closed(body, FIELDS)
    assert isinstance(body, dict)
    for name in ("from", "subject"):
        if not body.get(name):
            raise RefusalError(400, "TM_3201", "GE_102", target=name)
    if not any(body.get(kind) for kind in ("to", "cc", "bcc")):
        raise RefusalError(400, "TM_3201", "GE_102", target="to")
    if not (body.get("htmlbody") or body.get("textbody")):
        raise RefusalError(400, "TM_3201", "GE_102", target="htmlbody")
    for name in STRINGS:
        typed(body.get(name, ""), str, name)
    for name in ("track_clicks", "track_opens"):
        typed(body.get(name, False), bool, name)
    headers = typed(body.get("mime_headers", {}), dict, "mime_headers")
    for name, value in headers.items():
        if not FIELD_NAME.fullmatch(name) or not isinstance(value, str) or re.search(r"[\r\n]", value):
            raise RefusalError(401, "TM_4001", "SM_113", target="mime_headers")
    check_boxes(body)
    check_files(body)


def check_boxes(body: dict[str, Any]) -> None:
    """Refuse an address without its wrapper where it needs one, and with it where it must have none."""
    boxes = [body["from"], *typed(body.get("reply_to", []), list, "reply_to")]
    for kind in ("to", "cc", "bcc"):
        for one in typed(body.get(kind, []), list, kind):
            closed(one, ("email_address",), mandatory=("email_address",))
            boxes.append(one["email_address"])
    for box in boxes:
        closed(box, MAILBOX, mandatory=("address",))
        for name in MAILBOX:
            typed(box.get(name, ""), str, name)


def check_files(body: dict[str, Any]) -> None:
    """Refuse attachments that lack something, are no base64, or are of a forbidden kind."""
    for kind, name in (("attachments", "name"), ("inline_images", "cid")):
        for file in typed(body.get(kind, []), list, kind):
            if isinstance(file, dict) and "file_cache_key" in file:
                closed(file, (name, "file_cache_key"), mandatory=(name, "file_cache_key"))
                continue
            closed(file, (name, "mime_type", "content"), mandatory=(name, "mime_type", "content"))
            if not MEDIA_TYPE.fullmatch(typed(file["mime_type"], str, kind)):
                raise RefusalError(400, "TM_3301", "SM_120", target=kind)
            try:
                b64decode(file["content"], validate=True)
            except (Base64Error, TypeError, ValueError):
                raise RefusalError(400, "TM_3301", "SM_120", target=kind) from None
            if file[name].rpartition(".")[2].lower() in BLOCKED:
                raise RefusalError(400, "TM_3501", target=kind)


def check_limits(body: dict[str, Any], size: int) -> None:
    """Refuse what is too many, too long or too large."""
    lists = [body.get(kind, []) for kind in ("to", "cc", "bcc", "reply_to")]
    people = sum(map(len, lists[:3]))
    if len(body.get("attachments", [])) > 60 or people > 500 or len(lists[3]) > 40:
        raise RefusalError(400, "TM_8001", "SM_127")
    boxes = [body["from"], *(one.get("email_address", one) for boxes in lists for one in boxes)]
    lengths = (
        (size, MAX_SIZE),
        (len(body["subject"]), 500),
        *((len(box.get("name", "")), 250) for box in boxes),
        *((len(file["name"]), 150) for file in body.get("attachments", [])),
    )
    if any(length > limit for length, limit in lengths):
        raise RefusalError(400, "TM_8001", "SM_129")


def closed(value: object, known: tuple[str, ...], mandatory: tuple[str, ...] = ()) -> None:
    """Refuse anything but an object of these keys."""
    for name in typed(value, dict, "body"):
        if name not in known:
            raise RefusalError(400, "TM_3301", "GE_121", target=name)
    for name in mandatory:
        if not value.get(name):
            raise RefusalError(400, "TM_3201", "GE_102", target=name)


def typed(value: object, kind: type, target: str) -> Any:
    """Return the value, or refuse one of another type."""
    if not isinstance(value, kind):
        raise RefusalError(400, "TM_3301", "SM_101", target=target)
    return value


def _cut(request: web.BaseRequest, *, hard: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if hard:  # lingering for no time at all makes the kernel send a reset
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def as_mail(body: dict[str, Any], files: Mapping[str, tuple[str, str, bytes]]) -> EmailMessage:
    """Write an accepted body as the mail its recipients get."""
    mail = EmailMessage(policy=SMTP_POLICY)
    mail["From"] = _mailboxes([body["from"]])
    for field_name, kind in (("To", "to"), ("Cc", "cc")):
        if body.get(kind):
            mail[field_name] = _mailboxes([one["email_address"] for one in body[kind]])
    if body.get("reply_to"):
        mail["Reply-To"] = _mailboxes(body["reply_to"])
    mail["Subject"] = body["subject"]
    for name, value in body.get("mime_headers", {}).items():
        mail[name] = value
    mail.set_content(body.get("textbody") or "(no text)")
    if body.get("htmlbody"):
        mail.add_alternative(body["htmlbody"], subtype="html")
    for file in (*body.get("attachments", ()), *body.get("inline_images", ())):
        name, kind, data = files.get(file.get("file_cache_key", ""), ("file", file.get("mime_type", ""), b""))
        main, _, sub = (kind or "application/octet-stream").partition("/")
        content = data or b64decode(file["content"])
        mail.add_attachment(
            content, maintype=main, subtype=sub, filename=file.get("name", file.get("cid", name))
        )
    return mail


def _mailboxes(boxes: list[dict[str, str]]) -> str:
    return ", ".join(formataddr((box.get("name", ""), box["address"])) for box in boxes)


def deliver_to(inbox: str) -> Callable[[dict[str, Any], dict[str, tuple[str, str, bytes]]], None]:
    """Return what passes accepted mails on to an SMTP server."""
    host, _, port = inbox.rpartition(":")

    def deliver(body: dict[str, Any], files: dict[str, tuple[str, str, bytes]]) -> None:
        people = [
            one["email_address"]["address"] for kind in ("to", "cc", "bcc") for one in body.get(kind, ())
        ]
        sender = body.get("bounce_address") or body["from"]["address"]
        try:
            with smtplib.SMTP(host, int(port), timeout=10) as client:
                client.send_message(as_mail(body, files), sender, people)
        except OSError as error:  # smtplib's own are
            sys.stderr.write(f"the inbox did not take it: {type(error).__name__}\n")

    return deliver


async def _serve(host: str, port: int, token: str, inbox: str | None) -> None:
    fake = FakeZepto(token, deliver=deliver_to(inbox) if inbox else None)
    await fake.start(host, port)
    sys.stdout.write(f"{fake.url}\n")
    sys.stdout.flush()
    try:
        await asyncio.Event().wait()
    finally:
        await fake.stop()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A fake ZeptoMail.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default=TOKEN)
    parser.add_argument("--token-file", type=Path)
    parser.add_argument("--inbox", metavar="HOST:PORT", help="an SMTP server that gets what is accepted")
    given = parser.parse_args()
    token = given.token_file.read_text().strip() if given.token_file else given.token
    try:
        asyncio.run(_serve(given.host, given.port, token, given.inbox))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
