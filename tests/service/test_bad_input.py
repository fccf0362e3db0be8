"""Bad input gets a clear problem: never a 5xx, never an echo, never a queued message."""

import base64
import json
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Api
from tests.stack import TOKEN, sample

CANARY = "canary7f3a"
VARIABLES = sample("x")["template"]["variables"]


def body(**changes: Any) -> dict[str, Any]:
    """Return a right request but for the changes."""
    return sample(f"bad-{CANARY}", **changes)


def to(address: str, name: str | None = None) -> dict[str, Any]:
    return body(to=[{"address": address} | ({} if name is None else {"name": name})])


def content(**changes: Any) -> dict[str, Any]:
    given = body(content={"subject": "s", "text": "t", **changes})
    del given["template"]
    return given


def variables(**changes: Any) -> dict[str, Any]:
    return body(template={"name": "order_shipped", "variables": {**VARIABLES, **changes}})


def attached(**changes: Any) -> dict[str, Any]:
    file = {"name": "a.pdf", "content_type": "application/pdf", "content": base64.b64encode(b"x").decode()}
    return body(attachments=[{**file, **changes}])


def sender(address: str, name: str = "", **more: Any) -> dict[str, Any]:
    return body(**{"from": {"address": address, "name": name}, **more})


def text(given: dict[str, Any], old: str, new: str) -> bytes:
    """Return a request as JSON text with a piece of it replaced by what no JSON library would write."""
    return json.dumps(given).replace(old, new, 1).encode("utf-8", "surrogatepass")


