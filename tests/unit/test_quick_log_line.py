"""The short way to an INFO line makes the very line that structlog's own way makes."""

import io

import pytest
import structlog

from postroom import log

FIELDS = [
    {"message_id": "orders-01", "ms": 1.25, "code": None, "new": True},
    {"text": 'quoted " and \\ and \n and Grüße', "many": ["a", 1], "inner": {"a": {"b": 2}}},
    {"number": 2**63, "kind": ValueError},
    {},
    {"level": "mine"},
    {"service": "other", "agent": "orders"},
    {"ts": 1},
    {"exc_info": False, "agent": "orders"},
    {"exc_info": ValueError("a value"), "agent": "orders"},
]


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch):
    monkeypatch.setattr(log.time, "time_ns", lambda: 1_764_183_600_007_000_000)


def written(say, *, quick, context=None):
    """Return what a logger writes that `say` is given."""
    stamp, file = log._Stamp("api"), io.BytesIO()
    kind = structlog.make_filtering_bound_logger(20)
    if quick:
        kind = log._with_quick_info(kind, stamp)
    processors = [log._shape_exception, stamp, log._render_bytes]
    say(kind(log.LineLogger(file), processors, context or {}))
    return file.getvalue()


def both(say, **options):
    """Return what is written in the short way, after comparing it with the other."""
    line = written(say, quick=True, **options)
    assert written(say, quick=False, **options) == line
    return line


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("context", [{}, {"request_id": "r1"}, {"agent": "bound"}])
def test_the_line_is_the_same(fields, context):
    """Whatever the fields are, and whatever is bound before."""
    line = both(lambda one: one.info("message.sent", **fields), context=context)
    assert line.endswith(b"}\n")
    assert b'"event":"message.sent"' in line


def test_the_same_event_twice_and_another():
    """What is remembered of an event is its own."""

    def say(one):
        for event in ("a.b", 'odd " event', "a.b"):
            one.info(event, n=1)

    assert 3 == both(say).count(b"\n")


def test_positional_arguments_are_filled_in():
    """As structlog does it for whoever uses them."""
    assert b'"event":"7 of 9"' in both(lambda one: one.info("%d of %d", 7, 9, agent="orders"))


def test_other_levels_are_as_they_were():
    """Nothing of theirs is quick."""

    def say(one):
        one.debug("not.shown", n=1)
        one.warning("shown", n=1)

    assert 1 == both(say).count(b"\n")


def test_info_is_left_out_where_the_level_is_higher():
    """A logger of a higher level has no short way."""
    file = io.BytesIO()
    kind = structlog.make_filtering_bound_logger(30)
    kind(log.LineLogger(file), [log._render_bytes], {}).info("message.sent", n=1)
    assert b"" == file.getvalue()
