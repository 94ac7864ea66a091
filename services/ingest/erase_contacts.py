"""Erase the people that owners and admins asked to be erased: rows first, then every raw body that names them."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import structlog

from shared.domain.errors import Conflict
from shared.store.retention import ErasureLease, Found, LoggedChange, RawBody, Retention
from shared.telemetry import metrics
from shared.whatsapp.redact import Redacted, redact_body, redact_change

log = structlog.get_logger()

_MESSAGES = 1000  # deleted a step: recorders of the workspace wait some 0.05 s (2026-11-24)
_CHANGES = 1000  # looked at a step: some 0.1 s


async def erase_contacts(*, retention: Retention, lease_s: float, poll_every_s: float) -> float:
    """Work on one erasure that is due, until nothing is left to do for now; return the seconds to pause.

    Each step is a transaction that says how far it came, so a recorder that dies is gone on with by another.
    """
    lease, open_erasures = await retention.claim_erasure(lease_s=lease_s)
    metrics.ERASURES_OPEN.set(open_erasures)
    if lease is None:
        return poll_every_s
    try:
        if lease.state in ("requested", "erasing"):
            state = "erasing"
            while state == "erasing":
                state = await retention.erase_rows(lease, lease_s=lease_s, limit=_MESSAGES)
            log.info("contact.erased", workspace_id=str(lease.workspace_id), erasure_id=str(lease.id))
        else:
            await _rewrite(lease, retention=retention, lease_s=lease_s)
    except Conflict as error:
        log.info("erasure.lost", erasure_id=str(lease.id), error_code=error.code)
    return 0


async def _rewrite(lease: ErasureLease, *, retention: Retention, lease_s: float) -> None:
    """Go once through what was recorded; a pass that was cut short goes on where it was."""
    state, rewritten, day = "due", 0, None
    while state == "due":
        found = await retention.find_raw(lease, lease_s=lease_s, limit=_CHANGES)
        changes, bodies = await asyncio.to_thread(_redacted, found, lease)
        state = await retention.rewrite_raw(lease, lease_s=lease_s, cursor=found.cursor, changes=changes, bodies=bodies)
        rewritten += len(changes) + len(bodies)
        reached = _day(found.cursor)
        if reached is not None and reached != day:
            day = reached
            log.info("erasure.advanced", erasure_id=str(lease.id), day=day, rewritten=rewritten)
    log.info("erasure.passed", erasure_id=str(lease.id), state=state, rewritten=rewritten)


def _redacted(
    found: Found, lease: ErasureLease
) -> tuple[list[tuple[LoggedChange, dict[str, Any]]], list[tuple[RawBody, Redacted]]]:
    changes = []
    for change in found.changes:
        payload = redact_change(change.event_type, change.payload, lease.erased, received_at=change.at)
        if payload is not None:
            changes.append((change, payload))
    bodies = []
    for body in found.bodies:
        redacted = redact_body(
            body.raw,
            lease.erased,
            received_at=body.received_at,
            numbers=(lease.numbers | body.unrouted_numbers) - body.others_numbers,
            accounts=lease.accounts,
        )
        if redacted is not None:
            bodies.append((body, redacted))
    return changes, bodies


def _day(cursor: object) -> str | None:
    return datetime.fromisoformat(cursor[0]).date().isoformat() if isinstance(cursor, list) else None
