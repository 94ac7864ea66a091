"""Turn recipients of bulk sends into messages, a hundred at a time, as long as few of them are under way."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from shared.store.bulk import BulkWork

log = structlog.get_logger()

# Recorders of the workspace wait while it is made sure who the recipients are: so many take 0.1 s (2026-11-24).
_AT_ONCE = 100
_EVERY_S = 1.0


async def expand_bulk_sends(*, bulk: BulkWork, tell: Callable[[], None]) -> float:
    """Expand once; return the seconds to pause. `tell`: is called when there is something new to send."""
    done = await bulk.expand(most=_AT_ONCE)
    if done.expanded:
        log.info("bulk_sends.expanded", recipients=done.expanded)
        tell()
    if done.paused or done.finished:
        log.info("bulk_sends.settled", paused=done.paused, finished=done.finished)
    return 0 if done.is_more else _EVERY_S
