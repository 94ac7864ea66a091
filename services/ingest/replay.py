"""Walk over stored bodies, record them again with this version's parser, and say what that changes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from services.ingest.printing import Screen, counted, difference_json
from services.ingest.record_isolated import record_isolated
from shared.domain.errors import Unavailable
from shared.queue.jobs import Jobs
from shared.queue.runner import wait
from shared.store.port import Store
from shared.store.replay import Cursor, DiffingStore, Replay, Wanted
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import WebhookBody

log = structlog.get_logger()

_RETRY_AFTER_S = (1, 2, 5, 10, 20)  # a database that restarts is back within these


@dataclass(slots=True)
class _Walk:
    cursor: Cursor
    bodies: int = 0
    failed: list[UUID] = field(default_factory=list)
    stopped_because: str | None = None


async def replay(
    *,
    store: Store,
    jobs: Jobs,
    screen: Screen,
    stop: asyncio.Event,
    settle_s: float,
    wanted: Wanted,
    is_dry: bool,
    batch_bodies: int,
) -> int:
    """Record bodies again and print what changed; 1 if some failed or it ended early.

    Every batch is one transaction, and its place is printed: killed, it goes on from there, or from the beginning,
    with the same rows in the end.
    """
    reader = Replay(store)
    diffing = DiffingStore(store, is_dry=is_dry)
    walk = _Walk(cursor=wanted.start)
    total = await _count(reader, wanted, screen)
    with screen.progress("Trying" if is_dry else "Replaying", total) as advance:
        while page := await _next(reader, wanted, walk, stop=stop, limit=batch_bodies):
            failed = await _record(page, diffing=diffing, jobs=jobs, settle_s=settle_s, walk=walk, stop=stop)
            if walk.stopped_because:
                break
            walk.failed += failed
            walk.bodies += len(page)
            walk.cursor = Cursor(page[-1].received_at, page[-1].id)
            advance(walk.bodies, f"--after {walk.cursor}")
            if len(failed) == len(page) > 1:
                walk.stopped_because = "not one of the last batch could be recorded: are all migrations applied?"
                break
    _tell(screen, walk, diffing, is_dry=is_dry)
    return 1 if walk.failed or walk.stopped_because else 0


async def _count(reader: Replay, wanted: Wanted, screen: Screen) -> int | None:
    try:
        return await reader.count(wanted)
    except Unavailable:
        screen.note("Too many to count in time: there is no telling how long this takes.", "yellow")
        return None


async def _next(reader: Replay, wanted: Wanted, walk: _Walk, *, stop: asyncio.Event, limit: int) -> list[WebhookBody]:
    for pause_s in (*_RETRY_AFTER_S, None):
        if stop.is_set():
            walk.stopped_because = "you stopped it"
            return []
        try:
            return await reader.read(wanted, after=walk.cursor, limit=limit)
        except Unavailable as error:
            if pause_s is None:
                walk.stopped_because = f"the database cannot be had ({error.code})"
                return []
            await wait(stop, pause_s)
    return []


async def _record(
    page: list[WebhookBody], *, diffing: DiffingStore, jobs: Jobs, settle_s: float, walk: _Walk, stop: asyncio.Event
) -> list[UUID]:
    """Record a page, waiting for a database that says later; in smaller parts, since that may be what it minds."""
    part_bodies = len(page)
    failed: list[UUID] = []
    done = 0
    tries = 0
    while done < len(page):
        try:
            part = page[done : done + part_bodies]
            failed += await record_isolated(part, webhooks=Webhooks(diffing), jobs=jobs, settle_s=settle_s)
            done += len(part)
            tries = 0
        except Unavailable as error:
            if tries == len(_RETRY_AFTER_S) or stop.is_set():
                walk.stopped_because = (
                    "you stopped it" if stop.is_set() else f"the database cannot be had ({error.code})"
                )
                return failed
            log.warning("replay.postponed", error_code=error.code, tries=tries + 1)
            await wait(stop, _RETRY_AFTER_S[tries])
            part_bodies = max(1, part_bodies // 2)
            tries += 1
    return failed


def _tell(screen: Screen, walk: _Walk, diffing: DiffingStore, *, is_dry: bool) -> None:
    cursor = str(walk.cursor) if walk.bodies else None
    failed = [str(body_id) for body_id in walk.failed]
    refused = [str(body_id) for body_id in diffing.refused]
    if screen.as_json:
        screen.answer(
            {
                "dry_run": is_dry,
                "bodies": walk.bodies,
                "failed": failed,
                "refused_whole": refused,
                "cursor": cursor,
                "finished": walk.stopped_because is None,
                **difference_json(diffing.difference),
            }
        )
    else:
        done = "tried; nothing was changed" if is_dry else "recorded again"
        screen.line(f"{counted(walk.bodies, 'body')} {done}.\n", "bold")
        screen.difference(diffing.difference, is_dry=is_dry)
    for body_id in refused:
        screen.note(f"The database refuses all of body {body_id}; its account stays as it was.", "yellow")
    for body_id in failed:
        screen.note(f"Failed by a fault of ours, see the log above: {body_id}", "red")
    if walk.stopped_because:
        go_on = f" To go on: --after {cursor}" if cursor else " Nothing was done: run it again."
        screen.note(f"Ended early: {walk.stopped_because}.{go_on}", "red")
