"""What each of Meta's events about accounts, numbers, templates and groups changes, and who sees it."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from shared.domain.ids import new_id
from tests.conftest import Database
from tests.integration.account_event_rows import (
    AT,
    CHANNEL_AS_MADE,
    GROUP,
    MS,
    NAMES,
    PATTERNS,
    Event,
    Recorder,
    about_number,
    ban,
    event_of,
    fixture,
    group,
    recorder_on,
    restriction,
    template,
)
from tests.world import WABA_A, World


@pytest.fixture
async def record(database: Database, world: World) -> AsyncIterator[Recorder]:
    async with recorder_on(database, world) as made:
        yield made


async def test_every_fixture_is_listed_once_however_often_it_comes(record: Recorder, world: World) -> None:
    events = [fixture(name) for name in NAMES]

    first = await record(*events)
    again = await record(*reversed(events))
    listed = await record.listed()

    assert all(any(name.startswith(pattern.rstrip("*")) for name in NAMES) for pattern in PATTERNS)
    assert first == list(range(len(events)))
    assert again == []
    assert len(listed) == len(events)
    assert sorted(map(told, listed)) == sorted(map(told, events))


def told(row: Event) -> tuple[str, str]:
    """What a row, or an event, says."""
    return row["field"], json.dumps(row["payload"], sort_keys=True)


SEVERITIES = {
    "account_alerts": "warning",
    "account_alerts_profile_picture": "critical",
    "account_update_deleted": "critical",
    "account_update_disabled": "critical",
    "account_update_offboarded": "critical",
    "account_update_partner_removed": "critical",
    "account_update_restriction": "critical",
    "account_update_violation": "critical",
    "flows_endpoint_error_rate": "warning",
    "group_lifecycle_update_create_failed": "warning",
    "group_participants_update_remove": "warning",
    "group_settings_update": "warning",
    "group_status_update_suspend": "warning",
    "phone_number_name_update_rejected": "warning",
    "phone_number_quality_update_legacy_flagged": "warning",
    "security_pin_changed": "critical",
    "security_pin_reset_request": "critical",
    "template_category_update_done": "warning",
    "template_category_update_pending": "warning",
    "template_status_archived": "warning",
    "template_status_disabled": "warning",
    "template_status_flagged": "warning",
    "template_status_paused": "warning",
    "template_status_rejected": "warning",
}


async def test_an_operator_sees_how_much_each_matters(record: Recorder) -> None:
    found = {}

    for name in NAMES:
        async with record.undone():
            await record(fixture(name))
            (listed,) = await record.listed()
            found[name] = listed["severity"]

    assert {name: severity for name, severity in found.items() if severity != "info"} == SEVERITIES


async def test_a_listed_event_is_whole(record: Recorder, world: World) -> None:
    await record(
        fixture("security_pin_changed"), fixture("template_status_rejected"), fixture("account_update_country")
    )

    listed = {e.pop("event"): e for e in await record.listed()}
    for row in listed.values():
        row.pop("digest")

    assert listed["pin_changed"] == {
        "field": "security",
        "severity": "critical",
        "channel_id": str(world.channel_a),
        "template": None,
        "waba_id": WABA_A,
        "happened_at": "2026-11-20T14:00:00+00:00",
        "payload": fixture("security_pin_changed")["payload"],
    }
    assert (listed["rejected"]["template"], listed["rejected"]["channel_id"]) == ("trip_reminder_v3", None)
    assert listed["business_primary_location_country_update"]["channel_id"] is None


TEMPLATE: dict[str, Any] = {
    "waba_id": WABA_A,
    "template_name": "trip_reminder_v3",
    "language": "en_US",
    "category": "utility",
    "previous_category": None,
    "correct_category": None,
    "category_changes_at": None,
    "body_content": "",
    "components": [],
    "status": "pending",
    "reject_reason": None,
    "paused_until": None,
    "quality": None,
    "meta_id": "1180337429165502",
    "submitted_at": None,
    "usage_count": 0,
}
BASE_FACTS = {"meta_id": [MS, "1180337429165502"], "category": [MS, "utility"]}
NO_CATEGORY = {"meta_id": [MS, "1180337429165502"]}
REJECTED = (
    "INVALID_FORMAT: Variables sit next to each other without text in between. Add words between the two variables."
)
COMPONENTS = [
    {"type": "HEADER", "format": "TEXT", "text": "Your trip"},
    {"type": "BODY", "text": "Hi {{1}}, your paddle trip starts on {{2}}. See you there!"},
    {"type": "FOOTER", "text": "Harbor & Pine"},
    {
        "type": "BUTTONS",
        "buttons": [
            {"type": "URL", "text": "Directions", "url": "https://example.com/t/{{1}}"},
            {"type": "PHONE_NUMBER", "text": "Call us", "phone_number": "+12025550143"},
        ],
    },
]


def in_status(status: str, reason: str | None = None, until: int | None = None) -> dict[str, Any]:
    return {"status": status, "facts": BASE_FACTS | {"status": [MS, status, reason, until]}}


TEMPLATES: dict[str, dict[str, Any]] = {
    "template_status_approved": in_status("approved"),
    "template_status_approved_null_reason": in_status("approved"),
    "template_status_reinstated": in_status("approved"),
    "template_status_archived": in_status("archived"),
    "template_status_disabled": in_status("disabled"),
    "template_status_flagged": in_status("flagged"),
    "template_status_in_appeal": in_status("in_appeal"),
    "template_status_pending_deletion": in_status("pending_deletion"),
    "template_status_rejected": in_status("rejected", REJECTED) | {"reject_reason": REJECTED},
    "template_status_paused": in_status("paused", until=MS + 3 * 3600 * 1000)
    | {"paused_until": "2026-11-20T17:00:00+00:00"},
    "template_status_unknown_event": {"facts": BASE_FACTS},  # known by name now, its status untouched
    "template_quality_update": {
        "category": None,
        "quality": "yellow",
        "facts": NO_CATEGORY | {"quality": [MS, "yellow"]},
    },
    "template_quality_update_mislabelled_field": {
        "category": None,
        "quality": "yellow",
        "facts": NO_CATEGORY | {"quality": [MS, "yellow"]},
    },
    "template_category_update_pending": {
        "correct_category": "marketing",
        "category_changes_at": "2026-11-21T14:00:00+00:00",
        "facts": BASE_FACTS | {"announced": [MS, "marketing", 1795269600000]},
    },
    "template_category_update_done": {
        "category": "marketing",
        "previous_category": "utility",
        "facts": NO_CATEGORY
        | {"category": [MS, "marketing"], "previous_category": [MS, "utility"], "announced": [MS, None, None]},
    },
    "template_components_update": {
        "category": None,
        "body_content": "Hi {{1}}, your paddle trip starts on {{2}}. See you there!",
        "components": COMPONENTS,
        "facts": NO_CATEGORY
        | {"content": [MS, "Hi {{1}}, your paddle trip starts on {{2}}. See you there!", COMPONENTS]},
    },
}


async def test_a_template_is_what_meta_last_said_of_it(record: Recorder) -> None:
    for name, expected in TEMPLATES.items():
        async with record.undone():
            await record(fixture(name))

            assert await record.templates() == [TEMPLATE | expected], name
            assert await record.channel() == CHANNEL_AS_MADE


def test_every_template_fixture_has_its_row() -> None:
    assert set(TEMPLATES) == {name for name in NAMES if name.startswith("template_")}


async def test_an_announced_category_is_gone_once_it_is_done(record: Recorder) -> None:
    later = (AT + timedelta(hours=24)).isoformat()

    await record(fixture("template_category_update_done") | {"sent_at": later, "received_at": later})
    await record(fixture("template_category_update_pending"))

    (row,) = await record.templates()
    assert (row["category"], row["previous_category"], row["correct_category"], row["category_changes_at"]) == (
        "marketing",
        "utility",
        None,
        None,
    )


async def test_a_template_known_here_keeps_what_meta_does_not_say(record: Recorder, world: World) -> None:
    await record.rows(
        "insert into public.whatsapp_templates"
        " (workspace_id, id, waba_id, template_name, language, category, body_content, usage_count)"
        " values (%s, %s, %s, 'trip_reminder_v3', 'en_US', 'marketing', 'Hi', 7) returning 1",
        world.workspace_a,
        new_id(),
        WABA_A,
    )

    await record(fixture("template_quality_update"))

    (row,) = await record.templates()
    assert (row["category"], row["body_content"], row["usage_count"], row["quality"]) == (
        "marketing",
        "Hi",
        7,
        "yellow",
    )


async def test_a_rejection_is_forgotten_when_the_edited_template_is_approved(record: Recorder) -> None:
    await record(fixture("template_status_rejected"), template("APPROVED", at=AT + timedelta(minutes=1)))

    (row,) = await record.templates()
    assert (row["status"], row["reject_reason"]) == ("approved", None)


CHANNELS: dict[str, dict[str, Any]] = {
    "phone_number_quality_update_throughput_upgrade": {
        "tier_mps": 1000,
        "messaging_limit": "unlimited",
        "facts": {"tier_mps": [MS, 1000], "messaging_limit": [MS, "unlimited"]},
    },
    "phone_number_quality_update_legacy_flagged": {
        "quality": "red",
        "messaging_limit": "10000",
        "facts": {"quality": [MS, "red"], "messaging_limit": [MS, "10000"]},
    },
    "phone_number_quality_update_onboarding": {},  # of a number that is not ours
    "phone_number_name_update_approved": {
        "verified_name": "Harbor & Pine Outfitters",
        "name_status": "approved",
        "facts": {
            "name": [MS, "approved", "Harbor & Pine Outfitters", None],
            "verified_name": [MS, "Harbor & Pine Outfitters"],
        },
    },
    "phone_number_name_update_rejected": {
        "name_status": "rejected",
        "facts": {"name": [MS, "rejected", "BEST KAYAKS!!!", "NAME_FORMAT_UNACCEPTABLE"]},
    },
    "business_username_update": {"username": "harborandpine", "facts": {"username": [MS, "harborandpine"]}},
    "business_username_update_deleted": {"facts": {"username": [MS, None]}},
    "business_capability_update_int": {"messaging_limit": "2000", "facts": {"messaging_limit": [MS, "2000"]}},
    "business_capability_update_tier": {"messaging_limit": "10000", "facts": {"messaging_limit": [MS, "10000"]}},
    "security_pin_changed": {"hold_reason": "pin_changed", "facts": {"pin": [MS, "pin_changed"]}},
    "security_pin_reset_request": {"hold_reason": "pin_reset_request", "facts": {"pin": [MS, "pin_reset_request"]}},
    "account_update_deleted": {"hold_reason": "account_deleted", "facts": {"account": [MS, "held", "deleted"]}},
    "account_update_disabled": {"facts": {"account": [MS, "free", "schedule_for_disable"]}},  # not yet
    "account_update_reinstated": {
        "facts": {"account": [MS, "free", "reinstate"], "restrictions_lifted": [MS]},
    },
    "account_update_restriction": {
        "hold_reason": "account_restricted",
        "hold_until": "2026-11-23T14:00:00+00:00",
        "facts": {
            "restriction:restricted_biz_initiated_messaging": [MS, 1795442400000],
            "restriction:restricted_add_phone_number_action": [MS, 1795442400000],
        },
    },
}


async def test_a_number_is_what_meta_last_said_of_it(record: Recorder) -> None:
    for name in (name for name in NAMES if not name.startswith(("template_", "group_"))):
        async with record.undone():
            await record(fixture(name))

            assert await record.channel() == CHANNEL_AS_MADE | CHANNELS.get(name, {}), name
            assert await record.templates() == []
            assert await record.groups() == []


async def test_another_workspaces_number_is_left_alone(record: Recorder, admin: psycopg.AsyncConnection) -> None:
    before = await (
        await admin.execute("select to_jsonb(c) from public.whatsapp_channels c where waba_id <> %s", (WABA_A,))
    ).fetchall()

    await record(*(fixture(name) for name in NAMES))

    after = await (
        await admin.execute("select to_jsonb(c) from public.whatsapp_channels c where waba_id <> %s", (WABA_A,))
    ).fetchall()
    assert after == before


async def test_an_event_reaches_the_numbers_it_is_about(
    record: Recorder, world: World, admin: psycopg.AsyncConnection
) -> None:
    second, gone, elsewhere = new_id(), new_id(), new_id()
    for id_, waba, phone, display, state in (
        (second, WABA_A, "402776318915990", "+1 202-555-0188", "connected"),
        (gone, WABA_A, "402776318915991", "12025550199", "disconnected"),
        (elsewhere, "999", "402776318915992", "12025550143", "connected"),
    ):
        await admin.execute(
            "insert into public.whatsapp_channels (workspace_id, id, waba_id, portfolio_id, phone_number_id,"
            " display_phone_number, state) values (%s, %s, %s, '1', %s, %s, %s)",
            (world.workspace_a, id_, waba, phone, display, state),
        )
    first = world.channel_a
    metadata = {"metadata": {"phone_number_id": "402776318915990"}}

    async def reached(event: Event) -> set[UUID]:
        async with record.undone():
            await record(event)
            return {
                UUID(c) for c in await record.rows("select id::text from public.whatsapp_channels where facts <> '{}'")
            }

    assert await reached(fixture("account_update_deleted")) == {first, second}
    assert await reached(fixture("business_capability_update_int")) == {first, second}
    assert await reached(fixture("security_pin_changed")) == {first}
    assert await reached(fixture("phone_number_quality_update_onboarding")) == {second}
    assert await reached(event_of("security", {"event": "PIN_CHANGED"})) == {first, second}
    assert await reached(event_of("security", {"event": "PIN_CHANGED"} | metadata)) == {second}
    assert await reached(fixture("security_pin_changed", channel_id=str(second))) == {second}
    assert await reached(fixture("security_pin_changed", channel_id=str(gone))) == {gone}
    assert await reached(fixture("security_pin_changed", phone_number_id="402776318915990")) == {second}
    assert await reached(about_number("security", "PIN_CHANGED", display_phone_number="12025550000")) == set()
    assert await reached(about_number("security", "PIN_CHANGED", display_phone_number=None)) == set()
    assert await reached(about_number("security", "PIN_CHANGED", display_phone_number=12025550143)) == {first}
    assert await reached(fixture("security_pin_changed", waba_id="999")) == {elsewhere}
    assert await reached(fixture("security_pin_changed", channel_id=str(world.channel_b))) == set()
    assert (
        await reached(event_of("phone_number_name_update", {"decision": "APPROVED", "requested_verified_name": "X"}))
        == set()
    )


async def test_an_event_for_two_workspaces_changes_both_and_is_new_once(
    database: Database, world: World, record: Recorder, admin: psycopg.AsyncConnection
) -> None:
    event = fixture("template_status_approved")
    both = [event | {"n": 7, "workspace_id": str(w)} for w in (world.workspace_a, world.workspace_b)]

    found = [
        await (await admin.execute("select app.record_account_events(%s)", (json.dumps(both),))).fetchall()
        for _ in range(2)
    ]

    assert found == [[([7],)], [([],)]]
    assert len(await record.templates()) == len(await record.listed()) == 2


async def test_one_body_may_hold_the_same_event_twice(record: Recorder) -> None:
    new = await record(fixture("security_pin_changed"), template("APPROVED"), fixture("security_pin_changed"))

    assert new == [0, 1]
    assert len(await record.listed()) == 2


async def hold(record: Recorder) -> tuple[str | None, str | None]:
    channel = await record.channel()
    return channel["hold_reason"], channel["hold_until"]


async def test_sending_is_held_and_released_by_what_meta_said_last(record: Recorder) -> None:
    minute = timedelta(minutes=1)
    until = AT + timedelta(days=3)
    far = until + timedelta(days=4)
    biz, replies = "BIZ_INITIATED_MESSAGING", "CUSTOMER_INITIATED_MESSAGING"
    pin = fixture("security_pin_changed")
    cases: list[tuple[tuple[Event, ...], tuple[str | None, datetime | None]]] = [
        ((ban("DISABLE"),), ("account_disabled", None)),
        ((ban("SCHEDULE_FOR_DISABLE"), ban("DISABLE", at=AT + minute)), ("account_disabled", None)),
        ((ban("DISABLE"), ban("REINSTATE", at=AT + minute)), (None, None)),
        ((ban("REINSTATE"), ban("DISABLE", at=AT + minute)), ("account_disabled", None)),
        ((ban("DISABLE"), ban("REINSTATE")), ("account_disabled", None)),  # of one second: held until it is clear
        ((restriction(biz, until=until),), ("account_restricted", until)),
        ((restriction(biz),), ("account_restricted", None)),
        ((restriction(replies, until=until),), ("account_restricted", until)),
        ((restriction(biz, until=until), restriction(replies, until=far, at=AT + minute)), ("account_restricted", far)),
        ((restriction(biz, until=until), restriction(replies)), ("account_restricted", None)),
        ((restriction(biz, until=far), restriction(biz, until=until, at=AT + minute)), ("account_restricted", until)),
        ((restriction("UTILITY_TEMPLATES", "ADD_PHONE_NUMBER_ACTION"),), (None, None)),
        ((restriction(biz), restriction("ADD_PHONE_NUMBER_ACTION", at=AT + minute)), ("account_restricted", None)),
        ((restriction(biz), restriction(at=AT + minute)), (None, None)),
        ((restriction(biz), restriction()), ("account_restricted", None)),
        ((restriction(biz), ban("REINSTATE", at=AT + minute)), (None, None)),
        ((restriction(biz, at=AT + minute), ban("REINSTATE")), ("account_restricted", None)),
        ((pin, ban("REINSTATE", at=AT + minute)), ("pin_changed", None)),
        ((pin, restriction(biz, until=until)), ("pin_changed", None)),
        ((pin, ban("DISABLE")), ("account_disabled", None)),
        ((pin, about_number("security", "PIN_REQUEST_SUCCESS", at=AT + minute)), ("pin_request_success", None)),
        ((ban("DISABLE"), fixture("account_update_deleted")), ("account_disabled", None)),
        ((ban("OF_A_NEW_KIND"),), (None, None)),
    ]

    for events, (reason, hold_until) in cases:
        for ordered in itertools.permutations(events):
            async with record.undone():
                for event in ordered:
                    await record(event)

                assert await hold(record) == (reason, hold_until.isoformat() if hold_until else None), ordered


async def test_an_operators_release_ends_what_began_before_it_and_nothing_later(record: Recorder, world: World) -> None:
    release: LiteralString = "select app.release_channel_hold(%s, %s)"
    now = datetime.now(UTC)
    before, after = now - timedelta(hours=1), now + timedelta(hours=1)

    await record(about_number("security", "PIN_CHANGED", at=before) | {"received_at": before.isoformat()})
    held = await hold(record)
    await record.rows(release, world.workspace_a, world.channel_a)
    released = await hold(record)
    await record(ban("DISABLE", at=before - timedelta(hours=1)))
    late = await hold(record)
    await record(ban("DISABLE", at=after) | {"received_at": after.isoformat()})
    again = await hold(record)

    assert [held, released, late, again] == [
        ("pin_changed", None),
        (None, None),
        (None, None),
        ("account_disabled", None),
    ]


async def test_a_group_is_what_meta_last_said_of_it(record: Recorder) -> None:
    names = [name for name in NAMES if name.startswith("group_")]

    await record(*(fixture(name) for name in names))

    assert await record.groups() == [
        {
            "group_id": GROUP,
            "subject": "Cape May paddle",
            "description": None,  # its change failed
            "state": "suspended",
            "participants": [{"wa_id": "61491570006", "user_id": "AU.5590287714463310"}],
            "facts": {
                "lifecycle": [MS, "active"],
                "subject": [MS + 20_000, "Cape May paddle"],
                "suspension": [MS + 22_000, "suspended"],
                "participant:61491570006": [MS + 9_000, "joined", "61491570006", "AU.5590287714463310"],
                "participant:12025550162": [MS + 12_000, "left", "12025550162", None],
            },
        }
    ]


async def test_a_group_that_could_not_be_made_is_no_group(record: Recorder) -> None:
    await record(
        fixture("group_lifecycle_update_create_failed"),
        group("group_create", errors=[{"code": 131211}], subject="No"),
        fixture("group_participants_update_join_request"),
    )

    assert await record.groups() == []
    assert len(await record.listed()) == 3


async def test_who_left_a_group_is_not_in_it_and_a_deleted_group_stays_so(record: Recorder) -> None:
    second = timedelta(seconds=1)
    ana, bob, cy = {"wa_id": "12025550117", "user_id": "US.1"}, {"user_id": "US.2"}, {"input": "+1 202 555 0162"}
    await record(
        group("group_participants_add", added_participants=[ana, bob, cy]),
        group("group_participants_remove", at=AT + second, removed_participants=[{"input": "12025550117"}]),
        group("group_suspend", at=AT + second),
        group("group_suspend_cleared", at=AT + 2 * second),
    )
    (before,) = await record.groups()

    await record(group("group_delete", at=AT + 3 * second), group("group_suspend", at=AT + 4 * second))
    (after,) = await record.groups()

    assert before["participants"] == [{"wa_id": "12025550162", "user_id": None}, {"wa_id": None, "user_id": "US.2"}]
    assert (before["state"], after["state"]) == ("active", "deleted")


async def test_who_was_erased_from_a_group_is_not_brought_back_by_a_repeat(
    record: Recorder, admin: psycopg.AsyncConnection
) -> None:
    events = [fixture(name) for name in NAMES if name.startswith("group_")]
    await record(*events)
    await admin.execute(
        "update public.whatsapp_groups set facts = facts - 'participant:61491570006', participants = '[]'"
    )
    erased = await record.groups()

    new = await record(*events)

    assert new == []
    assert await record.groups() == erased


TABLES = [sql.Identifier("public", name) for name in ("account_events", "whatsapp_templates", "whatsapp_groups")]


@asynccontextmanager
async def as_role(database: Database, role: str, claims: str = "") -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database.url("test_api"), autocommit=True) as connection:
        async with connection.transaction(force_rollback=True):
            await connection.execute(
                "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", (role, claims)
            )
            yield connection


async def test_members_see_their_own_and_nobody_else_does(database: Database, world: World, record: Recorder) -> None:
    await record(*(fixture(name) for name in NAMES))

    async def seen(user: UUID) -> list[int]:
        counts = []
        async with as_role(database, "authenticated", world.claims(user)) as connection:
            for table in TABLES:
                cursor = await connection.execute(sql.SQL("select from {}").format(table))
                counts.append(cursor.rowcount)
        return counts

    assert await seen(world.owner_a) == [len(NAMES), 1, 1]
    assert await seen(world.owner_b) == [0, 0, 0]
    assert await seen(world.stranger) == [0, 0, 0]


async def test_nobody_signed_in_or_not_writes(database: Database, world: World, record: Recorder) -> None:
    await record(*(fixture(name) for name in NAMES))
    ids = [str(world.workspace_a), str(world.channel_a)]
    reads = [sql.SQL("select from {}").format(table) for table in TABLES]
    writes = [
        *(
            sql.SQL(statement).format(table)
            for table in TABLES
            for statement in (
                "insert into {} default values",
                "update {} set created_at = now()",
                "delete from {}",
                "truncate {}",
            )
        ),
        sql.SQL("select app.record_account_events('[]')").format(),
        sql.SQL("select app.release_channel_hold({}, {})").format(*map(sql.Literal, ids)),
        sql.SQL("select app.later_facts('{{}}', '{{}}')").format(),
    ]

    for role, refused in (("authenticated", writes), ("anon", writes + reads)):
        for statement in refused:
            async with as_role(database, role, world.claims(world.owner_a)) as connection:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(statement)
