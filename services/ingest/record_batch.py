"""Turn a batch of webhook bodies into rows, one database call for all; poison is found by halving."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import structlog
from redis.exceptions import RedisError

from shared.domain.errors import BadData
from shared.queue.jobs import AnalyseDue, Jobs
from shared.store.webhooks import ReceivedBody, Recorded, Webhooks
from shared.telemetry import metrics
from shared.telemetry.trace import trace_id
from shared.whatsapp.events import WebhookBody
from shared.whatsapp.parse import parse_webhook

log = structlog.get_logger()


async def record_batch(
    bodies: Sequence[WebhookBody], *, webhooks: Webhooks, jobs: Jobs, settle_s: float, are_stored: bool = False
) -> Recorded:
    """Record bodies and wake an AI worker when something new is due.

    `are_stored`: their bytes are in Postgres already (they were drained from there).
    Raises: Unavailable; the batch then comes back, and recording it twice changes nothing.
    """
    now = datetime.now(UTC)
    received = [ReceivedBody(body, parse_webhook(body.raw, now=body.received_at), are_stored) for body in bodies]
    for body in bodies:
        metrics.STREAM_WAIT_SECONDS.labels("webhooks").observe(max(0.0, (now - body.received_at).total_seconds()))
    with metrics.RECORD_SECONDS.time():
        recorded = await _record(received, webhooks=webhooks, settle_s=settle_s)
    for outcome in ("stored", "duplicate", "unrouted", "suppressed", "quarantined"):
        metrics.WEBHOOK_ITEMS.labels(outcome).inc(getattr(recorded, outcome))
    if recorded.due:
        await _wake(jobs)
    log.info(
        "webhooks.recorded",
        bodies=len(bodies),
        stored=recorded.stored,
        duplicate=recorded.duplicate,
        unrouted=recorded.unrouted,
        quarantined=recorded.quarantined,
        due=recorded.due,
    )
    return recorded


async def _record(received: Sequence[ReceivedBody], *, webhooks: Webhooks, settle_s: float) -> Recorded:
    try:
        return await webhooks.record(received, settle_s=settle_s)
    except BadData as error:
        if len(received) == 1:
            body = received[0].body
            log.error(
                "webhook.quarantined",
                body_id=str(body.id),
                trace_id=trace_id(body.traceparent),
                error_code=error.code,
            )
            return await webhooks.quarantine(received[0], reason=error.code)
    middle = len(received) // 2
    first = await _record(received[:middle], webhooks=webhooks, settle_s=settle_s)
    return first + await _record(received[middle:], webhooks=webhooks, settle_s=settle_s)


async def _wake(jobs: Jobs) -> None:
    try:
        await jobs.wake(AnalyseDue)
    except RedisError as error:
        # A wake-up is a hint: due rows are polled anyway, so the batch stands.
        log.warning("wake_up.lost", error=type(error).__name__)
