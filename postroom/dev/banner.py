"""What a start ends with: where everything is, and what to paste, each with what it will answer."""

import sys
from pathlib import Path

from postroom.dev.ports import HOST, Ports
from postroom.dev.sample import Sample


def banner(ports: Ports, sample: Sample, redis: str, data: str) -> str:
    """Return the text."""
    api, inbox = f"http://{HOST}:{ports.api}", f"http://{HOST}:{ports.inbox}"
    return f"""
Postroom is running.

  API       {api}            docs: {api}/docs
  Inbox     {inbox}            SMTP on port {ports.smtp}
  Metrics   http://{HOST}:{ports.metrics}/metrics
  Data      {data} (kept over restarts; logs in {data}/logs; Redis: {redis})

The sample mail was accepted after {sample.accepted_ms:.0f} ms and sent after {sample.sent_ms:.0f} ms. Look at it:
  {sample.link}

Paste these:

  TOKEN=$(cat {data}/token)

# 1. Send: answers 202 and "state":"queued"
{_curl(api, _body("order-10023", "Ada"))}

# 2. The same again: answers 200, the same id, Idempotent-Replayed: true. No second mail.
{_curl(api, _body("order-10023", "Ada"))}

# 3. Other content under the same client_ref: answers 409 and names /template
{_curl(api, _body("order-10023", "Grace"))}

# 4. A variable is missing: answers 422 and names /template/variables/tracking_url
{_curl(api, _body("order-10024", "Ada", tracking=False))}

# 5. What became of it: "state":"sent", with its timeline
  curl -s "{api}/v1/messages?client_ref=order-10023" -H "Authorization: Bearer $TOKEN"

Or from another terminal, here:

  {_command()} send --url {api} --to you@example.com
  {_command()} templates preview templates               (a page of them that follows what you save)
  {_command()} send --url {api} --agent newsletters      (over a double of ZeptoMail's API, into the same inbox)
  POSTROOM_CONFIG={data}/postroom.toml {_command()} probe newsletters
  POSTROOM_CONFIG={data}/postroom.toml {_command()} queue
  POSTROOM_METRICS_PORT={ports.metrics} {_command()} agents

Ctrl-C stops everything.
"""


def _command() -> str:
    """Return how this program was called, so that it can be called again."""
    called = Path(sys.argv[0])
    if called.name != "postroom":
        return "python -m postroom"
    try:
        return str(called.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def _curl(api: str, body: str) -> str:
    return (
        f'  curl -i {api}/v1/messages -H "Authorization: Bearer $TOKEN" \\\n'
        f"    -H 'Content-Type: application/json' -d '{body}'"
    )


def _body(ref: str, name: str, *, tracking: bool = True) -> str:
    url = ', "tracking_url": "https://shop.example/track/10023"' if tracking else ""
    return (
        f'{{"client_ref": "{ref}", "agent": "orders", "to": [{{"address": "ada@example.com"}}],\n'
        f'      "template": {{"name": "order_shipped", "variables": {{"first_name": "{name}", '
        f'"order_number": "10023"{url}}}}}}}'
    )
