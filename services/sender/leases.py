"""Leases this process holds: how long each is surely ours, and their renewal, all in one call."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID, uuid4

from shared.settings.clocks import Clocks
from shared.store.outbox import Outbox


class Lease:
    """One claim: a token for all its rows. until: when it surely has not ended, by the monotonic clock."""

    __slots__ = ("rows", "token", "until")

    def __init__(self, until: float) -> None:
        self.token: UUID = uuid4()
        self.until = until
        self.rows = 0


class Leases:
    """Every lease with rows that are not recorded yet."""

    def __init__(self, outbox: Outbox, clocks: Clocks, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._clocks = clocks
        self._clock = clock
        self._held: dict[UUID, Lease] = {}

    def begin(self) -> Lease:
        """Return a lease for a claim about to be made: its time runs from before the claim is sent."""
        return Lease(self._clock() + self._clocks.lease_s)

    def hold(self, lease: Lease, rows: int) -> None:
        """Keep a lease alive until that many rows are recorded."""
        if rows:
            lease.rows = rows
            self._held[lease.token] = lease

    def settle(self, lease: Lease, rows: int = 1) -> None:
        """Count rows as recorded."""
        lease.rows -= rows
        if lease.rows <= 0:
            self._held.pop(lease.token, None)

    def may_call(self, lease: Lease) -> bool:
        """Say whether a call that takes as long as it may still ends before the lease does."""
        return self._clock() <= lease.until - self._clocks.send_timeout_s

    async def renew(self) -> float:
        """Lengthen all; return the seconds to pause.

        A lease that has ended by our clock is left to end: somebody may be about to take its rows.
        """
        now = self._clock()
        held = [lease for lease in self._held.values() if lease.until > now]
        if held:
            await self._outbox.renew([str(lease.token) for lease in held], lease_s=self._clocks.lease_s)
            answered_at = self._clock()
            for lease in held:
                # An answer that came after its end says nothing: the renewal may have come too late.
                if answered_at < lease.until:
                    lease.until = now + self._clocks.lease_s
        return self._clocks.renew_every_s
