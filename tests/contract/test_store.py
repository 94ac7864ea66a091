"""One port, two transports: the same functions, the same policies, the same errors, whichever way a call goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from deploy.local.ports import HOST, any_free_port
from shared.domain.errors import BadData, Conflict, Forbidden, NotFound, ParleyError, Rejected, Unavailable
from shared.domain.ids import new_id
from shared.domain.person import Person
from shared.settings.groups import DatabaseSettings, RestAccess
from shared.store.analysis import AnalysisWork, Lease, Work
from shared.store.choose import open_store
from shared.store.inbox import Inbox
from shared.store.port import Store
from shared.store.postgres import ServiceRole
from shared.store.webhooks import Recorded, Webhooks
from shared.whatsapp.events import WebhookBody
from tests.conftest import Database
from tests.contract.lite import PUBLISHABLE_KEY, SECRET_KEY, SupabaseLite
from tests.world import World, build_world, received, text_message, webhook


class Sql(Protocol):
    """A superuser's way in, past the transports: for arranging and asserting."""

    async def execute(self, query: str, values: Any = ()) -> Any: ...


@dataclass(frozen=True, slots=True)
class Side:
    """A migrated database and the stores that processes have of it, over one of the transports."""

    service: Store  # recorder, ai_worker
    api: Store
    ingest: Store
    world: World
    person: Callable[[UUID], Person]
    sql: Sql

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return list(await (await self.sql.execute(query)).fetchall())


@pytest.fixture
async def over_postgres(database: Database, admin: psycopg.AsyncConnection, world: World) -> AsyncIterator[Side]:
    """Each process with its own login."""
    async with AsyncExitStack() as opened:

        async def store(login: str, role: ServiceRole | None) -> Store:
            settings = DatabaseSettings(url=SecretStr(database.url(login)))
            return await opened.enter_async_context(open_store(settings, None, service_role=role))

        yield Side(
            service=await store("test_service", "service_role"),
            api=await store("test_api", None),
            ingest=await store("test_ingest", "parley_ingest"),
            world=world,
            person=lambda user: Person(user, world.claims(user)),
            sql=admin,
        )


@pytest.fixture
async def over_supabase(supabase: SupabaseLite) -> AsyncIterator[Side]:
    """Each process with its own key."""
    async with AsyncExitStack() as opened:

        async def store(key: str, own_token: str | None) -> Store:
            rest = RestAccess(supabase.url, key, own_token)
            settings = DatabaseSettings(url=SecretStr(""))
            return await opened.enter_async_context(open_store(settings, rest, service_role="service_role"))

        yield Side(
            service=await store(SECRET_KEY, SECRET_KEY),
            api=await store(PUBLISHABLE_KEY, None),
            ingest=await store(PUBLISHABLE_KEY, supabase.token(role="parley_ingest")),
            world=await build_world(supabase),
            person=supabase.person,
            sql=supabase,
        )


@pytest.fixture(params=["postgres", "supabase"])
def side(request: pytest.FixtureRequest) -> Side:
    """Each test once over a direct connection, once through Supabase's REST API."""
    chosen: Side = request.getfixturevalue(f"over_{request.param}")
    return chosen


async def record(side: Side, *texts: str) -> Recorded:
    raw = webhook(*(text_message(text, wamid=f"wamid.{n}") for n, text in enumerate(texts)))
    return await Webhooks(side.service).record([received(raw)], settle_s=0)


async def claim(side: Side, **changed: Any) -> list[Work]:
    asked = {"limit": 10, "lease_s": 30, "most_messages": 20, "most_attempts": 3} | changed
    return (await AnalysisWork(side.service).claim_due(**asked)).work


def finished(work: Work, *, summary: str) -> dict[str, Any]:
    tokens = {"input_tokens": 900, "output_tokens": 80, "cache_read_tokens": 7, "cache_write_tokens": 0}
    priced = {**tokens, "cost_usd": "0.00130001"}
    attempt = {"id": work.attempt_id, "outcome": "ok", "model": "m", "prompt_version": "p", "latency_ms": 812}
    results = [
        {
            "message_id": m["message_id"],
            "content_version": m["content_version"],
            "result": {"summary": {"value": summary, "evidence": ["1", "ü"]}, "language": "pt-BR"},
            "sentiment": "negative",
            "sentiment_score": "-0.75",
            "intent": "complaint",
            "ai_summary": summary,
            "priority": "high",
            "language": "pt-BR",
        }
        | priced
        for m in work.context["new_messages"]
    ]
    return {"attempt": attempt | priced, "results": results, "failed": None, "most_messages": 20}


