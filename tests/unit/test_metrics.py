"""The metrics themselves: sums that cost little, and series that go with their agent."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from postroom.config.change import Change
from postroom.config.structs import Config
from postroom.log import get_logger
from postroom.metrics import CarrierMetrics, Children, EdgeMetrics, Sums
from workers.account import Account


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


def test_a_worker_drops_the_series_of_an_agent_that_went():
    """Of each of its metrics; others keep theirs, and an agent that comes back begins anew."""
    registry = CollectorRegistry()
    metrics = CarrierMetrics(registry)
    account, attempts = Account(metrics, get_logger()), Children(metrics.attempts)
    for agent in ("gone", "kept"):
        attempts[agent, "relay", "sent", "2xx"].inc()
        metrics.finished.labels(agent, "normal", "sent").inc()
        metrics.channel_up.labels(agent, "relay").set(1)
        metrics.paced.labels(agent).inc()
        metrics.busy_seconds.by[agent, "relay"] += 1
        metrics.sent_age.by[(agent,)] += 1
    assert 6 == generate_latest(registry).count(b'{agent="gone"')
    account.forget("gone")
    assert b"gone" not in generate_latest(registry)
    assert 6 == generate_latest(registry).count(b'{agent="kept"')
    attempts.forget("gone")
    attempts["gone", "relay", "sent", "2xx"].inc()
    labels = {"agent": "gone", "channel": "relay", "outcome": "sent", "reply_class": "2xx"}
    assert 1 == registry.get_sample_value("postroom_attempts_total", labels)


def test_an_api_drops_the_series_of_an_agent_that_went():
    """With the reload that removes it."""
    registry = CollectorRegistry()
    metrics = EdgeMetrics(registry)
    for agent in ("gone", "kept"):
        metrics.accepted.labels("shop", agent, "normal").inc()
        metrics.cancelled.labels("shop", agent).inc()
    metrics.apply(Change(Config(), Config(), added=(), removed=("gone",), changed=()))
    text = generate_latest(registry)
    assert (0, 2) == (text.count(b'agent="gone"'), text.count(b'agent="kept"'))
