"""Metrics for what is counted with every message, at a tenth of the library's cost: no child, no lock, no check.

One thread counts and is scraped, that of the event loop. To whoever scrapes them they are a counter and a histogram.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Sums(Collector):
    """A counter: `sums.by[labels] += 1`, or seconds."""

    def __init__(self, name: str, text: str, labels: Labels, registry: CollectorRegistry) -> None:
        self._name, self._text, self._labelnames = name, text, labels
        self.by: defaultdict[Labels, float] = defaultdict(float)
        registry.register(self)

    def forget(self, agent: str) -> None:
        """Drop every series of an agent."""
        at = self._labelnames.index("agent")
        for labels in [labels for labels in self.by if labels[at] == agent]:
            del self.by[labels]

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Tell every sum."""
        family = self._family()
        for labels, value in self.by.items():
            family.add_metric(labels, value)
        yield family

    def describe(self) -> Iterator[CounterMetricFamily]:
        """Tell the name alone."""
        yield self._family()

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._text, labels=self._labelnames)


class Spread(Collector):
    """A histogram. Its buckets end at `bounds`, each included, and the last one nowhere."""

    def __init__(
        self, name: str, text: str, labels: Labels, registry: CollectorRegistry, *, bounds: tuple[float, ...]
    ) -> None:
        self._name, self._text, self._labelnames = name, text, labels
        self._bounds = bounds
        self._ends = [*map(floatToGoString, bounds), "+Inf"]
        self._by: dict[Labels, list[float]] = {}  # how many in each bucket, and at the end their sum
        registry.register(self)

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value."""
        found = self._by.get(labels)
        if found is None:
            found = self._by[labels] = [0] * len(self._ends) + [0.0]
        found[bisect_left(self._bounds, value)] += 1
        found[-1] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Tell every bucket, each with all below it."""
        family = self._family()
        for labels, (*counts, total) in self._by.items():
            family.add_metric(labels, list(zip(self._ends, accumulate(counts), strict=True)), total)
        yield family

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """Tell the name alone."""
        yield self._family()

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._text, labels=self._labelnames)