# What the processes do


async def test_a_message_comes_in_is_understood_and_is_read(side: Side) -> None:
    text = 'Olá 👋, "the plant" arrived in\nthree pieces \\ {1,2} — ça va?'

    recorded = await record(side, text, "And the pot?")
    [work] = await claim(side)
    following = await AnalysisWork(side.service).finish(work.lease, **finished(work, summary="A planta «quebrada» 🌱"))
    person = side.person(side.world.owner_a)
    inbox = Inbox(side.api)
    page = json.loads(await inbox.list_conversations(side.world.workspace_a, limit=10, cursor=None, as_user=person))
    [conversation] = page["items"]
    messages = json.loads(
        await inbox.list_messages(
            side.world.workspace_a, UUID(conversation["id"]), limit=10, before=None, after=0, as_user=person
        )
    )["items"]

    assert recorded == Recorded(stored=2, due=1)
    assert [m["content"] for m in work.context["new_messages"]] == [text, "And the pot?"]
    assert following is None
    assert conversation["contact"]["name"] == "Ana Souza"
    assert (conversation["unread_count"], conversation["sentiment"], conversation["priority"]) == (
        2,
        "negative",
        "high",
    )
    assert [m["content"] for m in messages] == [text, "And the pot?"]
    assert [m["analysis"]["fields"] for m in messages] == [
        {"summary": {"value": "A planta «quebrada» 🌱", "evidence": ["1", "ü"]}, "language": "pt-BR"}
    ] * 2
    assert [(m["seq"], m["sentiment_score"], m["analysis"]["latency_ms"]) for m in messages] == [
        (1, -0.75, 812),
        (2, -0.75, 812),
    ]
    # A jsonb that arrived as a quoted string would be one here, and null to every `->` in a function.
    assert await side.rows("select distinct jsonb_typeof(payload) from public.whatsapp_messages") == [("object",)]
    assert await side.rows("select distinct cost_usd::text from public.message_analyses") == [("0.00130001",)]


async def test_recording_twice_changes_nothing(side: Side) -> None:
    body = received(webhook(text_message("Hello?", wamid="wamid.1")))
    webhooks = Webhooks(side.service)

    first = await webhooks.record([body], settle_s=0)
    again = await webhooks.record([body], settle_s=0)

    assert (first.stored, again.stored) == (1, 0)
    assert await side.rows("select count(*)::int from public.whatsapp_messages") == [(1,)]


async def test_bodies_kept_by_ingest_are_drained_byte_for_byte(side: Side) -> None:
    raw = webhook(text_message("Grüße\u0000", wamid="wamid.1")) + bytes(range(256))
    body = WebhookBody(id=new_id(), received_at=datetime.now(UTC), raw=raw, traceparent="")

    await Webhooks(side.ingest).store_bodies([body, body])
    await Webhooks(side.ingest).store_bodies([body])
    claimed = await Webhooks(side.service).claim_bodies(limit=10, hold_s=30)
    held = await Webhooks(side.service).claim_bodies(limit=10, hold_s=30)

    assert [(b.id, b.received_at, b.raw, attempts) for b, attempts in claimed] == [(body.id, body.received_at, raw, 1)]
    assert held == []


async def test_a_body_set_aside_keeps_its_reason(side: Side) -> None:
    items = await Webhooks(side.service).quarantine(received(b"not json"), reason="not_json: é")

    assert items.quarantined == 1
    assert await side.rows("select reason, state from app.quarantine") == [("not_json: é", "open")]


async def test_partitions_are_made_once(side: Side) -> None:
    assert await Webhooks(side.service).make_partitions() == 0
    assert json.loads(await side.service.call("make_webhook_partitions", {})) == {"made": [], "in_default": 0}


async def test_a_lease_is_claimed_once_renewed_and_given_back(side: Side) -> None:
    await record(side, "Hello?")
    analysis = AnalysisWork(side.service)

    [work] = await claim(side)
    nobody_else = await claim(side)
    stranger = Lease(work.lease.workspace_id, work.lease.conversation_id, new_id())
    lost = await analysis.renew([work.lease, stranger], lease_s=30)
    await analysis.release([work.lease])
    [again] = await claim(side)

    assert nobody_else == []
    assert lost == {stranger.token}
    assert again.lease.conversation_id == work.lease.conversation_id
    assert again.lease.token != work.lease.token


