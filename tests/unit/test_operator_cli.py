"""The operator's command line: what is a filter, what is a moment, and what is refused before anybody is asked."""

import argparse
import socket

import pytest

from postroom.cli import admin, main
from postroom.cli.act import check_moment, read_filter
from postroom.cli.admin import AdminApi
from postroom.errors import PostroomError

NOTHING = {
    "agent": None,
    "template": None,
    "caller": None,
    "accepted_before": None,
    "all": False,
    "skip_scheduled": False,
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"agent": "orders"}, {"agent": "orders"}),
        ({"template": "a", "caller": "b"}, {"template": "a", "caller": "b"}),
        ({"all": True}, {"all": True}),
        ({"all": True, "skip_scheduled": True}, {"all": True, "skip_scheduled": True}),
        (
            {"accepted_before": "2027-01-31T12:00:00Z", "agent": "orders"},
            {"accepted_before": "2027-01-31T12:00:00Z", "agent": "orders"},
        ),
    ],
)
def test_a_filter_names_what_was_given(given, expected):
    """Only what was given is sent."""
    assert expected == read_filter(argparse.Namespace(**NOTHING | given))


def test_a_filter_that_names_nothing_is_refused():
    """All waiting mail is never meant by forgetting."""
    with pytest.raises(PostroomError, match="--all"):
        read_filter(argparse.Namespace(**NOTHING))
    with pytest.raises(PostroomError, match="--all"):
        read_filter(argparse.Namespace(**NOTHING | {"skip_scheduled": True}))


@pytest.mark.parametrize("text", ["2h", "1.5h", "2027-01-31T12:00:00Z", "2027-01-31T12:00:00+02:00"])
def test_a_moment_is_sent_as_it_was_given(text):
    """A duration is not counted back from the clock of this machine, which may be wrong."""
    assert {"accepted_before": text} == read_filter(argparse.Namespace(**NOTHING | {"accepted_before": text}))


@pytest.mark.parametrize("text", ["noon", "", "2027-01-31", "2027-01-31T12:00:00", "-1h", "1w"])
def test_what_is_no_moment_is_refused(text):
    """No zone, no unit, no time: said so, and never a traceback."""
    with pytest.raises(PostroomError, match="--accepted-before"):
        check_moment(text)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "http://127.0.0.1:8083"),
        ({"POSTROOM_PORT": "9000"}, "http://127.0.0.1:9003"),
        ({"PORT": "9000"}, "http://127.0.0.1:9003"),
        ({"POSTROOM_PORT": "9000", "POSTROOM_METRICS_PORT": "7000"}, "http://127.0.0.1:7000"),
        ({"POSTROOM_ADMIN_URL": "https://post.example/"}, "https://post.example"),
    ],
)
def test_the_admin_port_is_found(monkeypatch, environ, expected):
    """An address that was given, else the metrics port of an API on this machine."""
    for name in ("PORT", "POSTROOM_PORT", "POSTROOM_METRICS_PORT", "POSTROOM_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert expected == AdminApi(argparse.Namespace(token="x"))._url


@pytest.mark.parametrize(
    "words",
    [
        ("resolve", "orders-01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("resolve", "orders-01ARZ3NDEKTSV4RRFFQ69G5FAV", "--sent", "--retry"),
        ("retry",),
        ("ledger",),
        ("expire", "orders"),
    ],
)
def test_wrong_usage_is_told(capsys, words):
    """Status 2 and the usage."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert 2 == caught.value.code
    assert "usage: postroom" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "queue",
        "why",
        "agents",
        "pause",
        "resume",
        "cancel",
        "expire",
        "release",
        "retry",
        "resolve",
        "changes",
    ],
)
def test_every_command_shows_an_example(capsys, command):
    """Help ends with what to paste."""
    with pytest.raises(SystemExit):
        main((command, "--help"))
    shown = capsys.readouterr().out
    assert f"postroom {command}" in shown.partition("examples:")[2]
    assert max(map(len, shown.splitlines())) <= 100


def test_a_token_for_an_operator_is_made(capsys):
    """`token new` knows the scope."""
    assert 0 == main(("token", "new", "operator", "--scope", "admin"))
    assert 'scopes = ["admin"]' in capsys.readouterr().out


SECRET = "pr_live_abc"


@pytest.mark.parametrize("command", [("agents",), ("queue",), ("send", "--no-wait")])
@pytest.mark.parametrize(
    "token", [SECRET + "\u20ac", SECRET + "\r\nX: y", SECRET + " " + SECRET, " ", SECRET + "\x7f"]
)
def test_a_token_that_is_none_is_refused_and_never_shown(monkeypatch, capsys, command, token):
    """A sentence and status 1, as an option and from the environment; nothing of the token, no traceback."""
    for name in ("POSTROOM_ADMIN_TOKEN", "POSTROOM_TOKEN"):
        monkeypatch.setenv(name, token)
    for words in (command, (*command, "--token", token)):
        assert 1 == main(words)
        printed = "".join(capsys.readouterr())
        assert "the token in --token or POSTROOM_" in printed
        assert SECRET not in printed


def test_a_token_may_end_in_a_newline(monkeypatch):
    """As one does that was read from a file."""
    monkeypatch.setenv("POSTROOM_ADMIN_TOKEN", f"{SECRET}\n")
    assert SECRET == AdminApi(argparse.Namespace())._token


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://",
        "http://host:port",
        "http://127.0.0.1:99999",
        "ftp://host",
        "host:8083",
        "http://h\u00f6st",
        "http://ho st",
        "http://host\n",
        f"http://ada:{SECRET}@host",
        f"http://host/?token={SECRET}",
    ],
)
def test_an_address_that_is_none_is_refused(capsys, url):
    """Said with an example, and not repeated: it may have a login in it."""
    for words in (("agents", "--admin-url", url), ("send", "--url", url)):
        assert 1 == main((*words, "--token", "x"))
        printed = "".join(capsys.readouterr())
        assert "must be an address" in printed
        assert SECRET not in printed


def test_a_port_that_says_nothing_is_asked_once(monkeypatch):
    """It hangs, and would again: the error says so, and not that nothing is there."""
    monkeypatch.setattr(admin, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(PostroomError, match=f"no answer from {url}"):
            AdminApi(argparse.Namespace(token="x", admin_url=url)).get("/admin/agents")
        listener.settimeout(0.05)
        listener.accept()[0].close()
        with pytest.raises(TimeoutError):
            listener.accept()
