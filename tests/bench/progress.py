"""What a benchmark says while it runs: one line on stderr, kept by `__main__`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


def _nobody(_text: str) -> None:
    pass


listener: ContextVar[Callable[[str], None]] = ContextVar("listener", default=_nobody)


def say(text: str) -> None:
    """Show what is being done now."""
    listener.get()(text)
