"""What the recorders' database sessions wait for, by looking now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import psycopg

from deploy.local.postgres import Postgres

_LOOK_EVERY_S = 0.1  # a look takes half a millisecond: half a percent of a core
_QUERY = """
select case
  when wait_event is null then 'working'
  else wait_event_type || ':' || wait_event
end
from pg_catalog.pg_stat_activity
where usename = 'bench_recorder' and backend_type = 'client backend' and state <> 'idle'
"""


@contextlib.asynccontextmanager
async def watched(postgres: Postgres) -> AsyncIterator[Counter[str]]:
    """Count, while the block runs, what busy sessions of recorders were found doing."""
    found: Counter[str] = Counter()
    async with await psycopg.AsyncConnection.connect(postgres.url(), autocommit=True) as connection:
        watching = asyncio.create_task(_watch(connection, found))
        try:
            yield found
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching


async def _watch(connection: psycopg.AsyncConnection, found: Counter[str]) -> None:
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        found.update(row[0] for row in await (await connection.execute(_QUERY)).fetchall())


def said(found: Counter[str]) -> str:
    """Return the commonest, as shares of all looks: "working 80%, IO:WalSync 12%"."""
    return ", ".join(f"{what} {times / found.total():.0%}" for what, times in found.most_common(4))
