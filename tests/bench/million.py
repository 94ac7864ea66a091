"""A database with a past: a million messages, made by copying what the recorder itself wrote for one.

One text and three reports on another message are recorded; then SQL copies each row they left, in whatever table, with
other ids. So the past has the shape that the recorder of the day gives it, and nothing here knows its columns.
Messages are spread evenly over the contacts, ids are in order of time, and Claude has looked at all of them.
Left out: raw bodies, which lie in partitions by day, and the payloads of `whatsapp_webhooks`, whose rows are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from shared.store.webhooks import Webhooks
from tests.bench import bodies
from tests.bench.progress import say
from tests.bench.stack import Servers, recorder_store
from tests.world import received

CONTACTS = 50_000
_COPIES = CONTACTS - 1  # of the one who is copied: person 0
_MODEL = 10**12  # the number of the text and of the message reported on; a multiple of PEOPLE, hence person 0
_NOT_COPIED = (
    "workspaces",
    "workspace_members",
    "whatsapp_channels",
    "webhook_bodies%",
    "conversation_work",
    "%migrations",
)
# SQL of what differs from the model's rows, by column. `g` is the number of the copy, from 1.
_CHANGED = {
    "seq": f"1 + g / {_COPIES}",
    "next_seq": "1000000",
    "ai_state": "'done'",
    "payload": "'{}'",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Model:
    """Ids in the rows that are copied, as SQL lists: of the world, which stay, and of the contact and conversation.

    `since_ms`: Unix time at which the past begins; ids of copies count on from there.
    """

    world: str
    person: str
    since_ms: int


async def fill(servers: Servers, *, messages: int) -> dict[str, int]:
    """Make the past; return rows by table. Raises: RuntimeError when it did not come out as asked."""
    admin = servers.admin
    async with recorder_store(servers.postgres) as store:
        model_bodies = [received(bodies.single(4 * _MODEL + place)) for place in range(4)]
        await Webhooks(store).record(model_bodies, settle_s=1)
    await admin.execute("delete from app.conversation_work")
    model = await _model(admin)
    await admin.execute("set session_replication_role = replica")  # foreign keys hold by construction
    filled = {}
    for table in await _tables(admin):
        say(f"{messages:,} messages of {CONTACTS:,} contacts: {table}")
        filled[table] = await _copy(admin, table, model, messages)
    await admin.execute("set session_replication_role = origin")
    if filled["public.contacts"] != _COPIES or filled["public.whatsapp_messages"] != messages:
        raise RuntimeError(f"the past is not what it should be: {filled}")
    say("vacuum, analyze, checkpoint")
    await admin.execute("vacuum (analyze)")
    await admin.execute("checkpoint")
    return filled


async def _model(admin: psycopg.AsyncConnection) -> _Model:
    world = "select id from public.workspaces union select id from public.whatsapp_channels"
    person = "select id from public.contacts union select id from public.whatsapp_conversations"
    month_ago = datetime.now(UTC) - timedelta(days=30)
    return _Model(await _listed(admin, world), await _listed(admin, person), int(month_ago.timestamp() * 1000))


async def _listed(admin: psycopg.AsyncConnection, query: str) -> str:
    return ", ".join(f"'{row[0]}'" for row in await _rows(admin, query))


async def _tables(admin: psycopg.AsyncConnection) -> list[str]:
    """Return the tables in which the recorder left rows, those that others point to first."""
    query = (
        "select table_schema || '.' || table_name from information_schema.tables"
        " where table_schema in ('public', 'app') and table_type = 'BASE TABLE' and table_name not like all (%s)"
    )
    tables = [row[0] for row in await _rows(admin, query, [list(_NOT_COPIED)])]
    return [t for t in sorted(tables) if await _rows(admin, f"select 1 from {t} limit 1")]  # noqa: S608  names of ours


async def _copy(admin: psycopg.AsyncConnection, table: str, model: _Model, messages: int) -> int:
    """Copy each row of a table: once per message where it is about one, else once per contact."""
    query = (
        "select column_name, data_type from information_schema.columns where table_schema || '.' || table_name = %s"
        " and is_identity = 'NO' and is_generated = 'NEVER'"
    )
    columns = dict(await _rows(admin, query, [table]))
    is_of_a_message = "wamid" in columns or "body_id" in columns
    times = messages if is_of_a_message else _COPIES
    values = ", ".join(_CHANGED.get(name) or _value(name, kind, model) for name, kind in columns.items())
    # One webhook row per message will do: their payload is empty, and an index does not care.
    one = " limit 1" if "body_id" in columns else ""
    copied = await admin.execute(
        f"insert into {table} ({', '.join(columns)}) select {values} from (select * from {table}{one}) model"  # noqa: S608
        f" cross join pg_catalog.generate_series(1, {times}) g on conflict do nothing"
    )
    return copied.rowcount


def _value(column: str, kind: str, model: _Model) -> str:
    """Return SQL for a column of a copy: ids and names of its own, all else as in the model."""
    person = f"(1 + (g - 1) % {_COPIES})"
    if kind == "uuid":
        theirs, own = _id(person, model.since_ms), _id("g", model.since_ms)
        return (
            f"case when {column} in ({model.world}) then {column} when {column} in ({model.person}) then {theirs}"
            f" when pg_catalog.substr({column}::text, 15, 1) = '4' then pg_catalog.gen_random_uuid() else {own} end"
        )
    if kind == "text":
        return (
            f"case when {column} = 'US.0' then 'US.' || {person}"
            f" when {column} = '12020000000' then '1202' || pg_catalog.lpad({person}::text, 7, '0')"
            f" when {column} like 'wamid.%' then pg_catalog.left({column}, 40) || pg_catalog.lpad(g::text, 12, '0')"
            f" else {column} end"
        )
    return column


def _id(number: str, since_ms: int) -> str:
    """Return SQL for the id of that number: a UUIDv7, so that ids are in order of time, as ours are."""
    time = f"pg_catalog.lpad(pg_catalog.to_hex({since_ms} + {number}), 12, '0')"
    return f"({time} || '70008000' || pg_catalog.lpad(pg_catalog.to_hex({number}), 12, '0'))::uuid"


async def _rows(
    admin: psycopg.AsyncConnection, query: str, values: list[object] | None = None
) -> list[tuple[Any, ...]]:
    return await (await admin.execute(query, values)).fetchall()
