"""The inbox from outside: SMTP in, HTTP out, over real sockets on free ports."""

import asyncio
import json
import os
import signal
import smtplib
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from typing import NamedTuple

import aiohttp
import pytest

from postroom.inbox.app import ListenError, Running, Settings, serve
from postroom.inbox.mail import Arrival, Query
from postroom.inbox.mailbox import Mailbox

ADA = "ada@example.com"
BROKEN = (
    b"From: =?utf-8?b?####?= <<<>\r\nTo: \xff\xfe, <@>\r\nSubject: =?no-such-charset?q?caf=E9?=\r\n"
    b'Content-Type: multipart/mixed; boundary="never\r\n\r\n\x00body\xff\r\n'
)
HOSTILE = (
    "<html><head><title>x</title></head><body onload=a()><script>a()</script><img src='cid:logo@x'></body>"
)


class Inbox(NamedTuple):
    running: Running
    http: aiohttp.ClientSession

    async def get(self, path, status=200, **options):
        async with self.http.get(self.running.url + path, **options) as response:
            assert status == response.status, await response.text()
            return await response.json(content_type=None)

    async def head(self, path, **options):
        async with self.http.get(self.running.url + path, **options) as response:
            return response.status, response.headers, await response.read()

    async def delete(self, path):
        async with self.http.delete(self.running.url + path) as response:
            return response.status

    async def send(self, *mails, recipients=(ADA,)):
        await asyncio.to_thread(send, self.running.smtp_port, mails, recipients)


def send(port, mails, recipients=(ADA,)):
    with smtplib.SMTP("127.0.0.1", port) as client:
        for mail in mails:
            content = mail if isinstance(mail, bytes) else mail.as_bytes()
            client.sendmail("bounce@shop.example", recipients, content, mail_options=["BODY=8BITMIME"])


def mail(subject="Hello", *, to=ADA, html=None, **headers):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Shop <orders@shop.example>", to, subject
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    message.set_content("It works.\n")
    if html:
        message.add_alternative(html, subtype="html")
        message.get_payload()[1].add_related(b"\x89PNG", "image", "png", cid="<logo@x>", filename="logo.png")
    return message


@pytest.fixture
def settings(tmp_path):
    return Settings(http_port=0, smtp_port=0, data=tmp_path / "deep" / "inbox.sqlite")


@pytest.fixture
async def inbox(settings):
    refs = {"orders-1": "order-10023", "orders-2": "a/b"}

    async def resolve(postroom_id):
        return refs.get(postroom_id)

    async with serve(settings, resolve) as running, aiohttp.ClientSession() as http:
        yield Inbox(running, http)


async def test_lists_newest_first(inbox):
    """A mail is listed with its envelope's recipients, blind copies too, and its client_ref, newest first."""
    await inbox.send(mail("First"))
    await inbox.send(
        mail("Grüße", X_Postroom_Id="orders-1", Cc="Bob <bob@example.com>"),
        recipients=[ADA, "bcc@example.com"],
    )
    page = await inbox.get("/api/messages")
    first = page["messages"][0]
    assert page["total"] == 2
    assert ["Grüße", "First"] == [one["subject"] for one in page["messages"]]
    assert {"at", "size"} == first.keys() - {
        "id",
        "from",
        "to",
        "cc",
        "subject",
        "postroom_id",
        "client_ref",
        "url",
    }
    assert "Shop <orders@shop.example>" == first["from"]
    assert [ADA, "bcc@example.com"] == first["to"]
    assert ["Bob <bob@example.com>"] == first["cc"]
    assert ("orders-1", "order-10023") == (first["postroom_id"], first["client_ref"])
    assert first["id"] == (await inbox.get(first["url"]))["id"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"to": "ADA@example.com"}, ["B", "A"]),
        ({"to": "da@example.com"}, []),
        ({"subject": "b"}, ["B"]),
        ({"client_ref": "a/b"}, ["B"]),
        ({"client_ref": "none"}, []),
        ({"q": "order-10023"}, ["A"]),
        ({"to": ADA, "limit": "1"}, ["B"]),
        ({"to": "", "client_ref": "", "subject": ""}, ["C", "B", "A"]),
    ],
)
async def test_filters(inbox, query, expected):
    """Filters match a whole recipient, an exact client_ref, and a part of the subject."""
    await inbox.send(mail("A", X_Postroom_Id="orders-1"), mail("B", **{"X-TM-CLIENT-REF": "orders-2"}))
    await inbox.send(mail("C"), recipients=["carol@example.com"])
    page = await inbox.get("/api/messages", params=query)
    assert expected == [one["subject"] for one in page["messages"]]


