"""Bytes that no client sends: one answer at most, never a 5xx, and nothing recorded."""

import json
import threading

import pytest

from tests.service.conftest import Api
from tests.service.wire import BEARER, ask, read_answers, request_bytes
from tests.stack import sample

CANARY = "kanarie9c1f"
BODY = json.dumps(sample(f"framing-{CANARY}")).encode()
CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"
HEAD = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\n{BEARER}\r\nContent-Type: application/json\r\nConnection: close\r\n"
UPGRADE = (
    b"GET /v1/messages HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SMUGGLED = f"GET /{CANARY} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def sized(*lines: str, head: str = HEAD) -> bytes:
    """Return a request with more header fields and a length that is right."""
    more = "".join(f"{line}\r\n" for line in lines)
    return f"{head}{more}Content-Length: {len(BODY)}\r\n\r\n".encode("latin-1") + BODY


def chunked(after: bytes, *lines: str) -> bytes:
    """Return a chunked request with these bytes for a body."""
    more = "".join(f"{line}\r\n" for line in lines)
    return f"{HEAD}Transfer-Encoding: chunked\r\n{more}\r\n".encode() + after


ROWS: dict[str, tuple[bytes, set[int]]] = {
    # framing
    "length in hex": (f"{HEAD}Content-Length: 0x5\r\n\r\n".encode() + BODY, {400}),
    "length in words": (f"{HEAD}Content-Length: five\r\n\r\n".encode() + BODY, {400}),
    "negative length": (f"{HEAD}Content-Length: -1\r\n\r\n".encode() + BODY, {400}),
    "empty length": (f"{HEAD}Content-Length: \r\n\r\n".encode() + BODY, {400}),
    "list of lengths": (f"{HEAD}Content-Length: 5, 5\r\n\r\n".encode() + BODY, {400}),
    "length beyond 64 bits": (f"{HEAD}Content-Length: {2**64}\r\n\r\n".encode() + BODY, {400, 413}),
    "space before the colon": (sized("Transfer-Encoding : chunked"), {400}),
    "chunked, then identity": (chunked(CHUNKED, "Transfer-Encoding: identity"), {400, 501}),
    "negative chunk": (chunked(b"-1\r\n" + BODY), {400}),
    "chunk beyond 64 bits": (chunked(b"f" * 18 + b"\r\n" + BODY), {400}),
    "chunk size with a space": (chunked(b"5 5\r\nhello\r\n0\r\n\r\n"), {400}),
    "chunk without its end": (chunked(b"5\r\nhelloX\r\n0\r\n\r\n"), {400}),
    "endless chunk extension": (chunked(b"5;" + b"a" * 50_000 + b"\r\nhello\r\n0\r\n\r\n"), {400}),
    "line feed in an extension": (chunked(b"5;a=\nb\r\nhello\r\n0\r\n\r\n"), {400}),
    "NUL for a chunk size": (chunked(b"\x00\r\nhello\r\n0\r\n\r\n"), {400}),
    # the head
    "empty host": (sized(head=HEAD.replace("Host: x", "Host: ")), {400}),
    "host with a space": (sized(head=HEAD.replace("Host: x", "Host: a b")), {400}),
    "the same host twice": (sized("Host: x"), {400}),
    "HTTP/1.0 without a host": (
        sized(head=HEAD.replace("HTTP/1.1", "HTTP/1.0").replace("Host: x\r\n", "")),
        {400},
    ),
    "folded field": (sized("X-A: a", f" {CANARY}"), {400}),
    "NUL in a field": (sized(f"X-A: {CANARY}\x00"), {400}),
    "bare CR in a field": (sized(f"X-A: a\r{CANARY}: b"), {400}),
    "field without a colon": (sized(CANARY), {400}),
    "space in a field's name": (sized(f"X A: {CANARY}"), {400}),
    "no name": (sized(f": {CANARY}"), {400}),
    "a thousand fields": (sized(*(f"X-{i}: {CANARY}" for i in range(1000))), {400, 431}),
    "a field of a megabyte": (sized("X-A: " + CANARY * 90_000), {400, 413, 431}),
    "a path of 100 kB": (f"GET /{'a' * 100_000} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), {400, 414}),
    "raw bytes in the path": (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "space in the path": (b"GET /li vez HTTP/1.1\r\nHost: x\r\n\r\n", {400}),
    "HTTP/9.9": (b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n", {400, 505}),
    "HTTP/0.9": (b"GET /livez\r\n\r\n", {400}),
    "braces in the method": (b"G{}T /livez HTTP/1.1\r\nHost: x\r\n\r\n", {400, 405}),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, {400}),
    "SMTP": (b"EHLO x\r\nMAIL FROM:<a@b.example>\r\n", {400}),
    "lower-case method": (sized(head=HEAD.replace("POST", "post")), {405}),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", {400, 404}),
    "proxy request": (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", {400, 404, 405, 501}),
    "websocket": (UPGRADE, {400, 401, 426}),
    # what the body says it is
    "gzip in a field of its own": (sized("Content-Encoding: gzip"), {415}),
    "identity": (sized("Content-Encoding: identity"), {415}),
    "two types": (sized("Content-Type: text/plain"), {415}),
    "no type": (sized(head=HEAD.replace("Content-Type: application/json\r\n", "")), {415}),
    **{
        f"type {kind!r}": (sized(head=HEAD.replace("application/json", kind)), {415})
        for kind in (
            "application/json; charset=utf-8; charset=utf-16", "application/json; charset=latin-1",
            "application/json;", "application/json, text/plain", "application/problem+json", "text/json", "json",
            "application/json; charset='utf-8'", "application/x-ndjson", "*/*",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize(("raw", "expected"), ROWS.values(), ids=ROWS)
def test_broken_bytes_get_one_refusal(api: Api, raw: bytes, expected: set[int]):
    """What is broken is refused once, tells nothing of what was sent, and is recorded nowhere."""
    before = api.redis.command("KEYS", "pr:*:m:*")
    found = read_answers(api.exchange(raw + SMUGGLED if b"Connection: close" in raw else raw))
    assert 1 == len(found)
    assert found[0].status in expected
    assert CANARY.encode() not in found[0].body
    if found[0].body:  # the server's own refusals have none
        assert "application/problem+json" == found[0].fields["content-type"]
        assert found[0].fields["x-request-id"] == found[0].document["request_id"]
    assert before == api.redis.command("KEYS", "pr:*:m:*")


def test_another_protocol_is_hung_up_on(api: Api):
    """HTTP/2 is not spoken here, and is not guessed at."""
    assert not api.exchange(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 2")


# The server's HTTP library drops the length beside a coding before anybody sees it. It ends the connection, so
# nothing is smuggled (next test); should it ever tell, this mark has to go.
UNSEEN = pytest.mark.xfail(strict=True, reason="the HTTP library hides a length beside a coding")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            f"{HEAD}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + CHUNKED, marks=UNSEEN
        ),
        pytest.param(
            f"{HEAD}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n".encode() + CHUNKED, marks=UNSEEN
        ),
        f"{HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n".encode() + CHUNKED,
        f"{HEAD}Transfer-Encoding: chunked, chunked\r\n\r\n".encode() + CHUNKED,
    ],
    ids=["length, coding", "coding, length", "gzip, chunked", "chunked, chunked"],
)
def test_what_two_readers_would_read_differently_is_refused(api: Api, raw: bytes):
    """A length beside a coding, and a coding nobody undoes, are a 400."""
    assert [400] == [answer.status for answer in read_answers(api.exchange(raw))]


def test_a_length_beside_a_coding_ends_the_connection(api: Api):
    """Whatever is made of the first request, nothing behind it is read as a second one."""
    head = HEAD.replace("Connection: close\r\n", "")
    raw = f"{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + CHUNKED
    found = read_answers(api.exchange(raw + SMUGGLED))
    assert 1 == len(found)


@pytest.mark.parametrize("newline", ["\n", "\r"])
def test_other_line_ends_smuggle_nothing(api: Api, newline: str):
    """Bare line ends are read as line ends or refused; either way there is one request, and no 5xx."""
    raw = request_bytes({"bcx": 1}).partition(b"\r\n\r\n")
    head = raw[0].replace(b"\r\n", newline.encode())
    found = read_answers(api.exchange(head + 2 * newline.encode() + raw[2]))
    assert len(found) <= 1
    assert all(answer.status in (400, 422) for answer in found)


def test_a_chunked_stream_over_the_limit_is_cut_off(api: Api):
    """A stream without an end is refused at the limit, and the connection closed."""
    part = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    (found,) = read_answers(api.exchange(chunked(part * 24)))
    assert (413, "too_large", "close") == (found.status, found.code, found.fields["connection"])


def test_a_chunked_request_is_a_request(api: Api):
    """Chunked bodies are taken: only both framings at once are not."""
    found = ask(api, b"", drop=("Content-Length",), method="GET", path="/livez")
    assert 200 == found.status
    (found,) = read_answers(api.exchange(chunked(CHUNKED)))
    assert found.status in (200, 202)


def test_one_connection_carries_requests_of_every_size(api: Api):
    """Where each body ends by its length, the next request begins, however many pieces a body came in."""
    sizes = (2, 9_000, 300_000, 2_000_000, 2)
    kept = [request_bytes(b"{" + b" " * (size - 2) + b"}", drop=("Connection",)) for size in sizes]
    answers = read_answers(api.exchange(b"".join([*kept, request_bytes(b"{}")])))
    assert [(422, "invalid_request")] * 6 == [(answer.status, answer.code) for answer in answers]


def test_many_faults_do_not_stop_the_others(api: Api):
    """A megabyte of nonsense is refused in a moment, with a short answer, while others are served."""
    body = json.dumps(sample("nonsense")).encode()[:-1] + b',"cc":[' + b"1," * 100_000 + b"1]}"
    answers = []
    sending = threading.Thread(target=lambda: answers.append(ask(api, body)))
    sending.start()
    assert 200 == ask(api, method="GET", path="/livez").status
    sending.join()
    assert 422 == answers[0].status
    assert len(answers[0].body) < 20_000


def test_nothing_of_it_is_in_the_log(api: Api):
    """No line of the log holds a piece of what was sent, and none tells of a crash."""
    log = api.log.read_text(errors="replace")
    told = [line for line in log.splitlines() if CANARY in line]
    assert [] == [line for line in told if '"event":"message.' not in line]
    levels = {json.loads(line)["level"] for line in log.splitlines() if line.startswith("{")}
    assert {"info", "warning"} >= levels
