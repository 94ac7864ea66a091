"""Webhook bodies: kept in Postgres while Redis is out, recorded always."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from shared.domain.ids import new_id
from shared.store.port import Store
from shared.whatsapp.events import Change, InboundMessage, ParsedBody, Quarantined, WebhookBody


@dataclass(frozen=True, slots=True)
class ReceivedBody:
    """A body with what it parsed to. `is_stored`: Postgres has its bytes already."""

    body: WebhookBody
    parsed: ParsedBody
    is_stored: bool = False


@dataclass(frozen=True, slots=True)
class Recorded:
    """Items by what became of them, and how many conversations fell due for analysis."""

    stored: int = 0
    duplicate: int = 0
    unrouted: int = 0
    suppressed: int = 0
    quarantined: int = 0
    due: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        mine, theirs = asdict(self), asdict(other)
        return Recorded(**{name: mine[name] + theirs[name] for name in mine})


class Webhooks:
    """The functions of migrations *_webhook_bodies and *_record_webhooks."""

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
        text = await self._store.call(
            "record_webhooks", {"p_bodies": [_body_json(b) for b in bodies], "p_settle_ms": int(settle_s * 1000)}
        )
        return Recorded(**json.loads(text))

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
        return Recorded(quarantined=items)

    async def make_partitions(self) -> int:
        """Make the coming days' partitions; return how many rows sit in none of them."""
        in_default: int = json.loads(await self._store.call("make_webhook_partitions", {}))["in_default"]
        return in_default


def _body_json(received: ReceivedBody) -> dict[str, object]:
    body, parsed = received.body, received.parsed
    return {
        "id": str(body.id),
        "received_at": body.received_at.isoformat(),
        "raw": None if received.is_stored else b64encode(body.raw).decode(),
        "items": parsed.items,
        "changes": [_fields(change) for change in parsed.changes],
        "messages": [
            _message_json(message, parsed.changes[message.change], received_at=body.received_at)
            for message in parsed.messages
        ],
        "quarantined": [_fields(item) for item in parsed.quarantined],
    }


def _message_json(message: InboundMessage, change: Change, *, received_at: datetime) -> dict[str, object]:
    fields = _fields(message)
    fields["phone_number_id"] = change.phone_number_id
    # Meta sent no time we can read: ours is the nearest, and the message is kept.
    fields["sent_at"] = (message.sent_at or received_at).isoformat()
    for name in ("message_id", "contact_id", "conversation_id"):  # proposals: used if the row turns out to be new
        fields[name] = str(new_id())
    return fields


def _fields(event: Change | InboundMessage | Quarantined) -> dict[str, object]:
    # dataclasses.asdict copies payloads deeply: it took half of the recorder's time (2026-11-23).
    return {name: getattr(event, name) for name in event.__slots__}
