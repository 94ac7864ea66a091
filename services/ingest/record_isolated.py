"""Record bodies again so that one we stumble over costs its neighbours nothing."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from services.ingest.record_batch import record_again
from shared.domain.errors import Unavailable
from shared.queue.jobs import Jobs
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import WebhookBody

log = structlog.get_logger()


async def record_isolated(
    bodies: Sequence[WebhookBody], *, webhooks: Webhooks, jobs: Jobs, settle_s: float
) -> list[UUID]:
    """Record stored bodies again; return those that fail by a fault of ours, found by halving.

    What the database refuses is no failure: it is in quarantine, item by item. Raises: Unavailable.
    """
    if not bodies:
        return []
    try:
        await record_again(bodies, webhooks=webhooks, jobs=jobs, settle_s=settle_s)
    except (Unavailable, RedisError, TimeoutError):
        raise  # the weather's fault, not theirs
    except Exception:
        if len(bodies) == 1:
            log.exception("webhook.not_recorded", body_id=str(bodies[0].id))
            return [bodies[0].id]
    else:
        return []
    middle = len(bodies) // 2
    first = await record_isolated(bodies[:middle], webhooks=webhooks, jobs=jobs, settle_s=settle_s)
    return first + await record_isolated(bodies[middle:], webhooks=webhooks, jobs=jobs, settle_s=settle_s)
