"""Replay: what is stored is read again, and only what was left undone is done, however often and whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from services.ingest.record_batch import record_batch
from shared.domain.ids import new_id
from shared.queue.connection import connect_blocking
from shared.queue.jobs import Jobs
from shared.store.postgres import PostgresTransport
from shared.store.replay import Cursor, Replay, Wanted
from shared.store.webhook_batch import ReceivedBody
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import WebhookBody
from shared.whatsapp.parse import parse_webhook
from tests.conftest import Database
from tests.integration.operator_commands import account, all_rows, command, rows, start
from tests.world import PHONE_A, PHONE_B, WABA_B, World, received, text_message, webhook

PERSONAL_KEYS = {
    "from",
    "to",
    "wa_id",
    "user_id",
    "from_user_id",
    "recipient_id",
    "name",
    "username",
    "body",
    "caption",
}


def body_of(text: str, *, phone_number_id: str = PHONE_A, waba_id: str = "318204775196043") -> WebhookBody:
    message = text_message(text, wamid=f"wamid.{len(text)}{text[:1]}{phone_number_id[:2]}")
    return received(webhook(message, phone_number_id=phone_number_id, waba_id=waba_id)).body


async def record(store: PostgresTransport, *bodies: WebhookBody) -> None:
    jobs = Jobs(connect_blocking("redis://127.0.0.1:9/0", timeout_s=0.2))
    await record_batch(bodies, webhooks=Webhooks(store), jobs=jobs, settle_s=0)


async def left_by_an_older_version(store: PostgresTransport, *bodies: WebhookBody) -> None:
    """Have bodies set aside whole, as a parser that did not know them did."""
    for body in bodies:
        await Webhooks(store).quarantine(received_as(body), reason="no_value")


def received_as(body: WebhookBody) -> ReceivedBody:
    return ReceivedBody(body, parse_webhook(body.raw, now=body.received_at))


async def settled_rows(admin: psycopg.AsyncConnection) -> dict[str, list[str]]:
    """All rows, but for when a body was recorded last, and a number's."""
    found = await all_rows(admin)
    del found["public.channel_intake"]
    found["app.webhook_bodies"] = [
        str(row)
        for row in await rows(
            admin,
            "select received_at, id, raw, state, items, stored, duplicate, unrouted, suppressed, quarantined"
            " from app.webhook_bodies order by received_at, id",
        )
    ]
    return found


async def test_a_dry_run_tells_the_difference_and_makes_none(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await record(service_store, body_of("known"))
    await left_by_an_older_version(service_store, body_of("swordfish"), body_of("swordfish too"))
    before = await all_rows(admin)

    dry = await command(database, "replay", "--from", "1h", "--dry-run", "--json")

    assert dry.status == 0, dry.err
    assert await all_rows(admin) == before

    done = await command(database, "replay", "--from", "1h", "--json")

    assert done.status == 0, done.err
    for told in (dry.answer, done.answer):
        assert told["bodies"] == 3
        assert told["finished"] is True
        assert (told["account"]["before"]["quarantined"], told["account"]["after"]["quarantined"]) == (2, 0)
        assert (told["account"]["before"]["stored"], told["account"]["after"]["stored"]) == (1, 3)
        assert told["rows"]["whatsapp_messages"] == {"new": 2, "changed": 0, "gone": 0, "columns": {}}
        assert told["rows"]["message_states"]["new"] == 2
        assert told["rows"]["whatsapp_webhooks"]["new"] == 2
        assert told["rows"]["whatsapp_conversations"]["columns"].keys() >= {"unread_count", "next_seq"}
    assert dry.answer["rows"] == done.answer["rows"]
    assert await account(admin) == (3, 3, 0, 0, 0, 0)
    assert await rows(admin, "select distinct state from app.quarantine") == [("retried",)]
    assert dry.says_nothing_personal()
    assert done.says_nothing_personal()


async def test_replaying_twice_changes_nothing_the_second_time(
    world: World,
    service_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
    database: Database,
    fixtures_dir: Path,
) -> None:
    manifest = json.loads((fixtures_dir / "webhooks" / "MANIFEST.json").read_text())
    bodies = [(fixtures_dir / "webhooks" / fixture["file"]).read_bytes() for fixture in manifest["fixtures"]]
    for raw in bodies:
        await record(service_store, received(raw).body)
    first_account = await account(admin)
    before = await settled_rows(admin)

    once = await command(database, "replay", "--from", "1h", "--json")
    after_once = await settled_rows(admin)
    twice = await command(database, "replay", "--from", "1h", "--json", "--batch", "7")

    assert (once.status, twice.status) == (0, 0), once.err + twice.err
    for ran in (once, twice):
        assert ran.answer["bodies"] == len([raw for raw in bodies if raw])  # of one there is nothing to read
        assert ran.answer["rows"] == {}
        assert ran.answer["account"]["before"] == ran.answer["account"]["after"]
        assert ran.answer["read_otherwise"] == {}
    assert await account(admin) == first_account
    assert after_once == before
    assert await settled_rows(admin) == after_once


async def test_no_command_prints_what_a_fixture_says(
    world: World,
    service_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
    database: Database,
    fixtures_dir: Path,
) -> None:
    manifest = json.loads((fixtures_dir / "webhooks" / "MANIFEST.json").read_text())
    personal: set[str] = set()
    for fixture in manifest["fixtures"]:
        raw = (fixtures_dir / "webhooks" / fixture["file"]).read_bytes()
        personal |= _personal(raw)
        await Webhooks(service_store).quarantine(received(raw), reason="not_understood")

    said = []
    for arguments in (
        ("quarantine", "list", "--limit", "2000"),
        ("replay", "--from", "1h", "--dry-run"),
        ("quarantine", "retry", "--all", "--dry-run"),
    ):
        for form in ((), ("--json",)):
            ran = await command(database, *arguments, *form)
            said.append(ran.out + ran.err)
    for (body_id,) in await rows(admin, "select distinct body_id from app.quarantine order by 1 limit 12"):
        ran = await command(database, "quarantine", "show", str(body_id))
        assert ran.status == 0, ran.err
        said.append(ran.out + ran.err)

    assert len(personal) > 100
    for text in said:
        assert text
        assert not {word for word in personal if word in text}


def _personal(raw: bytes) -> set[str]:
    """Names, texts, phone numbers and user ids of a body: what no output may hold."""
    found: set[str] = set()

    def walk(value: object, key: str) -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, name)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)
        elif isinstance(value, str) and key in PERSONAL_KEYS and len(value) > 6:
            found.add(value)

    with contextlib.suppress(ValueError):
        walk(json.loads(raw), "")
    return found


