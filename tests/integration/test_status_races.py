"""A message and what is told of it, recorded at the same moment by two recorders, never miss each other."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any, LiteralString

import psycopg

from shared.store.postgres import postgres_transport
from shared.store.webhooks import Webhooks
from tests import meta_events as meta
from tests.conftest import Database
from tests.meta_events import Item, Who
from tests.world import World, received

PAIRS = int(os.environ.get("PARLEY_PAIRS", "2000"))
FEWER = PAIRS // 4
BATCHES = (1, 2, 3, 5, 8, 13, 40)  # pairs recorded at once: these sizes take turns
MINUTE_0 = datetime(2026, 11, 20, 12, tzinfo=UTC)


def at(minute: int) -> datetime:
    return MINUTE_0 + timedelta(minutes=minute)


def person(n: int) -> Who:
    return Who(f"US.{n % 40}", f"1202555{n % 40:04}")


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": {"body": words}}


async def race(database: Database, messages: Sequence[Item], told: Sequence[Sequence[Item]]) -> None:
    """Record each batch of messages beside the batch of what is told of them, an item a body; nobody may deadlock."""
    url = database.url("test_service")
    async with postgres_transport(url, service_role="service_role", max_connections=1) as one:
        async with postgres_transport(url, service_role="service_role", max_connections=1) as other:
            for pairs in _in_batches(list(zip(messages, told, strict=True))):
                # The second lists its items backwards: whatever both touch, they come to it from opposite ends.
                ours = [received(meta.body(message)) for message, _ in pairs]
                theirs = [received(meta.body(item)) for _, items in reversed(pairs) for item in items]
                await asyncio.gather(Webhooks(one).record(ours, settle_s=0), Webhooks(other).record(theirs, settle_s=0))


def _in_batches(pairs: Sequence[Any]) -> Iterator[list[Any]]:
    rest, sizes = iter(pairs), cycle(BATCHES)
    while batch := list(islice(rest, next(sizes))):
        yield batch


async def outcomes(admin: psycopg.AsyncConnection, query: LiteralString) -> Counter[tuple[Any, ...]]:
    """Count the messages by what became of them; times as minutes."""
    cursor = await admin.execute(query)
    rows = await cursor.fetchall()
    return Counter(
        tuple((v - MINUTE_0) / timedelta(minutes=1) if isinstance(v, datetime) else v for v in row) for row in rows
    )


async def deadlocks(admin: psycopg.AsyncConnection) -> int:
    """Count this database's deadlocks. A session has reported its own once it is gone."""
    async with asyncio.timeout(5):
        while await outcomes(
            admin, "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        ):
            await asyncio.sleep(0.01)
    counts = await outcomes(admin, "select deadlocks from pg_stat_database where datname = current_database()")
    return int(next(iter(counts))[0])


async def test_an_echo_beside_its_statuses_ends_as_read(
    world: World, database: Database, admin: psycopg.AsyncConnection
) -> None:
    echoes = [meta.echo(f"wamid.{n}", person(n), at(1), text("Yes")) for n in range(PAIRS)]
    told = [
        [meta.status(f"wamid.{n}", person(n), at(3), "read"), meta.status(f"wamid.{n}", person(n), at(2), "delivered")]
        for n in range(PAIRS)
    ]

    await race(database, echoes, told)

    query: LiteralString = """
        select m.status, s.rank, s.delivered_at, s.read_at
        from public.whatsapp_messages m
        join app.message_states s using (workspace_id, channel_id, wamid)
    """
    assert await outcomes(admin, query) == {("read", 4, 2, 3): PAIRS}
    assert await deadlocks(admin) == 0


async def test_a_message_beside_its_revoke_ends_as_revoked(
    world: World, database: Database, admin: psycopg.AsyncConnection
) -> None:
    texts = [meta.text(f"wamid.{n}", person(n), at(1), "secret") for n in range(FEWER)]
    told = [[meta.revoke(f"wamid.r{n}", person(n), at(2), f"wamid.{n}")] for n in range(FEWER)]

    await race(database, texts, told)

    query: LiteralString = "select revoked_at, content, payload::text ~ 'secret' from public.whatsapp_messages"
    assert await outcomes(admin, query) == {(2, None, False): FEWER}
    assert await outcomes(admin, "select unread_count from public.whatsapp_conversations") == {(0,): 40}
    assert await deadlocks(admin) == 0


async def test_a_message_beside_its_edits_ends_as_last_edited(
    world: World, database: Database, admin: psycopg.AsyncConnection
) -> None:
    texts = [meta.text(f"wamid.{n}", person(n), at(1), "first") for n in range(FEWER)]
    told = [
        [
            meta.edit(f"wamid.f{n}", person(n), at(3), f"wamid.{n}", text("third")),
            meta.edit(f"wamid.e{n}", person(n), at(2), f"wamid.{n}", text("second")),
        ]
        for n in range(FEWER)
    ]

    await race(database, texts, told)

    query: LiteralString = "select content, edited_at, content_version, ai_state from public.whatsapp_messages"
    assert await outcomes(admin, query) == {("third", 3, 3, "pending"): FEWER}
    assert await deadlocks(admin) == 0
