"""What tests of erasure share: everything a database says, and a recorder that works erasures off."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import psycopg
from psycopg import sql

from services.ingest.erase_contacts import erase_contacts
from shared.store.postgres import PostgresTransport
from shared.store.retention import Retention


async def everything(admin: psycopg.AsyncConnection) -> dict[str, list[str]]:
    """Every row of every table as text, raw bodies as the text they are."""
    cursor = await admin.execute(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('public', 'app') and c.relkind in ('r', 'p') and not c.relispartition"
    )
    found = {}
    for schema, name in await cursor.fetchall():
        table = sql.Identifier(schema, name)
        more = sql.SQL(" || ' ' || encode(t.raw, 'escape')") if name == "webhook_bodies" else sql.SQL("")
        rows = await admin.execute(sql.SQL("select to_jsonb(t)::text{} from {} t").format(more, table))
        found[f"{schema}.{name}"] = [text for (text,) in await rows.fetchall()]
    return found


def naming(rows: dict[str, list[str]], *needles: str) -> dict[str, list[str]]:
    """The rows that hold one of these."""
    hits = {name: [row for row in texts if any(n in row for n in needles)] for name, texts in rows.items()}
    return {name: texts for name, texts in hits.items() if texts}


async def work_off(store: PostgresTransport) -> None:
    """Work on erasures until none is due, as a recorder does."""
    while await erase_contacts(retention=Retention(store), lease_s=20, poll_every_s=5) == 0:
        pass


async def finish(admin: psycopg.AsyncConnection, store: PostgresTransport) -> None:
    """Let eight days pass, and work off what is left."""
    await work_off(store)
    await admin.execute("update app.erasures set watch_until = now() - interval '1 s', due_at = now()")
    await work_off(store)


async def ask(admin: psycopg.AsyncConnection, workspace_id: UUID, contact_id: UUID, by: UUID) -> None:
    """Put a request where the API's function puts it."""
    await admin.execute(
        "insert into app.erasures (workspace_id, id, contact_id, requested_by) values (%s, gen_random_uuid(), %s, %s)",
        (workspace_id, contact_id, by),
    )


def now() -> datetime:
    """The time, in whole seconds as Meta tells it."""
    return datetime.now(UTC).replace(microsecond=0)