async def test_killed_in_the_middle_it_goes_on_where_it_was(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await left_by_an_older_version(service_store, *(body_of("x" * n) for n in range(1, 60)))

    process = await start(database, "replay", "--from", "1h", "--batch", "1")
    assert process.stderr is not None
    line = (await asyncio.wait_for(process.stderr.readline(), 60)).decode()
    process.kill()
    await process.wait()

    (cursor,) = re.findall(r"--after (\S+)", line)
    done_before = (await account(admin))[1]
    ran = await command(database, "replay", "--from", "1h", "--after", cursor, "--json")

    assert ran.status == 0, ran.err
    assert 1 <= int(str(done_before)) < 59, "killed too late to prove anything"
    assert ran.answer["bodies"] == 58
    assert await account(admin) == (59, 59, 0, 0, 0, 0)
    assert await rows(admin, "select count(*), count(distinct wamid) from public.whatsapp_messages") == [(59, 59)]
    assert await rows(admin, "select unread_count from public.whatsapp_conversations") == [(59,)]


async def test_told_to_stop_it_finishes_its_batch_and_says_where_it_is(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await left_by_an_older_version(service_store, *(body_of("x" * n) for n in range(1, 60)))

    process = await start(database, "replay", "--from", "1h", "--batch", "1", "--json")
    assert process.stderr is not None
    assert process.stdout is not None
    await asyncio.wait_for(process.stderr.readline(), 60)
    process.terminate()
    out, err = await asyncio.wait_for(process.communicate(), 60)

    told = json.loads(out)
    assert process.returncode == 1
    assert told["finished"] is False
    assert told["bodies"] == (await account(admin))[1]
    assert f"--after {told['cursor']}" in err.decode()


async def test_a_range_a_number_and_an_outcome_choose_bodies(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    now = datetime.now(UTC)
    old = WebhookBody(new_id(), now - timedelta(hours=5), body_of("old").raw, "")
    a, b = body_of("a"), body_of("bb", phone_number_id=PHONE_B, waba_id=WABA_B)
    nobodys = body_of("ccc", phone_number_id="999999999999999", waba_id="1")
    await record(service_store, old, a, b, nobodys)
    poisoned = body_of("dddd")
    await left_by_an_older_version(service_store, poisoned)
    replay = Replay(service_store)

    async def chosen(**only: object) -> list[object]:
        wanted = Wanted(**({"since": now - timedelta(hours=1)} | only))  # type: ignore[arg-type]
        found = [one.id for one in await replay.read(wanted, after=wanted.start, limit=10)]
        assert await replay.count(wanted) == len(found)
        return sorted(found)

    assert await chosen() == sorted([a.id, b.id, nobodys.id, poisoned.id])
    assert await chosen(to=now - timedelta(minutes=30)) == []
    assert await chosen(since=now - timedelta(hours=9), to=now - timedelta(hours=1)) == [old.id]
    assert await chosen(outcome="unrouted") == [nobodys.id]
    assert await chosen(outcome="quarantined") == [poisoned.id]
    assert await chosen(is_open=True, reason="no_value") == [poisoned.id]
    assert await chosen(is_open=True, reason="no") == []
    assert await chosen(phone_number_id=PHONE_B) == [b.id]
    assert await chosen(body_ids=(a.id, new_id())) == [a.id]
    await admin.execute("update app.webhook_bodies set raw = '' where id = %s", (a.id,))
    assert a.id not in await chosen()  # nothing of it can be read any more


async def test_pages_are_bounded_in_bytes_and_miss_nothing(world: World, service_store: PostgresTransport) -> None:
    bodies = [body_of("x" * n) for n in range(1, 8)]
    same_time = [WebhookBody(body.id, bodies[0].received_at, body.raw, "") for body in bodies]
    await record(service_store, *same_time)
    replay, wanted, seen = Replay(service_store), Wanted(), []

    cursor = wanted.start
    while page := await replay.read(wanted, after=cursor, limit=3, most_bytes=len(bodies[0].raw) * 2 + 20):
        assert len(page) <= 2
        seen += [one.id for one in page]
        cursor = Cursor(page[-1].received_at, page[-1].id)

    assert seen == sorted(body.id for body in bodies)


async def test_another_workspaces_rows_stay_as_they_are(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    mine, theirs = body_of("a"), body_of("bb", phone_number_id=PHONE_B, waba_id=WABA_B)
    await left_by_an_older_version(service_store, mine, theirs)

    ran = await command(database, "replay", "--from", "1h", "--phone-number-id", PHONE_A, "--json")

    assert (ran.status, ran.answer["bodies"]) == (0, 1)
    assert await rows(admin, "select workspace_id from public.whatsapp_messages") == [(world.workspace_a,)]
    assert await rows(admin, "select body_id, state from app.quarantine order by state") == [
        (theirs.id, "open"),
        (mine.id, "retried"),
    ]
    for table in ("contacts", "whatsapp_conversations", "whatsapp_messages", "message_events", "whatsapp_webhooks"):
        query = f"select count(*) from public.{table} where workspace_id = '{world.workspace_b}'"  # noqa: S608
        assert await rows(admin, query) == [(0,)], table


async def test_an_erased_body_is_replayed_as_it_is(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    ana, ben = (
        text_message(text, wamid=f"wamid.{text}", user_id=user_id, wa_id=wa_id)
        for text, user_id, wa_id in (("a", "US.1", "12025550101"), ("b", "US.2", "12025550102"))
    )
    both, without = received(webhook(ana, ben)).body, webhook(ben)
    await record(service_store, both)
    await admin.execute("update app.webhook_bodies set raw = %s, erased_at = now()", (without,))
    await admin.execute("delete from public.whatsapp_messages where wamid = 'wamid.a'")

    ran = await command(database, "replay", "--from", "1h", "--json")

    assert ran.status == 0, ran.err
    assert await rows(admin, "select wamid from public.whatsapp_messages") == [("wamid.b",)]
    assert await rows(admin, "select raw, items from app.webhook_bodies") == [(without, 1)]


async def test_what_is_read_otherwise_now_is_told_and_left(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await record(service_store, body_of("known"))
    await admin.execute("update public.whatsapp_messages set content = 'what an older version made of it'")
    before = await settled_rows(admin)

    ran = await command(database, "replay", "--from", "1h", "--json")
    for_people = await command(database, "replay", "--from", "1h", "--dry-run")

    assert ran.answer["read_otherwise"] == {"messages": 1, "content": 1}
    assert ran.answer["rows"] == {}
    assert await settled_rows(admin) == before
    assert "Stored otherwise than this version reads these bodies: 1 message (content 1)." in for_people.out


async def test_a_batch_the_database_refuses_is_isolated_down_to_the_item(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    bodies = [body_of("x" * n) for n in range(1, 9)]
    await left_by_an_older_version(service_store, *bodies)
    await admin.execute("alter table public.whatsapp_messages add constraint poison check (content <> 'xxx')")
    before = await all_rows(admin)

    dry = await command(database, "replay", "--from", "1h", "--dry-run", "--json")

    assert await all_rows(admin) == before

    ran = await command(database, "replay", "--from", "1h", "--json")

    for told in (dry, ran):
        assert told.status == 0, told.err
        assert told.answer["account"]["after"] == {
            "items": 8, "stored": 7, "duplicate": 0, "unrouted": 0, "suppressed": 0, "quarantined": 1,
        }  # fmt: skip
    assert await rows(admin, "select body_id, reason from app.quarantine where state = 'open'") == [
        (bodies[2].id, "sqlstate_23514")
    ]


async def test_a_database_that_says_later_is_waited_for(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await left_by_an_older_version(service_store, *(body_of("x" * n) for n in range(1, 30)))
    process = await start(database, "replay", "--from", "1h", "--batch", "1", "--json")
    assert process.stderr is not None
    await asyncio.wait_for(process.stderr.readline(), 60)

    await admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and usename = 'test_service'"
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)

    assert process.returncode == 0, err.decode()
    assert json.loads(out)["bodies"] == 29
    assert await account(admin) == (29, 29, 0, 0, 0, 0)
