"""All figures of a run as JSON, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.evals import figures
from tests.evals.compare import Change, Gate
from tests.evals.results import Judged, Results


def figures_json(results: Results) -> dict[str, Any]:
    """Return the figures the tables show."""
    latencies = [call.latency_ms for call in results.calls]
    outcomes = dict.fromkeys(sorted({call.outcome for call in results.calls}), 0)
    for call in results.calls:
        outcomes[call.outcome] += 1
    return {
        "prompt": results.prompt,
        "prompt_version": results.prompt_version,
        "model": results.model,
        "api": results.api,
        "started_at": results.started_at.isoformat(),
        "took_s": results.took_s,
        "set_sha256": results.set_sha256,
        "examples": len(results.calls),
        "messages": len(results.messages),
        "fields": {field: _field(results.messages, field) for field in figures.fields(results.messages)},
        "by_language": _groups(figures.by_language(results.messages)),
        "by_tag": _groups(figures.by_tag(results.messages)),
        "outcomes": outcomes,
        "cost_usd": str(results.cost_usd),
        "cost_usd_per_1000_messages": str(round(results.cost_usd / max(1, len(results.messages)) * 1000, 6)),
        "cache_read_share": round(figures.cache_read_share(results), 4),
        "latency_ms": {f"p{p}": figures.percentile(latencies, p / 100) for p in (50, 90, 99)},
    }


def changes_json(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Return a comparison."""
    return [
        {
            "field": change.field,
            "judged": change.after.judged,
            "before": round(change.before.share, 4),
            "after": round(change.after.share, 4),
            "difference": round(change.difference, 4),
            "interval_95": [round(end, 4) for end in change.interval],
            "mended": change.mended,
            "broken": change.broken,
            "mcnemar_p": round(change.p, 6),
            "is_significant": change.is_significant,
        }
        for change in changes
    ]


def gate_json(gate: Gate) -> dict[str, Any]:
    """Return the gate's decision."""
    return {"is_open": gate.is_open, "complaints": list(gate.complaints)}


def _field(messages: Sequence[Judged], field: str) -> dict[str, Any]:
    accuracy, calibration = figures.accuracy(messages, field), figures.calibration(messages, field)
    return {
        "right": accuracy.right,
        "judged": accuracy.judged,
        "accuracy": round(accuracy.share, 4),
        "interval_95": [round(end, 4) for end in accuracy.interval],
        "ece": round(calibration.ece, 4) if calibration else None,
        "brier": round(calibration.brier, 4) if calibration else None,
        "confusion": [
            {"expected": expected, "said": said, "count": count}
            for (expected, said), count in figures.confusion(messages, field).most_common()
        ],
    }


def _groups(groups: dict[str, list[Judged]]) -> dict[str, Any]:
    return {
        name: {
            "messages": len(messages),
            **{field: round(figures.accuracy(messages, field).share, 4) for field in figures.fields(messages)},
        }
        for name, messages in groups.items()
    }