NESTED = "[" * 100_000 + "]" * 100_000
MALFORMED = {
    "cut off": b'{"to":',
    "trailing": json.dumps(body()).encode() + b"x",
    "empty": b"",
    "utf-16": json.dumps(body()).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + json.dumps(body()).encode(),
    "not utf-8": text(body(), "Ada", "A@a").replace(b"@", b"\xff"),
    "lone surrogate": text(body(), '"Ada"', '"\\ud800"'),
    "deep": text(body(), '"Ada"', NESTED),
    "deep and open": b"[" * 100_000,
    "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a little too deep": text(body(), '"Ada"', "[" * 40 + "]" * 40),
    "endless integer": text(body(), '"Ada"', "9" * 5_000),
    "infinite": text(body(), '"Ada"', "1e999"),
    "not a number": text(body(), '"Ada"', "NaN"),
}
ADDRESSES = [
    "alice@example.org)bob@example.com", '"a b"@x.example', "a(comment)@x.example", "<a@x.example>",
    "N <a@x.example>", "a@x.example,b@x.example", "g:a@x.example;", "a@[127.0.0.1]", "a@1.2.3.4",
    "a@localhost", "a@x", "x" * 65 + "@x.example", "a@" + "x" * 64 + ".example",
    "a@" + ".".join(["x" * 60] * 5) + ".example", "a" * 100_000 + "@x.example", "a%b@x.example",
    "a!b@x.example", "@a@b.example", "a@@b.example", "a..b@x.example", ".a@x.example", "a@-x.example",
    "a@x..example", "a\u200b@x.example", "a@x.example\n", " a@x.example", "a\u00ad@x.example", "a@x.123", "",
]  # fmt: skip
LINES = [
    "hi\r\nBcc: e@x",
    "a\nb",
    "a\rb",
    "a\tb",
    "a\x85b",
    "a\u2028b",
    "a\u202eb",
    "a\x00b",
    "a\x1bb",
    "a\x7fb",
]
INVALID: dict[str, tuple[Any, str]] = {
    "null": (b"null", ""),
    "a list": (b"[]", ""),
    "unknown field": (body(bcx=1), "/bcx"),
    "unknown nested field": (body(to=[{"address": "a@x.example", "x": 1}]), "/to/0/x"),
    "to as text": (body(to="a@x.example"), "/to"),
    "huge integer": (text(body(deliver_within=1), '"deliver_within": 1', '"deliver_within": ' + "9" * 30), "/deliver_within"),
    "integer as text": (body(deliver_within="5"), "/deliver_within"),
    "fraction": (body(deliver_within=1.5), "/deliver_within"),
    "true as integer": (body(deliver_within=True), "/deliver_within"),
    "no time": (body(deliver_within=0), "/deliver_within"),
    "two deadlines": (body(deliver_within=5, deliver_before="2026-12-01T00:00:00Z"), "/deliver_before"),
    "no recipients": (body(to=[]), "/to"),
    "only bcc": (body(to=[], bcc=[{"address": "a@x.example"}]), "/to"),
    "10,001 recipients": (body(to=[{"address": f"a{i}@x.example"} for i in range(10_001)]), "/to"),
    "51 in to and cc": (
        body(to=[{"address": f"a{i}@x.example"} for i in range(30)], cc=[{"address": f"c{i}@x.example"} for i in range(21)]),
        "/to",
    ),
    "twice the same": (body(cc=[{"address": "ADA@example.com"}]), "/cc/0/address"),
    "both": (body(content={"subject": "s", "text": "t"}), ""),
    "neither": ({k: v for k, v in body().items() if k != "template"}, ""),
    "content without a part": (body(template=None, content={"subject": "s"}), "/content"),
    "no ref": ({k: v for k, v in body().items() if k != "client_ref"}, "/client_ref"),
    "unknown priority": (body(priority="urgent"), "/priority"),
    "priority as number": (body(priority=7), "/priority"),
    "unknown template": (body(template={"name": "nope", "variables": {}}), "/template/name"),
    "template as path": (body(template={"name": "../../etc", "variables": {}}), "/template/name"),
    "unknown version": (body(template={"name": "order_shipped", "variables": VARIABLES, "version": "0"}), "/template/version"),
    "unknown variable": (variables(bogus=1), "/template/variables/bogus"),
    "wrong variable": (variables(first_name=3), "/template/variables/first_name"),
    "line break in the subject": (variables(order_number="1\r\nBcc: e@x"), "/template/variables/order_number"),
    "NUL in a variable": (variables(first_name="a\x00"), "/template/variables/first_name"),
    "javascript link": (variables(tracking_url="javascript:alert(1)"), "/template/variables/tracking_url"),
    "long subject": (content(subject="x" * 100_000), "/content/subject"),
    "NUL in text": (content(text="a\x00"), "/content/text"),
    "NUL in html": (content(html="a\x00"), "/content/html"),
    "from without address": (sender(""), "/from/address"),
    "from with line break": (sender("a@shop.example\r\nx"), "/from/address"),
    "from that looks like another": (sender("orders@shop.example", "ceo@bank.example"), "/from/name"),
    "encoded word in a header": (body(headers={"X-A": "=?utf-8?q?x?="}), "/headers/X-A"),
    "10 kB header": (body(headers={"X-A": "x" * 10_240}), "/headers/X-A"),
    "21 metadata keys": (body(metadata={str(i): "x" for i in range(21)}), "/metadata"),
    "line break in metadata": (body(metadata={"a": "b\r\n"}), "/metadata/a"),
    "number in metadata": (body(metadata={"a": 1}), "/metadata/a"),
    "cid with a space": (attached(cid="a b"), "/attachments/0/cid"),
    **{f"address {a[:30]!r}": (to(a), "/to/0/address") for a in ADDRESSES},
    **{f"subject {s!r}": (content(subject=s), "/content/subject") for s in (*LINES, "")},
    **{f"name {s!r}": (to("a@x.example", s), "/to/0/name") for s in (*LINES, "x" * 300)},
    **{f"header value {s!r}": (body(headers={"X-A": s}), "/headers/X-A") for s in LINES},
    **{
        f"header {n!r}": (body(headers={n: "v"}), "/headers")
        for n in ("From", "Bcc", "X-TM-CLIENT-REF", "Received", "X A", "X-A:", "Content-Type", "DKIM-Signature",
                  "x-postroom-id", "Subject\r\nX", "")
    },
    **{f"ref {r[:20]!r}": (sample(r), "/client_ref") for r in ("x" * 129, "a b", "a\r\nb", "😀", "../x", "a..b", "", "a@b")},
    **{
        f"send_at {t}": (sample(f"never-{i}", send_at=t), "/send_at")
        for i, t in enumerate((
            "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "2026-12-01T00:00:00", "2026-02-30T00:00:00Z",
            "2026-12-01T23:59:60Z", "2026-12-01T00:00:00+99:99", "tomorrow", 5, "1970-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
        ))
    },
    **{
        f"file {n[:20]!r}": (attached(name=n), "/attachments/0/name")
        for n in ("../../etc/passwd", "a\r\nX: y.pdf", "x.pdf .exe", "invoice\u202efdp.exe", "x" * 1000, "a\x00.pdf",
                  "a.exe", ".htaccess", "x.pdf.", "a/b", "a\\b", "")
    },
    **{f"type {c!r}": (attached(content_type=c), "/attachments/0/content_type") for c in ("message/rfc822", "multipart/mixed", "x", "a/b\r\nc", "")},
    **{f"base64 {c!r}": (attached(content=c), "/attachments/0/content") for c in ("!!", "", " YQ==", "YQ", "YQ==\n")},
}  # fmt: skip


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_json_is_a_400(api: Api, raw: bytes):
    """A body that cannot be read, or is nested too deeply, is refused as malformed."""
    status, problem, _ = api.post(raw)
    assert 400 == status
    assert problem["code"] in ("malformed_json", "too_deep")


