"""One knob for all benchmarks of the intake: BENCH_SIZE=0.1 (or `--size 0.1`) is a tenth of the seconds and counts.

Figures that go into a README are measured at size 1.
"""

from __future__ import annotations

import os

VARIABLE = "BENCH_SIZE"


def size() -> float:
    """Return the factor; 1 unless somebody is in a hurry."""
    factor = float(os.environ.get(VARIABLE, "1"))
    if not 0 < factor <= 10:
        raise SystemExit(f"{VARIABLE} must be above 0 and at most 10")
    return factor


def sized(full: float, *, least: float) -> int:
    """Return `full` times the factor, but no less than `least` and whole."""
    return max(int(least), round(full * size()))
