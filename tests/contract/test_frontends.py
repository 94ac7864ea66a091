"""Frontends that go through Supabase: its real clients, signed in, see what our API shows and change nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest
from postgrest import APIError
from supabase import AsyncClientOptions, create_async_client

from shared.auth.tokens import TokenVerifier
from shared.domain.ids import new_id
from shared.store.inbox import Inbox
from shared.store.supabase import supabase_transport
from shared.store.webhooks import Webhooks
from tests.contract.lite import HERE, JWT_SECRET, PASSWORD, PUBLISHABLE_KEY, SECRET_KEY, SupabaseLite
from tests.world import PHONE_A, PHONE_B, WABA_A, WABA_B, received, text_message, webhook

TABLES = (
    "workspaces",
    "workspace_members",
    "whatsapp_channels",
    "whatsapp_webhooks",
    "contacts",
    "contact_identities",
    "whatsapp_conversations",
    "whatsapp_messages",
)
Step = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client made of one request: its data, or the error's code."""

    data: Any
    code: str | None


@dataclass(frozen=True, slots=True)
class Office:
    """A project with two workspaces, a member of each, and a message in each."""

    lite: SupabaseLite
    emails: dict[str, str]
    users: dict[str, UUID]
    workspaces: dict[str, UUID]


Frontend = Callable[[Office, str | None, list[Step]], Awaitable[list[Answer]]]


async def through_javascript(office: Office, who: str | None, steps: list[Step]) -> list[Answer]:
    """The real @supabase/supabase-js, in Node."""
    _, answers = await javascript(office, who, steps)
    return answers


async def javascript(office: Office, who: str | None, steps: list[Step]) -> tuple[dict[str, Any], list[Answer]]:
    asked = {"url": office.lite.url, "key": PUBLISHABLE_KEY, "steps": steps}
    if who:
        asked |= {"email": office.emails[who], "password": PASSWORD}
    node = await asyncio.create_subprocess_exec(
        "node",
        "frontend.mjs",
        json.dumps(asked),
        cwd=HERE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30):
        out, err = await node.communicate()
    assert node.returncode == 0, err.decode()
    said = json.loads(out)
    return said["session"], [
        Answer(one["data"], one["error"]["code"] if one["error"] else None) for one in said["answers"]
    ]


async def through_python(office: Office, who: str | None, steps: list[Step]) -> list[Answer]:
    """The real supabase-py, as a Python frontend would use it."""
    headers = {"Authorization": f"Bearer {office.lite.sign_in(office.emails[who])}"} if who else {}
    async with httpx.AsyncClient(trust_env=False) as http:
        options = AsyncClientOptions(httpx_client=http, headers=headers)
        client = await create_async_client(office.lite.url, PUBLISHABLE_KEY, options)
        does: dict[str, Callable[[Any], Any]] = {
            "rpc": lambda w: client.rpc(w["name"], w["args"]),
            "select": lambda w: client.table(w["table"]).select("*"),
            "insert": lambda w: client.table(w["table"]).insert(w["row"]),
            "upsert": lambda w: client.table(w["table"]).upsert(w["row"]),
            "update": lambda w: client.table(w["table"]).update(w["row"]).match(w["where"]),
            "delete": lambda w: client.table(w["table"]).delete().match(w["where"]),
        }
        answers = []
        for [(verb, what)] in (step.items() for step in steps):
            try:
                answers.append(Answer((await does[verb](what).execute()).data, None))
            except APIError as error:
                answers.append(Answer(None, error.code))
    return answers


@pytest.fixture(params=[through_javascript, through_python], ids=["javascript", "python"])
def frontend(request: pytest.FixtureRequest) -> Frontend:
    chosen: Frontend = request.param
    return chosen


@pytest.fixture(scope="session")
def accounts(supabase_process: SupabaseLite) -> dict[str, UUID]:
    """Signed up once: hashing a password takes a second in JavaScript."""
    return {name: supabase_process.sign_up(f"{name}@example.com") for name in ("ana", "ben", "cem")}


