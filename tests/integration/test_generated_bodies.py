"""Bodies of a thousand items with one poisoned item anywhere: that one is set aside, the others are recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, LiteralString

import psycopg
import pytest

from services.ingest.record_batch import record_batch
from shared.queue.connection import connect_blocking
from shared.queue.jobs import Jobs
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from tests import meta_events as meta
from tests.meta_events import NUMBER_A, NUMBER_B, Item, Number, Who
from tests.world import World, received

ITEMS = 1000
MINUTE_0 = datetime(2026, 11, 20, 12, tzinfo=UTC)
STRANGER = Number("999999999999999", "888888888888888", "15550000000")
BESIDE_A = Number("402776318915990", NUMBER_A.waba_id, "12025550188")  # of A's account, not connected
NUMBERS = (NUMBER_A, NUMBER_B, STRANGER, BESIDE_A)


def a_text(n: int, who: Who, at: datetime, number: Number) -> Item:
    return meta.text(f"wamid.{n}", who, at, f"text {n}", number=number, profile={"name": "Ana"})


def an_image(n: int, who: Who, at: datetime, number: Number) -> Item:
    return meta.image(f"wamid.{n}", who, at, f"media-{n}", caption="look", number=number, profile={"name": "Ana"})


def something_new(n: int, who: Who, at: datetime, number: Number) -> Item:
    return meta.unknown(f"wamid.{n}", who, at, number=number)


def an_echo(n: int, who: Who, at: datetime, number: Number) -> Item:
    return meta.echo(f"wamid.{n}", who, at, {"type": "text", "text": {"body": f"text {n}"}}, number=number)


def a_status(n: int, who: Who, at: datetime, number: Number) -> Item:
    return meta.status(f"wamid.{n}", who, at, "delivered", number=number, profile={"name": "Ana"})


def an_unknown_status(n: int, who: Who, at: datetime, number: Number) -> Item:
    return meta.status(f"wamid.{n}", who, at, "teleported", number=number)


MESSAGES = (a_text, an_image, something_new, an_echo)
STATUSES = (a_status, an_unknown_status)


def generated(random: Random, *, poison: int, kinds: tuple[Callable[..., Item], ...], number: Number) -> list[Item]:
    """A thousand items of all kinds and numbers; number `poison` among them is of these kinds and this number."""
    items = []
    for n in range(ITEMS):
        whose = random.randrange(60)
        who = Who(f"US.{whose}", f"1202555{whose:04}")
        kind = random.choice(kinds if n == poison else (*MESSAGES, *STATUSES))
        items.append(kind(n, who, MINUTE_0 + timedelta(seconds=n), number if n == poison else random.choice(NUMBERS)))
    return items


async def rows(admin: psycopg.AsyncConnection, query: LiteralString, *args: object) -> list[tuple[Any, ...]]:
    cursor = await admin.execute(query, args)
    return await cursor.fetchall()


def wamids(items: list[Item], number: Number, lists: tuple[str, ...]) -> set[tuple[str]]:
    return {(item.element["id"],) for item in items if item.number is number and item.kind in lists}


@pytest.mark.parametrize(
    ("poison", "kinds", "table", "number"),
    [
        (0, MESSAGES, "public.whatsapp_messages", NUMBER_A),
        (617, MESSAGES, "public.whatsapp_messages", NUMBER_B),
        (382, STATUSES[:1], "app.message_states", NUMBER_A),
        (ITEMS - 1, STATUSES[:1], "app.message_states", NUMBER_B),
    ],
    ids=["first, a message of A's", "a message of B's", "a status of A's", "last, a status of B's"],
)
async def test_one_poisoned_item_costs_its_999_neighbours_nothing(
    world: World,
    service_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
    empty_redis: str,
    poison: int,
    kinds: tuple[Callable[..., Item], ...],
    table: str,
    number: Number,
) -> None:
    random = Random(f"{poison} {table} {number}")
    items = generated(random, poison=poison, kinds=kinds, number=number)
    await admin.execute(f"alter table {table} add constraint poison check (wamid <> 'wamid.{poison}')".encode())
    body = received(meta.body(*items, spread=random))
    place = next(n for n, item in enumerate(_as_packed(body.body.raw)) if item["id"] == f"wamid.{poison}")

    recorded = await record_batch(
        [body.body], webhooks=Webhooks(service_store), jobs=Jobs(connect_blocking(empty_redis, timeout_s=1)), settle_s=0
    )

    belongs = Counter(item.number for item in items)
    strangers = belongs[STRANGER] + belongs[BESIDE_A]
    assert await rows(
        admin, "select items, stored, duplicate, unrouted, suppressed, quarantined from app.webhook_bodies"
    ) == [(ITEMS, ITEMS - 1 - strangers, 0, strangers, 0, 1)]
    assert (recorded.stored, recorded.unrouted, recorded.quarantined) == (ITEMS - 1 - strangers, strangers, 1)
    assert await rows(admin, "select item, reason, state from app.quarantine") == [(place, "sqlstate_23514", "open")]
    poisoned = {(f"wamid.{poison}",)}
    for its, workspace in ((NUMBER_A, world.workspace_a), (NUMBER_B, world.workspace_b)):
        messages = await rows(admin, "select wamid from public.whatsapp_messages where workspace_id = %s", workspace)
        facts = await rows(admin, "select wamid from public.message_events where workspace_id = %s", workspace)
        changes = await rows(
            admin, "select phone_number_id from public.whatsapp_webhooks where workspace_id = %s", workspace
        )
        assert set(messages) == wamids(items, its, ("messages", "message_echoes")) - poisoned
        assert set(facts) == wamids(items, its, ("statuses",)) - poisoned
        assert set(changes) == {(its.phone_number_id,)}
    assert set(
        await rows(admin, "select phone_number_id from public.whatsapp_webhooks where workspace_id is null")
    ) == {(STRANGER.phone_number_id,), (BESIDE_A.phone_number_id,)}


def _as_packed(raw: bytes) -> list[dict[str, Any]]:
    """The items in the order in which they are counted: by entry, change, list."""
    values = [change["value"] for entry in json.loads(raw)["entry"] for change in entry["changes"]]
    return [e for v in values for kind in ("messages", "statuses", "message_echoes") for e in v.get(kind, ())]
