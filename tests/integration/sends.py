"""Messages of ours in a test's database: queue them as a person, claim and finish them as a dispatcher."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg

from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.store.postgres import PostgresTransport
from shared.store.sending import Sending
from shared.store.webhooks import Webhooks
from tests.world import World, received, text_message, webhook


@dataclass(frozen=True)
class Sends:
    """Two workspaces whose numbers may send; customers of the first have written just now."""

    admin: psycopg.AsyncConnection
    world: World
    api: PostgresTransport
    service: PostgresTransport

    async def prepare(self) -> None:
        for workspace, channel in (
            (self.world.workspace_a, self.world.channel_a),
            (self.world.workspace_b, self.world.channel_b),
        ):
            await self.admin.execute(
                "insert into app.channel_tokens (workspace_id, channel_id, token_sealed, key_id)"
                " values (%s, %s, 'sealed', 'key')",
                (workspace, channel),
            )

    @property
    def person(self) -> Person:
        return Person(self.world.owner_a, self.world.claims(self.world.owner_a))

    async def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        return await (await self.admin.execute(query.encode(), args)).fetchall()

    async def customer(self, n: int = 1) -> UUID:
        """Let a customer write; return their conversation."""
        phone = f"1202555{n:04}"
        raw = webhook(text_message("Hello", wamid=f"wamid.in.{phone}.{uuid4()}", user_id=f"US.{n}", wa_id=phone))
        await Webhooks(self.service).record([received(raw)], settle_s=0)
        found = await self.rows(
            "select id from public.whatsapp_conversations where phone_number = %s and deleted_at is null", phone
        )
        return UUID(str(found[0][0]))

    async def send(self, text: str = "Hi", *, key: str | None = None, **more: Any) -> dict[str, Any]:
        message = {
            "id": str(new_id()),
            "message_type": "text",
            "content": text,
            "payload": {"type": "text", "text": {"body": text}},
        } | {name: str(value) if isinstance(value, UUID) else value for name, value in more.items()}
        asked = json.dumps({k: v for k, v in message.items() if k != "id"}, sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()
        answer = await Sending(self.api).send(
            self.world.workspace_a, message, request_id=key or str(uuid4()), digest=digest, as_user=self.person
        )
        return dict(json.loads(answer))

    async def claim(self, most: int = 10, *, lease_ms: int = 20_000, token: UUID | None = None) -> dict[str, Any]:
        channels = json.loads(await self.service.call("sending_channels", {}))
        wants = [{"workspace_id": c["workspace_id"], "channel_id": c["channel_id"], "most": most} for c in channels]
        token = token or uuid4()
        answer = await self.service.call(
            "claim_messages", {"p_wants": wants, "p_lease_token": str(token), "p_lease_ms": lease_ms}
        )
        claimed = dict(json.loads(answer))
        for message in claimed["messages"]:
            message["lease_token"] = str(token)
        return claimed

    async def finish(self, messages: Sequence[dict[str, Any]], outcome: str, **more: Any) -> dict[str, Any]:
        results = [
            {name: message[name] for name in ("workspace_id", "outbox_id", "message_id", "attempt", "lease_token")}
            | {"outcome": outcome}
            | (
                {"wamid": f"wamid.out.{message['message_id']}.{message['attempt']}"}
                if outcome in ("accepted", "held")
                else {}
            )
            | more
            for message in messages
        ]
        return dict(json.loads(await self.service.call("finish_messages", {"p_results": results})))

    async def tend(self, *, grace_ms: int = 300_000, current: bool = True) -> dict[str, Any]:
        answer = await self.service.call("tend_outbox", {"p_grace_ms": grace_ms, "p_intake_is_current": current})
        return dict(json.loads(answer))

    async def message(self, message_id: str) -> dict[str, Any]:
        found = await self.rows("select to_jsonb(m) from public.whatsapp_messages m where id = %s", message_id)
        return dict(found[0][0])

    async def outbox(self, message_id: str) -> dict[str, Any]:
        found = await self.rows(
            "select to_jsonb(o) from app.outbox o where message_id = %s and kind = 'message'", message_id
        )
        return dict(found[0][0])

    async def status(
        self, status: str, *, wamid: str, callback: str | None = None, at: datetime | None = None, n: int = 1
    ) -> None:
        """Record a status webhook."""
        at = at or datetime.now(UTC)
        await self.statuses([(status, wamid, callback)], at=at, n=n)

    async def statuses(self, told: Sequence[tuple[str, str, str | None]], *, at: datetime, n: int = 1) -> None:
        """Record a webhook of several: (status, wamid, callback data)."""
        body = json.loads(webhook())
        value = body["entry"][0]["changes"][0]["value"]
        value.pop("messages")
        value.pop("contacts")
        value["statuses"] = [
            {
                "id": wamid,
                "status": status,
                "timestamp": str(int(at.timestamp())),
                "recipient_id": f"1202555{n:04}",
                "recipient_user_id": f"US.{n}",
            }
            | ({"biz_opaque_callback_data": callback} if callback else {})
            | ({"errors": [{"code": 131026, "title": "Message undeliverable"}]} if status == "failed" else {})
            for status, wamid, callback in told
        ]
        await Webhooks(self.service).record([received(json.dumps(body).encode())], settle_s=0)

    async def hear_later(self, minutes: float = 2) -> None:
        """Record something the number's webhooks say of a time after now."""
        # Noted once a second at most: the last note was longer ago.
        await self.rows("update public.channel_intake set recorded_at = recorded_at - interval '2 seconds' returning 1")
        raw = webhook(
            text_message(
                "Later",
                wamid=f"wamid.later.{uuid4()}",
                user_id="US.9",
                wa_id="12025559999",
                sent_at=datetime.now(UTC) + timedelta(minutes=minutes),
            )
        )
        await Webhooks(self.service).record([received(raw)], settle_s=0)
        await self.rows("delete from app.outbox where kind = 'mark_read' returning 1")
