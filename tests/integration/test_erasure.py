"""Deleting a conversation, erasing a person: neither redelivery, in whatever company, nor replay undoes it."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest

from services.api.shapes import Erasure
from services.ingest.erase_contacts import erase_contacts
from shared.domain.errors import Conflict, Rejected, Unavailable
from shared.domain.ids import new_id
from shared.store.analysis import AnalysisWork
from shared.store.postgres import PostgresTransport
from shared.store.retention import Retention
from shared.store.webhook_batch import ReceivedBody
from shared.store.webhooks import Recorded, Webhooks
from shared.whatsapp.events import WebhookBody
from shared.whatsapp.parse import parse_webhook
from tests import meta_events as meta
from tests.integration.erasing import ask, everything, finish, naming, now, work_off
from tests.integration.lifecycle_rows import add_member
from tests.integration.test_api import as_problem, client_of
from tests.meta_events import NUMBER_B, Item, Who
from tests.world import World, received

ANA, BOB = Who("US.1001", "12025550117"), Who("US.1002", "12025550118")
HERS = {"name": "Ana Souza", "username": "ana.s"}
HIS = {"name": "Bob"}
# Whatever would tell that there was an Ana, and what she said.
TRACES = ("US.1001", "12025550117", "Ana Souza", "ana.s", "secret", "wamid.a")


@dataclass
class Story:
    """Two people who wrote to workspace A, and what came of it."""

    items: list[Item] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


def story() -> Story:
    """Ana and Bob: alone, side by side in one change, in a group; statuses, reactions, calls, edits, history."""
    at = now() - timedelta(minutes=10)
    hers = [
        meta.text("wamid.a1", ANA, at, "a secret", profile=HERS),
        meta.image("wamid.a2", ANA, at, "media-secret", caption="secret", profile=HERS),
        meta.reaction("wamid.a3", ANA, at, "wamid.b1", "👍", profile=HERS),
        meta.edit(
            "wamid.a4", ANA, at, "wamid.a1", {"type": "text", "text": {"body": "an edited secret"}}, profile=HERS
        ),
        meta.echo("wamid.a5", ANA, at, {"type": "text", "text": {"body": "our secret"}}, profile=HERS),
        meta.status("wamid.a5", ANA, at, "read", profile=HERS),
        meta.status("wamid.a6", ANA, at, "delivered", profile=HERS),  # of a message we never had
        meta.history("wamid.a7", ANA, at, {"type": "text", "text": {"body": "an old secret"}}),
        meta.call("wamid.a8", ANA, at),
        meta.call("wamid.a9", ANA, at, by_customer=False),
        meta.preference(ANA, at, "stop"),
        meta.text("wamid.a10", ANA, at, "a group secret", profile=HERS, group_id="G1"),
    ]
    answer = meta.text("wamid.b3", BOB, at, "I agree", profile=HIS, group_id="G1", reply_to="wamid.a10")
    answer.element["context"]["from"] = "12025550117"
    his = [
        meta.text("wamid.b1", BOB, at, "Hello", profile=HIS),
        meta.text("wamid.b2", BOB, at, "Hello, all", profile=HIS, group_id="G1"),
        answer,
        meta.status("wamid.b4", BOB, at, "read", profile=HIS),
        meta.history("wamid.b5", BOB, at, {"type": "text", "text": {"body": "Hello then"}}),
    ]
    items = [item for pair in zip(hers, his * 3, strict=False) for item in pair]
    bodies = [meta.body(*hers), meta.body(*his), meta.body(*items, spread=Random(1)), *(meta.body(i) for i in hers)]
    return Story([*hers, *his], bodies)


async def record(store: PostgresTransport, *bodies: bytes | ReceivedBody) -> Recorded:
    webhooks = Webhooks(store)
    total = Recorded()
    for body in bodies:
        total += await webhooks.record([body if isinstance(body, ReceivedBody) else received(body)], settle_s=0)
    return total


async def rows(admin: psycopg.AsyncConnection, query: str, *args: Any) -> list[tuple[Any, ...]]:
    return await (await admin.execute(query.encode(), args)).fetchall()


async def contact_of(admin: psycopg.AsyncConnection, user_id: str) -> UUID:
    ((found,),) = await rows(admin, "select contact_id from public.contact_identities where value = %s", user_id)
    return UUID(str(found))


async def analyse(store: PostgresTransport) -> None:
    """Claude says something about everything that is due."""
    analysis = AnalysisWork(store)
    claimed = await analysis.claim_due(limit=10, lease_s=30, most_messages=20, most_attempts=3)
    counts = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), 1)
    priced = counts | {"cost_usd": "0.001"}
    attempt = {"outcome": "ok", "model": "m", "prompt_version": "p", "latency_ms": 1} | priced
    for work in claimed.work:
        await analysis.finish(
            work.lease,
            attempt=attempt | {"id": work.attempt_id},
            results=[
                {"message_id": m["message_id"], "content_version": m["content_version"], "intent": "greeting",
                 "result": {"summary": m["content"]}, "ai_summary": m["content"]} | priced
                for m in work.context["new_messages"]
            ],
            failed=None,
            most_messages=20,
        )  # fmt: skip


async def his_rows(admin: psycopg.AsyncConnection) -> list[Any]:
    """All that must not change for Bob."""
    return [
        await rows(admin, query)
        for query in (
            "select wamid, content, status, direction, sender_user_id, payload - 'context'"
            " from public.whatsapp_messages where wamid like 'wamid.b%%' order by wamid",
            "select name, facts from public.contacts where name = 'Bob'",
            "select wamid, kind, key, payload from public.message_events where wamid like 'wamid.b%%'"
            " and key not like 'wamid.a%%' order by 1, 2, 3",
            "select wamid, rank from app.message_states where wamid like 'wamid.b%%' order by 1",
            "select kind, value from public.contact_identities where user_id = 'US.1002' order by 1, 2",
        )
    ]


async def redeliver(store: PostgresTransport, told: Story, *, seed: int, lanes: int = 3) -> Recorded:
    """Meta brings all of it again: the same bytes and batched anew with others' items, in any order, side by side."""
    random = Random(seed)
    carol = Who("US.1003", "12025550119")
    outcomes = []
    for lane in range(lanes):
        new = meta.text(f"wamid.c{seed}-{lane}", carol, now(), "Hello", profile={"name": "Carol"})
        mixed = [*told.items, new]
        random.shuffle(mixed)
        bodies = [*told.bodies, meta.body(*mixed, spread=random)]
        random.shuffle(bodies)
        outcomes.append(record(store, *bodies))
    return sum(await asyncio.gather(*outcomes), Recorded())


