"""Record what came of calls, many in one go: what Meta said must reach the row, whatever else fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

from services.sender.leases import Lease, Leases
from shared.domain.errors import BadData
from shared.queue.runner import wait
from shared.store.outbox import Outbox, SendResult

log = structlog.get_logger()

_MOST = 200  # per call: some 60 ms of the database's time
_ENOUGH = 50  # are not kept waiting for company
_LINGER_S = 0.01  # what a result waits for company while other calls are in flight


class Results:
    """Holds results until they are recorded; a database that is out only makes them wait."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        leases: Leases,
        grace_s: float,
        in_flight: Callable[[], int],
        recorded: Callable[[], None],
        followed: Callable[[], None],
    ) -> None:
        """in_flight: how many calls may still bring one.

        recorded: is told after each batch: others may go now. followed: is told when one left something to be done.
        """
        self._outbox = outbox
        self._leases = leases
        self._grace_s = grace_s
        self._in_flight = in_flight
        self._tell_recorded = recorded
        self._tell_followed = followed
        self._waiting: list[tuple[Lease, SendResult]] = []
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, lease: Lease, result: SendResult) -> None:
        """Have a result recorded soon."""
        self._waiting.append((lease, result))
        self._some.set()
        if len(self._waiting) >= _ENOUGH or not self._in_flight():
            self._enough.set()

    async def record(self) -> float:
        """Record what is there, once enough are or nothing else is coming; return the seconds to pause."""
        if not await wait(self._some, 1.0):
            return 0
        if self._in_flight() and len(self._waiting) < _ENOUGH:
            await wait(self._enough, _LINGER_S)
        await self.flush()
        return 0

    async def flush(self) -> None:
        """Record all that is there. Raises: Unavailable; what was not recorded waits on."""
        while self._waiting:
            batch = self._waiting[:_MOST]
            await self._record(batch)
            del self._waiting[: len(batch)]
            for lease, _ in batch:
                self._leases.settle(lease)
            if any(result.then is not None for _, result in batch):
                self._tell_followed()
        self._some.clear()
        self._enough.clear()
        self._tell_recorded()

    async def _record(self, batch: list[tuple[Lease, SendResult]]) -> None:
        try:
            lost = await self._outbox.finish_messages([result for _, result in batch], grace_s=self._grace_s)
        except BadData as error:
            if len(batch) > 1:
                for one in batch:
                    await self._record([one])
            else:
                # Its lease ends, it is in doubt, its status settles it: as if we had died here.
                log.error("result.refused", message_id=batch[0][1].message.message_id, error_code=error.code)
            return
        outcomes = Counter(str(result.outcome) for _, result in batch)
        log.info("messages.recorded", messages=len(batch), lost=lost, **outcomes)
        if lost:
            log.warning("leases.lost", messages=lost)
