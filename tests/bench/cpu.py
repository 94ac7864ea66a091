"""CPU seconds of processes, as the kernel counts them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Places in /proc/PID/stat behind the command's closing parenthesis. Source: proc(5): fields 14 to 17, counted from 3.
_UTIME, _STIME, _CUTIME, _CSTIME = 11, 12, 13, 14


def cpu_seconds(pid: int) -> float:
    """Return user and system seconds of a process, of its living children and of those it has buried.

    So a PostgreSQL server comes with its backends, wherever they are in their lives. Resolution: 10 ms.
    """
    ticks = sum(_stat(pid)[_UTIME : _CSTIME + 1])
    for child in _children(pid):
        try:
            ticks += sum(_stat(child)[_UTIME : _CSTIME + 1])
        except FileNotFoundError:
            continue  # it ended between the two looks; its parent counts it from now on
    return ticks / _TICKS_PER_S


def cpu_of(pids: Mapping[str, int]) -> dict[str, float]:
    """Return CPU seconds by name."""
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def machine_seconds() -> float:
    """Return seconds that all processors together have been busy, whoever it was, another guest of the host included.

    Less what our own processes took, it says how quiet the machine was.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICKS_PER_S


def _stat(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 2 :].split()
    return [int(field) if field.lstrip("-").isdigit() else 0 for field in fields]


def _children(pid: int) -> list[int]:
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
