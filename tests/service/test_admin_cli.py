"""The operator's command line before a running API."""

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.service.conftest import ADMIN_TOKEN, in_ledger
from tests.service.operators import UNKNOWN, accept, act, ask, events, get, lone_api, run_cli
from tests.stack import TOKEN


@pytest.fixture(scope="module")
def api():
    """An API of its own: these tests leave mail, pauses and warnings behind."""
    with lone_api() as running:
        yield running


def test_another_port_is_told_for_what_it_is(api):
    """The API's own port has no such paths: what is missing is the right port, and not the thing that was asked for."""
    for words in (("agents",), ("why", UNKNOWN), ("cancel", UNKNOWN)):
        status, _, error = run_cli(api, *words, "--admin-url", f"http://127.0.0.1:{api.port}")
        assert (1, True) == (status, "is it the metrics port" in error), error
    status, _, error = run_cli(api, "cancel", UNKNOWN)
    assert (1, True) == (status, "No message with this id is kept" in error), error


def test_a_token_goes_to_no_other_address(api):
    """An answer that points elsewhere is not followed: whoever is there would get the token."""
    asked = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/stolen")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        status, _, error = run_cli(api, "agents", "--admin-url", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert (1, ["/admin/agents"], True) == (status, asked, "status 302" in error), error


def test_the_command_line_acts_on_agents_and_messages(api):
    """Each command does its act and prints it; what cannot be done ends with status 1."""
    assert (0, "") == run_cli(api, "pause", "logins", "--reason", "wrong price", "--for", "1h")[::2]
    status, shown, _ = run_cli(api, "agents")
    assert 0 == status
    assert "paused" in next(line for line in shown.splitlines() if line.startswith("logins "))
    assert "logins goes on" in run_cli(api, "resume", "logins")[1]
    assert (
        "prefers relay until"
        in run_cli(api, "agents", "prefer", "logins", "--channel", "relay", "--for", "2h")[1]
    )
    assert "usual order" in run_cli(api, "agents", "prefer", "logins", "--clear")[1]
    message_id = accept(api)
    assert 0 == run_cli(api, "retry", message_id)[0]
    assert 0 == run_cli(api, "cancel", message_id)[0]
    status, shown, _ = run_cli(api, "resolve", message_id, "--sent")
    assert (1, True) == (status, "nothing of it is in doubt" in shown)
    assert "agent.paused" in run_cli(api, "changes", "--since", "1h")[1]


def test_the_command_line_counts_first_and_prints_what_it_did(api):
    """Without --yes nothing is done, and it says how to go on."""
    accept(api, "logins")
    accept(api, "logins")
    words = ("cancel", "--agent", "logins", "--template", "order_shipped", "--accepted-before", "0s")
    status, shown, _ = run_cli(api, *words)
    assert 0 == status
    counted = re.fullmatch(
        r"2 waiting message\(s\) accepted before (\S+Z) would be cancelled\.\n"
        r"Nothing is done yet: give the same command with --accepted-before (\S+) --yes\.\n",
        shown,
    )
    assert counted, shown
    assert counted[1] == counted[2]
    later = accept(api, "logins")
    status, shown, _ = run_cli(api, *words[:-1], counted[1], "--yes")
    assert (0, f"2 message(s) accepted before {counted[1]} cancelled, 0 too late.\n") == (status, shown)
    assert "queued" == get(api, later)["state"]
    _, shown, _ = run_cli(api, *words[:-2])
    assert (
        "1 waiting message(s) would be cancelled.\nNothing is done yet: give the same command with --yes.\n"
        == shown
    )
    assert "1 message(s) accepted before" in run_cli(api, *words, "--yes")[1]
    assert "0 waiting message(s)" in run_cli(api, *words)[1]


def test_looks_are_the_same_over_the_port_and_into_redis(api):
    """`queue` and `why` print the same either way, to the codes of each attempt and who did what."""

    async def leave_mail(ledger):
        offer = await ledger.accept(agent="logins", caller="shop")
        held = await ledger.claim_one(agent="logins")
        await ledger.advance(held)
        await ledger.finish(held, "d", delay_ms=3_600_000, event="relay|deferred|rcpt|451|4.7.1|5")
        return offer.id

    message_id = in_ledger(api, leave_mail)
    assert (1, 0) == act(api, "pause", {"agent": "logins"}, **{"as": "ada"})
    ask(api, "POST", "/admin/agents/logins/pause", {"reason": "x", "as": "bob"})
    for words in (("why", message_id), ("queue",)):
        status, shown, error = run_cli(api, *words)
        assert (0, "") == (status, error)
        aged = re.compile(r"[0-9.]+ s$", re.MULTILINE)
        assert aged.sub("AGE", api.command(*words)) == aged.sub("AGE", shown)
    shown = run_cli(api, "why", message_id)[1]
    tried = "  attempt 1 over relay: deferred at rcpt 451 4.7.1"
    for line in ("  held by ada (operator)", "  agent paused by bob (operator)", tried):
        assert line in shown, shown
    ask(api, "POST", "/admin/agents/logins/resume", {})
    assert (1, 0) == act(api, "cancel", {"agent": "logins"})


