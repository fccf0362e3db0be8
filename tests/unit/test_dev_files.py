"""What a development run writes for itself: tokens nobody else can read, and a configuration that is right."""

import hashlib

from postroom.config.advice import find_warnings
from postroom.config.load import load_config
from postroom.dev.files import ZEPTO_TOKEN, keep_token, write_config
from postroom.dev.ports import Ports


def test_tokens_are_kept_and_private(tmp_path):
    """A second start finds the same tokens; an operator's is another one than a caller's."""
    first = keep_token(tmp_path), keep_token(tmp_path, "admin-token")
    assert first == (keep_token(tmp_path), keep_token(tmp_path, "admin-token"))
    assert first[0] != first[1]
    assert [0o600] * 2 == [(tmp_path / name).stat().st_mode & 0o777 for name in ("token", "admin-token")]


def test_the_configuration_is_right_and_knows_an_operator(tmp_path):
    """It loads without a warning, and only the operator's token has the scope admin."""
    path = write_config(tmp_path, tmp_path, ("caller", "admin"), Ports(8080), "redis://127.0.0.1:1/0")
    config = load_config(path, {})
    assert [] == find_warnings(config)
    (token,) = config.callers["operator"].tokens
    assert (("admin",), hashlib.sha256(b"admin").hexdigest()) == (token.scopes, token.sha256)
    assert () == config.callers["operator"].agents
    assert "newsletters" not in config.agents
    assert "admin" not in config.callers["demo"].tokens[0].scopes


def test_an_api_channel_goes_to_the_double(tmp_path):
    """Where a double of ZeptoMail's API runs, an agent sends over it, and the demo's caller may use that agent."""
    token = keep_token(tmp_path, ZEPTO_TOKEN)
    path = write_config(
        tmp_path, tmp_path, ("caller", "admin"), Ports(8080), "redis://127.0.0.1:1/0", "http://127.0.0.1:9"
    )
    config = load_config(path, {})

    assert [] == find_warnings(config)
    (channel,) = config.agents["newsletters"].channels
    assert (token, "http://127.0.0.1:9") == (channel.token.reveal(), channel.base_url)
    assert "newsletters" in config.callers["demo"].agents
