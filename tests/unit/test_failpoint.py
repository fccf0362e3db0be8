"""Failpoints: inert unless a test says so, and exact where it does."""

import os
import signal

import pytest

from postroom import failpoint


@pytest.fixture
def signals(monkeypatch):
    """What would have been sent to this process."""
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid == os.getpid(), number)))
    return sent


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"POSTROOM_FAILPOINT": "after_dot"},
        {"POSTROOM_TEST_FAILPOINTS": "0", "POSTROOM_FAILPOINT": "after_dot"},
        {"POSTROOM_FAILPOINT": "no_such_point"},
        {"POSTROOM_TEST_FAILPOINTS": "1"},
    ],
)
def test_without_the_flag_nothing_is_armed(environ):
    """Every process gets the same do-nothing function, this one included."""
    assert failpoint.arm(environ) is failpoint.arm({}) is failpoint.reach


@pytest.mark.parametrize(
    ("armed", "reached", "expected"),
    [
        ("after_dot", ["after_mark", "after_dot"], [signal.SIGKILL]),
        ("after_dot=stop", ["after_dot", "after_dot"], [signal.SIGSTOP]),
        ("claimed=kill:3", ["claimed", "claimed"], []),
        ("claimed=kill:3", ["claimed", "after_dot", "claimed", "claimed", "claimed"], [signal.SIGKILL]),
    ],
)
def test_an_armed_point_strikes_once(signals, armed, reached, expected):
    """Only at its name, only the time it is told, and only this process."""
    reach = failpoint.arm({"POSTROOM_TEST_FAILPOINTS": "1", "POSTROOM_FAILPOINT": armed})
    for name in reached:
        reach(name)
    assert [(True, number) for number in expected] == signals


@pytest.mark.parametrize("armed", ["after_dots", "after_dot=hang", "after_dot=stop:x"])
def test_what_cannot_be_armed_stops_the_process(armed):
    """A test with a wrong name must not pass for want of a fault."""
    with pytest.raises(ValueError, match=r"no such point|invalid literal"):
        failpoint.arm({"POSTROOM_TEST_FAILPOINTS": "1", "POSTROOM_FAILPOINT": armed})
