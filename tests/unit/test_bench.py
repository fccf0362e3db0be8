"""The bench's arithmetic: what a run's legs come to, and when a row holds."""

import xml.etree.ElementTree as ET

import msgspec
import pytest

from bench.arithmetic import (
    Row,
    alone,
    compare,
    figure_at_most,
    percentile,
    ratio_at_least,
    ratio_at_most,
    void,
    within,
)
from bench.bodies import FIND_MARKER, Template, marker, order
from bench.page import page
from bench.plots.draw import draw_plots
from bench.report import cells


def row() -> Row:
    return Row(scenario="accept", unit="POST/s", against="nothing")


def test_the_ratio_is_the_median_of_the_pairs_ratios():
    """Not the ratio of the medians: a pair is two legs run one after the other, and what is compared."""
    found = compare(row(), [(100, 200), (90, 100), (300, 500)], ratio_at_least(0.6))
    assert (100, 200) == (found.figure, found.baseline)
    assert 0.6 == found.ratio
    assert (0.5, 0.9) == found.spread
    assert 3 == found.pairs
    assert found.holds


@pytest.mark.parametrize(
    ("must", "pair", "holds"),
    [
        (ratio_at_least(0.65), (65, 100), True),
        (ratio_at_least(0.65), (64.9, 100), False),
        (ratio_at_most(0.5), (50, 100), True),
        (ratio_at_most(0.5), (51, 100), False),
        (within(1.5, 50, "ms"), (149, 100), True),
        (within(1.5, 50, "ms"), (151, 100), False),
        (within(1.5, 50, "ms"), (59, 10), True),
        (within(1.5, 50, "ms"), (61, 10), False),
    ],
)
def test_a_row_holds_within_its_bound_and_not_beyond(must, pair, holds):
    """Bounds are met exactly or not at all."""
    assert holds == compare(row(), [pair], must).holds


def test_a_figure_without_a_baseline_is_judged_by_itself():
    """Its spread is that of the figures."""
    found = alone(row(), [140, 160, 150], figure_at_most(150, " ms"))
    assert (150, (140, 160), True) == (found.figure, found.spread, found.holds)
    assert found.ratio is None
    assert not alone(row(), [151], figure_at_most(150)).holds


def test_a_void_run_does_not_hold():
    """Whatever was measured of it."""
    found = void(row(), "1 answer was not 2xx", ratio_at_least(0.65))
    assert not found.holds
    assert "void: 1 answer was not 2xx" == found.note
    assert "NO" == cells(found)[-1]


def test_a_row_without_a_bound_holds():
    """It stands in the table for orientation."""
    assert compare(row(), [(1, 1000)], None).holds


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(100, 0.99, 99), (100, 0.5, 50), (10, 0.99, 10), (1, 0.5, 1), (200, 0.99, 198)],
)
def test_a_percentile_is_one_of_the_values(count, share, expected):
    """The smallest that this share of them does not pass."""
    assert expected == percentile(range(count, 0, -1), share)


def test_a_request_keeps_its_length_whatever_its_number():
    """Else its Content-Length would be wrong, and the refs would not be unique."""
    template = Template(8080, order())
    first, second = template.write(1), template.write(12_345_678)
    head, _, body = second.partition(b"\r\n\r\n")
    assert len(first) == len(second)
    assert f"Content-Length: {len(body)}".encode() in head
    assert len(body) == template.size
    assert marker(12_345_678).encode() == FIND_MARKER(body)[0]
    assert b'"client_ref": "order-B12345678-shipped"' in body


def test_the_plots_of_the_same_results_are_the_same(tmp_path):
    """And well-formed, with every measured median in words."""
    series = {
        "accept": {"postroom": [700.0, 812.0, 901.0], "empty_handler": [1000.0, 1234.0, 1300.0]},
        "latency": {"postroom": [7.0, 8.0], "celery": [17.0, 39.0], "cold": [44.0]},
        "backlog": {"1000": [640.0], "300000": [611.0]},
    }
    machine = {"processor": "A & B", "system": "Linux 6.1-x"}
    drawn = draw_plots(tmp_path, series, machine)
    before = [path.read_bytes() for path in drawn]
    assert ["throughput.svg", "latency.svg", "backlog.svg"] == [path.name for path in drawn]
    assert before == [path.read_bytes() for path in draw_plots(tmp_path, series, machine)]
    words = ["".join(ET.fromstring(plot).itertext()) for plot in before]
    assert all(word in words[0] for word in ("812", "1,234", "empty Litestar handler"))
    assert all(word in words[1] for word in ("44", "39"))
    assert all(word in words[2] for word in ("611", "300,000"))


def test_the_page_tells_every_row_and_the_machine():
    """What does not hold stands out."""
    rows = [
        compare(row(), [(50, 100)], ratio_at_least(0.65)),
        alone(row(), [140], figure_at_most(150, " ms")),
    ]
    results = {
        "at": "2026-01-02T03:04:05+00:00",
        "machine": {"processor": "A processor", "memory": "24 GB", "system": "Linux 6.1"},
        "versions": {"python": "3.11.7"},
        "pairs": 3,
        "rows": msgspec.to_builtins(rows),
    }
    lines = page(results).replace("\N{EN DASH}", "-").splitlines()
    assert "| accept | 50 POST/s | nothing: 100 | 0.5 | 0.5-0.5 | ≥ 0.65 | **no** |" in lines
    assert "| accept | 140 POST/s | nothing | - | 140-140 | ≤ 150 ms | yes |" in lines
    assert "A processor" in lines[-1]
