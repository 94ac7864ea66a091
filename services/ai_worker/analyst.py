"""Claims due conversations and keeps many analyses in flight on one event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import structlog

from services.ai_worker.analyse_contact import prices
from services.ai_worker.analyse_conversation import MOST_MESSAGES, analyse_conversation
from services.ai_worker.claude import Claude
from services.ai_worker.pictures import Pictures
from services.ai_worker.retries import MOST_ATTEMPTS
from shared.domain.errors import ParleyError
from shared.queue.runner import wait
from shared.settings.clocks import Clocks
from shared.storage.port import Storage
from shared.store.analysis import AnalysisWork, Lease, Work
from shared.telemetry import metrics

log = structlog.get_logger()

_WATCH_EVERY_S = 15.0


class Analyst:
    """Holds up to `slots` leases; each is one task, renewed with all others in one call."""

    def __init__(
        self, *, claude: Claude, rows: AnalysisWork, clocks: Clocks, slots: int, storage: Storage | None = None
    ) -> None:
        self._claude = claude
        self._rows = rows
        self._pictures = Pictures(storage)
        self._clocks = clocks
        self._slots = slots
        self._held: dict[UUID, tuple[Lease, asyncio.Task[None]]] = {}
        self._claiming = asyncio.Lock()
        self._slot_fell_free = asyncio.Event()
        self._look_again = asyncio.Event()
        self._is_stopping = False

    async def claim_due(self) -> float:
        """Wait for a free slot, claim what is due, start it; return the seconds until something falls due."""
        async with self._claiming:
            while len(self._held) >= self._slots and not self._is_stopping:
                self._slot_fell_free.clear()
                await self._slot_fell_free.wait()
            if self._is_stopping:
                return self._clocks.poll_every_s
            free = self._claude.breaker.admits(self._slots - len(self._held))
            if not free:  # Claude is out: what is due stays so, untried
                return min(self._clocks.poll_every_s, max(0.05, self._claude.breaker.wait_s()))
            claimed = await self._rows.claim_due(
                limit=free,
                lease_s=self._clocks.lease_s,
                most_messages=MOST_MESSAGES,
                most_attempts=MOST_ATTEMPTS,
                prices=prices(self._claude),
            )
            for work in claimed.work:
                self._start(work)
        pause_s = self._clocks.poll_every_s
        if claimed.next_due_in_s is not None:
            # Something due that we could not claim is another worker's, or waits for our next slot.
            pause_s = min(pause_s, max(0.05, claimed.next_due_in_s))
        return pause_s

    async def poll(self) -> float:
        """Claim, then sleep until something falls due, a wake-up comes, or it is time to poll."""
        self._look_again.clear()  # before claiming: what falls free meanwhile is looked at again
        pause_s = await self.claim_due()
        await wait(self._look_again, pause_s)
        return 0

    async def wake(self) -> None:
        """Claim now, on a wake-up's behalf; and let the poll find out when the next falls due."""
        await self.claim_due()
        self._look_again.set()

    async def renew(self) -> float:
        """Keep every lease we hold; stop work on those we lost."""
        leases = [lease for lease, _ in self._held.values()]
        if leases:
            lost = await self._rows.renew(leases, lease_s=self._clocks.lease_s)
            for token in lost:
                if token in self._held:
                    log.warning("lease.lost", conversation_id=str(self._held[token][0].conversation_id))
                    self._held[token][1].cancel()
        return self._clocks.renew_every_s

    async def watch(self) -> float:
        """Show what waits and what is spent, to whoever scrapes; return the seconds to pause."""
        health = await self._rows.health()
        for name, gauge in metrics.ANALYSIS_HEALTH.items():
            gauge.set(health[name])
        return _WATCH_EVERY_S

    def stop_claiming(self) -> None:
        """Claim nothing new; whoever waits for a slot returns."""
        self._is_stopping = True
        self._slot_fell_free.set()

    async def drain(self, timeout_s: float) -> None:
        """Let what is in flight finish; give the rest back, due at once for another worker."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._claiming:
                pass  # a claim under way in the database comes back with leases that are ours to carry or give back
        tasks = [task for _, task in self._held.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)
        left = [(lease, task) for lease, task in self._held.values() if not task.done()]
        for _, task in left:
            task.cancel()
        if left:
            await asyncio.gather(*(task for _, task in left), return_exceptions=True)
            await self._rows.release([lease for lease, _ in left])
            log.info("analyses.released", count=len(left))

    def _start(self, work: Work) -> None:
        task = asyncio.create_task(self._carry(work))
        self._held[work.lease.token] = (work.lease, task)
        metrics.ANALYSES_IN_FLIGHT.set(len(self._held))

    async def _carry(self, work: Work) -> None:
        """Run one lease to its end; an error here lets the lease expire, and the row is tried again."""
        try:
            await analyse_conversation(
                work,
                claude=self._claude,
                rows=self._rows,
                pictures=self._pictures,
                deadline_s=self._clocks.analysis_deadline_s,
            )
        except ParleyError as error:
            log.warning("analysis.postponed", conversation_id=str(work.lease.conversation_id), error_code=error.code)
        except Exception:
            log.exception("analysis.failed", conversation_id=str(work.lease.conversation_id))
        finally:
            self._held.pop(work.lease.token, None)
            metrics.ANALYSES_IN_FLIGHT.set(len(self._held))
            self._slot_fell_free.set()
            self._look_again.set()
