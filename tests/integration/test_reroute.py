"""What came before its number was connected: recorded within a step of that, once, by whoever comes first."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from deploy.local.ports import any_free_port
from services.ingest.reroute import reroute
from shared.domain.ids import new_id
from shared.queue.connection import connect_blocking
from shared.queue.jobs import AnalyseDue, Jobs, rq_queue
from shared.settings.clocks import Clocks
from shared.store.postgres import PostgresTransport
from shared.store.replay import Replay
from shared.store.webhooks import Webhooks
from tests.conftest import Database
from tests.integration.operator_commands import account, command, rows, start
from tests.world import PHONE_A, World, received, text_message, webhook

LATE_PHONE, LATE_WABA = "888888888888888", "777777777777777"
SENT_AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
CLOCKS = Clocks()


@pytest.fixture
def jobs(empty_redis: str) -> Jobs:
    return Jobs(connect_blocking(empty_redis, timeout_s=1))


async def step(store: PostgresTransport, jobs: Jobs, *, batch_bodies: int = 256) -> float:
    return await reroute(
        replay=Replay(store), webhooks=Webhooks(store), jobs=jobs, clocks=CLOCKS, batch_bodies=batch_bodies
    )


async def connect(admin: psycopg.AsyncConnection, workspace_id: object, *, phone: str = LATE_PHONE) -> None:
    await admin.execute(
        "insert into public.whatsapp_channels"
        " (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number)"
        " values (%s, %s, %s, '690113358247717', %s, '12025550199')",
        (workspace_id, new_id(), LATE_WABA, phone),
    )


async def arrive(store: PostgresTransport, *numbers: int, phone: str = LATE_PHONE) -> None:
    for number in numbers:
        message = text_message(f"{number}", wamid=f"wamid.{number}", sent_at=SENT_AT + timedelta(minutes=number))
        body = received(webhook(message, phone_number_id=phone, waba_id=LATE_WABA))
        await Webhooks(store).record([body], settle_s=0)


async def test_messages_appear_once_their_number_is_connected(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, jobs: Jobs, empty_redis: str
) -> None:
    await arrive(service_store, 1, 2, 3)
    assert await step(service_store, jobs) == 60
    assert await account(admin) == (3, 0, 0, 3, 0, 0)
    await connect(admin, world.workspace_b)

    paused_s = await step(service_store, jobs)

    assert paused_s == 0
    assert await account(admin) == (3, 3, 0, 0, 0, 0)
    assert await rows(
        admin, "select workspace_id, content, sent_at, seq from public.whatsapp_messages order by seq"
    ) == [(world.workspace_b, f"{n}", SENT_AT + timedelta(minutes=n), n) for n in (1, 2, 3)]
    assert await rows(admin, "select distinct workspace_id, processed from public.whatsapp_webhooks") == [
        (world.workspace_b, True)
    ]
    assert await rows(admin, "select unread_count, last_message_at from public.whatsapp_conversations") == [
        (3, SENT_AT + timedelta(minutes=3))
    ]
    assert await rows(admin, "select count(*) from app.conversation_work") == [(1,)]
    assert rq_queue(AnalyseDue.queue, connect_blocking(empty_redis, timeout_s=1)).count == 1
    assert await step(service_store, jobs) == 60  # and that was all
    assert await rows(admin, "select count(*) from app.conversation_work") == [(1,)]


async def test_a_number_that_is_connected_elsewhere_or_no_longer_gets_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, jobs: Jobs
) -> None:
    await arrive(service_store, 1)
    await connect(admin, world.workspace_b, phone="666666666666666")  # another number of that account
    await connect(admin, world.workspace_b)
    await admin.execute(
        "update public.whatsapp_channels set state = 'disconnected' where phone_number_id = %s", (LATE_PHONE,)
    )

    assert await step(service_store, jobs) == 60
    assert await account(admin) == (1, 0, 0, 1, 0, 0)


async def test_what_concerns_an_account_waits_for_a_number_of_it(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, jobs: Jobs
) -> None:
    change = {"field": "account_update", "value": {"event": "DISABLED_UPDATE"}}
    entry = {"id": LATE_WABA, "time": int(SENT_AT.timestamp()), "changes": [change]}
    body = received(json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode())
    await Webhooks(service_store).record([body], settle_s=0)
    assert (await account(admin))[3] == 1
    await connect(admin, world.workspace_b)

    assert await step(service_store, jobs) == 0

    assert await account(admin) == (1, 1, 0, 0, 0, 0)
    assert await rows(admin, "select workspace_id from public.account_events") == [(world.workspace_b,)]


async def test_two_recorders_share_the_work_and_double_none(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, jobs: Jobs
) -> None:
    await arrive(service_store, *range(1, 41))
    await connect(admin, world.workspace_b)
    replay = Replay(service_store)

    claims = await asyncio.gather(*(replay.claim_reroutable(limit=7, hold_s=30) for _ in range(8)))

    taken = [body.id for claim in claims for body, _ in claim]
    assert len(taken) == len(set(taken))
    await admin.execute("update app.webhook_bodies set next_attempt_at = now()")
    await asyncio.gather(*(_until_done(service_store, jobs) for _ in range(3)))
    assert await account(admin) == (40, 40, 0, 0, 0, 0)
    assert await rows(admin, "select unread_count from public.whatsapp_conversations") == [(40,)]


async def _until_done(store: PostgresTransport, jobs: Jobs) -> None:
    while await step(store, jobs, batch_bodies=5) == 0:
        pass


async def test_a_recorder_that_dies_with_a_claim_leaves_it_to_the_next(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, jobs: Jobs
) -> None:
    await arrive(service_store, 1)
    await connect(admin, world.workspace_b)
    replay = Replay(service_store)

    attempts = []
    for _ in range(3):
        ((_, claims),) = await replay.claim_reroutable(limit=10, hold_s=30)
        ((hold_s,),) = await rows(
            admin, "select round(extract(epoch from next_attempt_at - now()))::int from app.webhook_bodies"
        )
        attempts.append((claims, hold_s))
        assert await replay.claim_reroutable(limit=10, hold_s=30) == []  # held
        await admin.execute("update app.webhook_bodies set next_attempt_at = now()")

    assert attempts == [(1, 30), (2, 60), (3, 120)]
    assert await step(service_store, jobs) == 0
    assert await account(admin) == (1, 1, 0, 0, 0, 0)


async def test_poison_among_them_costs_the_others_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, jobs: Jobs
) -> None:
    await arrive(service_store, *range(1, 7))
    await admin.execute("alter table public.whatsapp_messages add constraint poison check (content <> '3')")
    await connect(admin, world.workspace_b)

    await step(service_store, jobs)

    assert await account(admin) == (6, 5, 0, 0, 0, 1)
    assert await step(service_store, jobs) == 60


async def test_claims_are_bounded_in_bytes(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await arrive(service_store, 1, 2, 3)
    await connect(admin, world.workspace_b)

    claimed = [
        len(await Replay(service_store).claim_reroutable(limit=10, hold_s=30, most_bytes=1000)) for _ in range(4)
    ]

    assert sum(claimed) == 3
    assert claimed[0] < 3


async def test_a_body_half_of_which_is_anothers_is_completed_later(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, jobs: Jobs
) -> None:
    known, late = (
        json.loads(webhook(text_message(text, wamid=f"wamid.{text}"), phone_number_id=phone))
        for text, phone in (("a", PHONE_A), ("b", LATE_PHONE))
    )
    body = received(json.dumps(known | {"entry": known["entry"] + late["entry"]}).encode())
    await Webhooks(service_store).record([body], settle_s=0)
    assert await account(admin) == (2, 1, 0, 1, 0, 0)
    await connect(admin, world.workspace_b)

    await step(service_store, jobs)

    assert await account(admin) == (2, 2, 0, 0, 0, 0)
    assert await rows(admin, "select workspace_id, content from public.whatsapp_messages order by content") == [
        (world.workspace_a, "a"),
        (world.workspace_b, "b"),
    ]
    assert await rows(admin, "select distinct unread_count from public.whatsapp_conversations") == [(1,)]


async def test_the_recorder_process_does_it_by_itself(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database, empty_redis: str
) -> None:
    await arrive(service_store, 1)
    await connect(admin, world.workspace_b)

    recorder = await start(
        database,
        "recorder",
        REDIS_URL=empty_redis,
        HTTP_INTERNAL_PORT=str(any_free_port()),
        DATABASE_MAX_CONNECTIONS="4",
    )
    try:
        async with asyncio.timeout(30):
            while await account(admin) != (1, 1, 0, 0, 0, 0):
                await asyncio.sleep(0.1)
    finally:
        recorder.terminate()
        out, _ = await asyncio.wait_for(recorder.communicate(), 30)

    assert '"event": "webhooks.rerouted"' in out.decode()
    assert recorder.returncode == 0


async def test_replay_does_the_same_at_once(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await arrive(service_store, 1, 2)
    await arrive(service_store, 3, phone="666666666666666")
    await connect(admin, world.workspace_b)

    ran = await command(database, "replay", "--from", "1h", "--only", "unrouted", "--json")

    assert ran.status == 0, ran.err
    assert (ran.answer["bodies"], ran.answer["account"]["after"]["unrouted"]) == (3, 1)
    assert await account(admin) == (3, 2, 0, 1, 0, 0)
