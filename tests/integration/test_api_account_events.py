"""What operators read over HTTP of what Meta told about their accounts, and what everybody else is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from services.api.shapes import AccountEvent, AccountEventPage
from shared.domain.ids import new_id
from shared.store.postgres import PostgresTransport
from tests.integration.test_api import Client, as_problem, client_of
from tests.world import WABA_A, World

ACCOUNT_EVENTS = "/api/whatsapp/account-events"
AT = datetime(2026, 11, 20, 14, 0, tzinfo=UTC)
PIN_CHANGED = {"display_phone_number": "+1 202 555 0143", "event": "PIN_CHANGED", "requester": "61550012345678"}
APPROVED = {"event": "APPROVED", "message_template_name": "trip", "message_template_language": "en_US"}


@pytest.fixture
async def client(api_store: PostgresTransport) -> AsyncIterator[Client]:
    async with client_of(api_store) as made:
        yield made


async def meta_tells(
    admin: psycopg.AsyncConnection, workspace_id: UUID, *told: tuple[str, dict[str, Any]], at: datetime = AT
) -> None:
    """Record one event for each field and value."""
    events = [
        {
            "n": n,
            "workspace_id": str(workspace_id),
            "waba_id": WABA_A,
            "field": field,
            "event": str(value.get("event", "")).lower(),
            "sent_at": at.isoformat(),
            "received_at": at.isoformat(),
            "payload": value,
        }
        for n, (field, value) in enumerate(told)
    ]
    await admin.execute("select app.record_account_events(%s)", (json.dumps(events),))


async def page_of(client: Client, world: World, **params: Any) -> AccountEventPage:
    """A page as workspace A's owner gets it, valid in its documented shape and nothing more."""
    answer = await client.ask(
        ACCOUNT_EVENTS, user=world.owner_a, params={"workspace_id": str(world.workspace_a)} | params
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return AccountEventPage.model_validate_json(answer.content)


async def walk(client: Client, world: World, **params: Any) -> list[AccountEvent]:
    met: list[AccountEvent] = []
    cursor: dict[str, str] = {}
    while True:
        page = await page_of(client, world, **params, **cursor)
        met += page.items
        if page.next_cursor is None:
            return met
        cursor = {"cursor": page.next_cursor}


async def test_an_operator_reads_what_meta_told(client: Client, world: World, admin: psycopg.AsyncConnection) -> None:
    await meta_tells(admin, world.workspace_a, ("security", PIN_CHANGED), at=AT + timedelta(seconds=1))
    await meta_tells(admin, world.workspace_a, ("message_template_status_update", APPROVED))

    page = await page_of(client, world)

    pin, approved = page.items
    (template_id,) = await (await admin.execute("select id from public.whatsapp_templates")).fetchone() or ()
    assert pin.model_dump(exclude={"id", "created_at"}) == {
        "workspace_id": world.workspace_a,
        "field": "security",
        "event": "pin_changed",
        "severity": "critical",
        "channel_id": world.channel_a,
        "template_id": None,
        "waba_id": WABA_A,
        "happened_at": AT + timedelta(seconds=1),
        "payload": PIN_CHANGED,
    }
    assert (approved.severity, approved.channel_id, approved.template_id) == ("info", None, template_id)
    assert page.next_cursor is None
    assert abs(page.server_time - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_workspace_meta_told_nothing_about_has_an_empty_page(client: Client, world: World) -> None:
    page = await page_of(client, world)

    assert (page.items, page.next_cursor) == ([], None)


async def test_events_of_one_time_are_neither_skipped_nor_repeated(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    told = [("account_update", {"event": "PARTNER_ADDED", "n": n}) for n in range(7)]
    await meta_tells(admin, world.workspace_a, *told)
    await meta_tells(
        admin, world.workspace_a, ("account_update", {"event": "FIRST"}), at=AT + timedelta(microseconds=1)
    )
    await meta_tells(admin, world.workspace_a, ("account_update", {"event": "LAST"}), at=AT - timedelta(microseconds=1))

    walks = [await walk(client, world, limit=limit) for limit in (1, 2, 3, 9, 100)]

    assert len({event.id for event in walks[0]}) == len(walks[0]) == 9
    assert (walks[0][0].event, walks[0][-1].event) == ("first", "last")
    assert walks == [walks[0]] * 5


async def test_a_severity_is_all_that_is_shown_when_asked_for(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    for n in range(3):
        await meta_tells(
            admin,
            world.workspace_a,
            ("security", PIN_CHANGED),
            ("message_template_status_update", APPROVED | {"event": "PAUSED"}),
            ("message_template_status_update", APPROVED),
            at=AT + timedelta(minutes=n),
        )

    for severity in ("critical", "warning", "info"):
        met = await walk(client, world, severity=severity, limit=2)

        assert [event.severity for event in met] == [severity] * 3
        assert [event.happened_at for event in met] == [AT + timedelta(minutes=n) for n in (2, 1, 0)]
    assert len(await walk(client, world, limit=2)) == 9


async def test_what_is_another_workspaces_is_told_apart_from_nothing_by_nobody(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    await meta_tells(admin, world.workspace_a, ("security", PIN_CHANGED))

    for user in (world.owner_b, world.stranger):
        told = [
            await client.ask(ACCOUNT_EVENTS, user=user, params={"workspace_id": str(workspace)})
            for workspace in (world.workspace_a, new_id())
        ]

        assert [as_problem(answer) for answer in told] == [(404, "workspace_not_found")] * 2
        bodies = [answer.json() | {"request_id": None} for answer in told]
        assert bodies[0] == bodies[1]
    mine = await client.ask(ACCOUNT_EVENTS, user=world.owner_b, params={"workspace_id": str(world.workspace_b)})
    assert mine.json()["items"] == []


async def test_without_a_good_token_nothing_is_told(client: Client, world: World) -> None:
    for headers in ({}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {world.owner_a}"}):
        answer = await client.ask(ACCOUNT_EVENTS, headers=headers, params={"workspace_id": str(world.workspace_a)})

        status, code = as_problem(answer)
        assert (status, code[:5]) == (401, "token")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_argument_is_named_and_not_repeated(client: Client, world: World) -> None:
    wrong: list[dict[str, str | None]] = [
        {"workspace_id": None},
        {"workspace_id": "quux-4711"},
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "quux-4711"},
        {"cursor": ""},
        {"cursor": "quux-4711"},
        {"cursor": "1_quux-4711"},
        {"cursor": "9" * 18 + "_01a205fd-f7c6-738f-9fa9-5cc105728df7"},
        {"cursor": "1_01a205fd-f7c6-738f-9fa9-5cc105728df7\n"},
        {"cursor": "٣_01a205fd-f7c6-738f-9fa9-5cc105728df7"},
        {"severity": "quux-4711"},
        {"severity": ""},
        {"severity": "CRITICAL"},
    ]

    for params in wrong:
        asked = {"workspace_id": str(world.workspace_a)} | params
        answer = await client.ask(
            ACCOUNT_EVENTS,
            user=world.owner_a,
            params={name: value for name, value in asked.items() if value is not None},
        )

        assert as_problem(answer)[0] == 422, params
        assert answer.json()["hint"]
        assert "quux" not in answer.text


async def test_the_function_refuses_a_severity_it_does_not_know(admin: psycopg.AsyncConnection, world: World) -> None:
    with pytest.raises(psycopg.Error) as caught:
        await admin.execute("select public.list_account_events(%s, p_severity => 'loud')", (world.workspace_a,))

    assert (caught.value.sqlstate, caught.value.diag.message_detail) == ("PT422", "bad_severity")


async def test_a_page_uses_its_index_however_long_the_list(admin: psycopg.AsyncConnection, world: World) -> None:
    await admin.execute(
        "insert into public.account_events (workspace_id, id, field, event, severity, happened_at, payload, digest)"
        " select %s, gen_random_uuid(), 'account_update', '', (array['info', 'info', 'critical'])[1 + n %% 3],"
        " now() - n * interval '1 second', '{}', sha256(n::text::bytea) from generate_series(1, 5000) n",
        (world.workspace_a,),
    )
    await admin.execute("analyze public.account_events")

    for index, of_severity in (
        ("account_events_newest", sql.SQL("")),
        ("account_events_severity", sql.SQL("and severity = 'critical'")),
    ):
        query = sql.SQL(
            "explain select * from public.account_events where workspace_id = {} {}"
            " and (happened_at, id) < ('infinity', 'ffffffff-ffff-ffff-ffff-ffffffffffff')"
            " order by happened_at desc, id desc limit 51"
        ).format(str(world.workspace_a), of_severity)
        plan = "\n".join(line for (line,) in await (await admin.execute(query)).fetchall())

        assert "Sort" not in plan
        assert index in plan
