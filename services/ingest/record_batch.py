"""Turn a batch of webhook bodies into rows, one database call for all; poison is found by halving, down to the item."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog
from redis.exceptions import RedisError

from shared.domain.errors import BadData
from shared.queue.inbound_rate import InboundRate
from shared.queue.jobs import AnalyseDue, Jobs
from shared.store.webhook_batch import ReceivedBody
from shared.store.webhooks import OUTCOMES, Recorded, Webhooks
from shared.telemetry import metrics
from shared.telemetry.trace import trace_id
from shared.whatsapp.events import Event, Message, ParsedBody, Quarantined, WebhookBody
from shared.whatsapp.parse import parse_webhook

log = structlog.get_logger()

_JUST_NOW_S = 3.0  # what arrived earlier says nothing about this second


async def record_batch(
    bodies: Sequence[WebhookBody],
    *,
    webhooks: Webhooks,
    jobs: Jobs,
    settle_s: float,
    are_stored: bool = False,
    inbound: InboundRate | None = None,
) -> Recorded:
    """Record bodies and wake an AI worker when something new is due.

    `are_stored`: their bytes are in Postgres already (they were drained from there). `inbound`: is told of messages
    that came in just now.
    Raises: Unavailable; the batch then comes back, and recording it twice changes nothing.
    """
    started = time.perf_counter()
    received = [ReceivedBody(body, parse_webhook(body.raw, now=body.received_at), are_stored) for body in bodies]
    metrics.PARSE_SECONDS.observe(time.perf_counter() - started)
    _observe_waits(received)
    if inbound is not None:
        await inbound.count(_inbound_just_now(received, datetime.now(UTC)))
    with metrics.RECORD_SECONDS.time():
        recorded = await _record(received, webhooks=webhooks, settle_s=settle_s)
    for (kind, outcome), count in recorded.by_kind.items():
        metrics.WEBHOOK_ITEMS.labels(kind, outcome).inc(count)
    if recorded.due:
        await _wake(jobs)
    log.info(
        "webhooks.recorded",
        bodies=len(bodies),
        due=recorded.due,
        **{name: getattr(recorded, name) for name in OUTCOMES},
    )
    return recorded


async def record_again(bodies: Sequence[WebhookBody], *, webhooks: Webhooks, jobs: Jobs, settle_s: float) -> Recorded:
    """Record bodies that were recorded before and whose bytes are in Postgres: only what was left undone is done.

    Neither timed nor counted as intake: they are old, and their items were counted then. Raises: as `record_batch`.
    """
    received = [ReceivedBody(body, parse_webhook(body.raw, now=body.received_at), is_stored=True) for body in bodies]
    recorded = await _record(received, webhooks=webhooks, settle_s=settle_s)
    if recorded.due:
        await _wake(jobs)
    return recorded


def _observe_waits(received: Sequence[ReceivedBody]) -> None:
    now = datetime.now(UTC)
    for one in received:
        metrics.STREAM_WAIT_SECONDS.labels("webhooks").observe(_seconds(now, one.body.received_at))
        times = [event.sent_at for event in one.parsed.events if event.sent_at is not None]
        if times:
            metrics.INTAKE_LAG_SECONDS.observe(_seconds(now, max(times)))


def _inbound_just_now(received: Sequence[ReceivedBody], now: datetime) -> Counter[str]:
    """Count what customers wrote, by number."""
    counts: Counter[str] = Counter()
    for one in received:
        if _seconds(now, one.body.received_at) > _JUST_NOW_S:
            continue
        for event in one.parsed.events:
            if isinstance(event, Message) and event.direction == "inbound" and event.origin == "live":
                number = one.parsed.changes[event.change].phone_number_id
                if number is not None:
                    counts[number] += 1
    return counts


def _seconds(now: datetime, then: datetime) -> float:
    return max(0.0, (now - then).total_seconds())


async def _record(received: Sequence[ReceivedBody], *, webhooks: Webhooks, settle_s: float) -> Recorded:
    try:
        return await webhooks.record(received, settle_s=settle_s)
    except BadData as error:
        if len(received) == 1:
            return await _isolate(received[0], error, webhooks=webhooks, settle_s=settle_s)
    middle = len(received) // 2
    first = await _record(received[:middle], webhooks=webhooks, settle_s=settle_s)
    return first + await _record(received[middle:], webhooks=webhooks, settle_s=settle_s)


async def _isolate(received: ReceivedBody, error: BadData, *, webhooks: Webhooks, settle_s: float) -> Recorded:
    """Record all of a body but the items the database refuses, which are set aside with their reasons."""
    body, parsed = received.body, received.parsed
    refused = await _refused(received, list(parsed.events), error, webhooks=webhooks)
    places = {place.item for place in refused}
    rest = replace(
        received,
        parsed=replace(
            parsed,
            events=tuple(event for event in parsed.events if event.item not in places),
            quarantined=(*parsed.quarantined, *refused),
        ),
    )
    log.error(
        "webhook.quarantined",
        body_id=str(body.id),
        trace_id=trace_id(body.traceparent),
        error_code=error.code,
        items=len(refused),
    )
    try:
        return await webhooks.record([rest], settle_s=settle_s)
    except BadData:
        # What it refuses is in none of the items: the change itself, say.
        return await webhooks.quarantine(received, reason=error.code)


async def _refused(
    received: ReceivedBody, events: list[Event], error: BadData, *, webhooks: Webhooks
) -> list[Quarantined]:
    """Return which of these events, known to hold one the database refuses, those are."""
    if len(events) <= 1:
        return [Quarantined(event.item, error.code) for event in events]
    middle = len(events) // 2
    refused: list[Quarantined] = []
    for half in (events[:middle], events[middle:]):
        try:
            await webhooks.try_record([_only(received, half)])
        except BadData as theirs:
            refused += await _refused(received, half, theirs, webhooks=webhooks)
    return refused


def _only(received: ReceivedBody, events: list[Event]) -> ReceivedBody:
    parsed = received.parsed
    return replace(received, parsed=ParsedBody(len(events), parsed.changes, tuple(events)))


async def _wake(jobs: Jobs) -> None:
    try:
        await jobs.wake(AnalyseDue)
    except RedisError as error:
        # A wake-up is a hint: due rows are polled anyway, so the batch stands.
        log.warning("wake_up.lost", error=type(error).__name__)
