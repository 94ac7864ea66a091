"""Which core a process runs on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def split_cores() -> tuple[set[int], set[int]]:
    """Return the core of what is measured, and those of everyone else; on one core they share it."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """Have processes started in the block stay on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def pin(pid: int, cores: set[int]) -> None:
    """Move a process and its threads."""
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cores)
