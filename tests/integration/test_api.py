"""The API over HTTP on a real PostgreSQL: what a person reads, and what everybody else is told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import jwt
import psycopg
import pytest
from structlog.testing import capture_logs

from deploy.local.ports import HOST, any_free_port
from services.api.shapes import ConversationPage, Me, MessagePage, Problem
from services.api.web import make_app
from shared.auth.tokens import TokenVerifier
from shared.domain.ids import new_id
from shared.store.account_events import AccountEvents
from shared.store.analysis import AnalysisWork
from shared.store.bulk import BulkSends
from shared.store.channels import Channels
from shared.store.contacts import Contacts
from shared.store.conversations import Conversations
from shared.store.corrections import Corrections
from shared.store.inbox import Inbox
from shared.store.postgres import PostgresTransport, postgres_transport
from shared.store.templates import Templates
from shared.store.webhooks import Webhooks
from shared.web.app import Observe
from shared.web.serve import serving
from tests.conftest import Database
from tests.world import World, received, text_message, webhook

ISSUER = "https://abc.supabase.co/auth/v1"
SECRET = b"a shared secret of sixty-four bytes, as Supabase makes them ....."
CONVERSATIONS = "/api/whatsapp/conversations"


def token(user: UUID, **changed: Any) -> str:
    claims = {
        "sub": str(user),
        "iss": ISSUER,
        "aud": "authenticated",
        "exp": int(time.time()) + 60,
        "email": "maya@casaverde.example",
    }
    return jwt.encode(claims | changed, SECRET, algorithm="HS256")


class Client:
    """What a frontend does: ask as somebody, and check the shape of every answer."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, path: str, *, user: UUID | None = None, method: str = "GET", **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token(user)}"} if user else {}
        return await self._http.request(method, path, headers=headers | options.pop("headers", {}), **options)

    async def read(self, shape: type[Me | ConversationPage | MessagePage], path: str, user: UUID, **params: Any) -> Any:
        """The answer, valid in its documented shape and nothing more."""
        answer = await self.ask(path, user=user, params=params)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return shape.model_validate_json(answer.content)

    async def refused(self, path: str, **options: Any) -> tuple[int, str]:
        """The status and code of a problem answer, valid in its shape."""
        return as_problem(await self.ask(path, **options))


def as_problem(answer: httpx.Response) -> tuple[int, str]:
    found = Problem.model_validate_json(answer.content)
    assert answer.headers["content-type"] == "application/problem+json"
    assert found.status == answer.status_code
    assert found.type == f"urn:parley:problem:{found.code}"
    assert found.request_id == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    return found.status, found.code


@asynccontextmanager
async def client_of(store: PostgresTransport, *, token_public_key: str | None = None) -> AsyncIterator[Client]:
    port = any_free_port()
    async with httpx.AsyncClient(trust_env=False) as nowhere:
        verifier = TokenVerifier(issuer=ISSUER, hs256_secret=SECRET, http=nowhere)
        app = Observe(
            make_app(
                inbox=Inbox(store),
                conversations=Conversations(store),
                account_events=AccountEvents(store),
                channels=Channels(store),
                token_public_key=token_public_key,
                templates=Templates(store),
                bulk_sends=BulkSends(store),
                corrections=Corrections(store),
                contacts=Contacts(store),
                verifier=verifier,
            )
        )
        async with (
            serving(app, host=HOST, port=port, drain_s=1),
            httpx.AsyncClient(base_url=f"http://{HOST}:{port}", trust_env=False) as http,
        ):
            with capture_logs():
                yield Client(http)


@pytest.fixture
async def client(api_store: PostgresTransport) -> AsyncIterator[Client]:
    async with client_of(api_store) as made:
        yield made


async def write(store: PostgresTransport, *texts: str, person: int = 0, sent_at: datetime | None = None) -> None:
    """One customer writes to workspace A."""
    sender = {"user_id": f"US.{1000 + person}", "wa_id": f"1202555{person:04}", "name": f"Person {person}"}
    messages = [text_message(text, wamid=f"wamid.{new_id()}", sent_at=sent_at, **sender) for text in texts]
    await Webhooks(store).record([received(webhook(*messages))], settle_s=0)