@pytest.mark.parametrize(
    "query", ["wait=5", "wait=61s", "limit=0", "limit=x", "clientref=a", "to=a&to=b", "before=0"]
)
async def test_bad_parameters(inbox, query):
    """A parameter that cannot be read is a 400 that names it, and is never ignored."""
    problem = await inbox.get(f"/api/messages?{query}", status=400)
    assert ("bad_parameter", query.split("=")[0]) == (problem["code"], problem["errors"][0]["parameter"])


async def test_waits_for_a_match(inbox):
    """A waiting list call answers as soon as a matching mail arrives, and not for others."""
    waiting = asyncio.create_task(inbox.get("/api/messages?client_ref=order-10023&wait=20s"))
    await inbox.send(mail("Other", X_Postroom_Id="orders-2"))
    assert not waiting.done()
    await inbox.send(mail("Wanted", X_Postroom_Id="orders-1"))
    page = await asyncio.wait_for(waiting, 5)
    assert ["Wanted"] == [one["subject"] for one in page["messages"]]


async def test_wait_ends_empty(inbox):
    """When nothing comes in time, the answer is an empty list."""
    assert {"messages": [], "total": 0} == await inbox.get("/api/messages?to=nobody@example.com&wait=50ms")


async def test_takes_a_mail_apart(inbox):
    """One mail is shown with its headers in order, both bodies, its attachments and its envelope."""
    message = mail("Parts", html="<b>It works</b>", X_Twice="1")
    message["X-Twice"] = "2"
    message.add_attachment(b"%PDF", "application", "pdf", filename="Größe.pdf")
    await inbox.send(message)
    shown = await inbox.get("/api/messages/1")
    image, pdf = shown["attachments"]
    assert ("It works.\n", "<b>It works</b>\n") == (shown["text"], shown["html"])
    assert ["1", "2"] == [value for name, value in shown["headers"] if name == "X-Twice"]
    assert {"sender": "bounce@shop.example", "recipients": [ADA]} == shown["envelope"]
    assert ("Größe.pdf", "application/pdf", 4, None) == tuple(
        pdf[k] for k in ("name", "content_type", "size", "cid")
    )
    assert "logo@x" == image["cid"]
    _, headers, body = await inbox.head(pdf["url"])
    assert b"%PDF" == body
    assert headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''Gr%C3%B6%C3%9Fe.pdf")
    _, headers, body = await inbox.head(shown["raw_url"])
    assert body.splitlines()[:2] == [b"From: Shop <orders@shop.example>", b"To: ada@example.com"]
    assert "text/plain; charset=utf-8" == headers["Content-Type"]


async def test_broken_mail(inbox):
    """A mail broken in every way is still listed, shown and given out byte for byte."""
    await inbox.send(BROKEN)
    assert 1 == (await inbox.get("/api/messages?subject=caf"))["total"]
    shown = await inbox.get("/api/messages/1")
    assert ("=?utf-8?b?####?= <<<>", "\ufffdbody\ufffd\r\n") == (shown["headers"][0][1], shown["text"])
    assert BROKEN == (await inbox.head("/api/messages/1/raw"))[2]


async def test_hostile_html(inbox):
    """The HTML of a mail is served sandboxed: no scripts, nothing remote, inline images from this mail only."""
    await inbox.send(mail(html=HOSTILE), mail())
    _, headers, body = await inbox.head("/api/messages/1/html")
    policy = headers["Content-Security-Policy"]
    own = f"{inbox.running.url}/api/messages/1/attachments/"
    assert policy.startswith(f"default-src 'none'; img-src data: {own}; style-src 'unsafe-inline';")
    assert "sandbox allow-popups allow-popups-to-escape-sandbox" == policy.split("; ")[-1]
    assert b"<img src='/api/messages/1/attachments/0'>" in body
    assert 404 == (await inbox.head("/api/messages/2/html"))[0]


