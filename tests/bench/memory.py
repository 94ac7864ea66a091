"""How much memory a process takes."""

from __future__ import annotations

from pathlib import Path

_KIB_PER_MIB = 1024


def proportional_mib(pid: int) -> float:
    """Return the resident memory of a process and its children, shared pages counted in proportion (Linux Pss).

    Units: MiB.
    """
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    total = int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1]) / _KIB_PER_MIB
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            total += proportional_mib(int(child))
    return total
