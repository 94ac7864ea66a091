"""Raw bodies go by the day, once they are old enough and recorded; nobody who records waits for it."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from structlog.testing import capture_logs

from services.ingest.drop_old_bodies import drop_old_bodies
from services.ingest.settings import RecorderSettings
from shared.domain.errors import Rejected
from shared.domain.ids import new_id
from shared.store.postgres import PostgresTransport
from shared.store.retention import Retention
from shared.store.webhook_batch import ReceivedBody
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import WebhookBody
from shared.whatsapp.parse import parse_webhook
from tests.conftest import Database
from tests.integration.test_erasure import rows
from tests.world import World, text_message, webhook

TODAY = datetime.now(UTC).date()
KEEP_DAYS = 10


def body(days_ago: int, raw: bytes | None = None) -> WebhookBody:
    at = datetime.combine(TODAY - timedelta(days=days_ago), datetime.min.time(), UTC) + timedelta(hours=12)
    return WebhookBody(new_id(), at, raw or webhook(text_message("Hi", wamid=f"wamid.{new_id()}", sent_at=at)), "")


async def make_days(admin: psycopg.AsyncConnection, *days_ago: int) -> None:
    """Partitions as they would be there had we run for so long."""
    for day in (TODAY - timedelta(days=n) for n in days_ago):
        for parent in ("app.webhook_bodies", "public.whatsapp_webhooks"):
            name = f"app.{parent.split('.')[1]}_{day:%Y%m%d}"
            await admin.execute(
                f"create table {name} partition of {parent} for values from ('{day} 00:00:00+00')"
                f" to ('{day + timedelta(days=1)} 00:00:00+00')".encode()
            )
            await admin.execute(f"alter table {name} enable row level security".encode())


async def record(store: PostgresTransport, *bodies: WebhookBody) -> None:
    await Webhooks(store).record([ReceivedBody(b, parse_webhook(b.raw, now=b.received_at)) for b in bodies], settle_s=0)


def partitions(*days_ago: int) -> tuple[str, ...]:
    days = sorted(TODAY - timedelta(days=n) for n in days_ago)
    return tuple(f"{table}_{day:%Y%m%d}" for day in days for table in ("webhook_bodies", "whatsapp_webhooks"))


async def kept_days(admin: psycopg.AsyncConnection) -> list[date]:
    found = await rows(
        admin, "select distinct (received_at at time zone 'utc')::date from app.webhook_bodies order by 1"
    )
    return [day for (day,) in found]


async def test_days_older_than_configured_go_and_younger_stay(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await make_days(admin, 12, 11, 10, 9)
    await record(service_store, *(body(n) for n in (12, 11, 10, 9, 0)))
    messages = await rows(admin, "select count(*) from public.whatsapp_messages")

    dropped = await Retention(service_store).drop_old(keep_days=KEEP_DAYS)
    again = await Retention(service_store).drop_old(keep_days=KEEP_DAYS)

    assert dropped.partitions == partitions(12, 11)
    assert again.partitions == ()
    assert await kept_days(admin) == [TODAY - timedelta(days=n) for n in (10, 9, 0)]
    assert await rows(admin, "select count(*) from public.whatsapp_webhooks") == [(3,)]
    assert await rows(admin, "select count(*) from public.whatsapp_messages") == messages == [(5,)]


async def test_a_day_with_bodies_nobody_recorded_stays(
    world: World, service_store: PostgresTransport, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await make_days(admin, 12, 11)
    await record(service_store, body(12), body(11))
    await Webhooks(ingest_store).store_bodies([body(12)])

    with capture_logs() as logs:
        await drop_old_bodies(retention=Retention(service_store), keep_days=KEEP_DAYS, every_s=1)

    assert await kept_days(admin) == [TODAY - timedelta(days=12)]
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("partitions.dropped", "info"),
        ("partitions.kept", "error"),
    ]


async def test_what_was_never_placed_goes_with_its_day_and_is_counted(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await make_days(admin, 12)
    at = datetime.now(UTC) - timedelta(days=12)
    unrouted = webhook(text_message("Hi", wamid="wamid.u", sent_at=at), phone_number_id="999", waba_id="1")
    await record(service_store, body(12, unrouted), body(12, b"not json"), body(0, b"not json either"))

    with capture_logs() as logs:
        await drop_old_bodies(retention=Retention(service_store), keep_days=KEEP_DAYS, every_s=1)

    assert {"event": "items.expired", "log_level": "warning", "unrouted": 1, "quarantined": 1} in logs
    assert await rows(
        admin, "select count(*), bool_and(body_received_at > now() - interval '1 d') from app.quarantine"
    ) == [(1, True)]


async def test_old_rows_without_a_partition_go_too_and_those_there_are_counted(
    world: World, service_store: PostgresTransport, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await record(service_store, *(body(n) for n in (30, 20, 5)))
    await Webhooks(ingest_store).store_bodies([body(25)])
    before = await Webhooks(service_store).make_partitions()

    dropped = await Retention(service_store).drop_old(keep_days=KEEP_DAYS)

    assert (before, dropped.stray) == (4 + 3, 2 + 2)
    assert await Webhooks(service_store).make_partitions() == 2 + 1
    assert await kept_days(admin) == [TODAY - timedelta(days=n) for n in (25, 5)]


async def test_tombstones_go_when_they_have_run_out(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await admin.execute(
        "insert into app.tombstones (workspace_id, digest, until)"
        " select %s, sha256(n::text::bytea), now() + case when n <= 12000 then -interval '1 s' else interval '1 h' end"
        " from generate_series(1, 12003) n",
        (world.workspace_a,),
    )

    dropped = await Retention(service_store).drop_old(keep_days=KEEP_DAYS)

    assert dropped.tombstones == 12000
    assert await rows(admin, "select count(*) from app.tombstones") == [(3,)]


async def test_a_recorder_at_work_is_not_held_up_and_the_day_goes_later(
    world: World, database: Database, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await make_days(admin, 12, 11)
    await record(service_store, body(12), body(11))
    waits: list[float] = []

    async def record_on() -> None:
        for _ in range(30):
            started = time.monotonic()
            await record(service_store, body(0))
            waits.append(time.monotonic() - started)

    async with await psycopg.AsyncConnection.connect(database.url()) as slow:
        await slow.execute("select count(*) from app.webhook_bodies")  # a transaction that stays open
        recording = asyncio.create_task(record_on())
        dropped = await Retention(service_store).drop_old(keep_days=KEEP_DAYS)
        await recording
    later = await Retention(service_store).drop_old(keep_days=KEEP_DAYS)

    assert (dropped.partitions, dropped.postponed) == ((), (TODAY - timedelta(days=12),))
    assert max(waits) < 1.0  # behind a drop that waits half a second
    assert later.partitions == partitions(12, 11)


async def test_dropping_while_many_record_loses_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await make_days(admin, *range(11, 20))
    await record(service_store, *(body(n) for n in range(11, 20)))

    async def record_on() -> None:
        for n in range(20):
            await record(service_store, body(n % 3), body(12))  # some come late, for a day that goes

    await asyncio.gather(
        *(record_on() for _ in range(3)), *(Retention(service_store).drop_old(keep_days=KEEP_DAYS) for _ in range(3))
    )
    last = await Retention(service_store).drop_old(keep_days=KEEP_DAYS)

    assert last.postponed == ()
    assert await rows(admin, "select count(*) from public.whatsapp_messages") == [(9 + 120,)]
    assert min(await kept_days(admin)) >= TODAY - timedelta(days=2)


@pytest.mark.parametrize("keep_days", [0, 7, 38, -1])
async def test_a_time_that_would_undo_deletions_is_refused(service_store: PostgresTransport, keep_days: int) -> None:
    with pytest.raises(Rejected) as caught:
        await Retention(service_store).drop_old(keep_days=keep_days)

    assert caught.value.code == "bad_keep_days"


async def test_what_was_deleted_is_remembered_longer_than_it_may_be_replayed(admin: psycopg.AsyncConnection) -> None:
    (least, most) = (
        m for m in RecorderSettings.model_fields["raw_keep_days"].metadata if hasattr(m, "ge") or hasattr(m, "le")
    )
    ((life,),) = await rows(admin, "select app.tombstone_life()")

    assert least.ge == 8  # Meta redelivers for 7 days
    # Redelivered on the seventh, kept that long, replayed on the last of them.
    assert timedelta(days=7 + most.le + 1) <= life
