"""What RQ calls: wake-ups for the worker that runs in this process."""

from __future__ import annotations

from collections.abc import Callable

# RQ finds its handler by name, so this is where the process leaves its own; set once, by worker.run.
wake: Callable[[], None] | None = None


def analyse_due() -> None:
    """Claim what is due and start it; returns once it is started."""
    if wake is None:
        raise RuntimeError("analyse_due runs only inside `python -m services.ai_worker`")
    wake()
