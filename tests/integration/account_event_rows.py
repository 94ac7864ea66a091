"""Events as recording hands them over, from captured bodies and made up, and a recorder that shows the rows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from tests.conftest import FIXTURES, Database
from tests.world import PHONE_A, WABA_A, World

AT = datetime(2026, 11, 20, 14, 0, tzinfo=UTC)  # 1795183200: when the fixtures happen
MS = 1795183200000
RECEIVED = AT + timedelta(seconds=3)
PATTERNS = (
    "account_*",
    "template_*",
    "phone_number_*",
    "security_*",
    "business_*",
    "flows_*",
    "payment_*",
    "partner_*",
    "group_*",
    "messaging_handovers_*",
    "user_id_update*",
)
NAMES = sorted(path.stem for pattern in PATTERNS for path in (FIXTURES / "webhooks").glob(f"{pattern}.json"))
GROUP = "Y2FwZS1tYXktcGFkZGxlLTIwMjY"

Event = dict[str, Any]


def event_of(
    field: str, value: Any, *, at: datetime | None = AT, received_at: datetime = RECEIVED, **more: Any
) -> Event:
    """One item as recording hands it over, but for its number and workspace."""
    named = value if isinstance(value, dict) else {}
    words = (named.get(key) for key in ("event", "decision", "type"))
    metadata = named.get("metadata")
    return {
        "channel_id": None,
        "waba_id": WABA_A,
        "phone_number_id": metadata.get("phone_number_id") if isinstance(metadata, dict) else None,
        "field": field,
        "event": next((str(word).lower() for word in words if word), ""),
        "sent_at": at.isoformat() if at else None,
        "received_at": received_at.isoformat(),
        "payload": value,
    } | more


def fixture(name: str, **more: Any) -> Event:
    """The one item of a captured body."""
    body = json.loads((FIXTURES / "webhooks" / f"{name}.json").read_text())
    (entry,) = body["entry"]
    (change,) = entry["changes"]
    value = change["value"]
    seconds = entry.get("time") or value.get("timestamp") or value.get("groups", [{}])[0].get("timestamp")
    waba_id = value.get("waba_info", {}).get("waba_id") or entry["id"]
    at = datetime.fromtimestamp(int(seconds), UTC) if seconds else None
    return event_of(change.get("field", ""), value, **({"at": at, "waba_id": waba_id} | more))


def template(event: str, *, at: datetime = AT, **more: Any) -> Event:
    value = {
        "event": event,
        "message_template_id": 1180337429165502,
        "message_template_name": "trip_reminder_v3",
        "message_template_language": "en_US",
        "message_template_category": "UTILITY",
        "reason": None,
    }
    return event_of("message_template_status_update", value | more, at=at)


def ban(state: str, *, at: datetime = AT) -> Event:
    return event_of("account_update", {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": state}}, at=at)


def restriction(*kinds: str, at: datetime = AT, until: datetime | None = None) -> Event:
    expiration = {"expiration": int(until.timestamp())} if until else {}
    info = [{"restriction_type": f"RESTRICTED_{kind}"} | expiration for kind in kinds]
    return event_of("account_update", {"event": "ACCOUNT_RESTRICTION", "restriction_info": info}, at=at)


def about_number(field: str, event: str, *, at: datetime = AT, **more: Any) -> Event:
    return event_of(field, {"display_phone_number": "12025550143", "event": event} | more, at=at)


def group(kind: str, *, at: datetime = AT, **more: Any) -> Event:
    value = {
        "metadata": {"phone_number_id": PHONE_A},
        "groups": [{"timestamp": str(int(at.timestamp())), "group_id": GROUP, "type": kind} | more],
    }
    return event_of("group_lifecycle_update", value, at=at)


class Recorder:
    """Records for workspace A as the service does, on a connection of its own."""

    def __init__(self, connection: psycopg.AsyncConnection, workspace_id: UUID) -> None:
        self._connection = connection
        self._workspace_id = workspace_id

    async def __call__(self, *events: Event) -> list[int]:
        numbered = [{"n": n, "workspace_id": str(self._workspace_id)} | event for n, event in enumerate(events)]
        cursor = await self._connection.execute("select app.record_account_events(%s)", (json.dumps(numbered),))
        row = await cursor.fetchone()
        assert row
        new: list[int] = row[0]
        return new

    @asynccontextmanager
    async def undone(self) -> AsyncIterator[None]:
        """A transaction that leaves nothing."""
        async with self._connection.transaction(force_rollback=True):
            yield

    @asynccontextmanager
    async def undecided(self) -> AsyncIterator[None]:
        """A transaction that is committed only at the end."""
        async with self._connection.transaction():
            yield

    async def rows(self, query: LiteralString, *values: object) -> list[Any]:
        return [row[0] for row in await (await self._connection.execute(query, values)).fetchall()]

    async def channel(self) -> dict[str, Any]:
        """What facts say of the first workspace's number; all columns that follow from them."""
        (row,) = await self.rows(
            "select to_jsonb(c) from public.whatsapp_channels c where phone_number_id = %s", PHONE_A
        )
        return {key: value for key, value in row.items() if key in CHANNEL_AS_MADE}

    async def templates(self) -> list[dict[str, Any]]:
        return await self.rows(
            # What people write of a template no event touches: test_templates.py.
            "select to_jsonb(t) - '{id,created_at,workspace_id,parameter_format,ttl_s,draft,draft_error,busy,"
            "busy_until,version,edits,next_edit_at,name_free_at,created_by}'::text[] from public.whatsapp_templates t"
            " order by template_name, language"
        )

    async def groups(self) -> list[dict[str, Any]]:
        return await self.rows(
            "select to_jsonb(g) - '{created_at,workspace_id,channel_id}'::text[] from public.whatsapp_groups g"
            " order by group_id"
        )

    async def listed(self) -> list[dict[str, Any]]:
        return await self.rows(
            "select to_jsonb(e) - '{id,created_at,workspace_id,template_id}'::text[]"
            "   || jsonb_build_object('template', t.template_name)"
            " from public.account_events e"
            " left join public.whatsapp_templates t on (t.workspace_id, t.id) = (e.workspace_id, e.template_id)"
            " order by e.digest"
        )

    async def everything(self) -> list[Any]:
        """All rows, but for our ids and when we wrote them."""
        channels = await self.rows("select to_jsonb(c) from public.whatsapp_channels c order by id")
        return [channels, await self.templates(), await self.groups(), await self.listed()]

    async def of_set(self, events: Sequence[Event]) -> list[Any]:
        """The rows a set of events makes, recorded at once and undone."""
        async with self.undone():
            await self(*events)
            return await self.everything()


CHANNEL_AS_MADE: dict[str, Any] = {
    "quality": None,
    "tier_mps": 80,
    "messaging_limit": None,
    "verified_name": None,
    "name_status": None,
    "username": None,
    "hold_reason": None,
    "hold_until": None,
    "facts": {},
}


@asynccontextmanager
async def recorder_on(database: Database, world: World) -> AsyncIterator[Recorder]:
    async with await psycopg.AsyncConnection.connect(database.url("test_service"), autocommit=True) as connection:
        await connection.execute("set role service_role")
        yield Recorder(connection, world.workspace_a)
