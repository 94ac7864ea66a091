"""Record again what went nowhere when it came, because nobody had connected its number yet."""

from __future__ import annotations

import asyncio

import structlog

from services.ingest.record_isolated import record_isolated
from shared.queue.jobs import Jobs
from shared.settings.clocks import Clocks
from shared.store.replay import Replay
from shared.store.webhooks import Webhooks

log = structlog.get_logger()


async def reroute(*, replay: Replay, webhooks: Webhooks, jobs: Jobs, clocks: Clocks, batch_bodies: int) -> float:
    """Record a batch of bodies whose numbers are connected by now; return the seconds to pause.

    So what came before its number was connected shows up within a minute of that, with Meta's times. A body is one
    recorder's for a while; should that one die, it is due again.
    """
    claimed = await replay.claim_reroutable(limit=batch_bodies, hold_s=clocks.drain_hold_s)
    if not claimed:
        return clocks.reroute_every_s
    async with asyncio.timeout(clocks.drain_hold_s):
        failed = await record_isolated(
            [body for body, _ in claimed], webhooks=webhooks, jobs=jobs, settle_s=clocks.settle_s
        )
    log.info("webhooks.rerouted", bodies=len(claimed), failed=len(failed))
    return 0
