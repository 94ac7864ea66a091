"""`python -m services.ingest …` as an operator runs it: a process of its own, its answer, and the rows after it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.conftest import Database

# Texts, names and numbers of the bodies these tests make: no output may hold one.
PERSONAL = ("Ana Souza", "swordfish", "12025550117", "US.1001")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object on standard output."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    def says_nothing_personal(self) -> bool:
        return not [word for word in PERSONAL if word in self.out or word in self.err]


def environment(database: Database, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATABASE_URL": database.url("test_service")} | more


async def start(database: Database, *arguments: str, **more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.ingest",
        *arguments,
        env=environment(database, **more),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def command(database: Database, *arguments: str, **more: str) -> Ran:
    """Run a command to its end."""
    process = await start(database, *arguments, **more)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def rows(admin: psycopg.AsyncConnection, query: str) -> list[tuple[object, ...]]:
    cursor = await admin.execute(query)  # type: ignore[arg-type]  # literals of the tests
    return await cursor.fetchall()


async def all_rows(admin: psycopg.AsyncConnection) -> dict[str, list[str]]:
    """Every row of every table of ours, as text."""
    tables = await rows(
        admin,
        """select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where n.nspname in ('public', 'app') and c.relkind in ('r', 'p') and not c.relispartition order by 1, 2""",
    )
    found = {}
    for schema, table in tables:
        query = sql.SQL("select t::text from {} t order by 1").format(sql.Identifier(str(schema), str(table)))
        found[f"{schema}.{table}"] = [str(row[0]) for row in await (await admin.execute(query)).fetchall()]
    return found


async def account(admin: psycopg.AsyncConnection) -> tuple[object, ...]:
    """Items, stored, duplicate, unrouted, suppressed, quarantined of all bodies."""
    (found,) = await rows(
        admin,
        "select sum(items)::int, sum(stored)::int, sum(duplicate)::int, sum(unrouted)::int, sum(suppressed)::int,"
        " sum(quarantined)::int from app.webhook_bodies",
    )
    return found