@pytest.fixture
async def office(supabase: SupabaseLite, accounts: dict[str, UUID]) -> Office:
    """Ana works at Casa Verde, Ben at Nordlicht, Cem has an account and no workspace."""
    emails = {name: f"{name}@example.com" for name in accounts}
    users = accounts
    workspaces = {"ana": new_id(), "ben": new_id()}
    for name, phone, waba in (("ana", PHONE_A, WABA_A), ("ben", PHONE_B, WABA_B)):
        ids = (workspaces[name], new_id(), waba, phone)
        await supabase.execute("insert into public.workspaces (id, name) values (%s, %s)", (workspaces[name], name))
        await supabase.execute(
            "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, 'agent')",
            (workspaces[name], users[name]),
        )
        await supabase.execute(
            "insert into public.whatsapp_channels (workspace_id, id, waba_id, phone_number_id, portfolio_id,"
            " display_phone_number) values (%s, %s, %s, %s, 'p', '12025550143')",
            ids,
        )
    async with supabase_transport(supabase.url, key=SECRET_KEY, own_token=SECRET_KEY, max_connections=2) as service:
        for name, phone, waba in (("ana", PHONE_A, WABA_A), ("ben", PHONE_B, WABA_B)):
            raw = webhook(text_message(f"Hello {name}", wamid=f"wamid.{name}"), phone_number_id=phone, waba_id=waba)
            await Webhooks(service).record([received(raw)], settle_s=0)
    return Office(supabase, emails, users, workspaces)


def ask(name: str, **args: object) -> Step:
    return {"rpc": {"name": name, "args": args}}


async def test_a_frontend_calls_the_functions_that_our_api_calls(office: Office, frontend: Frontend) -> None:
    workspace = str(office.workspaces["ana"])

    me, conversations = await frontend(office, "ana", [ask("me"), ask("list_conversations", p_workspace_id=workspace)])
    [conversation] = conversations.data["items"]
    [messages] = await frontend(
        office, "ana", [ask("list_messages", p_workspace_id=workspace, p_conversation_id=conversation["id"])]
    )

    assert me.data["user"] == {"id": str(office.users["ana"]), "email": "ana@example.com"}
    assert [(w["id"], w["role"]) for w in me.data["workspaces"]] == [(workspace, "agent")]
    assert conversation["last_message"]["preview"] == "Hello ana"
    assert [m["content"] for m in messages.data["items"]] == ["Hello ana"]


async def test_a_frontend_reads_the_same_as_the_api_answers(office: Office, frontend: Frontend) -> None:
    workspace = office.workspaces["ana"]
    [theirs] = await frontend(office, "ana", [ask("list_conversations", p_workspace_id=str(workspace))])

    async with (
        httpx.AsyncClient(trust_env=False) as http,
        supabase_transport(office.lite.url, key=PUBLISHABLE_KEY, own_token=None, max_connections=2) as store,
    ):
        person = await verifier_of(office, http).verify(office.lite.sign_in("ana@example.com"))
        ours = json.loads(await Inbox(store).list_conversations(workspace, limit=50, cursor=None, as_user=person))

    assert theirs.data.pop("server_time")
    assert ours.pop("server_time")
    assert theirs.data == ours


async def test_tables_show_a_member_their_workspace_and_nobody_elses(office: Office, frontend: Frontend) -> None:
    reads = [{"select": {"table": table}} for table in TABLES]

    for who in ("ana", "ben"):
        own = str(office.workspaces[who])
        for table, answer in zip(TABLES, await frontend(office, who, reads), strict=True):
            key = "id" if table == "workspaces" else "workspace_id"
            assert answer.code is None, table
            assert {row[key] for row in answer.data} == {own}, table

    for table, answer in zip(TABLES, await frontend(office, "cem", reads), strict=True):
        assert answer == Answer([], None), table