@pytest.mark.parametrize(("given", "pointer"), INVALID.values(), ids=INVALID)
def test_what_is_wrong_is_named_by_its_place(api: Api, given: Any, pointer: str):
    """A fault is a 422 that points at its field and repeats nothing of it."""
    status, problem, raw = api.post(given)
    assert (422, "application/problem+json") == (status, problem["content_type"]), problem
    assert any(error["pointer"].startswith(pointer) for error in problem["errors"]), problem["errors"]
    assert CANARY.encode() not in raw
    assert problem["request_id"]


def test_all_faults_are_told_at_once(api: Api):
    """A caller learns of every field in one answer."""
    _, problem, _ = api.post(
        body(
            template={"name": "order_shipped", "variables": {"first_name": 3, "bogus": 1}},
            cc=[{"address": "no"}],
        )
    )
    places = {error["pointer"] for error in problem["errors"]}
    variables_at = "/template/variables/"
    names = {f"{variables_at}{name}" for name in ("first_name", "order_number", "tracking_url", "bogus")}
    assert names | {"/cc/0/address"} <= places


HEAD = f"POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json\r\n"
BODY = json.dumps(body()).encode()
RAW: dict[str, tuple[bytes, set[int]]] = {
    "both lengths": (f"{HEAD}Content-Length: {len(BODY)}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + BODY, {400}),
    "two lengths": (f"{HEAD}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".encode(), {400}),
    "signed length": (f"{HEAD}Content-Length: +5\r\n\r\nabcde".encode(), {400}),
    "unknown coding": (f"{HEAD}Transfer-Encoding: xchunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n".encode(), {400, 501}),
    "bad chunk": (f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\nabc".encode(), {400}),
    "line feed in a chunk extension": (f"{HEAD}Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nabcde\r\n0\r\n\r\n".encode(), {400}),
    "no host": (HEAD.replace("Host: x\r\n", "").encode() + b"Content-Length: 2\r\n\r\n{}", {400}),
    "two hosts": (f"{HEAD}Host: y\r\nContent-Length: 2\r\n\r\n{{}}".encode(), {400}),
    "too long by its own word": (f"{HEAD}Content-Length: 99999999\r\n\r\n".encode(), {413}),
    "absurdly long": (f"{HEAD}Content-Length: {'9' * 18}\r\n\r\n".encode(), {413}),
    "compressed": (f"{HEAD}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}".encode(), {415}),
    "two types": (f"{HEAD}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode(), {415}),
    "two tokens": (f"{HEAD}Authorization: Bearer {TOKEN}\r\nContent-Length: 2\r\n\r\n{{}}".encode(), {401}),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "expected"), RAW.values(), ids=RAW)
def test_broken_requests_are_refused_once(api: Api, raw: bytes, expected: set[int]):
    """What no honest client sends is refused, with one answer and no second request read out of it."""
    answer = api.exchange(raw)
    statuses = [int(s) for s in re.findall(rb"HTTP/1\.1 (\d+)", answer)]
    assert 1 == len(statuses)
    assert statuses[0] in expected


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
             "application/json; charset=utf-16", "application/json; x=y", "", "application/jsonx"],
)  # fmt: skip
def test_only_json_is_taken(api: Api, kind: str):
    """Everything that is not JSON in UTF-8 by its own words is a 415."""
    assert (415, "unsupported_media_type") == _codes(api.post(body(), content_type=kind))


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong", f"Bearer {TOKEN}x", f"Token {TOKEN}",
                      "Bearer " + "x" * 10_000, "Bearer d\xe9v", TOKEN],
)  # fmt: skip
def test_a_wrong_token_is_a_401(api: Api, authorization: str | None):
    """Every reason for a 401 is answered alike."""
    status, problem, _ = api.post(body(), authorization=authorization)
    assert (401, "unauthenticated") == (status, problem["code"])
    assert problem["headers"]["www-authenticate"].startswith("Bearer")