async def test_page_is_strict(inbox):
    """The page and its files are served under a policy that runs its own script only."""
    status, headers, body = await inbox.head("/")
    assert 200 == status
    assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"]
    assert b"/static/inbox.js" in body
    assert [200] * 3 == [(await inbox.head(f"/static/{n}"))[0] for n in ("inbox.js", "inbox.css", "icon.svg")]
    assert 404 == (await inbox.head("/static/..%2fapp.py"))[0]


async def test_deletes(inbox):
    """A deleted mail is unknown, and clearing leaves nothing."""
    await inbox.send(mail(), mail(), mail())
    assert 204 == await inbox.delete("/api/messages/2")
    assert "unknown_message" == (await inbox.get("/api/messages/2", status=404))["code"]
    assert 404 == await inbox.delete("/api/messages/2")
    assert 2 == (await inbox.get("/api/messages"))["total"]
    assert 204 == await inbox.delete("/api/messages")
    assert 0 == (await inbox.get("/api/messages"))["total"]


async def test_events(inbox):
    """The stream tells of every arrival, every deletion and of clearing, in order."""
    async with inbox.http.get(inbox.running.url + "/api/events") as response:
        assert "text/event-stream" == response.headers["Content-Type"]
        await response.content.readline()
        await inbox.send(mail("One"))
        await inbox.delete("/api/messages/1")
        await inbox.delete("/api/messages")
        events = [await next_event(response) for _ in range(3)]
    assert ["message", "deleted", "cleared"] == [kind for kind, _ in events]
    assert ("One", {"id": 1}) == (events[0][1]["subject"], events[1][1])


async def next_event(response):
    kind = b""
    while not kind.startswith(b"event: "):
        kind = await response.content.readline()
    data = await response.content.readline()
    return kind[7:].decode().strip(), json.loads(data[6:])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200),
        ("[::1]", 200),
        ("127.0.0.1:8081", 200),
        ("evil.example", 403),
        ("", 403),
        ("[", 403),
    ],
)
async def test_host(inbox, host, status):
    """Only requests for the inbox's own names are answered, so no web page can rebind its name to it."""
    assert status == (await inbox.head("/livez", headers={"Host": host}))[0]


def send_pipelined(port, mails):
    """Send as fast as the server takes it, without waiting for a reply before the next command."""
    envelope = b"MAIL FROM:<a@shop.example>\r\nRCPT TO:<ada@example.com>\r\nDATA\r\n"
    session = b"EHLO x\r\n" + b"".join(envelope + one + b"\r\n.\r\n" for one in mails) + b"QUIT\r\n"
    return send_raw(port, session)


def send_raw(port, session):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(session)
        return connection.makefile("rb").read().splitlines()


async def test_burst(inbox):
    """Two thousand mails in a burst over ten connections are each stored once."""
    batches = [[b"Subject: %d-%d\r\n\r\nHello" % (batch, n) for n in range(200)] for batch in range(10)]
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(10) as pool:
        jobs = [
            loop.run_in_executor(pool, send_pipelined, inbox.running.smtp_port, batch) for batch in batches
        ]
        replies = await asyncio.gather(*jobs)
    assert [200] * 10 == [sum(b"Kept in the inbox" in line for line in lines) for lines in replies]
    counted: Counter[str] = Counter()
    before = {}
    while page := (await inbox.get("/api/messages?limit=1000", params=before))["messages"]:
        counted.update(one["subject"] for one in page)
        before = {"before": page[-1]["id"]}
    assert {f"{batch}-{n}": 1 for batch in range(10) for n in range(200)} == counted


