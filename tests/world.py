"""Two workspaces as most tests need them, and webhook bodies of their customers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from shared.domain.ids import new_id
from shared.store.webhook_batch import ReceivedBody
from shared.whatsapp.events import WebhookBody
from shared.whatsapp.parse import parse_webhook

# The fixtures' numbers: A belongs to the first workspace, B to the second; A2 to nobody.
PHONE_A, WABA_A = "402776318915527", "318204775196043"
PHONE_B, WABA_B = "519038827741206", "274419083365128"


@dataclass(frozen=True, slots=True)
class World:
    """Ids of what `build_world` made."""

    workspace_a: UUID
    workspace_b: UUID
    channel_a: UUID
    channel_b: UUID
    owner_a: UUID
    owner_b: UUID
    stranger: UUID  # signed in, member of nothing

    def claims(self, user: UUID) -> str:
        """Verified claims of a user, as the API passes them to Postgres."""
        return json.dumps({"sub": str(user), "role": "authenticated", "email": f"{user}@example.com"})


async def build_world(admin: psycopg.AsyncConnection) -> World:
    """Insert two workspaces, an owner each, a channel each."""
    world = World(*(new_id() for _ in range(7)))
    for workspace, name, owner, channel, waba, phone, display, portfolio in (
        (
            world.workspace_a,
            "Casa Verde",
            world.owner_a,
            world.channel_a,
            WABA_A,
            PHONE_A,
            "12025550143",
            "690113358247715",
        ),
        (
            world.workspace_b,
            "Nordlicht",
            world.owner_b,
            world.channel_b,
            WABA_B,
            PHONE_B,
            "442079460321",
            "690113358247716",
        ),
    ):
        await admin.execute("insert into public.workspaces (id, name) values (%s, %s)", (workspace, name))
        await admin.execute(
            "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, 'owner')",
            (workspace, owner),
        )
        await admin.execute(
            "insert into public.whatsapp_channels"
            " (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number)"
            " values (%s, %s, %s, %s, %s, %s)",
            (workspace, channel, waba, portfolio, phone, display),
        )
    return world


def text_message(
    text: str,
    *,
    wamid: str,
    user_id: str | None = "US.1001",
    wa_id: str | None = "12025550117",
    name: str = "Ana Souza",
    sent_at: datetime | None = None,
) -> dict[str, Any]:
    """One inbound text with its contact, as Meta nests them: {"contact": …, "message": …}."""
    sent_at = sent_at or datetime.now(UTC)
    sender = {"wa_id": wa_id, "user_id": user_id}
    message = {
        "from": wa_id,
        "from_user_id": user_id,
        "id": wamid,
        "timestamp": str(int(sent_at.timestamp())),
        "type": "text",
        "text": {"body": text},
    }
    return {
        "contact": {"profile": {"name": name}} | {key: value for key, value in sender.items() if value},
        "message": {key: value for key, value in message.items() if value is not None},
    }


def webhook(*messages: dict[str, Any], phone_number_id: str = PHONE_A, waba_id: str = WABA_A) -> bytes:
    """A webhook body with these messages in one change."""
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "12025550143", "phone_number_id": phone_number_id},
        "contacts": [m["contact"] for m in messages],
        "messages": [m["message"] for m in messages],
    }
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": waba_id, "changes": [{"field": "messages", "value": value}]}],
    }
    return json.dumps(body).encode()


def received(raw: bytes) -> ReceivedBody:
    """A body as the recorder hands it to the store."""
    body = WebhookBody(id=new_id(), received_at=datetime.now(UTC), raw=raw, traceparent="")
    return ReceivedBody(body, parse_webhook(raw, now=body.received_at))
