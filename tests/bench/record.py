"""Messages recorded per second; the limit is inserting the same rows, already parsed, into the bare table."""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from deploy.local.ports import any_free_port
from deploy.local.postgres import embedded_postgres
from shared.store.migrate import migrate
from shared.store.postgres import postgres_transport
from shared.store.webhooks import Webhooks
from tests.bench.figure import Figure
from tests.world import build_world, received, text_message, webhook

_MESSAGES = 6_000
_BATCH = 256
_PEOPLE = 500


async def measure() -> list[Figure]:
    """Record one message per body, in batches as the recorder does; then copy the rows into a table like ours."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded_postgres(Path(folder), port=any_free_port()) as postgres:
            await asyncio.to_thread(migrate, postgres.url())
            async with await psycopg.AsyncConnection.connect(postgres.url(), autocommit=True) as admin:
                await build_world(admin)
                await admin.execute("create role bench login noinherit password 'bench'")
                await admin.execute("grant anon, service_role to bench")
                bodies = [_body(number) for number in range(_MESSAGES)]
                async with postgres_transport(
                    postgres.url("bench", "bench"), service_role="service_role", max_connections=2
                ) as store:
                    webhooks = Webhooks(store)
                    # Known customers and gathered statistics: the state a database is in after its first minute.
                    for start in range(_MESSAGES, _MESSAGES + 2 * _PEOPLE, _BATCH):
                        await webhooks.record([received(_body(n)) for n in range(start, start + _BATCH)], settle_s=1)
                    await admin.execute("analyze")
                    started = time.perf_counter()
                    for start in range(0, _MESSAGES, _BATCH):
                        await webhooks.record([received(raw) for raw in bodies[start : start + _BATCH]], settle_s=1)
                    ours_s = time.perf_counter() - started
                bare_s = await _insert_bare(admin)
    return [
        Figure(
            "record.messages_per_s",
            _MESSAGES / ours_s,
            "1/s",
            _MESSAGES / bare_s,
            "insert … select of the same message rows",
        )
    ]


def _body(number: int) -> bytes:
    person = number % _PEOPLE
    return webhook(
        text_message(
            "Where is my order? I have been waiting since Monday.",
            wamid=f"wamid.{number}",
            user_id=f"US.{person}",
            wa_id=f"1202555{person:04}",
            sent_at=datetime.now(UTC),
        )
    )


async def _insert_bare(admin: psycopg.AsyncConnection) -> float:
    """Insert the recorded rows, batch by batch, into a table with the same columns and indexes but nothing else."""
    await admin.execute("create table public.bare (like public.whatsapp_messages including indexes including defaults)")
    started = time.perf_counter()
    for start in range(0, _MESSAGES, _BATCH):
        await admin.execute(
            "insert into public.bare select * from public.whatsapp_messages order by id limit %s offset %s",
            (_BATCH, start),
        )
    return time.perf_counter() - started
