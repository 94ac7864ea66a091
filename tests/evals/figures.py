"""Figures out of judged messages: accuracy with its uncertainty, confusion, calibration, percentiles. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.evals.judge import JUDGES, Verdict
from tests.evals.results import Judged, Results

BINS = 10
_Z = 1.959964  # 95 %, two-sided


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Right out of judged, with Wilson's 95 % interval, which holds near 0 and 1 and for few cases too."""

    right: int
    judged: int

    @property
    def share(self) -> float:
        return self.right / self.judged if self.judged else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        n, p = self.judged, self.share
        if not n:
            return 0.0, 1.0
        centre, spread = p + _Z**2 / (2 * n), _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n))
        scale = 1 + _Z**2 / n
        return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers with a confidence in one tenth of the scale."""

    low: float
    count: int
    confidence: float  # mean
    share_right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Does a confidence of 0.8 mean right in 8 of 10? `ece` weighs each bin's gap by its answers; `brier` is the mean
    squared error of the confidence taken as a probability: 0 is perfect for both."""

    bins: tuple[Bin, ...]
    count: int
    ece: float
    brier: float


def fields(messages: Iterable[Judged]) -> list[str]:
    """List the fields that were judged at all, in the order of the judges; unknown ones, of an older run, last."""
    found = dict.fromkeys(name for message in messages for name in message.verdicts)
    return [name for name in (*JUDGES, *(name for name in found if name not in JUDGES)) if name in found]


def accuracy(messages: Iterable[Judged], field: str) -> Accuracy:
    """Count right answers of a field."""
    verdicts = _verdicts(messages, field)
    return Accuracy(sum(verdict.is_right for verdict in verdicts), len(verdicts))


def by_language(messages: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Group messages by language."""
    return _grouped(messages, lambda message: (message.language,))


def by_tag(messages: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Group messages by hard case; those with none are "plain"."""
    return _grouped(messages, lambda message: message.tags or ("plain",))


def confusion(messages: Iterable[Judged], field: str) -> Counter[tuple[str, str]]:
    """Count (expected, said)."""
    return Counter((verdict.expected, verdict.said) for verdict in _verdicts(messages, field))


def calibration(messages: Iterable[Judged], field: str) -> Calibration | None:
    """Compare confidence with being right; None for a field that states none."""
    stated = [(v.confidence, v.is_right) for v in _verdicts(messages, field) if v.confidence is not None]
    if not stated:
        return None
    bins = []
    for number in range(BINS):
        inside = [(c, right) for c, right in stated if min(int(c * BINS), BINS - 1) == number]
        if inside:
            count = len(inside)
            mean, share = sum(c for c, _ in inside) / count, sum(right for _, right in inside) / count
            bins.append(Bin(number / BINS, count, mean, share))
    ece = sum(one.count * abs(one.confidence - one.share_right) for one in bins) / len(stated)
    brier = sum((c - right) ** 2 for c, right in stated) / len(stated)
    return Calibration(tuple(bins), len(stated), ece, brier)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which this share lies (nearest rank); 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def cache_read_share(results: Results) -> float:
    """Return the share of input tokens that came from Claude's cache."""
    read = sum(call.cache_read_tokens for call in results.calls)
    rest = sum(call.input_tokens + call.cache_write_tokens for call in results.calls)
    return read / (read + rest) if read + rest else 0.0


def _verdicts(messages: Iterable[Judged], field: str) -> list[Verdict]:
    return [message.verdicts[field] for message in messages if field in message.verdicts]


def _grouped(messages: Sequence[Judged], keys: Callable[[Judged], tuple[str, ...]]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = {}
    for message in messages:
        for key in keys(message):
            groups.setdefault(key, []).append(message)
    return groups
