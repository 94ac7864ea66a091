"""What reviews and hostile tries found in recording: each was wrong once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import psycopg

from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Recorded, Webhooks
from shared.whatsapp.parse import parse_webhook
from tests import meta_events as meta
from tests.world import PHONE_A, WABA_B, World, received

NOW = datetime.now(UTC).replace(microsecond=0)
ANA, BOB, EVE = (meta.Who(f"US.{n}", f"1202555010{n}") for n in (1, 2, 3))


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


async def rows(admin: psycopg.AsyncConnection, query: LiteralString) -> list[tuple[object, ...]]:
    return await (await admin.execute(query)).fetchall()


async def test_a_body_recorded_again_gives_nothing_to_who_has_the_number_now(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    # One number of A's and one nobody had; A's went to B, then the other was connected, and the body came again.
    nobodys = meta.Number("900000000000009", "900000000000008", "442079460999")
    body = received(
        meta.body(
            meta.text("wamid.1", ANA, at(0), "for A's eyes"), meta.text("wamid.2", BOB, at(0), "Hi", number=nobodys)
        )
    )
    webhooks = Webhooks(service_store)
    await webhooks.record([body], settle_s=0)
    await admin.execute(
        "update public.whatsapp_channels set state = 'disconnected' where phone_number_id = %s", (PHONE_A,)
    )
    for number, waba in ((PHONE_A, WABA_B), (nobodys.phone_number_id, nobodys.waba_id)):
        await admin.execute(
            "insert into public.whatsapp_channels"
            " (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number)"
            " values (%s, gen_random_uuid(), %s, '690113358247716', %s, '1')",
            (world.workspace_b, waba, number),
        )

    again = await webhooks.record([replace(body, is_stored=True)], settle_s=0)

    assert (again.stored, again.duplicate) == (1, 1)
    assert await rows(
        admin,
        "select w.name, m.content from public.whatsapp_messages m"
        " join public.workspaces w on w.id = m.workspace_id order by 1",
    ) == [("Casa Verde", "for A's eyes"), ("Nordlicht", "Hi")]
    assert await rows(
        admin,
        "select w.name, count(*) from public.contacts c join public.workspaces w on w.id = c.workspace_id group by 1",
    ) == [("Casa Verde", 1), ("Nordlicht", 1)]
    assert await rows(admin, "select stored, unrouted from app.webhook_bodies") == [(2, 0)]


async def test_facts_group_edits_and_messages_of_the_same_people_never_deadlock(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    people = [ANA, BOB, EVE]
    webhooks = Webhooks(service_store)
    for n, who in enumerate(people):
        await webhooks.record(
            [received(meta.body(meta.text(f"wamid.g{n}", who, at(0), "Hi", group_id="G")))], settle_s=0
        )

    async def record(order: list[meta.Who], round_: int) -> None:
        items = [item for n, who in enumerate(order) for item in (
            meta.preference(who, at(round_), "stop"),
            meta.text(f"wamid.{round_}.{who.user_id}", who, at(round_), "Hi", profile={"name": f"Name {round_}"}),
            meta.edit(
                f"wamid.e{round_}.{who.user_id}",
                who,
                at(round_ / 60),
                f"wamid.g{people.index(who)}",
                {"type": "text", "text": {"body": f"Hello {round_}"}},
            ),
        )]  # fmt: skip
        await webhooks.record([received(meta.body(*items))], settle_s=0)

    for round_ in range(2, 22):
        await asyncio.gather(
            record(people, round_), record(people[::-1], round_), record(people[1:] + people[:1], round_)
        )

    assert await rows(admin, "select deadlocks from pg_stat_database where datname = current_database()") == [(0,)]
    assert await rows(
        admin, "select distinct content, content_version from public.whatsapp_messages where wamid like 'wamid.g%'"
    ) == [("Hello 21", 21)]


async def test_a_body_that_lost_items_to_an_erasure_is_still_accounted_for(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    webhooks = Webhooks(service_store)
    await webhooks.record([received(meta.body(meta.text("wamid.0", BOB, at(-10), "Hi")))], settle_s=0)
    await admin.execute("insert into app.contact_blocks select workspace_id, id, %s from public.contacts", (at(-5),))
    await admin.execute("update public.contacts set blocked_at = %s", (at(-5),))
    first = meta.text("wamid.1", BOB, at(1), "Hi"), meta.text("wamid.2", ANA, at(1), "Hi")
    body = received(meta.body(*first, meta.text("wamid.3", EVE, at(1), "Hi")))
    assert await webhooks.record([body], settle_s=0) == Recorded(stored=2, suppressed=1, due=2)

    rest = parse_webhook(meta.body(*first), now=body.body.received_at)
    await webhooks.record([replace(body, parsed=rest, is_stored=True)], settle_s=0)

    # Which of them went is not known to the account, only that nothing else came of it.
    assert await rows(
        admin, "select items, stored + suppressed, duplicate, quarantined from app.webhook_bodies where items > 1"
    ) == [(2, 2, 0, 0)]


async def test_a_status_that_is_named_like_something_else_of_ours_moves_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    webhooks = Webhooks(service_store)
    await webhooks.record([received(meta.body(meta.text("wamid.0", BOB, at(0), "precious")))], settle_s=0)

    for name in ("edit", "revoke", "message", "file", "fact", "identity", "reaction"):
        recorded = await webhooks.record([received(meta.body(meta.status("wamid.0", BOB, at(1), name)))], settle_s=0)
        assert recorded == Recorded(stored=1), name

    assert await rows(admin, "select content, content_version, revoked_at from public.whatsapp_messages") == [
        ("precious", 1, None)
    ]


async def test_what_someone_does_in_a_group_opens_no_window_in_their_own_chat(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    webhooks = Webhooks(service_store)
    reaction = meta.reaction("wamid.r", BOB, at(0), "wamid.g", "❤️")
    reaction.element["group_id"] = "G"

    for item in (
        meta.text("wamid.0", BOB, at(-3000), "Hi"),
        meta.text("wamid.g", ANA, at(-1), "Hi", group_id="G"),
        reaction,
    ):
        await webhooks.record([received(meta.body(item))], settle_s=0)

    assert await rows(
        admin, "select last_inbound_at from public.whatsapp_conversations where contact_id is not null"
    ) == [(at(-3000),)]


async def test_a_message_of_an_unknown_type_is_put_right_by_a_copy_we_can_read(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    webhooks = Webhooks(service_store)

    for item in (meta.unknown("wamid.1", BOB, at(0)), meta.text("wamid.1", BOB, at(0), "readable now")):
        await webhooks.record([received(meta.body(item))], settle_s=0)

    assert await rows(admin, "select message_type, content, seq, ai_state from public.whatsapp_messages") == [
        ("text", "readable now", 1, "pending")
    ]
    assert await rows(admin, "select unread_count, next_seq from public.whatsapp_conversations") == [(1, 2)]


async def test_the_same_fact_twice_in_one_body_is_stored_once(world: World, service_store: PostgresTransport) -> None:
    webhooks = Webhooks(service_store)

    for who in (BOB, meta.Who(None, "12025550150")):
        twice = meta.preference(who, at(0), "stop"), meta.preference(who, at(0), "stop")
        assert await webhooks.record([received(meta.body(*twice))], settle_s=0) == Recorded(stored=1, duplicate=1)
