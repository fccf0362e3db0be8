"""Write the page of log events from the catalogue: `python docs/events.py`."""

from pathlib import Path

from postroom.log_events import COMMON, EVENTS

PAGE = Path(__file__).with_name("events.md")
HEAD = """# Log events

JSON lines on stdout. Every line has {common}; `service` is `api` or `worker`. No line
holds an address, a subject, a variable, a body, a token or what a provider said. Lines of libraries have `logger` as
well; for an exception there are `error` (its class) and `frames`, never its text. A field that is not known is null or left out.

**Each message has one line at its end, `message.STATE`**, and it is wide: whose, over which channel, with which
template and version, how many attempts, the last one's outcome and codes, and where the time went, in milliseconds:

| Field | Time |
|---|---|
| `accept_ms` | in the API, from the request's head until the message went to the ledger |
| `queue_ms` | waiting to be sent; earlier attempts and the waits between them included |
| `pacing_ms` | waiting for the agent's `rate`, told where the rate held mail up at that time |
| `connect_ms` | for the connection, where this message was the first over it |
| `render_ms`, `compose_ms` | template to content, content to mail |
| `submit_ms` | the channel, commit mark included |
| `finish_ms` | until the outcome was in the ledger |

All but `accept_ms` and `finish_ms` add up to `age_ms`, from accepted to ended; `ms` is the last attempt alone. An end that no attempt brought about has the same
fields as far as there is something to say: `attempts` are those made before, `queue_ms` is its whole age, and `outcome` tells how it came to that: `expired`,
`cancelled`, `superseded`, `ambiguous` (its worker did not come back from past the commit mark), `lost` (its content was gone), `settled`. `request_id` is that of the request that brought
the message, `ended_by_request` that of the one that ended it.

One message: `jq 'select(.message_id == "orders-01…")'`. One request, through both processes: `select(.request_id == "…")` (the header field `X-Request-Id`,
in and out), or `trace_id`, which is that of the caller's `traceparent` where it sent a valid one.
Late, and where the time went: `jq 'select(.event == "message.sent" and .age_ms > 60000) | [.agent, .queue_ms, .pacing_ms, .connect_ms, .submit_ms]'`.

This page is made from `postroom/log_events.py`.
"""
TITLES = {"api": "The API", "worker": "A worker", "both": "Both"}


def page() -> str:
    """Return the page's text."""
    text = HEAD.format(common=", ".join(f"`{name}`" for name in COMMON))
    for service, title in TITLES.items():
        text += f"\n## {title}\n\n| Event | Level | Meaning | Fields |\n|---|---|---|---|\n"
        for event in EVENTS.values():
            if event.service == service:
                text += f"| `{event.name}` | {event.level} | {event.text} | {', '.join(event.fields)} |\n"
    return (
        text
        + "\n`make run` writes the inbox's own lines too: `inbox.started`, `inbox.failed`, `inbox.not_stored`, `inbox.refs_unknown`.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
