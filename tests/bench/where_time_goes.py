"""Where a run's time went: CPU by process, seconds by stage, and what held it back."""

from __future__ import annotations

from tests.bench.figure import Figure
from tests.bench.metrics_page import seconds_spent
from tests.bench.stack import cores
from tests.bench.sustained import Run

# (stage, process, metric). A stage waits as well as works: what overlaps with other requests is counted for each.
_STAGES = (
    ("http", "ingest", "webhook_accept_seconds"),
    ("verify", "ingest", "webhook_verify_seconds_total"),
    ("append", "ingest", "webhook_append_seconds"),
    ("parse", "recorder", "record_parse_seconds"),
    ("sql", "recorder", "record_batch_seconds"),
    ("acknowledge", "recorder", "record_acknowledge_seconds"),
)
_HELD = 0.05  # of the time: less is the gate's own flutter
_BUSY = 0.8  # of a core


def cpu_figures(name: str, run: Run) -> list[Figure]:
    """Return user and system time of each process per event, beside that of all together. Units: µs."""
    all_us = sum(run.cpu_s.values()) / run.rows.items * 1e6
    return [
        Figure(f"{name}.cpu.{process}_us", spent / run.rows.items * 1e6, "µs/event", all_us, "all of them")
        for process, spent in sorted(run.cpu_s.items(), key=lambda item: -item[1])
    ]


def stage_figures(name: str, run: Run) -> list[Figure]:
    """Return the seconds of each stage per event, beside the run's own time per event; absent metrics are left out.

    Units: µs. HTTP and append overlap (64 requests wait at once), so theirs may exceed the run's.
    """
    wall_us = run.seconds / run.rows.items * 1e6
    figures = []
    for stage, process, metric in _STAGES:
        spent = seconds_spent(*run.pages[process], metric)
        if spent is not None:
            us = spent / run.rows.items * 1e6
            figures.append(Figure(f"{name}.time.{stage}_us", us, "µs/event", wall_us, "the run's own"))
    return figures


def bottleneck(run: Run) -> str:
    """Say in one sentence what held the run back."""
    load_s = run.seconds - run.lag_s
    held = min(1.0, run.sent.held_s / load_s)
    load, ingest = (run.cpu_s[name] / load_s for name in ("load", "ingest"))
    shares = (
        f"load generator {load:.0%} of a core, ingest {ingest:.0%}, requests held back {held:.0%} of the time;"
        f" the rest of the machine took {run.others_cores:.2f} cores"
    )
    if run.sent.ran_out:
        return f"the prepared bodies ran out: the rate is a lower bound ({shares})"
    if held > _HELD:
        return f"recording was the limit ({shares})"
    if load > max(_BUSY, ingest):
        return f"the load generator was the limit: the rate is a lower bound ({shares})"
    return f"accepting was the limit ({shares})"


def cores_used(run: Run) -> float:
    """Return events per second if these processes had every core to themselves and never waited."""
    return cores() / (sum(run.cpu_s.values()) / run.rows.items)
