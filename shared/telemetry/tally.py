"""Metrics cheap enough for every webhook, for a process with one event loop.

They are plain numbers without locks. The library's `labels().inc()` and `labels().observe()` took a tenth of what a
webhook costs: 1.9 of 22 µs (2026-11-24).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Tally:
    """A counter with at most one label."""

    def __init__(self, name: str, documentation: str, label: str | None = None) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = () if label is None else (label,)
        self._values: dict[object, float] = {} if label else {None: 0.0}
        REGISTRY.register(self)

    def add(self, amount: float, label: object = None) -> None:
        """Add to what has this label."""
        try:
            self._values[label] += amount
        except KeyError:
            self._values[label] = amount

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield it, for the metrics page."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for label, value in self._values.items():
            family.add_metric([str(label) for _ in self._labelnames], value)
        yield family


class TallyHistogram:
    """A histogram with at most one label."""

    def __init__(self, name: str, documentation: str, label: str | None = None, *, buckets: Sequence[float]) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = () if label is None else (label,)
        self._bounds = (*buckets, float("inf"))
        # By label: how many fell below each bound and above the one before, and last the sum.
        self._cells: dict[object, list[float]] = {} if label else {None: self._cell()}
        REGISTRY.register(self)

    def observe(self, amount: float, label: object = None) -> None:
        """Count one observation."""
        try:
            cell = self._cells[label]
        except KeyError:
            cell = self._cells[label] = self._cell()
        cell[bisect_left(self._bounds, amount)] += 1
        cell[-1] += amount

    def _cell(self) -> list[float]:
        return [0.0] * (len(self._bounds) + 1)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield it, for the metrics page."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labelnames)
        for label, (*counts, total) in self._cells.items():
            buckets = list(zip(map(floatToGoString, self._bounds), accumulate(counts), strict=True))
            family.add_metric([str(label) for _ in self._labelnames], buckets, total)
        yield family