async def only_conversation(client: Client, world: World) -> UUID:
    page = await client.read(ConversationPage, CONVERSATIONS, world.owner_a, workspace_id=world.workspace_a)
    (conversation,) = page.items
    found: UUID = conversation.id
    return found


async def walk(client: Client, world: World, *, limit: int) -> AsyncIterator[ConversationPage]:
    cursor: dict[str, str] = {}
    while True:
        page = await client.read(
            ConversationPage, CONVERSATIONS, world.owner_a, workspace_id=world.workspace_a, limit=limit, **cursor
        )
        assert len(page.items) <= limit
        yield page
        if page.next_cursor is None:
            return
        cursor = {"cursor": page.next_cursor}


async def test_me_names_the_person_and_their_workspaces_only(client: Client, world: World) -> None:
    member = await client.read(Me, "/api/me", world.owner_a)
    stranger = await client.read(Me, "/api/me", world.stranger)

    assert (member.user.id, member.user.email) == (world.owner_a, "maya@casaverde.example")
    assert [(w.id, w.name, w.role) for w in member.workspaces] == [(world.workspace_a, "Casa Verde", "owner")]
    assert abs(member.server_time - datetime.now(UTC)) < timedelta(minutes=1)
    assert (stranger.user.id, stranger.workspaces) == (world.stranger, [])


async def test_a_conversation_shows_its_newest_message(
    client: Client, world: World, service_store: PostgresTransport
) -> None:
    await write(service_store, "Hello?", "x" * 200, person=7)

    page = await client.read(ConversationPage, CONVERSATIONS, world.owner_a, workspace_id=world.workspace_a)

    (conversation,) = page.items
    assert (conversation.workspace_id, conversation.channel_id) == (world.workspace_a, world.channel_a)
    assert (conversation.contact.name, conversation.contact.phone_number) == ("Person 7", "12025550007")
    assert (conversation.unread_count, conversation.next_seq, conversation.status) == (2, 3, "open")
    assert conversation.window_expires_at == conversation.last_message_at + timedelta(hours=24)
    assert conversation.last_message.direction == "inbound"
    assert len(conversation.last_message.preview or "") <= 160
    assert page.next_cursor is None


async def test_an_analysis_is_shown_with_what_it_rests_on_and_what_it_cost(
    client: Client, world: World, service_store: PostgresTransport
) -> None:
    await write(service_store, "Where is my order?")
    conversation_id = await only_conversation(client, world)
    path = f"{CONVERSATIONS}/{conversation_id}/messages"
    (pending,) = (await client.read(MessagePage, path, world.owner_a, workspace_id=world.workspace_a)).items
    judged = {"confidence": 0.9, "evidence": [{"start": 0, "end": 5, "quote": "Where"}]}
    counts = {"input_tokens": 90, "output_tokens": 30, "cache_read_tokens": 0, "cache_write_tokens": 0}
    said = {
        "sentiment": "negative",
        "intent": "order_status",
        "priority": "high",
        "suggested_response": "I am looking.",
    }
    rows = AnalysisWork(service_store)
    (work,) = (await rows.claim_due(limit=1, lease_s=30, most_messages=20, most_attempts=3)).work

    await rows.finish(
        work.lease,
        attempt={"id": work.attempt_id, "outcome": "ok", "model": "claude", "prompt_version": "1", "latency_ms": 700}
        | counts
        | {"cost_usd": "0.00024"},
        results=[
            {
                "message_id": str(pending.id),
                "content_version": 1,
                "result": {name: {"value": value, **judged} for name, value in said.items()}
                | {"summary": {"value": "Asks.", **judged}, "sentiment_score": -0.5, "language": "en"},
                "sentiment_score": -0.5,
                "ai_summary": "Asks.",
                "language": "en",
                "cost_usd": "0.00024",
            }
            | said
            | counts
        ],
        failed=None,
        most_messages=20,
    )
    (message,) = (await client.read(MessagePage, path, world.owner_a, workspace_id=world.workspace_a)).items
    page = await client.read(ConversationPage, CONVERSATIONS, world.owner_a, workspace_id=world.workspace_a)

    assert (pending.analysis.state, pending.analysis.fields, pending.sentiment) == ("pending", None, None)
    assert (message.sentiment, message.intent, message.priority) == ("negative", "order_status", "high")
    assert message.analysis.state == "done"
    assert message.analysis.fields.intent.evidence[0].quote == "Where"
    assert (message.analysis.cost_usd, message.analysis.latency_ms) == (0.00024, 700)
    assert (page.items[0].sentiment, page.items[0].intent, page.items[0].priority) == (
        "negative",
        "order_status",
        "high",
    )


