"""One HTTP call of the command line: where to, with which token, and nothing of the token in any error."""

import http.client
import json
import re
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from postroom.errors import PostroomError

UNREACHABLE = (OSError, http.client.HTTPException)  # what `call` raises where no answer came
_TOKEN = re.compile(r"[!-~]+\Z")
_URL = re.compile(r"https?://[!-~]+\Z")


def read_url(text: str, option: str) -> str:
    """Return an address without a slash at its end.

    Raises:
        PostroomError: it is none that can be asked.
    """
    try:
        parts = urlsplit(text)
        plain = bool(parts.hostname) and parts.port != 0
    except ValueError:
        plain = False
    if not plain or not _URL.match(text):
        raise PostroomError(f"{option} must be an address such as http://127.0.0.1:8083")
    if parts.username is not None or parts.query or parts.fragment:
        raise PostroomError(f"{option} must be an address alone, without a login, a query or a fragment")
    return text.rstrip("/")


def read_token(text: str, options: str) -> str:
    """Return a token without the spaces and newlines around it.

    Raises:
        PostroomError: it is none that a header field could carry. The error does not repeat it.
    """
    token = text.strip()
    if not _TOKEN.match(token):
        raise PostroomError(
            f"the token in {options} is none: it has printable ASCII characters only, and no spaces"
        )
    return token


def call(
    method: str, url: str, token: str, body: dict[str, Any] | None, *, timeout: float
) -> tuple[int, dict[str, Any]]:
    """Return an answer's status and its JSON object, an empty one where it has none.

    Raises:
        OSError, http.client.HTTPException: no answer came, or only a part of one.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  `read_url` has checked it
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return response.status, _decode(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _decode(error.read())


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The token is for the address that was given, and for no other one it points to."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
