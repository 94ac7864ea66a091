"""Quarantine as operators work it: what is there, what it looks like, trying again, giving up."""

from __future__ import annotations

from hashlib import sha256
from uuid import UUID

import psycopg

from services.ingest.record_batch import record_batch
from shared.queue.connection import connect_blocking
from shared.queue.jobs import AnalyseDue, Jobs, rq_queue
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from shared.whatsapp.events import WebhookBody
from tests.conftest import Database
from tests.integration.operator_commands import account, all_rows, command, rows
from tests.world import World, received, text_message, webhook

NOBODY = "redis://127.0.0.1:9/0"  # nobody listens there
UNKNOWN = "019ab5d2-7c11-7a30-8f04-5a1c6be0d001"


def no_jobs() -> Jobs:
    return Jobs(connect_blocking(NOBODY, timeout_s=0.2))


def body(*texts: str) -> WebhookBody:
    messages = (text_message(text, wamid=f"wamid.{sha256(text.encode()).hexdigest()}") for text in texts)
    return received(webhook(*messages)).body


async def poison(admin: psycopg.AsyncConnection, text: str = "swordfish") -> None:
    """Make the database refuse what a later version of it will take."""
    await admin.execute(f"alter table public.whatsapp_messages add constraint poison check (content <> '{text}')")  # type: ignore[arg-type]


async def heal(admin: psycopg.AsyncConnection) -> None:
    await admin.execute("alter table public.whatsapp_messages drop constraint poison")


async def record(store: PostgresTransport, *bodies: WebhookBody) -> None:
    await record_batch(bodies, webhooks=Webhooks(store), jobs=no_jobs(), settle_s=0)


async def test_a_retried_item_is_stored_and_accounted_for(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database, empty_redis: str
) -> None:
    await poison(admin)
    first, second = body("a", "swordfish", "c"), body("d")
    await record(service_store, first, second)
    assert await account(admin) == (4, 3, 0, 0, 0, 1)
    await heal(admin)

    ran = await command(database, "quarantine", "retry", "--all", "--json", REDIS_URL=empty_redis)

    assert ran.status == 0, ran.err
    assert ran.answer["bodies"] == [
        {
            "body_id": str(first.id),
            "result": "recorded",
            "before": {"items": 3, "stored": 2, "duplicate": 0, "unrouted": 0, "suppressed": 0, "quarantined": 1},
            "after": {"items": 3, "stored": 3, "duplicate": 0, "unrouted": 0, "suppressed": 0, "quarantined": 0},
        }
    ]
    assert ran.answer["rows"]["whatsapp_messages"]["new"] == 1
    assert ran.answer["rows"]["quarantine"]["columns"] == {"state": 1}
    assert await account(admin) == (4, 4, 0, 0, 0, 0)
    assert await rows(admin, "select item, state from app.quarantine") == [(1, "retried")]
    assert await rows(admin, "select count(*) from public.whatsapp_messages where content = 'swordfish'") == [(1,)]
    assert rq_queue(AnalyseDue.queue, connect_blocking(empty_redis, timeout_s=1)).count == 1
    assert ran.says_nothing_personal()