async def test_nothing_of_an_erased_person_is_left_and_nothing_of_others_is_lost(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    await analyse(service_store)
    before = await his_rows(admin)
    spent = await rows(admin, "select count(*), sum(cost_usd) from app.analysis_attempts")
    assert len(naming(await everything(admin), *TRACES)) == 10  # there is something to find, in every table that could

    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await finish(admin, service_store)

    assert naming(await everything(admin), *TRACES) == {}
    assert await his_rows(admin) == before
    assert await rows(admin, "select count(*), sum(cost_usd) from app.analysis_attempts") == spent
    assert await rows(admin, "select state, files from app.erasures") == [("done", [])]
    assert await rows(admin, "select count(*) from app.webhook_bodies where items <> stored + duplicate") == [(0,)]
    assert await rows(
        admin, "select action, source, before, after from public.audit_log where subject_type = 'contact'"
    ) == [("contact.erased", "system", None, None)]


async def test_others_items_in_shared_bodies_are_the_same_json(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    elements = {json.dumps(i.element) for i in told.items if i.element.get("id", "").startswith("wamid.b")}

    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await work_off(service_store)

    raws = [bytes(raw) for (raw,) in await rows(admin, "select raw from app.webhook_bodies where raw <> ''")]
    left = [
        json.dumps(element)
        for raw in raws
        for entry in json.loads(raw)["entry"]
        for change in entry["changes"]
        for name in ("messages", "statuses")
        for element in change["value"].get(name, [])
    ]
    quoting = next(i for i in told.items if i.element.get("id") == "wamid.b3").element
    history = json.dumps(next(i for i in told.items if i.kind == "history" and "wamid.b5" in str(i.element)).element)
    expected = (elements | {json.dumps({k: v for k, v in quoting.items() if k != "context"})}) - {json.dumps(quoting)}
    assert set(left) == expected
    assert any(history in json.dumps(json.loads(raw)) for raw in raws)
    assert await rows(admin, "select count(*) > 0, count(erased_at) > 0 from app.webhook_bodies") == [(True, True)]


@pytest.mark.parametrize("seed", range(3))
async def test_no_redelivery_brings_an_erased_person_back(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection, seed: int
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    before = await his_rows(admin)
    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await work_off(service_store)

    again = await redeliver(service_store, told, seed=seed)
    await finish(admin, service_store)

    assert again.stored == 3  # Carol's
    assert naming(await everything(admin), *TRACES) == {}
    assert await his_rows(admin) == before


async def test_no_redelivery_during_the_erasure_brings_them_back(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    before = await his_rows(admin)
    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)

    await asyncio.gather(
        redeliver(service_store, told, seed=7),
        *(work_off(service_store) for _ in range(3)),
        redeliver(service_store, told, seed=8),
    )
    await finish(admin, service_store)

    assert naming(await everything(admin), *TRACES) == {}
    assert await his_rows(admin) == before


async def test_a_replay_of_what_is_kept_changes_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await finish(admin, service_store)
    kept = {name: len(texts) for name, texts in (await everything(admin)).items()}

    stored = await rows(admin, "select id, received_at, raw from app.webhook_bodies where raw <> ''")
    bodies = [WebhookBody(id=i, received_at=at, raw=bytes(raw), traceparent="") for i, at, raw in stored]
    again = await record(
        service_store, *(ReceivedBody(b, parse_webhook(b.raw, now=b.received_at), is_stored=True) for b in bodies)
    )

    assert (again.stored, again.quarantined, again.unrouted) == (0, 0, 0)
    assert {name: len(texts) for name, texts in (await everything(admin)).items()} == kept
    assert naming(await everything(admin), *TRACES) == {}


async def test_who_writes_again_is_somebody_new(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    erased = await contact_of(admin, "US.1001")
    await ask(admin, world.workspace_a, erased, world.owner_a)
    await work_off(service_store)

    later = now() + timedelta(seconds=2)
    again = await record(service_store, meta.body(meta.text("wamid.n1", ANA, later, "Hi again", profile=HERS)))
    await admin.execute("update app.erasures set due_at = now()")
    await work_off(service_store)

    assert again.stored == 1
    assert await contact_of(admin, "US.1001") != erased
    assert await rows(
        admin, "select content, seq from public.whatsapp_messages where wamid = 'wamid.n1'"
    ) == [("Hi again", 1)]  # fmt: skip
    assert len(naming(await everything(admin), "Hi again")) == 3  # message, logged change, raw body: none rewritten


async def test_a_status_of_an_erased_message_is_a_duplicate(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await record(service_store, *story().bodies)
    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await work_off(service_store)

    later = now() + timedelta(hours=1)
    again = await record(
        service_store,
        meta.body(meta.status("wamid.a5", Who(None, None), later, "played")),
        meta.body(meta.status("wamid.a6", Who(None, None), later, "read")),
        meta.body(meta.edit("wamid.e", ANA, later, "wamid.a1", {"type": "text", "text": {"body": "x"}})),
    )

    assert (again.stored, again.duplicate) == (0, 3)
    assert await rows(admin, "select count(*) from app.message_states where wamid like 'wamid.a%%'") == [(0,)]


async def test_merged_contacts_go_together(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    at = now() - timedelta(minutes=5)
    older = Who("US.900", "12025550100")
    await record(
        service_store,
        meta.body(meta.text("wamid.a1", ANA, at, "a secret", profile=HERS)),
        meta.body(meta.text("wamid.a2", older, at, "an older secret", profile=HERS)),
        meta.body(
            meta.user_changed_number(
                "wamid.a3",
                at,
                old_wa_id="12025550100",
                wa_id="12025550117",
                user_id="US.1001",
                previous_user_id="US.900",
            )
        ),
    )
    (merged,) = await rows(admin, "select id from public.contacts where merged_into is not null")

    await ask(admin, world.workspace_a, merged[0], world.owner_a)
    await finish(admin, service_store)

    assert naming(await everything(admin), *TRACES, "US.900", "12025550100") == {}
    assert await rows(admin, "select count(*) from public.contacts") == [(0,)]


async def test_the_next_owner_of_their_number_loses_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    at = now() - timedelta(minutes=5)
    successor = Who("US.3003", "12025550117")
    first = meta.body(meta.text("wamid.a1", ANA, at, "a secret", profile=HERS))
    second = meta.body(meta.text("wamid.b1", successor, at + timedelta(seconds=9), "Hello", profile=HIS))
    late = meta.body(meta.text("wamid.b2", successor, at + timedelta(seconds=99), "Still me", profile=HIS))
    await record(service_store, first, second)

    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await finish(admin, service_store)
    again = await record(service_store, first, second, late)

    assert (again.stored, again.duplicate) == (1, 2)
    assert await rows(admin, "select wamid from public.whatsapp_messages order by 1") == [("wamid.b1",), ("wamid.b2",)]
    assert await rows(admin, "select raw = %s from app.webhook_bodies where raw = %s limit 1", second, second) == [
        (True,)
    ]


async def test_another_workspaces_customer_stays_theirs(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    at = now()
    theirs = meta.text("wamid.x1", ANA, at, "to the other shop", number=NUMBER_B, profile=HERS)
    ours = meta.text("wamid.a1", ANA, at, "a secret", profile=HERS)
    await record(service_store, meta.body(ours, theirs))
    ((contact,),) = await rows(admin, "select id from public.contacts where workspace_id = %s", world.workspace_a)

    await ask(admin, world.workspace_a, contact, world.owner_a)
    await finish(admin, service_store)

    assert naming(await everything(admin), "secret", "wamid.a1") == {}
    assert await rows(admin, "select content from public.whatsapp_messages") == [("to the other shop",)]
    ((raw,),) = await rows(admin, "select raw from app.webhook_bodies")
    assert json.loads(bytes(raw)) == json.loads(meta.body(theirs))


async def test_what_was_set_aside_is_rewritten_too_and_keeps_its_place(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    at = now() - timedelta(minutes=1)
    far = at + timedelta(days=30)  # set aside: a day ahead and more
    bodies = [
        meta.body(
            meta.text("wamid.a1", ANA, at, "a secret", profile=HERS),
            meta.text("wamid.b1", BOB, far, "Hello", profile=HIS),
        ),
        b'{"broken": "12025550117 a secret"',
    ]
    await record(service_store, *bodies)

    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await finish(admin, service_store)

    assert naming(await everything(admin), *TRACES) == {}
    assert await rows(admin, "select item, reason from app.quarantine") == [(0, "time_a_day_ahead")]
    assert await rows(admin, "select length(raw) > 0 from app.webhook_bodies order by items desc") == [
        (True,),
        (False,),
    ]


async def test_an_erasure_that_dies_at_any_step_is_gone_on_with(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    before = await his_rows(admin)
    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)

    class Dying(Retention):
        """Dies after so many calls; every second one was done all the same."""

        left = 0

        async def _spend(self, call: Any, *args: Any, **more: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise Unavailable("killed before", code="killed")
            answer = await call(*args, **more)
            if self.left == -1:
                raise Unavailable("killed after", code="killed")
            return answer

        async def erase_rows(self, *args: Any, **more: Any) -> Any:
            return await self._spend(super().erase_rows, *args, **more | {"limit": 2})

        async def find_raw(self, *args: Any, **more: Any) -> Any:
            return await self._spend(super().find_raw, *args, **more | {"limit": 3})

        async def rewrite_raw(self, *args: Any, **more: Any) -> Any:
            return await self._spend(super().rewrite_raw, *args, **more)

    deaths = 0
    for turn in range(200):
        dying = Dying(service_store)
        dying.left = turn % 6
        try:
            paused_s = await erase_contacts(retention=dying, lease_s=20, poll_every_s=5)
        except Unavailable:
            deaths += 1
            await admin.execute("update app.erasures set lease_until = now() - interval '1 s'")
        else:
            if paused_s:
                break
    await finish(admin, service_store)

    assert deaths > 8
    assert naming(await everything(admin), *TRACES) == {}
    assert await his_rows(admin) == before


async def test_bodies_that_wait_to_be_recorded_are_rewritten_and_recorded(
    world: World, service_store: PostgresTransport, ingest_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    at = now() - timedelta(minutes=5)
    hers, his = (
        meta.text(f"wamid.{n}", who, at, "a secret", profile=p) for n, who, p in (("a1", ANA, HERS), ("b1", BOB, HIS))
    )
    await record(service_store, meta.body(meta.text("wamid.a0", ANA, at, "a secret", profile=HERS)))
    await Webhooks(ingest_store).store_bodies([received(meta.body(hers)).body, received(meta.body(hers, his)).body])

    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await work_off(service_store)
    claimed = await Webhooks(service_store).claim_bodies(limit=10, hold_s=30)
    again = await record(
        service_store, *(ReceivedBody(b, parse_webhook(b.raw, now=b.received_at), True) for b, _ in claimed)
    )

    assert (len(claimed), again.stored) == (1, 1)
    assert await rows(admin, "select wamid from public.whatsapp_messages") == [("wamid.b1",)]
    assert await rows(admin, "select count(*) from app.webhook_bodies where state = 'new' or quarantined > 0") == [(0,)]


async def test_their_traces_in_groups_go_too(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    at = now() - timedelta(minutes=5)
    seconds = str(int(at.timestamp()))
    ids = {"recipient_participant_id": "12025550117", "recipient_participant_user_id": "US.1001"}
    status = {"id": "wamid.o1", "status": "read", "timestamp": seconds, "recipient_id": "G1", "recipient_type": "group"}
    bobs = {"recipient_participant_id": "12025550118", "recipient_participant_user_id": "US.1002"}
    joined = {
        "group_id": "G1",
        "timestamp": seconds,
        "type": "group_participants_add",
        "added_participants": [{"wa_id": "12025550117", "user_id": "US.1001"}, {"wa_id": "12025550118"}],
    }
    bodies = [
        meta.body(meta.text("wamid.a1", ANA, at, "a group secret", profile=HERS, group_id="G1")),
        meta.body(meta.text("wamid.b1", BOB, at, "Hello", profile=HIS, group_id="G1")),
        meta.body(*(Item(meta.NUMBER_A, "messages", "statuses", status | who) for who in (ids, bobs))),
        meta.body(Item(meta.NUMBER_A, "group_participants_update", "groups", joined)),
    ]
    await record(service_store, *bodies)
    assert set(naming(await everything(admin), *TRACES)) >= {"public.whatsapp_groups", "public.account_events"}
    state = "select unread_count, status from public.whatsapp_conversations where group_id = 'G1'"
    assert await rows(admin, state) == [(2, "open")]

    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    await work_off(service_store)
    again = await record(service_store, *bodies)
    await finish(admin, service_store)

    assert again.stored == 0
    assert naming(await everything(admin), *TRACES) == {}
    assert await rows(admin, "select participants from public.whatsapp_groups") == [
        ([{"wa_id": "12025550118", "user_id": None}],)
    ]
    assert await rows(admin, "select wamid, kind, key from public.message_events") == [("wamid.o1", "read", "US.1002")]
    assert await rows(admin, state) == [(1, "open")]


async def test_what_claude_was_reading_meanwhile_is_not_written_down(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await record(service_store, *story().bodies)
    contact = await contact_of(admin, "US.1001")
    analysis = AnalysisWork(service_store)
    claimed = await analysis.claim_due(limit=10, lease_s=30, most_messages=20, most_attempts=3)
    assert len(claimed.work) == 3  # Ana's, Bob's, the group's

    await ask(admin, world.workspace_a, contact, world.owner_a)
    await work_off(service_store)
    counts = dict.fromkeys(("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"), 1)
    priced = counts | {"cost_usd": "0.001"}
    for work in claimed.work:
        await analysis.finish(
            work.lease,
            attempt={"id": work.attempt_id, "outcome": "ok", "model": "m", "prompt_version": "p", "latency_ms": 1}
            | priced,
            results=[
                {
                    "message_id": m["message_id"],
                    "content_version": m["content_version"],
                    "result": {"summary": "secret"},
                }
                | priced
                for m in work.context["new_messages"]
                if m["content"] != "Hello"
            ],
            failed=None,
            most_messages=20,
        )
    await finish(admin, service_store)

    assert naming(await everything(admin), *TRACES) == {}
    assert await rows(admin, "select count(*), sum(cost_usd) > 0 from app.analysis_attempts where outcome = 'ok'") == [
        (3, True)
    ]
    left = await analysis.claim_due(limit=10, lease_s=30, most_messages=20, most_attempts=3)
    assert [[m["content"] for m in work.context["new_messages"]] for work in left.work] == [["Hello, all", "I agree"]]


async def test_agents_at_work_meanwhile_are_neither_stuck_nor_in_the_way(
    world: World, service_store: PostgresTransport, api_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    contact = await contact_of(admin, "US.1001")
    talks = await rows(admin, "select id from public.whatsapp_conversations order by id")
    maya = world.claims(world.owner_a)
    in_a = {"p_workspace_id": str(world.workspace_a)}

    async def work(function: str, args: dict[str, object]) -> None:
        for _ in range(20):
            with suppress(Rejected):  # it is gone, or its state forbids it
                await api_store.call(function, in_a | args, as_user=maya)

    await ask(admin, world.workspace_a, contact, world.owner_a)
    await asyncio.gather(
        work("block_contact", {"p_contact_id": str(contact)}),
        work("unblock_contact", {"p_contact_id": str(contact)}),
        *(work("archive_conversation", {"p_conversation_id": str(i), "p_seen_seq": 1000}) for (i,) in talks),
        *(work("delete_conversation", {"p_conversation_id": str(i)}) for (i,) in talks[:1]),
        *(analyse(service_store) for _ in range(3)),
        work_off(service_store),
    )
    await finish(admin, service_store)

    assert naming(await everything(admin), *TRACES) == {}


async def test_who_lost_the_lease_writes_nothing(
    world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await record(service_store, *story().bodies)
    await ask(admin, world.workspace_a, await contact_of(admin, "US.1001"), world.owner_a)
    retention = Retention(service_store)
    late, open_erasures = await retention.claim_erasure(lease_s=0)
    await asyncio.sleep(0.01)
    other, _ = await retention.claim_erasure(lease_s=20)

    assert open_erasures == 1
    assert late is not None
    assert other is not None
    with pytest.raises(Conflict):
        await retention.erase_rows(late, lease_s=20, limit=10)
    assert await retention.erase_rows(other, lease_s=20, limit=10) == "erasing"
    assert (await retention.claim_erasure(lease_s=20))[0] is None


async def test_a_deleted_conversation_stays_deleted_however_it_is_redelivered(
    world: World, service_store: PostgresTransport, api_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    told = story()
    await record(service_store, *told.bodies)
    ((conversation,),) = await rows(
        admin,
        "select id from public.whatsapp_conversations where contact_id = %s",
        await contact_of(admin, "US.1001"),
    )
    args = {"p_workspace_id": str(world.workspace_a), "p_conversation_id": str(conversation)}
    for function, more in (("archive_conversation", {"p_seen_seq": 1000}), ("delete_conversation", {})):
        await api_store.call(function, args | more, as_user=world.claims(world.owner_a))
    messages = await rows(admin, "select id, content from public.whatsapp_messages order by id")

    for seed in range(2):
        again = await redeliver(service_store, told, seed=seed)
        assert again.stored == 3

    after = await rows(
        admin, "select id, content from public.whatsapp_messages where wamid not like 'wamid.c%%' order by id"
    )
    assert after == messages
    assert await rows(
        admin, "select count(*) from public.whatsapp_conversations where contact_id = %s and deleted_at is null",
        await contact_of(admin, "US.1001"),
    ) == [(0,)]  # fmt: skip


async def test_owners_and_admins_ask_and_are_told_how_far_it_is(
    world: World, service_store: PostgresTransport, api_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    await record(service_store, *story().bodies)
    contact = await contact_of(admin, "US.1001")
    boss = await add_member(admin, world.workspace_a, "admin")
    path, params = f"/api/whatsapp/contacts/{contact}", {"workspace_id": str(world.workspace_a)}
    async with client_of(api_store) as client:
        asked = await client.ask(path, method="DELETE", user=boss, params=params)
        again = await client.ask(path, method="DELETE", user=world.owner_a, params=params)
        await work_off(service_store)
        erasure = Erasure.model_validate_json(asked.content)
        told = await client.ask(f"/api/whatsapp/erasures/{erasure.id}", user=world.owner_a, params=params)
        after = await client.ask(path, method="DELETE", user=world.owner_a, params=params)

    assert (asked.status_code, again.status_code, after.status_code, told.status_code) == (202, 202, 202, 200)
    assert erasure.state == "requested"
    assert Erasure.model_validate_json(again.content) == erasure
    assert Erasure.model_validate_json(told.content).state == "watching"
    assert Erasure.model_validate_json(after.content).id == erasure.id
    assert await rows(
        admin, "select action, actor from public.audit_log where subject_id = %s order by id", contact
    ) == [("contact.erasure_requested", boss), ("contact.erased", None)]  # fmt: skip


@pytest.mark.parametrize(
    ("role", "answer"),
    [
        ("agent", (403, "role_may_not_erase")),
        ("viewer", (403, "role_may_not_erase")),
        ("stranger", (404, "contact_not_found")),
        ("owner of B", (404, "contact_not_found")),
    ],
)
async def test_nobody_else_may_ask(
    world: World,
    service_store: PostgresTransport,
    api_store: PostgresTransport,
    admin: psycopg.AsyncConnection,
    role: str,
    answer: tuple[int, str],
) -> None:
    await record(service_store, *story().bodies)
    contact = await contact_of(admin, "US.1001")
    who = {"stranger": world.stranger, "owner of B": world.owner_b}.get(role)
    user = who or await add_member(admin, world.workspace_a, role)
    params = {"workspace_id": str(world.workspace_a)}
    async with client_of(api_store) as client:
        asked = await client.ask(f"/api/whatsapp/contacts/{contact}", method="DELETE", user=user, params=params)
        read = await client.ask(f"/api/whatsapp/erasures/{new_id()}", user=user, params=params)
        mine = await client.ask(
            f"/api/whatsapp/contacts/{contact}",
            method="DELETE",
            user=world.owner_b,
            params={"workspace_id": str(world.workspace_b)},
        )

    assert as_problem(asked) == answer
    assert as_problem(read)[0] == answer[0]
    assert as_problem(mine) == (404, "contact_not_found")
    assert await rows(admin, "select count(*) from app.erasures") == [(0,)]
