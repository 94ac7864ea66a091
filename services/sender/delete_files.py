"""Delete from storage what rows say is to go: of deleted messages, of erased people, of uploads nobody finished."""

from __future__ import annotations

import asyncio

import structlog

from services.sender.spool import drop_stale
from shared.storage.file_names import thumbnail_key
from shared.storage.port import Storage
from shared.store.media import MediaWork
from shared.telemetry import metrics

log = structlog.get_logger()

_AT_ONCE = 100
UPLOAD_MINUTES = 60  # four times the longest an upload may take (routes/media.py)
KEEP_KEYS_DAYS = 7  # an Idempotency-Key counts for so long


async def delete_files(*, media: MediaWork, storage: Storage, now_s: float) -> int:
    """Delete what is due, and return how much. A dispatcher that dies in between has deleted files twice, no more.

    now_s: as the file system counts (seconds since 1970).
    """
    total = 0
    while files := await media.to_delete(limit=_AT_ONCE, upload_minutes=UPLOAD_MINUTES, keep_days=KEEP_KEYS_DAYS):
        metrics.FILES_TO_DELETE.set(len(files))
        await storage.delete([key for file in files for key in (file.key, thumbnail_key(file.key))])
        await media.deleted(files)
        total += len(files)
        metrics.MEDIA.labels("delete", "done").inc(len(files))
        log.info("files.deleted", count=len(files))
        if len(files) < _AT_ONCE:
            break
    metrics.FILES_TO_DELETE.set(0)
    stale = await asyncio.to_thread(drop_stale, storage.spool_dir, older_than_s=UPLOAD_MINUTES * 60, now_s=now_s)
    if stale:
        log.info("files.dropped", count=stale)
    return total
