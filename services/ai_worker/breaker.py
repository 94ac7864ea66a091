"""A circuit breaker: while Claude is out nothing is claimed, so that work stays due and no try is used up. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

FAILURES_TO_OPEN = 8  # in a row, over all calls in flight: fewer happen on a good day with 64 of them
PAUSES_S = (5.0, 10.0, 20.0, 40.0, 60.0)  # between probes; work is picked up within a minute of Claude's return


class Entry(StrEnum):
    """What kind of call was let through."""

    CALL = "call"
    PROBE = "probe"


class Breaker:
    """Closed: all calls go. Open: none until a pause is over. Half open: one call, the probe, whose end decides."""

    def __init__(
        self,
        *,
        failures_to_open: int = FAILURES_TO_OPEN,
        pauses_s: tuple[float, ...] = PAUSES_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures_to_open = failures_to_open
        self._pauses_s = pauses_s
        self._now = now
        self._failures = 0
        self._openings = 0  # since it was last closed; 0: closed
        self._open_until = 0.0
        self._is_probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are held back, the half-open state included."""
        return self._openings > 0

    def wait_s(self) -> float:
        """Return the seconds until a call may go: 0 when one may now."""
        if not self.is_open:
            return 0.0
        if self._is_probing:
            return 1.0  # its end is not known; look again soon
        return max(0.0, self._open_until - self._now())

    def admits(self, calls: int) -> int:
        """Return how many of so many calls may be begun now."""
        if not self.is_open:
            return calls
        return min(calls, 1) if self.wait_s() == 0 else 0

    def enter(self) -> Entry | None:
        """Ask to make a call. None: it may not go; else how it ends must be reported with `leave`."""
        if not self.is_open:
            return Entry.CALL
        if self.wait_s() > 0:
            return None
        self._is_probing = True
        return Entry.PROBE

    def leave(self, entry: Entry, *, is_out: bool | None, retry_after_s: float | None = None) -> None:
        """Report how a call ended. `is_out` None: it was called off, and says nothing about Claude.

        One that began before the circuit opened may end while a probe is under way: it does not speak for the probe.
        """
        was_probe = entry is Entry.PROBE
        if was_probe:
            self._is_probing = False
        if is_out is None:
            return
        if not is_out:
            self._failures = self._openings = 0
            return
        self._failures += 1
        if was_probe or (not self.is_open and self._failures >= self._failures_to_open):
            pause_s = self._pauses_s[min(self._openings, len(self._pauses_s) - 1)]
            self._open_until = self._now() + max(pause_s, min(retry_after_s or 0.0, 600.0))
            self._openings += 1
