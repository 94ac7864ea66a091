"""Time per event in a database that holds a million messages over time per event in an empty one.

Same batches of the same customers in both (10,000, every fifth of the 50,000), in turn, on a server each, so that
whatever else the machine does hits both and neither uses the other's cache.
"""

from __future__ import annotations

import psycopg

from shared.store.webhooks import Webhooks
from tests.bench import bodies
from tests.bench.figure import Figure
from tests.bench.intake_growth import BATCH, batch, must_hold, record_s
from tests.bench.million import CONTACTS, fill
from tests.bench.progress import say
from tests.bench.size import sized
from tests.bench.stack import fresh_servers, get_acquainted, recorder_store

_MESSAGES = 1_000_000
_EVENTS = 30_000
_MOST_TIMES = 1.5
_STRIDE = CONTACTS // bodies.PEOPLE


async def measure() -> list[Figure]:
    """Fill one, then record in both."""
    batches = sized(_EVENTS / BATCH, least=8)
    async with fresh_servers("empty") as empty, fresh_servers("full") as full:
        filled = await fill(full, messages=sized(_MESSAGES, least=CONTACTS))
        for servers in (empty, full):
            await get_acquainted(servers.postgres, servers.admin, stride=_STRIDE)
        await _must_know_them(full.admin)
        async with recorder_store(empty.postgres) as store_empty, recorder_store(full.postgres) as store_full:
            empty_s = full_s = 0.0
            for number in range(batches):
                say(f"batch {number + 1:,} of {batches:,}")
                empty_s += await record_s(Webhooks(store_empty), batch(number, stride=_STRIDE))
                full_s += await record_s(Webhooks(store_full), batch(number, stride=_STRIDE))
        for servers in (empty, full):
            await must_hold(servers.admin, events=batches * BATCH)
    events = batches * BATCH
    there = ", ".join(f"{rows:,} {table}" for table, rows in filled.items() if rows)
    return [
        Figure("intake.at_a_million", full_s / empty_s, "times", at_most=_MOST_TIMES, note=f"there before: {there}"),
        Figure(
            "intake.at_a_million_us", full_s / events * 1e6, "µs/event", empty_s / events * 1e6, "an empty database"
        ),
    ]


async def _must_know_them(admin: psycopg.AsyncConnection) -> None:
    """See that the past is such that the recorder recognises its customers. Raises: RuntimeError."""
    cursor = await admin.execute("select count(*) from public.contacts")
    row = await cursor.fetchone()
    if row is None or row[0] != CONTACTS:
        raise RuntimeError(f"the recorder took customers of the past for new ones: {row}")
