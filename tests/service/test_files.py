"""The file cache at the edge: bytes in, a key out, and the key in messages."""

import json
from typing import Any

import pytest

from postroom.ledger.keys import file_key
from tests.service.conftest import Api
from tests.stack import OTHER_TOKEN, sample

PDF = "application/pdf"


def upload(api: Api, data: bytes = b"%PDF-1.7 prices", kind: str = PDF, query: str = "", **more: Any):
    return api.post(data, path=f"/v1/files{query}", content_type=kind, **more)


def with_file(ref: str, **file: Any) -> dict[str, Any]:
    return sample(ref, attachments=[{"name": "prices.pdf", **file}])


def pointers(answer: tuple[int, dict[str, Any], bytes]) -> tuple[int, list[str]]:
    return answer[0], [fault["pointer"] for fault in answer[1].get("errors", [])]


def test_the_same_bytes_are_kept_once(api: Api):
    """201 and a key, then 200 and the same key; another type is another file."""
    first, again, other = upload(api), upload(api), upload(api, kind="text/plain; charset=utf-8")

    assert (201, 200, 201) == (first[0], again[0], other[0])
    assert first[1]["key"] == again[1]["key"] != other[1]["key"]
    shouted = upload(api, kind="Application/PDF")
    assert (200, first[1]["key"], PDF) == (
        shouted[0],
        shouted[1]["key"],
        json.loads(shouted[2])["content_type"],
    )
    view = json.loads(first[2])
    assert {"key", "content_type", "size", "expires_at"} == set(view)
    assert (PDF, 15) == (view["content_type"], view["size"])


def test_a_key_goes_into_any_message_of_its_caller(api: Api):
    """It names bytes and type; its caller may use it again and again, and nobody else."""
    key = upload(api)[1]["key"]

    assert [202, 202] == [api.post(with_file(f"f-{n}", file=key))[0] for n in range(2)]
    other = {**with_file("f-9", file=key), "agent": "logins"}
    answer = api.post(other, authorization=f"Bearer {OTHER_TOKEN}")
    assert (422, ["/attachments/0/file"]) == pointers(answer)
    assert key not in json.dumps(answer[1])


def test_a_repeated_call_is_answered_after_the_file_is_gone(api: Api):
    """The message outlives its file's lifetime: the same call finds it, another one is a conflict."""
    key = upload(api, b"short lived")[1]["key"]
    first = api.post(with_file("g-1", file=key))
    api.redis.command("HSET", file_key(key), "u", "1")

    again = api.post(with_file("g-1", file=key))
    assert (202, 200, first[1]["id"]) == (first[0], again[0], again[1]["id"])
    assert 409 == api.post(with_file("g-1", file=key, cid="x"))[0]
    assert (422, ["/attachments/0/file"]) == pointers(api.post(with_file("g-2", file=key)))


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ({}, ["/attachments/0"]),
        ({"content": "eA==", "content_type": PDF, "file": "x"}, ["/attachments/0"]),
        ({"content": "eA=="}, ["/attachments/0/content_type"]),
        ({"file": "no-such-key"}, ["/attachments/0/file"]),
        ({"file": "x" * 65}, ["/attachments/0/file"]),
        ({"provider_key": "their.key"}, ["/attachments/0/provider_key"]),
        ({"provider_key": "a,b"}, ["/attachments/0/provider_key"]),
        ({"provider_key": "their.key", "name": "a,b.pdf"}, ["/attachments/0/provider_key", "/attachments/0/name"]),
    ],
)  # fmt: skip
def test_what_an_attachment_may_not_be(api: Api, file: dict[str, Any], expected: list[str]):
    """Exactly one of three, each with its own rules; a provider's key only where a channel can name it."""
    assert (422, expected) == pointers(api.post(with_file("h-1", **file)))


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"data": b""}, 422, "invalid_request"),
        ({"data": b"x" * 10_000_001}, 413, "too_large"),
        ({"kind": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
        ({"kind": "message/rfc822"}, 415, "unsupported_media_type"),
        ({"kind": "nonsense"}, 415, "unsupported_media_type"),
        ({"kind": ""}, 415, "unsupported_media_type"),
        ({"query": "?lifetime=59"}, 400, "bad_request"),
        ({"query": "?lifetime=2592001"}, 400, "bad_request"),
        ({"query": "?lifetime=soon"}, 400, "bad_request"),
        ({"query": "?lifetime=60&lifetime=70"}, 400, "bad_request"),
        ({"query": "?name=a.pdf"}, 400, "bad_request"),
        ({"authorization": None}, 401, "unauthenticated"),
        ({"method": "GET"}, 405, "method_not_allowed"),
    ],
)
def test_what_is_not_kept(api: Api, given: dict[str, Any], status: int, code: str):
    """Type, size and lifetime have limits, and every refusal is a problem document."""
    answer = upload(api, **given)
    assert (status, code) == (answer[0], answer[1]["code"])


def test_a_lifetime_only_grows(api: Api):
    """Sent again with a shorter one, it stays as it was."""
    long, short = (upload(api, b"grows", query=f"?lifetime={seconds}") for seconds in (86400, 60))
    assert long[1]["expires_at"] == short[1]["expires_at"]