def test_looks_over_the_port_need_no_configuration(api, tmp_path):
    """A person at a desk has an address and a token, and neither the file nor its secrets."""
    nowhere = ("--config", str(tmp_path / "none.toml"))
    assert 0 == run_cli(api, "queue", *nowhere)[0]
    status, _, error = run_cli(api, "why", UNKNOWN, *nowhere)
    assert (1, True) == (status, "No message with this id is kept" in error), error


def test_the_command_line_proves_conservation(api):
    """Status 0 where all fits; 1 with the id where not, until it is mended."""
    status, shown, _ = run_cli(api, "ledger", "check", "--quick")
    assert (0, True, False) == (status, "The sums agree" in shown, "accounted for." in shown)

    async def damage(ledger):
        offer = await ledger.accept(agent="damaged")
        await ledger.client.zrem(f"{_prefix('damaged')}q:damaged:n", offer.id)
        return offer.id

    async def mend(ledger):
        await ledger.client.zadd(f"{_prefix('damaged')}q:damaged:n", {message_id: 1})

    message_id = in_ledger(api, damage)
    status, shown, _ = run_cli(api, "ledger", "check")
    in_ledger(api, mend)
    assert (1, True, True) == (status, f"{message_id}: waits_in_no_queue" in shown, "damaged +1" in shown)
    status, shown, _ = run_cli(api, "ledger", "check")
    assert (0, True) == (status, "0 misfits" in shown), shown


def _prefix(agent):
    from postroom.ledger.keys import place_of

    return place_of(agent).prefix


def test_a_redis_that_hangs_is_told(api):
    """What does not answer is Redis, and not the port that was asked."""
    api.redis.pause()
    try:
        for words in (("agents",), ("top", "--once"), ("queue",)):
            status, _, error = run_cli(api, *words)
            assert (1, True) == (status, "Redis did not answer in time" in error), error
    finally:
        api.redis.resume()


@pytest.mark.parametrize(
    ("words", "token", "told"),
    [
        (("agents",), "nobody", "the token is not valid there"),
        (("agents",), TOKEN, "lacks the scope admin"),
        (("agents", "--admin-url", "http://127.0.0.1:1"), ADMIN_TOKEN, "nothing answers at"),
        (("agents", "--admin-url", "ftp://x"), ADMIN_TOKEN, "must be an address"),
        (("pause", "nobody", "--reason", "x"), ADMIN_TOKEN, "No agent has this name"),
        (("pause", "orders", "--reason", "x", "--for", "soon"), ADMIN_TOKEN, "/for must be a duration such as 90s"),
        (("changes", "--since", "noon"), ADMIN_TOKEN, "/since"),
        (("queue",), TOKEN, "lacks the scope admin"),
        (("queue", "--admin-url", "http://127.0.0.1:1"), ADMIN_TOKEN, "nothing answers at"),
        (("cancel", "--all", "--accepted-before", "999999999d"), ADMIN_TOKEN, "/filter/accepted_before"),
        (("pause", "--all", "--reason", "x" * 65), ADMIN_TOKEN, "64 bytes of UTF-8"),
    ],
)  # fmt: skip
def test_the_command_line_says_what_is_wrong(api, words, token, told):
    """Status 1 and one clear line, never a traceback."""
    status, _, error = run_cli(api, *words, token=token)
    assert (1, True) == (status, told in error), error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("pause", "orders"), "--reason"),
        (("pause", "orders", "--template", "x", "--reason", "x"), "either a name or a filter"),
        (("cancel",), "say which messages"),
        (("cancel", "--accepted-before", "noon"), "--accepted-before takes"),
        (("cancel", "what"), "not the id of a message"),
        (("agents", "prefer", "orders"), "either --channel NAME"),
        (("why", "what"), "not the id of a message"),
    ],
)  # fmt: skip
def test_wrong_usage_is_told_apart(api, words, told):
    """Status 2, as for an unknown option: nobody was asked, and nothing was done."""
    waiting = accept(api)
    status, _, error = run_cli(api, *words)
    assert (2, True) == (status, told in error), error
    assert get(api, waiting)["reason"]["code"] != "held"


def test_no_act_crashed_and_nothing_personal_was_logged(api):
    """After all that, the API's log has no crash and no address of a recipient."""
    assert [] == events(api, "request.crashed")
    assert "ada@example.com" not in api.log.read_text()
