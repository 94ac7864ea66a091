"""Look after what nobody holds: what waits for its time, what a dead dispatcher left, what is in doubt, what is old."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from shared.queue.runner import wait
from shared.queue.streams import WebhookStream
from shared.settings.clocks import Clocks
from shared.store.outbox import Outbox
from shared.telemetry import metrics

log = structlog.get_logger()

# What is in our stream this long and not recorded might be its status: silence says nothing about what Meta has.
_INTAKE_LAGS_S = 5.0
_WATCH_EVERY_S = 5.0


class Tender:
    """Tends the outbox every second, or as soon as something that waits falls due."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        stream: WebhookStream,
        clocks: Clocks,
        look_again: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """look_again: is told when something may go that might not before."""
        self._outbox = outbox
        self._stream = stream
        self._clocks = clocks
        self._tell = look_again
        self._clock = clock
        self._ripens_at = float("inf")
        self._sooner = asyncio.Event()

    def ripens(self, in_s: float) -> None:
        """Be there when the next waiting message falls due."""
        at = self._clock() + in_s
        if at < self._ripens_at:
            self._ripens_at = at
            self._sooner.set()

    async def tend(self) -> float:
        """See to everything once; then wait for what comes first."""
        self._sooner.clear()
        self._ripens_at = float("inf")
        done = await self._outbox.tend(
            grace_s=self._clocks.doubt_grace_s, intake_is_current=await self.intake_is_current()
        )
        if done.get("ripened") or done.get("again"):
            self._tell()
        if told := {name: count for name, count in done.items() if count and name not in ("ripened", "forgotten")}:
            log.warning("outbox.tended", **told)
        ends_at = self._clock() + self._clocks.tend_every_s
        while (left_s := min(ends_at, self._ripens_at) - self._clock()) > 0:
            self._sooner.clear()
            await wait(self._sooner, left_s)
        return 0

    async def intake_is_current(self) -> bool:
        """Say whether all that Meta told us until a moment ago is recorded, as far as Redis knows."""
        try:
            return await self._stream.oldest_s() < _INTAKE_LAGS_S
        except RedisError:
            return False

    async def watch(self) -> float:
        """Show what waits, to whoever scrapes; return the seconds to pause."""
        health = await self._outbox.health()
        for name, gauge in metrics.OUTBOX_HEALTH.items():
            gauge.set(health[name])
        return _WATCH_EVERY_S
