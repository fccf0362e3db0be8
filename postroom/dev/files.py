"""What a development run writes into its folder: tokens, and a configuration that points at the inbox."""

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from postroom.dev.ports import HOST, Ports
from postroom.errors import PostroomError

CONFIG = """\
# Written by `postroom dev` at each start. For your own, copy it and start with: postroom dev --config FILE
environment = "dev"

[redis]
url = "{redis_url}"

[templates]
dir = "{templates}"

[agents.orders]
owner = "team-shop"
labels = {{ business = "shop", kind = "receipts" }}
from = {{ address = "orders@shop.example", name = "Shop" }}
bounce_address = "bounce@bounce.shop.example"
{channel}
[agents.accounts]
owner = "team-accounts"
labels = {{ business = "shop", kind = "accounts" }}
from = {{ address = "accounts@shop.example", name = "Shop Accounts" }}
bounce_address = "bounce@bounce.shop.example"
{channel_accounts}
[agents.logins]
owner = "team-accounts"
labels = {{ business = "shop", kind = "login-codes" }}
from = {{ address = "login@shop.example", name = "Shop Login" }}
bounce_address = "bounce@bounce.shop.example"
retry_profile = "interactive"
{channel_logins}
{zeptomail}
[callers.demo]
agents = {agents}
tokens = [{{ id = "dev", sha256 = "{sha256}" }}]

[callers.operator]
tokens = [{{ id = "dev", sha256 = "{admin_sha256}", scopes = ["admin"] }}]
"""

CHANNEL = """\

[[agents.{agent}.channels]]
name = "inbox"
kind = "smtp"
host = "{host}"
port = {port}
tls = "none"
"""

ZEPTOMAIL = """\

# Over ZeptoMail's HTTP API: here over a strict double of it, which puts what it takes into the inbox too.
[agents.newsletters]
owner = "team-marketing"
labels = {{ business = "shop", kind = "newsletters" }}
from = {{ address = "news@shop.example", name = "Shop News" }}
bounce_address = "bounce@bounce.shop.example"
rate = "20/s"

[[agents.newsletters.channels]]
name = "zepto-api"
kind = "zeptomail"
base_url = "{url}"
token = {{ file = "{token_file}" }}
"""
ZEPTO_TOKEN = "zepto-token"  # noqa: S105  a file's name
AGENTS = ("orders", "accounts", "logins")


@contextmanager
def hold_folder(data: Path) -> Iterator[None]:
    """Hold the folder for one run: two Redis servers on the same files would destroy each other's data.

    Raises:
        PostroomError: another run holds it.
    """
    with (data / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise PostroomError(
                f"Postroom already runs with the data in {data} (process {lock.read().strip() or 'unknown'}): "
                "stop it, or give another folder with --data DIR"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def keep_token(data: Path, name: str = "token") -> str:
    """Return a token of the run, made at the first start and kept."""
    path = data / name
    if path.exists() and (token := path.read_text(encoding="utf-8").strip()):
        return token
    token = f"pr_dev_{secrets.token_urlsafe(24)}"
    path.touch(mode=0o600)
    path.write_text(token + "\n", encoding="utf-8")
    return token


def write_config(
    data: Path,
    templates: Path,
    tokens: tuple[str, str],
    ports: Ports,
    redis_url: str,
    zeptomail_url: str | None = None,
) -> Path:
    """Write the configuration, for a caller's token and an operator's, and return its path.

    `zeptomail_url` is where a double of ZeptoMail's API listens; it takes the token `zepto-token` of the folder.
    """
    sha256, admin_sha256 = (hashlib.sha256(token.encode()).hexdigest() for token in tokens)
    channels = {agent: CHANNEL.format(agent=agent, host=HOST, port=ports.smtp) for agent in AGENTS}
    path = data / "postroom.toml"
    text = CONFIG.format(
        redis_url=redis_url,
        templates=templates.resolve(),
        channel=channels["orders"],
        channel_accounts=channels["accounts"],
        channel_logins=channels["logins"],
        zeptomail=ZEPTOMAIL.format(url=zeptomail_url, token_file=ZEPTO_TOKEN) if zeptomail_url else "",
        agents=json.dumps([*AGENTS, *(["newsletters"] if zeptomail_url else [])]),
        sha256=sha256,
        admin_sha256=admin_sha256,
    )
    path.write_text(text, encoding="utf-8")
    return path
