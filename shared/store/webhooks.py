"""Webhook bodies: kept in Postgres while Redis is out, recorded always."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from shared.store.port import Store
from shared.store.webhook_batch import ReceivedBody, batch_of
from shared.whatsapp.events import WebhookBody

OUTCOMES = ("stored", "duplicate", "unrouted", "suppressed", "quarantined")


@dataclass(frozen=True, slots=True)
class Recorded:
    """Items by what became of them, and how many conversations fell due for analysis."""

    stored: int = 0
    duplicate: int = 0
    unrouted: int = 0
    suppressed: int = 0
    quarantined: int = 0
    due: int = 0
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter, compare=False)  # (kind of item, outcome)

    def __add__(self, other: Recorded) -> Recorded:
        totals = {name: getattr(self, name) + getattr(other, name) for name in (*OUTCOMES, "due")}
        return Recorded(**totals, by_kind=self.by_kind + other.by_kind)


class Webhooks:
    """The functions of migrations *_webhook_bodies and *_record_events."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def store_bodies(self, bodies: Sequence[WebhookBody]) -> None:
        """Keep raw bodies for a recorder to drain. Safe to repeat."""
        await self._store.call(
            "store_webhook_bodies",
            {
                "p_bodies": [
                    {
                        "id": str(b.id),
                        "received_at": b.received_at.isoformat(),
                        "raw": b64encode(b.raw).decode(),
                        "traceparent": b.traceparent,
                    }
                    for b in bodies
                ]
            },
        )

    async def claim_bodies(
        self, *, limit: int, hold_s: float, most_bytes: int = 4 * 1024 * 1024
    ) -> list[tuple[WebhookBody, int]]:
        """Return bodies to drain, each with how often it was claimed; they are this recorder's for `hold_s`."""
        text = await self._store.call(
            "claim_webhook_bodies", {"p_limit": limit, "p_max_bytes": most_bytes, "p_hold_ms": int(hold_s * 1000)}
        )
        return [
            (
                WebhookBody(
                    id=UUID(row["id"]),
                    received_at=datetime.fromisoformat(row["received_at"]),
                    raw=b64decode(row["raw"]),
                    traceparent=row["traceparent"] or "",
                ),
                row["attempts"],
            )
            for row in json.loads(text)
        ]

    async def record(self, bodies: Sequence[ReceivedBody], *, settle_s: float) -> Recorded:
        """Record a batch in one transaction. Safe to repeat. Raises: BadData when the database refuses a value."""
        return await self._batch("record_webhook_batch", bodies, settle_s)

    async def try_record(self, bodies: Sequence[ReceivedBody]) -> Recorded:
        """Say what recording would do, and leave everything as it is. Raises: as `record`."""
        return await self._batch("try_webhook_batch", bodies, 0)

    async def _batch(self, function: str, bodies: Sequence[ReceivedBody], settle_s: float) -> Recorded:
        text = await self._store.call(function, {"p_batch": batch_of(bodies), "p_settle_ms": int(settle_s * 1000)})
        answer = json.loads(text)
        outcome_of: dict[int, str] = dict.fromkeys(answer["stored"], "stored")
        outcome_of |= dict.fromkeys(answer["suppressed"], "suppressed") | dict.fromkeys(answer["unrouted"], "unrouted")
        by_kind: Counter[tuple[str, str]] = Counter()
        events = (event for received in bodies for event in received.parsed.events)
        for n, event in enumerate(events):
            by_kind[type(event).__name__.lower(), outcome_of.get(n, "duplicate")] += 1
        by_kind["unreadable", "quarantined"] += sum(len(received.parsed.quarantined) for received in bodies)
        totals: Counter[str] = Counter()
        for (_, outcome), count in by_kind.items():
            totals[outcome] += count
        return Recorded(**{name: totals[name] for name in OUTCOMES}, due=answer["due"], by_kind=by_kind)

    async def quarantine(self, received: ReceivedBody, *, reason: str) -> Recorded:
        """Set one body aside, whole, with its reason."""
        body = received.body
        items = max(1, received.parsed.items)
        await self._store.call(
            "quarantine_webhook",
            {
                "p_body_id": str(body.id),
                "p_received_at": body.received_at.isoformat(),
                "p_raw": None if received.is_stored else b64encode(body.raw).decode(),
                "p_items": items,
                "p_reason": reason,
            },
        )
        return Recorded(quarantined=items, by_kind=Counter({("unreadable", "quarantined"): items}))

    async def health(self) -> dict[str, int]:
        """Return what an operator watches: see intake_health()."""
        health: dict[str, int] = json.loads(await self._store.call("intake_health", {}))
        return health

    async def make_partitions(self) -> int:
        """Make the coming days' partitions; return how many rows sit in none of them."""
        in_default: int = json.loads(await self._store.call("make_webhook_partitions", {}))["in_default"]
        return in_default
