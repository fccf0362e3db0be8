"""Callers after a reload: tokens at once, and a rate that is not forgotten."""

import hashlib

import pytest

from postroom.config.change import compare
from postroom.config.structs import Caller, Config, Token
from postroom.errors import RefusedError
from service.auth import Authenticator


def config(rate="2/s", *tokens):
    """Return a configuration with one caller."""
    known = tuple(Token(id="k", sha256=hashlib.sha256(t.encode()).hexdigest()) for t in tokens or ("one",))
    return Config(callers={"shop": Caller(agents=("orders",), rate=rate, tokens=known)})


def reload(authenticator, old, new):
    """Let it hear of a reload."""
    authenticator.apply(compare(old, new))


def identify(authenticator, token):
    """Return whose token it is."""
    return authenticator.authenticate([b"Bearer " + token.encode()], None)


def test_tokens_hold_from_the_next_request_on():
    """A new one opens, one that is gone does not, and each request keeps the configuration it began with."""
    old, new = config("2/s", "one"), config("2/s", "two")
    authenticator = Authenticator(old)
    before = identify(authenticator, "one")
    reload(authenticator, old, new)
    with pytest.raises(RefusedError):
        identify(authenticator, "one")
    assert (old, new) == (before.config, identify(authenticator, "two").config)


def test_a_rate_that_is_used_up_stays_so():
    """Other tokens of the caller change nothing about it; another rate begins anew."""
    old, new, faster = config("2/h", "one"), config("2/h", "two"), config("3/h", "two")
    authenticator = Authenticator(old)
    limit = identify(authenticator, "one").limit
    while limit.take() is None:
        pass
    reload(authenticator, old, new)
    assert identify(authenticator, "two").limit.take() is not None
    reload(authenticator, new, faster)
    assert identify(authenticator, "two").limit.take() is None


def test_a_caller_may_gain_and_lose_its_rate():
    """Without a rate there is no limit, whatever was before."""
    limited, free = config("2/h"), config(None)
    authenticator = Authenticator(limited)
    reload(authenticator, limited, free)
    assert identify(authenticator, "one").limit is None
    reload(authenticator, free, limited)
    assert identify(authenticator, "one").limit is not None


def test_a_caller_may_go_and_come_back():
    """It begins anew then."""
    there, gone = config("2/h"), Config()
    authenticator = Authenticator(there)
    reload(authenticator, there, gone)
    with pytest.raises(RefusedError):
        identify(authenticator, "one")
    reload(authenticator, gone, there)
    assert identify(authenticator, "one").limit.take() is None