async def test_a_lost_redis_is_only_a_warning(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await poison(admin)
    await record(service_store, body("swordfish"))
    await heal(admin)

    ran = await command(database, "quarantine", "retry", "--all", REDIS_URL=NOBODY)

    assert ran.status == 0, ran.err
    assert "wake_up.lost" in ran.err
    assert await account(admin) == (1, 1, 0, 0, 0, 0)


async def test_a_dry_retry_says_what_would_come_of_it_and_changes_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await poison(admin)
    await record(service_store, body("a", "swordfish"))
    await heal(admin)
    before = await all_rows(admin)

    ran = await command(database, "quarantine", "retry", "--all", "--dry-run", "--json")

    assert ran.status == 0, ran.err
    assert ran.answer["dry_run"] is True
    assert [one["result"] for one in ran.answer["bodies"]] == ["recorded"]
    assert ran.answer["account"]["after"]["stored"] == 2
    assert await all_rows(admin) == before


async def test_what_is_still_poison_stays_and_its_neighbours_do_not(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await poison(admin)
    still = body("swordfish", "b")
    other = received(webhook(text_message("e", wamid="wamid.e")))
    await record(service_store, still)
    await Webhooks(service_store).quarantine(other, reason="not_understood")  # by an older version, say

    ran = await command(database, "quarantine", "retry", "--all", "--json")

    assert ran.status == 1
    assert {one["body_id"]: one["result"] for one in ran.answer["bodies"]} == {
        str(still.id): "partly set aside",
        str(other.body.id): "recorded",
    }
    assert await account(admin) == (3, 2, 0, 0, 0, 1)
    assert await rows(admin, "select reason, state from app.quarantine order by state") == [
        ("sqlstate_23514", "open"),
        ("not_understood", "retried"),
    ]
    assert ran.says_nothing_personal()


async def test_one_we_stumble_over_does_not_stop_the_others(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    bad, good = (received(webhook(text_message(text, wamid=f"wamid.{text}"))) for text in ("swordfish", "b"))
    for one in (bad, good):
        await Webhooks(service_store).quarantine(one, reason="KeyError")
    # Not a value's fault: a function that is not there.
    await admin.execute(
        "create function app.stumble() returns trigger language plpgsql as"
        " $$ begin if new.content = 'swordfish' then perform app.not_there(); end if; return new; end $$"
    )
    await admin.execute(
        "create trigger stumble before insert on public.whatsapp_messages for each row execute function app.stumble()"
    )

    ran = await command(database, "quarantine", "retry", "--reason", "KeyError", "--json")

    assert ran.status == 1
    assert [one["result"] for one in ran.answer["bodies"]] == ["failed", "recorded"]
    assert "webhook.not_recorded" in ran.err
    assert await rows(admin, "select state from app.quarantine order by body_received_at") == [("open",), ("retried",)]
    assert ran.says_nothing_personal()


async def test_retry_by_reason_leaves_the_others(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    for text, reason in (("a", "not_json: JSONDecodeError"), ("b", "no_value")):
        await Webhooks(service_store).quarantine(
            received(webhook(text_message(text, wamid=f"wamid.{text}"))), reason=reason
        )

    ran = await command(database, "quarantine", "retry", "--reason", "not_json", "--json")

    assert ran.status == 0, ran.err
    assert await rows(admin, "select reason, state from app.quarantine order by 1") == [
        ("no_value", "open"),
        ("not_json: JSONDecodeError", "retried"),
    ]


async def test_a_body_that_is_not_there_is_said(world: World, database: Database) -> None:
    for action in ("show", "retry"):
        ran = await command(database, "quarantine", action, UNKNOWN)

        assert ran.status == 1
        assert UNKNOWN in ran.err
    ran = await command(database, "quarantine", "drop", UNKNOWN, "--yes")

    assert ran.status == 1
    assert "quarantine list --state all" in ran.err


async def test_the_list_has_ids_reasons_and_totals(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await poison(admin)
    bodies = [body("swordfish"), body("a", "swordfish"), received(b"{").body]
    await record(service_store, *bodies)

    ran = await command(database, "quarantine", "list")
    as_json = await command(database, "quarantine", "list", "--json", "--limit", "2")
    of_one_reason = await command(database, "quarantine", "list", "--json", "--reason", "not_json")
    empty = await command(database, "quarantine", "list", "--state", "dropped")

    assert (ran.status, as_json.status, of_one_reason.status, empty.status) == (0, 0, 0, 0)
    assert all(str(one.id) in ran.out for one in bodies)
    assert "not_json: JSONDecodeError" in ran.out
    assert len(as_json.answer["rows"]) == 2
    assert [(t["reason"], t["items"], t["bodies"]) for t in as_json.answer["totals"]] == [
        ("sqlstate_23514", 2, 2),
        ("not_json: JSONDecodeError", 1, 1),
    ]
    assert [row["body_id"] for row in of_one_reason.answer["rows"]] == [str(bodies[2].id)]
    assert "Nothing" in empty.out
    assert ran.says_nothing_personal()


async def test_a_body_is_shown_masked_unless_revealed(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await poison(admin)
    one = body("a", "swordfish")
    await record(service_store, one)
    await heal(admin)

    ran = await command(database, "quarantine", "show", str(one.id))
    as_json = await command(database, "quarantine", "show", str(one.id), "--json")
    revealed = await command(database, "quarantine", "show", str(one.id), "1", "--reveal")
    beyond = await command(database, "quarantine", "show", str(one.id), "2")

    assert ran.status == 0, ran.err
    assert "stored 1, duplicate 0, unrouted 0, suppressed 0, quarantined 1" in ran.out
    assert "app.webhook_bodies_" in ran.out
    assert "entry[0].changes[0].value.messages[1]" in ran.out
    assert '"body": "text(9)"' in ran.out
    assert "--reveal prints them" in ran.out
    assert f"to workspace {world.workspace_a}" in ran.out
    assert ran.says_nothing_personal()
    assert as_json.answer["items"][0]["content"]["from"] == "digits(11)"
    assert as_json.answer["masked"] is True
    assert as_json.says_nothing_personal()
    assert "swordfish" in revealed.out
    assert "quarantine.revealed" in revealed.err
    assert "swordfish" not in revealed.err
    assert (beyond.status, "2 items" in beyond.err) == (1, True)


async def test_a_body_that_was_recorded_well_is_shown_too(
    world: World, service_store: PostgresTransport, database: Database
) -> None:
    one = body("a")
    await record(service_store, one)

    ran = await command(database, "quarantine", "show", str(one.id), "0", "--json")

    assert ran.status == 0, ran.err
    assert ran.answer["body"]["stored"] == 1
    assert ran.answer["quarantine"] == []
    assert ran.says_nothing_personal()


async def test_dropping_needs_a_yes_and_is_logged(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, database: Database
) -> None:
    await poison(admin)
    one = body("swordfish", "a")
    await record(service_store, one)
    before = await all_rows(admin)

    unsure = await command(database, "quarantine", "drop", str(one.id))

    assert unsure.status == 2
    assert "item 0" in unsure.err
    assert await all_rows(admin) == before

    sure = await command(database, "quarantine", "drop", str(one.id), "0", "1", "--yes", "--json")

    assert sure.status == 1  # item 1 was never set aside
    assert "Not dropped, since not open: 1." in sure.err
    assert sure.answer == {"body_id": str(one.id), "dropped": [0], "left": 0}
    assert '"event": "quarantine.dropped"' in sure.err
    assert str(one.id) in sure.err
    assert await rows(admin, "select state, dropped_at is not null, dropped_by ~ '@' from app.quarantine") == [
        ("dropped", True, True)
    ]
    assert await rows(admin, "select octet_length(raw) from app.webhook_bodies") == [(len(one.raw),)]
    again = await command(database, "quarantine", "drop", str(one.id), "--yes")
    assert (again.status, "no item" in again.out) == (0, True)


async def test_a_body_of_another_days_id_is_found_by_it(
    world: World, service_store: PostgresTransport, database: Database
) -> None:
    made_elsewhere = UUID("11111111-2222-4333-8444-555555555555")  # its first bits are no time
    one = body("a")
    await record(service_store, WebhookBody(made_elsewhere, one.received_at, one.raw, ""))

    ran = await command(database, "quarantine", "show", str(made_elsewhere), "--json")

    assert ran.answer["body"]["id"] == str(made_elsewhere)


async def test_a_database_that_is_out_is_one_sentence(database: Database) -> None:
    ran = await command(
        database, "quarantine", "list", DATABASE_URL="postgresql://a:b@127.0.0.1:9/c", DATABASE_TIMEOUT_S="1"
    )

    assert ran.status == 1
    assert "The database cannot be had (database_unavailable)." in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