async def test_nobody_signed_in_sees_nothing_and_calls_nothing(office: Office, frontend: Frontend) -> None:
    asked = [*({"select": {"table": table}} for table in TABLES), ask("me"), ask("make_webhook_partitions")]

    answers = await frontend(office, None, asked)

    assert answers == [Answer(None, "42501")] * len(asked)


async def test_another_workspace_is_not_there_for_a_frontend_either(office: Office, frontend: Frontend) -> None:
    [answer] = await frontend(office, "ana", [ask("list_conversations", p_workspace_id=str(office.workspaces["ben"]))])

    assert answer == Answer(None, "PT404")


async def test_direct_writes_are_refused_whoever_asks(office: Office, frontend: Frontend) -> None:
    own = {"workspace_id": str(office.workspaces["ana"])}
    rows: dict[str, dict[str, object]] = {
        "workspaces": {"id": str(new_id()), "name": "mine"},
        "workspace_members": own | {"user_id": str(office.users["cem"]), "role": "owner"},
        "whatsapp_conversations": own | {"id": str(new_id()), "status": "open", "unread_count": 0},
        "whatsapp_messages": own | {"id": str(new_id()), "content": "forged", "status": "read"},
    }
    before = await counts(office)
    writes: list[Step] = []
    for table, row in rows.items():
        where = {"id": str(office.workspaces["ana"])} if table == "workspaces" else own
        last = {list(row)[-1]: list(row.values())[-1]}
        writes += [{"insert": {"table": table, "row": row}}, {"upsert": {"table": table, "row": row}}]
        writes += [{"update": {"table": table, "row": last, "where": where}}]
        writes += [{"delete": {"table": table, "where": where}}]

    for who in ("ana", "cem", None):
        answers = await frontend(office, who, writes)
        assert answers == [Answer(None, "42501")] * len(writes), who

    assert await counts(office) == before


async def counts(office: Office) -> list[tuple[object, ...]]:
    """Every row of every table, in short."""
    content = "select count(*)::int, md5(string_agg(t::text, '' order by t::text)) from public."
    return [(await office.lite.execute(f"{content}{table} t")).rows[0] for table in TABLES]


async def test_the_services_functions_are_closed_to_frontends(office: Office, frontend: Frontend) -> None:
    asked = [
        ask("make_webhook_partitions"),
        ask("store_webhook_bodies", p_bodies=[]),
        ask("record_webhook_batch", p_batch={}, p_settle_ms=0),
        ask("claim_conversation_work", p_limit=1, p_lease_ms=1, p_max_messages=1, p_max_attempts=1),
    ]

    assert await frontend(office, "ana", asked) == [Answer(None, "42501")] * len(asked)


def verifier_of(office: Office, http: httpx.AsyncClient) -> TokenVerifier:
    """As the API builds it; lite signs with the shared secret, as older projects do."""
    return TokenVerifier(issuer=f"{office.lite.url}/auth/v1", hs256_secret=JWT_SECRET.encode(), http=http)


async def test_the_token_of_the_password_flow_is_accepted_by_our_api(office: Office) -> None:
    session, _ = await javascript(office, "ana", [])

    async with httpx.AsyncClient(trust_env=False) as http:
        for token in (session["access_token"], office.lite.sign_in("ana@example.com")):
            person = await verifier_of(office, http).verify(token)
            assert person.user_id == office.users["ana"]
            assert person.token == token
            assert json.loads(person.claims)["email"] == "ana@example.com"


async def test_a_token_with_another_role_never_goes_to_postgrest(office: Office) -> None:
    token = office.lite.token(sub=str(office.users["ana"]), role="service_role")

    async with httpx.AsyncClient(trust_env=False) as http:
        person = await verifier_of(office, http).verify(token)

    assert person.token is None
    assert json.loads(person.claims)["role"] == "authenticated"
