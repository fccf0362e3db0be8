"""Digests of refs are stored: they are what the library's HMAC says, whatever the key."""

import base64
import hashlib
import hmac

import pytest

from postroom.ledger.digests import Digests


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 200])
def test_a_ref_is_an_hmac(length):
    """96 bits of HMAC-SHA256 (RFC 2104), also with a key that is longer than a block; asked twice, it is the same."""
    key = bytes(number % 251 for number in range(length))
    digest = hmac.digest(key, b"shop\norders\nr-1", hashlib.sha256)[:12]
    wanted = base64.urlsafe_b64encode(digest).decode()
    digests = Digests(key)
    assert [wanted, wanted] == [digests.ref("shop", "orders", "r-1") for _ in range(2)]
