"""Charts as inline SVG. Colours are the page's CSS variables, so they follow light and dark. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tests.evals.compare import Change, chance
from tests.evals.figures import Accuracy, Calibration, percentile

_ROW = 30
_LABEL = 150  # px for the names at the left
_PLOT = 420
_VALUE = 130  # px for the figures at the right


def accuracy_bars(fields: Sequence[tuple[str, Accuracy]]) -> str:
    """Draw a bar per field with its 95 % interval as a whisker."""
    rows = []
    for number, (name, accuracy) in enumerate(fields):
        middle = number * _ROW + _ROW / 2
        low, high = (_LABEL + end * _PLOT for end in accuracy.interval)
        rows.append(
            f'<text class="name" x="{_LABEL - 10}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="track" x="{_LABEL}" y="{middle - 8}" width="{_PLOT}" height="16" rx="3"/>'
            f'<rect class="bar" x="{_LABEL}" y="{middle - 8}" width="{accuracy.share * _PLOT:.1f}" height="16" rx="3"/>'
            f'<path class="whisker" d="M{low:.1f} {middle}H{high:.1f}'
            f'M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10"/>'
            f'<text class="value" x="{_LABEL + _PLOT + 12}" y="{middle + 4}">{accuracy.share:.1%}'
            f'<tspan class="faint"> {accuracy.right} of {accuracy.judged}</tspan></text>'
        )
    axis = "".join(
        f'<text class="tick" x="{_LABEL + share * _PLOT}" y="{len(fields) * _ROW + 16}" text-anchor="middle">'
        f"{share:.0%}</text>"
        for share in (0, 0.25, 0.5, 0.75, 1)
    )
    return _svg(_LABEL + _PLOT + _VALUE, len(fields) * _ROW + 24, "Accuracy by field", "".join(rows) + axis)


def reliability(name: str, calibration: Calibration) -> str:
    """Draw how often answers were right against how sure they were; on the diagonal the two agree."""
    side, left, top = 170, 44, 24
    most = max(one.count for one in calibration.bins)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x * side, top + (1 - y) * side

    x0, y0 = at(0, 0)
    x1, y1 = at(1, 1)
    parts = [
        f'<text class="name" x="{left}" y="14">{escape(name)}</text>',
        f'<rect class="frame" x="{left}" y="{top}" width="{side}" height="{side}"/>',
        f'<path class="diagonal" d="M{x0} {y0}L{x1} {y1}"/>',
    ]
    points = [at(one.confidence, one.share_right) for one in calibration.bins]
    line = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts.append(f'<path class="line" d="M{line}"/>')
    for one, (x, y) in zip(calibration.bins, points, strict=True):
        parts.append(
            f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{3 + 6 * math.sqrt(one.count / most):.1f}">'
            f"<title>{one.count} answers, confidence {one.confidence:.2f}, right {one.share_right:.0%}</title></circle>"
        )
    for share in (0, 0.5, 1):
        x, y = at(share, 0)
        parts.append(f'<text class="tick" x="{x}" y="{y + 15}" text-anchor="middle">{share:g}</text>')
        x, y = at(0, share)
        parts.append(f'<text class="tick" x="{x - 6}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    parts.append(
        f'<text class="tick" x="{left + side / 2}" y="{top + side + 30}" text-anchor="middle">'
        f"confidence · ECE {calibration.ece:.3f} · Brier {calibration.brier:.3f}</text>"
    )
    return _svg(left + side + 22, top + side + 38, f"Calibration of {name}", "".join(parts))


def latencies(values_ms: Sequence[float]) -> str:
    """Draw a histogram of call times with the percentiles marked."""
    width, height, left, bins = 560, 150, 40, 28
    low, high = min(values_ms), max(values_ms)
    step = max((high - low) / bins, 1e-9)
    counts = [0] * bins
    for value in values_ms:
        counts[min(int((value - low) / step), bins - 1)] += 1
    most = max(counts)
    bars = "".join(
        f'<rect class="bar" x="{left + number * width / bins + 1:.1f}" y="{30 + height - height * count / most:.1f}"'
        f' width="{width / bins - 2:.1f}" height="{height * count / most:.1f}" rx="2">'
        f"<title>{count} calls from {low + number * step:.0f} ms</title></rect>"
        for number, count in enumerate(counts)
    )
    marks = ""
    for row, share in enumerate((0.5, 0.9, 0.99)):
        value = percentile(values_ms, share)
        x = left + min((value - low) / (step * bins), 1.0) * width
        anchor = "end" if x > left + width * 0.8 else "start"
        marks += (
            f'<path class="mark" d="M{x:.1f} {10 + row * 12}V{30 + height}"/>'
            f'<text class="tick strong" x="{x + (-5 if anchor == "end" else 5):.1f}" y="{14 + row * 12}"'
            f' text-anchor="{anchor}">p{share * 100:.0f} {value:,.0f} ms</text>'
        )
    axis = (
        f'<text class="tick" x="{left}" y="{height + 46}">{low:,.0f} ms</text>'
        f'<text class="tick" x="{left + width}" y="{height + 46}" text-anchor="end">{high:,.0f} ms</text>'
        f'<path class="axis" d="M{left} {30 + height}h{width}"/>'
    )
    return _svg(left + width + 20, height + 52, "Latency of calls", bars + marks + axis)


def differences(changes: Sequence[Change]) -> str:
    """Draw each field's change in accuracy with its interval; what touches the middle line may be chance."""
    reach = max([0.05, *(abs(end) for change in changes for end in change.interval)]) * 1.1
    centre = _LABEL + _PLOT / 2

    def at(difference: float) -> float:
        return centre + difference / reach * _PLOT / 2

    rows = [f'<path class="axis" d="M{centre} 0V{len(changes) * _ROW}"/>']
    for number, change in enumerate(changes):
        middle = number * _ROW + _ROW / 2
        low, high = (at(end) for end in change.interval)
        kind = ("better" if change.difference > 0 else "worse") if change.is_significant else "even"
        rows.append(
            f'<text class="name" x="{_LABEL - 10}" y="{middle + 4}" text-anchor="end">{escape(change.field)}</text>'
            f'<path class="interval {kind}" d="M{low:.1f} {middle}H{high:.1f}"/>'
            f'<circle class="point {kind}" cx="{at(change.difference):.1f}" cy="{middle}" r="5"/>'
            f'<text class="value" x="{_LABEL + _PLOT + 12}" y="{middle + 4}">{change.difference * 100:+.1f} points'
            f'<tspan class="faint"> p {chance(change.p)}</tspan></text>'
        )
    foot = len(changes) * _ROW + 16
    axis = "".join(
        f'<text class="tick" x="{at(end)}" y="{foot}" text-anchor="middle">{end * 100:+.0f}</text>'
        for end in (-reach / 1.1, 0, reach / 1.1)
    )
    return _svg(_LABEL + _PLOT + _VALUE + 30, foot + 8, "Change in accuracy by field", "".join(rows) + axis)


def _svg(width: float, height: float, title: str, body: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' height="{height:.0f}">{body}</svg>'
    )
