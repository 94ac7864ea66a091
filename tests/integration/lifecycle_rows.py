"""Contacts, conversations and messages put straight into the tables, for tests of what people do to them."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from shared.domain.ids import new_id
from tests.world import World


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation and what it hangs on."""

    workspace_id: UUID
    channel_id: UUID
    contact_id: UUID
    id: UUID


async def add_member(admin: psycopg.AsyncConnection, workspace_id: UUID, role: str) -> UUID:
    """Make somebody a member; return who."""
    user_id = new_id()
    await admin.execute(
        "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, %s)",
        (workspace_id, user_id, role),
    )
    return user_id


async def add_talk(
    admin: psycopg.AsyncConnection,
    world: World,
    *,
    status: str = "open",
    messages: int = 0,
    contact_id: UUID | None = None,
    channel_id: UUID | None = None,
) -> Talk:
    """Insert a conversation of workspace A in a state, with its contact unless that is given."""
    talk = Talk(world.workspace_a, channel_id or world.channel_a, contact_id or new_id(), new_id())
    if contact_id is None:
        await admin.execute(
            "insert into public.contacts (workspace_id, id, name, first_seen_at, blocked_at)"
            " values (%s, %s, 'Ana', now(), case when %s = 'blocked' then now() end)",
            (talk.workspace_id, talk.contact_id, status),
        )
        if status == "blocked":
            await admin.execute(
                "insert into app.contact_blocks (workspace_id, contact_id, blocked_at) values (%s, %s, now())",
                (talk.workspace_id, talk.contact_id),
            )
    await admin.execute(
        "insert into public.whatsapp_conversations"
        " (workspace_id, id, channel_id, contact_id, last_message_at, status, archived_at, blocked_at, deleted_at)"
        " select %(w)s, %(id)s, %(ch)s, %(co)s, now(), %(s)s, case when %(s)s = 'archived' then now() end,"
        " case when %(s)s = 'blocked' then now() end, case when %(s)s = 'deleted' then now() end",
        {"w": talk.workspace_id, "id": talk.id, "ch": talk.channel_id, "co": talk.contact_id, "s": status},
    )
    for n in range(messages):
        await arrive(admin, talk, f"Message {n + 1}")
    return talk


async def arrive(
    connection: psycopg.AsyncConnection,
    talk: Talk,
    content: str = "Hello?",
    *,
    direction: str = "inbound",
    origin: str = "live",
    mark: str | None = None,
) -> str:
    """Add a message as a recorder does, under the conversation's lock; return the status it met.

    `mark`: a column of times to set, `revoked_at` or `suppressed_at`.
    """
    message_id = new_id()
    async with connection.transaction():
        cursor = await connection.execute(
            "select status, next_seq from public.whatsapp_conversations"
            " where workspace_id = %s and id = %s for no key update",
            (talk.workspace_id, talk.id),
        )
        ((status, seq),) = await cursor.fetchall()
        await connection.execute(
            "insert into public.whatsapp_messages (workspace_id, id, conversation_id, channel_id, contact_id,"
            " direction, message_type, content, payload, wamid, seq, sent_at, ai_state, origin, revoked_at,"
            " suppressed_at)"
            " values (%(w)s, %(id)s, %(v)s, %(ch)s, %(co)s, %(d)s, 'text', %(c)s, %(p)s, %(wamid)s, %(seq)s, now(),"
            " 'pending', %(o)s, case %(m)s when 'revoked_at' then now() end,"
            " case %(m)s when 'suppressed_at' then now() end)",
            {
                "w": talk.workspace_id,
                "id": message_id,
                "v": talk.id,
                "ch": talk.channel_id,
                "co": talk.contact_id,
                "d": direction,
                "c": content,
                "p": Jsonb({"text": {"body": content}}),
                "wamid": f"wamid.{message_id}",
                "seq": seq,
                "o": origin,
                "m": mark,
            },
        )
        counts = direction == "inbound" and origin == "live" and mark is None
        await connection.execute(
            "update public.whatsapp_conversations set next_seq = next_seq + 1, unread_count = unread_count + %s"
            " where workspace_id = %s and id = %s",
            (int(counts), talk.workspace_id, talk.id),
        )
    return str(status)
