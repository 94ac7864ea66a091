"""What a webhook body holds once parsed: changes, and every item in them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class WebhookBody:
    """One POST from Meta, as it was received: the signed bytes, and the id and time we gave it (its key)."""

    id: UUID
    received_at: datetime
    raw: bytes
    traceparent: str


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """A customer's message. Texts are sanitised: PostgreSQL stores neither U+0000 nor lone surrogates."""

    change: int  # index into ParsedBody.changes
    item: int  # place among the body's items
    wamid: str
    message_type: str  # text, or unsupported: kept raw in payload
    content: str | None
    payload: dict[str, Any]  # as Meta sent it
    sent_at: datetime | None  # Meta's time; None when it sent none we can read
    reply_to_wamid: str | None
    sender_user_id: str | None  # business-scoped user id
    sender_wa_id: str | None
    name: str | None
    username: str | None  # without the leading @
    group_id: str | None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An item we cannot place."""

    item: int
    reason: str


@dataclass(frozen=True, slots=True)
class Change:
    """One of Meta's changes: the unit of routing."""

    event_type: str  # Meta's field
    phone_number_id: str | None  # the business number it is about; None: account-level
    waba_id: str | None
    payload: dict[str, Any]
    kept: int  # items that are kept raw here: neither messages nor quarantined


@dataclass(frozen=True, slots=True)
class ParsedBody:
    """Every item of one POST: len(messages) + len(quarantined) + sum(change.kept) == items."""

    items: int
    changes: tuple[Change, ...] = ()
    messages: tuple[InboundMessage, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