async def test_whoever_lost_the_lease_records_nothing(side: Side) -> None:
    await record(side, "Hello?")
    [work] = await claim(side)
    await AnalysisWork(side.service).release([work.lease])

    following = await AnalysisWork(side.service).finish(work.lease, **finished(work, summary="late"))

    assert following is None
    assert await side.rows("select count(*)::int from public.message_analyses") == [(0,)]


async def test_nothing_waiting_is_told_as_nothing(side: Side) -> None:
    claimed = await AnalysisWork(side.service).claim_due(limit=10, lease_s=30, most_messages=20, most_attempts=3)

    assert claimed.work == []
    assert claimed.next_due_in_s is None


# Who may do what


async def test_me_is_who_the_token_says(side: Side) -> None:
    me = json.loads(await Inbox(side.api).me(as_user=side.person(side.world.owner_a)))

    assert me.pop("server_time")
    assert me == {
        "user": {"id": str(side.world.owner_a), "email": f"{side.world.owner_a}@example.com"},
        "workspaces": [
            {"id": str(side.world.workspace_a), "name": "Casa Verde", "role": "owner", "time_zone": "UTC"},
        ],
    }


async def test_another_workspace_does_not_exist(side: Side) -> None:
    await record(side, "Hello?")
    inbox = Inbox(side.api)

    for user in (side.world.owner_b, side.world.stranger):
        with pytest.raises(NotFound) as caught:
            await inbox.list_conversations(side.world.workspace_a, limit=10, cursor=None, as_user=side.person(user))
        assert caught.value.code == "workspace_not_found"


async def test_a_person_may_not_call_what_the_services_call(side: Side) -> None:
    for function, args in (
        ("record_webhook_batch", {"p_batch": {}, "p_settle_ms": 0}),
        ("store_webhook_bodies", {"p_bodies": []}),
        ("make_webhook_partitions", {}),
    ):
        with pytest.raises(Forbidden) as caught:
            await side.api.call(function, args, as_user=side.person(side.world.owner_a))
        assert (caught.value.code, str(caught.value)) == ("forbidden", "not allowed")


async def test_a_process_that_acts_for_people_cannot_act_for_itself(side: Side) -> None:
    with pytest.raises(Rejected) as caught:
        await side.api.call("me", {})

    assert caught.value.code == "user_required"


async def test_the_webhook_endpoint_may_call_one_function(side: Side) -> None:
    for function, args in (
        ("record_webhook_batch", {"p_batch": {}, "p_settle_ms": 0}),
        ("make_webhook_partitions", {}),
        ("me", {}),
    ):
        with pytest.raises(Forbidden):
            await side.ingest.call(function, args)

    assert json.loads(await side.ingest.call("store_webhook_bodies", {"p_bodies": []})) == {"stored": 0}


async def test_nobody_becomes_anybody_else_however_calls_overlap(side: Side) -> None:
    await _everybody_at_once(side, people=side.api, services=side.service)


async def test_over_one_client_no_token_crosses_into_another_call(over_supabase: Side) -> None:
    await _everybody_at_once(over_supabase, people=over_supabase.service, services=over_supabase.service)


async def _everybody_at_once(side: Side, *, people: Store, services: Store) -> None:
    """Two people, a stranger and the process itself, dozens of calls in flight: each is answered as who they are."""

    async def as_person(user: UUID) -> None:
        me = json.loads(await people.call("me", {}, as_user=side.person(user)))
        assert me["user"]["id"] == str(user)

    async def as_service() -> None:
        assert json.loads(await services.call("make_webhook_partitions", {}))["in_default"] == 0

    async def as_person_who_may_not(user: UUID) -> None:
        with pytest.raises(Forbidden):
            await people.call("make_webhook_partitions", {}, as_user=side.person(user))

    users = [side.world.owner_a, side.world.owner_b, side.world.stranger] * 6
    async with asyncio.TaskGroup() as calls:
        for user in users:
            for call in (as_person(user), as_service(), as_person_who_may_not(user)):
                calls.create_task(call)