async def test_large_and_international(inbox):
    """A mail of 34 MB with an address beyond ASCII is taken whole."""
    content = "Subject: Größe\r\n\r\n".encode() + (b"x" * 998 + b"\r\n") * 34_000
    commands = (
        "EHLO x\r\nMAIL FROM:<> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<zoë@example.com>\r\nDATA\r\n".encode()
    )
    whole = commands + content + b".\r\nQUIT\r\n"
    replies = await asyncio.to_thread(send_raw, inbox.running.smtp_port, whole)
    assert b"250 2.0.0" == replies[-2][:9]
    page = await inbox.get("/api/messages")
    assert [("Größe", ["zoë@example.com"])] == [(one["subject"], one["to"]) for one in page["messages"]]
    assert len(content) == page["messages"][0]["size"]


async def test_asks_for_refs_once(tmp_path):
    """An answer of the resolver is kept, none too; a resolver that failed is asked again."""
    asked = []

    async def resolve(postroom_id):
        asked.append(postroom_id)
        if len(asked) == 1:
            raise ConnectionError
        return {"orders-1": "order-1"}.get(postroom_id)

    mailbox = await Mailbox.open(tmp_path / "inbox.sqlite", resolve)
    for name in ("orders-1", "orders-9"):
        await mailbox.put(Arrival("", (ADA,), mail(X_Postroom_Id=name).as_bytes()))
    seen = [[one.client_ref for one in (await mailbox.find(Query())).messages] for _ in range(3)]
    await mailbox.close()
    assert [[None, "order-1"]] * 3 == seen
    assert Counter({"orders-9": 2, "orders-1": 1}) == Counter(asked)


async def test_drops_the_oldest(tmp_path):
    """Beyond the limits the oldest mails go, and the newest stays however large it is."""
    mailbox = await Mailbox.open(tmp_path / "inbox.sqlite", max_messages=3, max_bytes=1000)
    for size in (10, 10, 10, 10, 500, 600, 5000):
        await mailbox.put(Arrival("", (ADA,), b"x" * size))
        kept = await mailbox.find(Query())
    assert [5000] == [one.size for one in kept.messages]
    assert [7] == [one.id for one in kept.messages]
    await mailbox.close()


async def test_taken_port(settings, inbox):
    """A taken port is refused with the port and the remedy."""
    taken = Settings(http_port=0, smtp_port=inbox.running.smtp_port, data=settings.data)
    with pytest.raises(ListenError, match=rf":{inbox.running.smtp_port} .*--smtp-port"):
        async with serve(taken):
            pass


def start(data, *more):
    command = [
        sys.executable,
        "-m",
        "postroom.inbox",
        "--http-port=0",
        "--smtp-port=0",
        f"--data={data}",
        *more,
    ]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


async def test_survives_restart(tmp_path):
    """As a process it says one line when ready, ends with 0 on SIGTERM, and has its mails after a restart."""
    for sent in (1, 2):
        process = await asyncio.to_thread(start, tmp_path / "inbox.sqlite")
        with process:
            started = json.loads(await asyncio.to_thread(process.stdout.readline))
            await asyncio.to_thread(send, started["smtp_port"], [mail()])
            async with (
                aiohttp.ClientSession() as http,
                http.get(started["url"] + "/api/messages") as response,
            ):
                page = await response.json()
            process.send_signal(signal.SIGTERM)
            rest = await asyncio.to_thread(process.communicate, timeout=5)
        assert "inbox.started" == started["event"]
        assert sent == page["total"]
        assert (0, ("", "")) == (process.returncode, rest)


@pytest.mark.parametrize("trouble", ["port", "file"])
async def test_says_why_it_cannot_start(inbox, tmp_path, trouble):
    """A taken port or a file of something else ends the process with 1 and one line that says what to do."""
    foreign = tmp_path / "foreign"
    foreign.write_text("not a database, and long enough to be looked at by SQLite" * 20)
    if trouble == "port":
        process = start(tmp_path / "x.sqlite", f"--smtp-port={inbox.running.smtp_port}")
    else:
        process = start(foreign)
    with process:
        _, error = await asyncio.to_thread(process.communicate, timeout=10)
    assert (1, 1) == (process.returncode, error.count("\n"))
    assert "--smtp-port" in error if trouble == "port" else "--data" in error