def test_what_a_caller_may_not_is_a_403(api: Api):
    """Another's agent, one that does not exist, and a From outside the agent's domains."""
    assert (403, "agent_not_allowed") == _codes(
        api.post(body(agent="logins"), authorization="Bearer pr_test_narrow")
    )
    assert (403, "agent_not_allowed") == _codes(api.post(body(agent="nobody")))
    assert (403, "from_not_allowed") == _codes(api.post(sender("x@evil.example")))
    assert (403, "from_not_allowed") == _codes(api.post(sender("x@sub.shop.example")))
    assert (403, "from_not_allowed") == _codes(api.post(sender("x@shop.example", agent="alerts")))
    assert (403, "from_not_allowed") == _codes(api.post(body(sender={"address": "x@evil.example"})))
    narrow = "Bearer pr_test_narrow"
    assert (403, "priority_not_allowed") == _codes(api.post(body(priority="high"), authorization=narrow))


def test_other_methods_and_paths(api: Api):
    """405 names what is allowed, 404 is a problem too, and nothing is ignored in a query."""
    status, problem, _ = api.post(b"", method="DELETE")
    assert (405, {"GET", "POST"}) == (status, {"GET", "POST"} & set(problem["headers"]["allow"].split(", ")))
    assert (404, "not_found") == _codes(api.post(b"", method="GET", path="/v1/nothing"))
    assert (404, "not_found") == _codes(api.post(b"", method="GET", path="/v1/messages/..%2f..%2fetc"))
    assert (400, "bad_request") == _codes(api.post(body(), path="/v1/messages?verbose=true"))
    assert (400, "bad_request") == _codes(api.post(b"", method="GET"))
    message = "/v1/messages/orders-01ARZ3NDEKTSV4RRFFQ69G5FAV"
    for method, path in (("GET", message), ("GET", f"{message}/why"), ("POST", f"{message}/cancel")):
        assert (400, "bad_request") == _codes(api.post(b"", method=method, path=f"{path}?verbose=true"))
        assert (404, "not_found") == _codes(api.post(b"", method=method, path=path))
    assert (401, "unauthenticated") == _codes(
        api.post(body(), path=f"/v1/messages?token={TOKEN}", authorization=None)
    )


def test_a_body_that_trickles_in_is_cut_off(api: Api):
    """A body has seconds, not minutes; others are served meanwhile."""
    with socket.create_connection(("127.0.0.1", api.port)) as slow:
        slow.settimeout(20)
        slow.sendall(f"{HEAD}Content-Length: 500\r\n\r\n{{".encode())
        began = time.monotonic()
        assert 200 == api.post(b"", method="GET", path="/livez")[0]
        assert b" 408 " in slow.recv(4096)
        assert time.monotonic() - began < 15


def test_nothing_was_queued_and_nothing_was_told(api: Api):
    """After all of it no message waits, and no value of any request is in the log."""
    assert b"*0\r\n" == api.redis.command("KEYS", "pr:*m:*")
    log = Path(api.log).read_text(errors="replace")
    assert CANARY not in log
    assert "e@x" not in log
    assert "crashed" not in log


def _codes(answer: tuple[int, dict[str, Any], bytes]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]
