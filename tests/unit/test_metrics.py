"""The metrics themselves: sums that cost little, and series that go with their agent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from postroom.config.change import Change
from postroom.config.structs import Config
from postroom.counting import Spread, Sums
from postroom.metrics import CarrierMetrics, EdgeMetrics


def test_sums_are_a_counter_to_whoever_scrapes():
    """Name, help and labels are those of any counter, and a sum before its first second has no series."""
    registry = CollectorRegistry()
    sums = Sums("postroom_busy_seconds", "Time at work.", ("agent",), registry)
    assert "postroom_busy_seconds_total{" not in generate_latest(registry).decode()
    sums.by[("orders",)] += 0.5
    sums.by[("orders",)] += 0.25
    text = generate_latest(registry).decode()
    assert "# TYPE postroom_busy_seconds_total counter" in text
    assert 0.75 == registry.get_sample_value("postroom_busy_seconds_total", {"agent": "orders"})
    with pytest.raises(ValueError, match="Duplicated"):
        Sums("postroom_busy_seconds", "Again.", (), registry)


@given(
    st.lists(
        st.tuples(st.sampled_from(["smtp", "api"]), st.sampled_from([0, 0.1, 0.25, 0.3, 1, 2.5, 7, 1e9]))
    )
)
def test_a_spread_is_a_histogram_to_whoever_scrapes(values):
    """Byte by byte what the library tells of the same values: buckets with their ends included, count and sum."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    spread = Spread("postroom_seconds", "Time.", ("kind",), ours, bounds=(0.1, 0.25, 1, 2.5))
    histogram = Histogram(
        "postroom_seconds", "Time.", ("kind",), registry=theirs, buckets=(0.1, 0.25, 1, 2.5)
    )
    for kind, value in values:
        spread.observe((kind,), value)
        histogram.labels(kind).observe(value)
    assert generate_latest(theirs) == generate_latest(ours)
    with pytest.raises(ValueError, match="Duplicated"):
        Spread("postroom_seconds", "Again.", (), ours, bounds=(1,))


def test_a_worker_drops_the_series_of_an_agent_that_went():
    """Of each of its metrics; others keep theirs, and an agent that comes back begins anew."""
    registry = CollectorRegistry()
    metrics = CarrierMetrics(registry)
    for agent in ("gone", "kept"):
        metrics.attempts.by[agent, "relay", "sent", "2xx"] += 1
        metrics.finished.by[agent, "normal", "sent"] += 1
        metrics.channel_up.labels(agent, "relay").set(1)
        metrics.paced.labels(agent).inc()
        metrics.busy_seconds.by[agent, "relay"] += 1
        metrics.sent_age.by[(agent,)] += 1
    assert 6 == generate_latest(registry).count(b'{agent="gone"')
    metrics.forget("gone")
    assert b"gone" not in generate_latest(registry)
    assert 6 == generate_latest(registry).count(b'{agent="kept"')
    metrics.attempts.by["gone", "relay", "sent", "2xx"] += 1
    labels = {"agent": "gone", "channel": "relay", "outcome": "sent", "reply_class": "2xx"}
    assert 1 == registry.get_sample_value("postroom_attempts_total", labels)


def test_an_api_drops_the_series_of_an_agent_that_went():
    """With the reload that removes it."""
    registry = CollectorRegistry()
    metrics = EdgeMetrics(registry)
    for agent in ("gone", "kept"):
        metrics.accepted.by["shop", agent, "normal"] += 1
        metrics.cancelled.labels("shop", agent).inc()
    metrics.apply(Change(Config(), Config(), added=(), removed=("gone",), changed=()))
    text = generate_latest(registry)
    assert (0, 2) == (text.count(b'agent="gone"'), text.count(b'agent="kept"'))
