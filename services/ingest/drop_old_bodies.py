"""Drop raw bodies and logged changes older than they are kept, a day at a time, and tombstones that have run out."""

from __future__ import annotations

import structlog

from shared.store.retention import Retention

log = structlog.get_logger()


async def drop_old_bodies(*, retention: Retention, keep_days: int, every_s: float) -> float:
    """Drop what is due; return the seconds to pause. What is locked just now goes the next time."""
    dropped = await retention.drop_old(keep_days=keep_days)
    if dropped.partitions or dropped.stray or dropped.tombstones:
        log.info(
            "partitions.dropped",
            partitions=dropped.partitions,
            stray=dropped.stray,
            tombstones=dropped.tombstones,
        )
    if dropped.unrouted or dropped.quarantined:
        log.warning("items.expired", unrouted=dropped.unrouted, quarantined=dropped.quarantined)
    if dropped.postponed:
        log.warning("partitions.postponed", days=[day.isoformat() for day in dropped.postponed])
    if dropped.kept:
        hint = "Bodies of that age were never recorded: see whether recorders drain them."
        log.error("partitions.kept", days=[day.isoformat() for day in dropped.kept], hint=hint)
    return every_s