# How it says no


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ({"p_limit": 0}, "bad_limit", "limit out of range"),
        ({"p_limit": None}, "bad_limit", "limit out of range"),
        ({"p_cursor": "x' or true --"}, "bad_cursor", "bad cursor"),
    ],
)
async def test_a_refusal_keeps_its_code_sentence_and_hint(
    side: Side, args: dict[str, object], code: str, says: str
) -> None:
    with pytest.raises(Rejected) as caught:
        await side.api.call(
            "list_conversations",
            {"p_workspace_id": str(side.world.workspace_a)} | args,
            as_user=side.person(side.world.owner_a),
        )

    assert type(caught.value) is Rejected
    assert (caught.value.code, str(caught.value)) == (code, says)
    assert caught.value.hint
    assert caught.value.hint.endswith(".")


@pytest.mark.parametrize(
    ("sqlstate", "kind"), [("PT403", Forbidden), ("PT404", NotFound), ("PT409", Conflict), ("PT422", Rejected)]
)
async def test_each_of_our_codes_is_the_same_class_with_its_detail(
    side: Side, sqlstate: str, kind: type[ParleyError]
) -> None:
    await side.sql.execute(
        "create or replace function public.refuse_for_test() returns jsonb language plpgsql as $$ begin"
        f" raise exception 'no, not now' using errcode = '{sqlstate}', detail = 'stable_code', hint = 'Do this.';"
        " end $$"
    )
    try:
        with pytest.raises(kind) as caught:
            await side.service.call("refuse_for_test", {})
    finally:
        await side.sql.execute("drop function public.refuse_for_test()")

    assert type(caught.value) is kind
    assert (caught.value.code, str(caught.value), caught.value.hint) == ("stable_code", "no, not now", "Do this.")


async def test_a_value_the_database_refuses_is_bad_data_and_is_not_repeated(side: Side) -> None:
    with pytest.raises(BadData) as caught:
        await side.api.call(
            "list_conversations", {"p_workspace_id": "hunter2"}, as_user=side.person(side.world.owner_a)
        )

    assert caught.value.code == "sqlstate_22P02"
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


async def test_a_broken_key_is_bad_data(side: Side) -> None:
    body = received(webhook(text_message("Hello?", wamid="wamid.1")))
    args = {"p_body_id": str(body.body.id), "p_received_at": None, "p_raw": None, "p_items": 1, "p_reason": "r"}

    with pytest.raises(BadData) as caught:
        await side.service.call("quarantine_webhook", args)

    assert caught.value.code == "sqlstate_23502"


@pytest.mark.parametrize(("function", "args"), [("no_such_function", {}), ("me", {"p_no_such_argument": 1})])
async def test_what_is_not_there_is_our_bug_and_nobody_elses(
    side: Side, function: str, args: dict[str, object]
) -> None:
    with pytest.raises(Exception, match=function) as caught:
        await side.api.call(function, args, as_user=side.person(side.world.owner_a))

    assert not isinstance(caught.value, ParleyError)


async def test_a_function_that_answers_null_is_our_bug(side: Side) -> None:
    await side.sql.execute(
        "create or replace function public.null_for_test() returns jsonb language sql as $$ select null::jsonb $$"
    )
    try:
        with pytest.raises(RuntimeError, match="null_for_test returned nothing"):
            await side.service.call("null_for_test", {})
    finally:
        await side.sql.execute("drop function public.null_for_test()")


async def test_a_database_that_answers_is_reachable_to_each_process(side: Side) -> None:
    assert [await store.is_reachable() for store in (side.service, side.api, side.ingest)] == [True, True, True]


@pytest.mark.parametrize("transport", ["postgres", "supabase"])
async def test_a_database_that_is_away_says_later_and_is_not_reachable(transport: str) -> None:
    nowhere = f"{HOST}:{any_free_port()}"
    url = f"postgresql://test_service:test@{nowhere}/parley" if transport == "postgres" else ""
    rest = RestAccess(f"http://{nowhere}", SECRET_KEY, own_token=SECRET_KEY)

    async with open_store(
        DatabaseSettings(url=SecretStr(url), timeout_s=0.5), rest, service_role="service_role"
    ) as store:
        reachable = await store.is_reachable()
        with pytest.raises(Unavailable) as caught:
            await store.call("make_webhook_partitions", {})

    assert not reachable
    assert caught.value.code == "database_unavailable"
