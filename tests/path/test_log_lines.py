"""What the processes' log lines tell of a message: one wide line at its end, and the same ids through both."""

import asyncio

import pytest

from postroom.log_events import COMMON, EVENTS
from tests.smtpd import Smtpd
from tests.stack import TOKEN, Stack, sample

pytestmark = pytest.mark.asyncio(loop_scope="session")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STAGES = ("queue_ms", "pacing_ms", "connect_ms", "render_ms", "compose_ms", "submit_ms")


async def until_lines(stack, name, event, count=1):
    """Wait until a process has written so many lines of an event; return them."""
    found = []

    async def written():
        found[:] = [line for line in stack.logs(name) if line["event"] == event]
        return len(found) >= count

    await stack.until(written, f"{count} lines {event} of {name}")
    return found


async def post(stack, body, **headers):
    """POST a message; return its id and the answer's request id."""
    url = f"{stack.url}/v1/messages"
    authorization = {"Authorization": f"Bearer {TOKEN}"}
    async with stack.session.post(url, json=body, headers=authorization | headers) as response:
        assert 202 == response.status, await response.text()
        return (await response.json())["id"], response.headers["x-request-id"]


async def test_one_wide_line_ends_each_message(stack: Stack, relay: Smtpd):
    """Ids, whose, template and version, attempts, outcome and milliseconds by stage, which add up to its age."""
    await relay.idle()  # so that a connection has to be made
    message_id, request_id = await post(
        stack, sample("wide-1"), **{"X-Request-Id": "from-the-caller", "traceparent": TRACE}
    )
    assert "from-the-caller" == request_id
    (line,) = await until_lines(stack, "worker", "message.sent")
    assert {
        "level": "info", "service": "worker", "message_id": message_id, "client_ref": "wide-1", "caller": "shop",
        "agent": "orders", "channel": "relay", "priority": "normal", "attempts": 1, "outcome": "sent", "phase": "done",
        "reply_code": 250, "state": "sent", "next_in_ms": None, "request_id": "from-the-caller",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }.items() <= line.items()  # fmt: skip
    assert line["template"].startswith("order_shipped@")
    assert abs(line["age_ms"] - sum(line[name] for name in STAGES)) <= 1
    for name in ("accept_ms", "connect_ms", "render_ms", "compose_ms", "submit_ms", "finish_ms"):
        assert line[name] > 0, name
    (accepted,) = await until_lines(stack, "api", "message.accepted")
    assert ("from-the-caller", "4bf92f3577b34da6a3ce929d0e0e4736") == (
        accepted["request_id"],
        accepted["trace_id"],
    )
    assert 0 < accepted["ms"] < 60_000
    assert accepted["bytes"] > 100
    # It is the request's own line too.
    assert [] == [
        line for line in stack.logs("api") if line["event"] == "http.request" and line["method"] == "POST"
    ]


MALFORMED = ["00-0-0-01", "01-" + TRACE[3:], TRACE.upper(), "00-" + "0" * 32 + TRACE[35:], TRACE + "-x"]


@pytest.mark.parametrize("number", range(len(MALFORMED)), ids=MALFORMED)
async def test_a_malformed_traceparent_begins_a_new_trace(stack: Stack, number):
    """It is ignored; the message has a trace id all the same, the same in both processes."""
    await post(stack, sample(f"trace-{number}"), traceparent=MALFORMED[number])
    (line,) = await until_lines(stack, "worker", "message.sent")
    (accepted,) = await until_lines(stack, "api", "message.accepted")
    assert line["trace_id"] == accepted["trace_id"] != TRACE[3:35].lower()
    assert 32 == len(line["trace_id"])


async def test_only_the_last_attempt_ends_a_message(stack: Stack, relay: Smtpd):
    """Attempts before it are `attempt.…`; their time counts as waiting; every line is of the catalogue."""
    relay.script = {"RCPT": ["451 4.3.0 later", "250 ok"]}
    message_id, _ = await post(stack, sample("deferred-1", deliver_within=600))
    (deferred,) = await until_lines(stack, "worker", "attempt.deferred")
    assert (message_id, 1, 451) == (deferred["message_id"], deferred["attempts"], deferred["reply_code"])
    assert [] == [line for line in stack.logs("worker") if line["event"].startswith("message.")]
    for name in ("api", "worker"):
        for line in stack.logs(name):
            if "logger" not in line:
                event = EVENTS[line["event"]]
                assert set() == set(line) - {*COMMON, *event.fields}
                assert line["level"] == event.level
                assert event.service in (line["service"], "both")
    async with stack.session.post(f"{stack.url}/v1/messages/{message_id}/cancel") as response:
        assert 200 == response.status


async def test_what_waited_for_the_rate_says_so(folder):
    """Of mail held up by the agent's rate most of the age is pacing, over many rounds, and little of mail that was not."""
    rate = 'rate = "40/min"\nburst = 1'
    async with Smtpd() as server, Stack(folder, server.port, agent=rate) as stack:
        await asyncio.gather(stack.start_api(), stack.start_worker())
        await asyncio.gather(*(post(stack, sample(f"m-{n}")) for n in range(3)))
        lines = await until_lines(stack, "worker", "message.sent", 3)
        last = max(lines, key=lambda line: line["age_ms"])
        assert last["age_ms"] > 400
        assert last["pacing_ms"] > 0.5 * last["age_ms"]
        assert min(line["pacing_ms"] for line in lines) < 100


async def test_an_end_without_an_attempt_is_as_wide(folder):
    """Called back, superseded, expired: whose it was, and the request that brought it beside the one that ended it."""
    theirs = {"X-Request-Id": "from-the-caller", "traceparent": TRACE}
    async with Smtpd() as server, Stack(folder, server.port) as stack:
        await stack.start_api()
        late, _ = await post(stack, sample("late", deliver_within=1), **theirs)
        back, _ = await post(stack, sample("back"), **theirs)
        older, _ = await post(stack, sample("older", collapse_key="k"), **theirs)
        newer, newest_request = await post(stack, sample("newer", collapse_key="k"))
        url, headers = f"{stack.url}/v1/messages/{back}/cancel", {"Authorization": f"Bearer {TOKEN}"}
        async with stack.session.post(url, headers=headers | {"X-Request-Id": "the-cancel"}) as response:
            assert 200 == response.status
        cancelled = {
            line["message_id"]: line for line in await until_lines(stack, "api", "message.cancelled", 2)
        }
        await asyncio.sleep(1)  # its time is up before anybody can send it
        await stack.start_worker()
        (expired,) = await until_lines(stack, "worker", "message.expired")
        assert (late, "late", "expired") == (expired["message_id"], expired["client_ref"], expired["outcome"])
        assert ("cancelled", "the-cancel") == (
            cancelled[back]["outcome"],
            cancelled[back]["ended_by_request"],
        )
        assert ("superseded", newer) == (cancelled[older]["outcome"], cancelled[older]["superseded_by"])
        assert newest_request == cancelled[older]["ended_by_request"]
        for line in (expired, *cancelled.values()):
            assert {
                "caller": "shop", "agent": "orders", "priority": "normal", "attempts": 0, "channel": None,
                "request_id": "from-the-caller", "trace_id": TRACE[3:35],
            }.items() <= line.items()  # fmt: skip
            assert line["template"].startswith("order_shipped@")
            assert EVENTS[line["event"]].level == line["level"]
            assert line["queue_ms"] == line["age_ms"] >= 0
            assert line["accept_ms"] > 0
