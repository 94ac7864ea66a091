"""Recording: idempotent, whatever the order, whoever records beside us; every item accounted for."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from services.ingest.record_batch import record_batch
from shared.domain.errors import BadData
from shared.queue.connection import connect_blocking
from shared.queue.jobs import AnalyseDue, Jobs, rq_queue
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Recorded, Webhooks
from tests.world import World, received, text_message, webhook


async def rows(admin: psycopg.AsyncConnection, query: str) -> list[tuple[object, ...]]:
    cursor = await admin.execute(query)
    return await cursor.fetchall()


async def test_every_item_of_every_fixture_is_accounted_for(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, fixtures_dir: Path
) -> None:
    manifest = json.loads((fixtures_dir / "webhooks" / "MANIFEST.json").read_text())
    webhooks = Webhooks(service_store)

    total = Recorded()
    for fixture in manifest["fixtures"]:
        body = received((fixtures_dir / "webhooks" / fixture["file"]).read_bytes())
        recorded = await webhooks.record([body], settle_s=0)
        items = recorded.stored + recorded.duplicate + recorded.unrouted + recorded.suppressed + recorded.quarantined
        assert items == fixture["items"], fixture["file"]
        total += recorded

    assert len(manifest["fixtures"]) > 200
    assert await rows(admin, "select count(*), sum(items), sum(stored), sum(quarantined) from app.webhook_bodies") == [
        (len(manifest["fixtures"]), sum(f["items"] for f in manifest["fixtures"]), total.stored, total.quarantined)
    ]
    assert await rows(admin, "select count(*) from app.quarantine") == [(total.quarantined,)]
    assert await rows(admin, "select count(*) from app.webhook_bodies_default") == [(0,)]


async def test_the_same_message_ten_times_at_once_is_one_row(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    raw = webhook(text_message("Hello?", wamid="wamid.same"))
    webhooks = Webhooks(service_store)

    outcomes = await asyncio.gather(*(webhooks.record([received(raw)], settle_s=0) for _ in range(10)))

    assert sorted((r.stored, r.duplicate) for r in outcomes) == [(0, 1)] * 9 + [(1, 0)]
    assert await rows(admin, "select wamid, seq, content from public.whatsapp_messages") == [
        ("wamid.same", 1, "Hello?")
    ]
    assert await rows(admin, "select unread_count, next_seq from public.whatsapp_conversations") == [(1, 2)]
    assert await rows(admin, "select count(*) from public.contacts") == [(1,)]
    assert await rows(admin, "select count(*) from app.conversation_work") == [(1,)]


async def test_the_same_body_recorded_again_keeps_its_first_account(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    body = received(webhook(text_message("Hello?", wamid="wamid.1")))
    webhooks = Webhooks(service_store)

    first = await webhooks.record([body], settle_s=0)
    again = await webhooks.record([body], settle_s=0)

    assert (first.stored, again.stored, again.duplicate) == (1, 0, 1)
    assert await rows(admin, "select stored, duplicate from app.webhook_bodies") == [(1, 0)]
    assert await rows(admin, "select count(*) from public.whatsapp_webhooks") == [(1,)]


async def test_concurrent_batches_in_opposite_orders_neither_deadlock_nor_differ(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    people = [(f"US.{1000 + n}", f"1202555{n:04}") for n in range(12)]
    bodies = [
        webhook(text_message(f"{n}", wamid=f"wamid.{n}", user_id=people[n % 12][0], wa_id=people[n % 12][1]))
        for n in range(60)
    ]
    webhooks = Webhooks(service_store)

    async def record(order: list[bytes]) -> Recorded:
        total = Recorded()
        for start in range(0, len(order), 7):
            total += await webhooks.record([received(raw) for raw in order[start : start + 7]], settle_s=0)
        return total

    outcomes = await asyncio.gather(record(bodies), record(bodies[::-1]), record(bodies[30:] + bodies[:30]))

    assert sum(r.stored for r in outcomes) == 60
    assert sum(r.duplicate for r in outcomes) == 120
    assert await rows(admin, "select count(*), count(distinct wamid) from public.whatsapp_messages") == [(60, 60)]
    assert await rows(admin, "select distinct unread_count, next_seq from public.whatsapp_conversations") == [(5, 6)]
    assert await rows(
        admin, "select count(*) from (select conversation_id, seq from public.whatsapp_messages group by 1, 2) s"
    ) == [(60,)]


async def test_a_message_for_an_unknown_number_goes_to_no_workspace(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    raw = webhook(text_message("Hello?", wamid="wamid.1"), phone_number_id="999999999999999", waba_id="1")

    recorded = await Webhooks(service_store).record([received(raw)], settle_s=0)

    assert recorded == Recorded(unrouted=1)
    assert await rows(admin, "select count(*) from public.whatsapp_messages") == [(0,)]
    assert await rows(admin, "select workspace_id, processed from public.whatsapp_webhooks") == [(None, False)]


async def test_a_newer_profile_name_survives_an_older_message(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    now = datetime.now(UTC)
    webhooks = Webhooks(service_store)

    newer = webhook(text_message("b", wamid="wamid.2", name="Ana Lima", sent_at=now))
    older = webhook(text_message("a", wamid="wamid.1", name="Ana Souza", sent_at=now - timedelta(hours=1)))
    for raw in (newer, older):
        await webhooks.record([received(raw)], settle_s=0)

    assert await rows(admin, "select name from public.contacts") == [("Ana Lima",)]
    assert await rows(
        admin, "select last_message_at = window_expires_at - interval '24 h' from public.whatsapp_conversations"
    ) == [(True,)]


async def test_a_reused_phone_number_is_a_new_person(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    now = datetime.now(UTC)
    webhooks = Webhooks(service_store)

    for n, user_id in enumerate(("US.1", "US.2")):
        raw = webhook(text_message("Hi", wamid=f"wamid.{n}", user_id=user_id, sent_at=now + timedelta(minutes=n)))
        await webhooks.record([received(raw)], settle_s=0)

    assert await rows(admin, "select count(*) from public.contacts") == [(2,)]
    assert await rows(admin, "select user_id from public.contact_identities where kind = 'wa_id' order by seen_at") == [
        ("US.1",),
        ("US.2",),
    ]


async def test_a_phone_only_contact_is_joined_by_its_first_user_id(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    webhooks = Webhooks(service_store)

    for n, user_id in enumerate((None, "US.1", None)):
        await webhooks.record([received(webhook(text_message("Hi", wamid=f"wamid.{n}", user_id=user_id)))], settle_s=0)

    assert await rows(admin, "select count(*) from public.contacts") == [(1,)]


async def test_a_sender_without_a_phone_number_is_a_contact_like_any_other(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    webhooks = Webhooks(service_store)

    for n in range(2):
        await webhooks.record([received(webhook(text_message("Hi", wamid=f"wamid.{n}", wa_id=None)))], settle_s=0)

    assert await rows(admin, "select phone_number, unread_count from public.whatsapp_conversations") == [(None, 2)]


async def test_one_body_the_database_refuses_costs_its_neighbours_nothing(
    world: World,
    service_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
    empty_redis: str,
) -> None:
    # A wamid only this trigger objects to stands for any value the parser lets through and the database does not.
    await admin.execute("alter table public.whatsapp_messages add constraint poison check (wamid <> 'wamid.3')")
    bodies = [received(webhook(text_message(f"{n}", wamid=f"wamid.{n}"))).body for n in range(8)]
    jobs = Jobs(connect_blocking(empty_redis, timeout_s=1))

    recorded = await record_batch(bodies, webhooks=Webhooks(service_store), jobs=jobs, settle_s=0)

    assert (recorded.stored, recorded.quarantined) == (7, 1)
    assert await rows(admin, "select reason, state from app.quarantine") == [("sqlstate_23514", "open")]
    assert await rows(admin, "select raw from app.webhook_bodies where quarantined = 1") == [(bodies[3].raw,)]
    assert rq_queue(AnalyseDue.queue, connect_blocking(empty_redis, timeout_s=1)).count == 1


async def test_a_refused_value_is_named_without_being_quoted(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await admin.execute("alter table public.whatsapp_messages add constraint poison check (content <> 'secret')")

    with pytest.raises(BadData) as caught:
        await Webhooks(service_store).record([received(webhook(text_message("secret", wamid="wamid.1")))], settle_s=0)

    assert caught.value.code == "sqlstate_23514"
    assert "secret" not in str(caught.value)


async def test_bodies_stored_while_redis_was_out_are_drained_once(
    world: World, service_store: PostgresTransport, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    body = received(webhook(text_message("Hello?", wamid="wamid.1"))).body
    await Webhooks(ingest_store).store_bodies([body, body])
    webhooks = Webhooks(service_store)

    claimed = await webhooks.claim_bodies(limit=10, hold_s=30)
    claimed_by_another = await webhooks.claim_bodies(limit=10, hold_s=30)
    recorded = await webhooks.record([received(body.raw)], settle_s=0)

    assert [(c.id, c.received_at, c.raw) for c, _ in claimed] == [(body.id, body.received_at, body.raw)]
    assert claimed_by_another == []
    assert recorded.stored == 1


async def test_a_number_connected_while_its_message_is_recorded_is_never_half_routed(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    webhooks = Webhooks(service_store)
    await admin.execute("update public.whatsapp_channels set state = 'disconnected' where id = %s", (world.channel_a,))

    async def connect_and_disconnect() -> None:
        for state in ("connected", "disconnected") * 60:
            await admin.execute(
                "update public.whatsapp_channels set state = %s where id = %s", (state, world.channel_a)
            )

    flipping = asyncio.create_task(connect_and_disconnect())
    outcomes = []
    number = 0
    while not flipping.done():
        number += 1
        raw = webhook(text_message("Hello?", wamid=f"wamid.{number}"))
        outcomes.append(await webhooks.record([received(raw)], settle_s=0))
    await flipping

    assert sum(r.duplicate for r in outcomes) == 0  # each was sent once: stored, or unrouted
    assert await rows(admin, "select count(*) from public.whatsapp_messages") == [(sum(r.stored for r in outcomes),)]
    assert sum(r.stored + r.unrouted for r in outcomes) == number


async def test_drained_bodies_are_bounded_in_bytes(
    service_store: PostgresTransport, ingest_store: PostgresTransport
) -> None:
    large = [received(webhook(text_message("x" * 3000, wamid=f"wamid.{n}"))).body for n in range(5)]
    await Webhooks(ingest_store).store_bodies(large)

    taken = [
        len(await Webhooks(service_store).claim_bodies(limit=10, hold_s=30, most_bytes=2 * len(large[0].raw)))
        for _ in range(4)
    ]

    assert taken == [2, 2, 1, 0]