async def test_walking_the_inbox_meets_everybody_once_while_messages_arrive(
    client: Client, world: World, service_store: PostgresTransport
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for person in range(13):
        await write(service_store, "Hello?", person=person, sent_at=now - timedelta(minutes=person))

    met: list[str] = []
    async for page in walk(client, world, limit=3):
        met += [item.contact.name for item in page.items]
        # Somebody new, somebody already met and somebody still to come write while we turn the page.
        await write(service_store, "Hello!", person=100 + len(met))
        await write(service_store, "And another thing", person=0)
        await write(service_store, "Still waiting", person=12)
    first_page = await client.read(
        ConversationPage, CONVERSATIONS, world.owner_a, workspace_id=world.workspace_a, limit=20
    )

    # Who writes meanwhile moves to the top, above the cursor; whoever did not is met exactly once.
    assert met == [f"Person {n}" for n in range(12)]
    assert "Person 12" in [item.contact.name for item in first_page.items]


async def test_conversations_of_the_same_second_are_neither_skipped_nor_repeated(
    client: Client, world: World, service_store: PostgresTransport
) -> None:
    same = datetime.now(UTC).replace(microsecond=0)
    for person in range(7):
        await write(service_store, "Hello?", person=person, sent_at=same)

    walks = [
        [item.id async for page in walk(client, world, limit=limit) for item in page.items]
        for limit in (1, 2, 3, 7, 100)
    ]

    assert len(walks[0]) == len(set(walks[0])) == 7
    assert walks == [sorted(walks[0], reverse=True)] * 5


async def test_a_cursor_keeps_the_microsecond(
    client: Client, world: World, service_store: PostgresTransport, admin: psycopg.AsyncConnection
) -> None:
    for person in range(4):
        await write(service_store, "Hello?", person=person)
    await admin.execute(
        "update public.whatsapp_conversations c set last_message_at = '2026-11-22 09:00:00.999990+00'::timestamptz"
        " + n.n * interval '1 microsecond'"
        " from (select id, row_number() over () as n from public.whatsapp_conversations) n where n.id = c.id"
    )

    met = [item.id async for page in walk(client, world, limit=1) for item in page.items]

    assert len(met) == len(set(met)) == 4


async def test_messages_are_paged_back_in_time_and_polled_forward(
    client: Client, world: World, service_store: PostgresTransport
) -> None:
    now = datetime.now(UTC)
    for n in range(7):
        await write(service_store, f"{n + 1}", sent_at=now + timedelta(seconds=n))
    conversation_id = await only_conversation(client, world)

    async def page(**params: int) -> tuple[list[int], int | None]:
        path = f"{CONVERSATIONS}/{conversation_id}/messages"
        found = await client.read(MessagePage, path, world.owner_a, workspace_id=world.workspace_a, **params)
        assert [item.content for item in found.items] == [str(item.seq) for item in found.items]
        return [item.seq for item in found.items], found.next_cursor

    assert await page() == ([7, 6, 5, 4, 3, 2, 1], None)
    assert await page(limit=3) == ([7, 6, 5], 5)
    assert await page(limit=3, before=5) == ([4, 3, 2], 2)
    assert await page(limit=3, before=2) == ([1], None)
    assert await page(limit=7) == ([7, 6, 5, 4, 3, 2, 1], None)
    assert await page(before=1) == ([], None)
    assert await page(before=0) == ([], None)
    assert await page(after=0, limit=3) == ([1, 2, 3], 3)
    assert await page(after=3, limit=3) == ([4, 5, 6], 6)
    assert await page(after=6) == ([7], None)
    assert await page(after=7) == ([], None)
    assert await page(after=2**63 - 1) == ([], None)
    await write(service_store, "8", sent_at=now + timedelta(seconds=60))
    assert await page(after=7) == ([8], None)


async def test_without_a_good_token_every_route_answers_401(client: Client, world: World) -> None:
    user = world.owner_a
    bad = (
        None,
        "",
        "Bearer",
        "Bearer x",
        "Bearer a.b.c",
        "Basic dXNlcjpwYXNz",
        f"Bearer {token(user, exp=1)}",
        f"Bearer {token(user, aud='anon')}",
        f"Bearer {token(user, iss='https://evil.example/auth/v1')}",
        f"Bearer {token(user, sub='owner')}",
        f"Bearer {token(user)}x",
        token(user),
    )

    for authorization in bad:
        headers = {} if authorization is None else {"authorization": authorization}
        for path in ("/api/me", CONVERSATIONS, f"{CONVERSATIONS}/{new_id()}/messages"):
            answer = await client.ask(path, headers=headers, params={"workspace_id": str(world.workspace_a)})

            status, code = as_problem(answer)
            assert (status, code[:5]) == (401, "token"), (authorization, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json()["hint"]


async def test_what_is_another_workspaces_is_told_apart_from_nothing_by_nobody(
    client: Client, world: World, service_store: PostgresTransport
) -> None:
    await write(service_store, "Hello?")
    theirs = await only_conversation(client, world)  # workspace A's

    async def told(workspace: UUID, conversation: UUID | None, user: UUID) -> dict[str, Any]:
        path = f"{CONVERSATIONS}/{conversation}/messages" if conversation else CONVERSATIONS
        answer = await client.ask(path, user=user, params={"workspace_id": str(workspace)})
        assert as_problem(answer)[0] == 404
        answer.headers.pop("x-request-id")
        return {**answer.json(), "headers": dict(answer.headers), "request_id": None}

    for user in (world.owner_b, world.stranger):
        unknown_workspace = await told(new_id(), None, user)
        unknown_conversation = await told(world.workspace_b, new_id(), user)

        assert await told(world.workspace_a, None, user) == unknown_workspace
        assert await told(world.workspace_a, theirs, user) == unknown_conversation
        assert await told(world.workspace_b, theirs, user) == unknown_conversation
        assert unknown_workspace["hint"]
        assert unknown_conversation["hint"]
    assert (await told(world.workspace_b, theirs, world.owner_a))["code"] == "conversation_not_found"


async def test_a_wrong_argument_is_named_and_not_repeated(
    client: Client, world: World, service_store: PostgresTransport
) -> None:
    await write(service_store, "Hello?")
    messages = f"{CONVERSATIONS}/{await only_conversation(client, world)}/messages"
    wrong: list[tuple[str, dict[str, str | None]]] = [
        (CONVERSATIONS, {"workspace_id": None}),
        (CONVERSATIONS, {"workspace_id": "quux-4711"}),
        (CONVERSATIONS, {"limit": "0"}),
        (CONVERSATIONS, {"limit": "101"}),
        (CONVERSATIONS, {"limit": "-1"}),
        (CONVERSATIONS, {"limit": "quux-4711"}),
        (CONVERSATIONS, {"limit": "9" * 30}),
        (CONVERSATIONS, {"cursor": "quux-4711"}),
        (CONVERSATIONS, {"cursor": ""}),
        (CONVERSATIONS, {"cursor": "1_quux-4711"}),
        (CONVERSATIONS, {"cursor": "-1_01a205fd-f7c6-738f-9fa9-5cc105728df7"}),
        (CONVERSATIONS, {"cursor": "9" * 18 + "_01a205fd-f7c6-738f-9fa9-5cc105728df7"}),
        (CONVERSATIONS, {"cursor": "1_01a205fd-f7c6-738f-9fa9-5cc105728df7\n"}),
        (CONVERSATIONS, {"cursor": "٣_01a205fd-f7c6-738f-9fa9-5cc105728df7"}),
        (CONVERSATIONS, {"cursor": "1_01A205FD-F7C6-738F-9FA9-5CC105728DF7"}),
        (CONVERSATIONS, {"cursor": "quux-4711" * 20}),
        (CONVERSATIONS, {"cursor": "'; select pg_sleep(9) --"}),
        (f"{CONVERSATIONS}/quux-4711/messages", {}),
        (messages, {"before": str(-(2**63) - 1)}),
        (messages, {"after": "quux-4711"}),
        (messages, {"before": "1.5"}),
        (messages, {"before": "2", "after": "1"}),
        (messages, {"limit": "0"}),
    ]

    for path, params in wrong:
        asked = {"workspace_id": str(world.workspace_a)} | params
        answer = await client.ask(
            path, user=world.owner_a, params={name: value for name, value in asked.items() if value is not None}
        )

        assert as_problem(answer)[0] == 422, (path, params)
        assert answer.json()["hint"]
        assert all(piece not in answer.text for piece in ("quux", "4711", "pg_sleep")), params


async def test_a_database_that_is_out_means_later_and_then_all_is_well(
    database: Database, world: World, admin: psycopg.AsyncConnection
) -> None:
    other = database.server.url()  # an administrator's connection that survives
    async with (
        postgres_transport(database.url("test_api"), service_role=None, max_connections=2, timeout_s=0.5) as store,
        client_of(store) as client,
        await psycopg.AsyncConnection.connect(other, autocommit=True) as elsewhere,
    ):
        before = await client.ask("/api/me", user=world.owner_a)
        await elsewhere.execute(f"alter database {database.name} allow_connections false")
        await elsewhere.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and usename = 'test_api'",
            (database.name,),
        )
        out = [await client.ask("/api/me", user=world.owner_a) for _ in range(2)]
        without_token = await client.ask("/api/me")
        await elsewhere.execute(f"alter database {database.name} allow_connections true")
        async with asyncio.timeout(15):
            while (await client.ask("/api/me", user=world.owner_a)).status_code != 200:
                await asyncio.sleep(0.05)

    assert before.status_code == 200
    for answer in out:
        assert as_problem(answer) == (503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert database.name not in answer.text
    assert without_token.status_code == 401


async def test_a_bug_of_ours_is_told_without_its_insides(
    client: Client, world: World, admin: psycopg.AsyncConnection
) -> None:
    await admin.execute("drop function public.me()")

    answer = await client.ask("/api/me", user=world.owner_a)

    assert as_problem(answer) == (500, "internal_error")
    assert "detail" not in answer.json()
    assert all(inside not in answer.text for inside in ("function", "psycopg", "public.me", "/work", "line "))


async def test_what_is_not_there_is_a_problem_like_any_other(client: Client, world: World) -> None:
    absent = [
        ("GET", "/", (404, "route_not_found")),
        ("GET", "/api", (404, "route_not_found")),
        ("GET", "/api/nope", (404, "route_not_found")),
        ("GET", "/docs", (404, "route_not_found")),
        ("GET", "/openapi.json", (404, "route_not_found")),
        ("GET", "/metrics", (404, "route_not_found")),
        ("GET", "/api/../../etc/passwd", (404, "route_not_found")),
        ("POST", "/api/me", (405, "method_not_allowed")),
        ("DELETE", CONVERSATIONS, (405, "method_not_allowed")),
        ("PUT", f"{CONVERSATIONS}/x/messages", (405, "method_not_allowed")),
    ]

    for method, path, expected in absent:
        for user in (world.owner_a, None):
            assert await client.refused(path, method=method, user=user) == expected, (method, path)


async def test_every_request_has_an_id_of_its_own(client: Client, world: World) -> None:
    answers = await asyncio.gather(
        *(client.ask("/api/me", user=world.owner_a, headers={"x-request-id": "mine"}) for _ in range(10))
    )

    ids = {UUID(answer.headers["x-request-id"]) for answer in answers}
    assert len(ids) == 10


async def test_many_people_at_once_each_get_their_own(client: Client, world: World) -> None:
    users = [world.owner_a, world.owner_b, world.stranger] * 20

    answers = await asyncio.gather(*(client.read(Me, "/api/me", user) for user in users))

    assert [answer.user.id for answer in answers] == users
    assert [[w.id for w in answer.workspaces] for answer in answers[:3]] == [
        [world.workspace_a],
        [world.workspace_b],
        [],
    ]


async def test_the_openapi_document_says_what_every_route_needs_and_refuses(client: Client) -> None:
    answer = await client.ask("/api/openapi.json")
    document = answer.json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }

    assert set(operations) == {
        "GET /api/me",
        f"GET {CONVERSATIONS}",
        f"GET {CONVERSATIONS}/{{conversation_id}}/messages",
        *(f"POST {CONVERSATIONS}/{{conversation_id}}/{action}" for action in ("archive", "reopen", "read")),
        f"DELETE {CONVERSATIONS}/{{conversation_id}}",
        *(f"POST /api/whatsapp/contacts/{{contact_id}}/{action}" for action in ("block", "unblock")),
        "DELETE /api/whatsapp/contacts/{contact_id}",
        "GET /api/whatsapp/erasures/{erasure_id}",
        "GET /api/whatsapp/account-events",
        "GET /api/whatsapp/channels",
        *(f"{method} /api/whatsapp/bulk-sends" for method in ("GET", "POST")),
        *(f"GET /api/whatsapp/bulk-sends/{{bulk_id}}{part}" for part in ("", "/recipients")),
        *(f"POST /api/whatsapp/bulk-sends/{{bulk_id}}/{action}" for action in ("pause", "resume", "cancel")),
        "POST /api/whatsapp/channels",
        "GET /api/whatsapp/channels/{channel_id}",
        *(f"POST /api/whatsapp/channels/{{channel_id}}/{action}" for action in ("pause", "resume", "disconnect")),
        "GET /api/whatsapp/contacts/{contact_id}/block",
        *(f"{method} /api/whatsapp/templates" for method in ("GET", "POST")),
        *(f"POST /api/whatsapp/templates/{part}" for part in ("preview", "sync", "analytics/enable")),
        *(f"{method} /api/whatsapp/templates/{{template_id}}" for method in ("GET", "PUT", "DELETE")),
        *(f"POST /api/whatsapp/templates/{{template_id}}/{action}" for action in ("submit", "unpause")),
        "GET /api/whatsapp/templates/{template_id}/analytics",
        "POST /api/whatsapp/messages/{message_id}/analysis",
        "POST /api/whatsapp/messages/{message_id}/analysis/undo",
        "POST /api/whatsapp/messages/{message_id}/suggestion",
        "PUT /api/whatsapp/messages/{message_id}/transcript",
        "GET /api/workspace/suggestion-acceptance",
        *(f"{method} /api/workspace/settings/ai-budget" for method in ("GET", "PATCH")),
        "GET /api/whatsapp/contacts/{contact_id}",
        "PATCH /api/whatsapp/contacts/{contact_id}/tags",
        "PUT /api/whatsapp/contacts/{contact_id}/stage",
        "GET /api/tasks",
        "PATCH /api/tasks/{task_id}",
        "GET /api/proposals",
        *(f"POST /api/proposals/{{proposal_id}}/{action}" for action in ("accept", "reject")),
        "POST /api/workspace/ai-changes/undo",
        *(
            f"{method} /api/workspace/{part}"
            for method in ("GET", "PATCH")
            for part in ("ai-lists", "settings", "settings/ai-budget")
        ),
    }
    for name, operation in operations.items():
        assert operation["summary"], name
        assert operation["security"], name
        begins = name in (
            "DELETE /api/whatsapp/contacts/{contact_id}",
            "POST /api/whatsapp/bulk-sends",
            "POST /api/whatsapp/channels",
            *(f"POST /api/whatsapp/templates/{part}" for part in ("sync", "analytics/enable")),
            *(f"POST /api/whatsapp/templates/{{template_id}}/{action}" for action in ("submit", "unpause")),
            "DELETE /api/whatsapp/templates/{template_id}",
        )
        success = "201" if name == "POST /api/whatsapp/templates" else "202" if begins else "200"
        assert {success, "401", "404", "422", "503"} <= set(operation["responses"]), name
        assert all(
            "application/problem+json" in operation["responses"][status]["content"]
            for status in ("401", "404", "422", "503")
        ), name
    schemas = document["components"]["schemas"]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert schemas["Problem"]["properties"]["code"]["examples"] == ["conversation_not_found"]
    for name in ("Me", "ConversationPage", "MessagePage"):
        assert schemas[name]["additionalProperties"] is False
    assert "examples" in json.dumps(schemas["Conversation"])
    assert "examples" in json.dumps(schemas["Message"])


@pytest.mark.parametrize("params", [{"before": str(2**63)}, {"after": "9" * 30}])
async def test_a_seq_beyond_bigint_is_the_callers_mistake(client, world, service_store, params) -> None:
    await write(service_store, "Hello?")
    path = f"{CONVERSATIONS}/{await only_conversation(client, world)}/messages"
    answer = await client.ask(path, user=world.owner_a, params={"workspace_id": str(world.workspace_a)} | params)
    assert as_problem(answer)[0] == 422


async def test_a_cursor_with_a_nul_is_the_callers_mistake(client, world) -> None:
    answer = await client.ask(
        CONVERSATIONS, user=world.owner_a, params={"workspace_id": str(world.workspace_a), "cursor": "a\x00"}
    )
    assert as_problem(answer)[0] == 422


async def test_405_names_the_methods_there_are(client, world) -> None:
    answer = await client.ask("/api/me", user=world.owner_a, method="POST")
    assert answer.headers["allow"] == "GET"


async def test_a_trailing_slash_is_a_route_that_is_not_there(client, world) -> None:
    assert as_problem(await client.ask("/api/me/", user=world.owner_a)) == (404, "route_not_found")


async def test_problem_schema_is_documented_under_its_own_media_type(client) -> None:
    document = (await client.ask("/api/openapi.json")).json()
    for operation in [operation for item in document["paths"].values() for operation in item.values()]:
        for status in {"401", "403", "404", "409", "422", "503"} & set(operation["responses"]):
            content = operation["responses"][status]["content"]
            assert list(content) == ["application/problem+json"]
            assert content["application/problem+json"]["schema"]["$ref"].endswith("/Problem")


async def test_503_has_a_hint(client, world, admin, database) -> None:
    await admin.execute("alter function public.me() set statement_timeout = '1ms'")
    await admin.execute(
        "create or replace function public.me() returns jsonb language plpgsql stable security invoker"
        " set search_path=''"
        " as $$ begin raise exception 'x' using errcode = '55P03'; end $$"
    )
    answer = await client.ask("/api/me", user=world.owner_a)
    assert as_problem(answer)[0] == 503
    assert answer.json().get("hint")


async def test_a_value_is_not_repeated_even_by_one_character(client, world) -> None:
    answer = await client.ask(CONVERSATIONS, user=world.owner_a, params={"workspace_id": "0é"})
    assert "é" not in answer.json()["detail"]
