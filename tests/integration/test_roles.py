"""Who may see and do what, read from the catalogue: what is added tomorrow is walked tomorrow."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from shared.domain.errors import ParleyError, Rejected
from shared.domain.ids import new_id
from shared.store.analysis import AnalysisWork
from shared.store.postgres import PostgresTransport
from shared.store.webhooks import Webhooks
from tests.conftest import Database
from tests.world import PHONE_B, WABA_B, World, received, text_message, webhook

# Run with their owner's powers, past every policy: each is here because somebody thought about it.
DEFINERS = {
    "app.forget_batch_requests",
    "app.forget_conversation",
    "app.forget_quotations",
    "public.drop_old_webhooks",
    "public.erase_contact_rows",
    "public.make_webhook_partitions",
    "public.rewrite_erased_raw",
    "public.store_webhook_bodies",
}
# Run as parley_writer, whom policies hold: how a signed-in person changes anything.
WRITES = {
    "public.ai_budget",
    "public.archive_conversation",
    "public.begin_upload",
    "public.block_contact",
    "public.cancel_bulk_send",
    "public.cancel_message",
    "public.change_ai_budget",
    "public.change_ai_lists",
    "public.change_contact_stage",
    "public.change_contact_tags",
    "public.change_task",
    "public.change_workspace_settings",
    "public.channel_health",
    "public.connect_channel",
    "public.contact_block_state",
    "public.contact_erasure",
    "public.correct_analysis",
    "public.create_bulk_send",
    "public.create_template",
    "public.decide_proposal",
    "public.delete_conversation",
    "public.delete_template",
    "public.disconnect_channel",
    "public.list_bulk_recipients",
    "public.list_bulk_sends",
    "public.list_proposals",
    "public.list_tasks",
    "public.edit_template",
    "public.enable_template_analytics",
    "public.list_channels",
    "public.mark_conversation_read",
    "public.pause_bulk_send",
    "public.pause_channel_by_person",
    "public.rate_suggestion",
    "public.read_ai_lists",
    "public.read_bulk_send",
    "public.read_contact",
    "public.recipient_window",
    "public.reopen_conversation",
    "public.request_contact_erasure",
    "public.request_template_sync",
    "public.resolve_doubt",
    "public.resume_bulk_send",
    "public.resume_channel",
    "public.retry_message",
    "public.send_message",
    "public.set_transcript",
    "public.start_typing",
    "public.store_upload",
    "public.submit_template",
    "public.suggestion_acceptance",
    "public.unblock_contact",
    "public.undo_correction",
    "public.undo_ai_changes",
    "public.unpause_template",
    "public.workspace_settings",
}
# Executable by a signed-in person; every other function is the services' own.
FOR_PEOPLE = WRITES | {
    "public.files_to_send",
    "public.group_of_conversation",
    "public.list_account_events",
    "public.list_conversations",
    "public.list_messages",
    "public.list_template_analytics",
    "public.list_templates",
    "public.me",
    "public.media_json",
    "public.message_json",
    "public.read_media",
    "public.read_template",
    "public.recorded_message_json",
    "public.reply_window",
    "public.template_to_send",
    "public.template_json",
}
FOR_INGEST = "public.store_webhook_bodies"
# Tables a member reads, by the column that names the workspace.
READABLE = {
    "public.account_events": "workspace_id",
    "public.analysis_corrections": "workspace_id",
    "public.ai_proposals": "workspace_id",
    "public.audit_log": "workspace_id",
    "public.bulk_recipients": "workspace_id",
    "public.bulk_sends": "workspace_id",
    "public.channel_intake": "workspace_id",
    "public.channel_usage": "workspace_id",
    "public.contact_identities": "workspace_id",
    "public.contact_scores": "workspace_id",
    "public.contacts": "workspace_id",
    "public.conversation_analyses": "workspace_id",
    "public.media": "workspace_id",
    "public.message_analyses": "workspace_id",
    "public.message_events": "workspace_id",
    "public.suggestion_feedback": "workspace_id",
    "public.tasks": "workspace_id",
    "public.template_accounts": "workspace_id",
    "public.template_analytics": "workspace_id",
    "public.template_usage": "workspace_id",
    "public.whatsapp_channels": "workspace_id",
    "public.whatsapp_conversations": "workspace_id",
    "public.whatsapp_groups": "workspace_id",
    "public.whatsapp_messages": "workspace_id",
    "public.whatsapp_templates": "workspace_id",
    "public.whatsapp_webhooks": "workspace_id",
    "public.workspace_members": "workspace_id",
    "public.workspaces": "id",
}

# What hangs on the messages of `filled`.
HANG_ON_MESSAGES: tuple[LiteralString, ...] = (
    "insert into public.message_events (workspace_id, channel_id, wamid, kind, key, sent_at)"
    " select workspace_id, channel_id, wamid, 'reaction', '1', now() from public.whatsapp_messages",
    "insert into public.media (workspace_id, id, message_id, meta_id, kind)"
    " select workspace_id, id, id, '1', 'image' from public.whatsapp_messages",
    "select app.audit(workspace_id, 'conversation.opened', conversation_id, p_source => 'meta')"
    " from public.whatsapp_messages",
    "insert into public.channel_usage (workspace_id, channel_id, month)"
    " select workspace_id, id, '2026-11-01' from public.whatsapp_channels",
    "insert into public.whatsapp_groups (workspace_id, channel_id, group_id)"
    " select workspace_id, id, '1' from public.whatsapp_channels",
    "select app.record_account_events(jsonb_agg(jsonb_build_object("
    "'n', 1, 'workspace_id', workspace_id, 'channel_id', id, 'waba_id', waba_id, 'phone_number_id', phone_number_id,"
    " 'field', 'message_template_status_update', 'event', 'approved', 'sent_at', now(), 'received_at', now(),"
    " 'payload', jsonb_build_object('event', 'APPROVED', 'message_template_id', 1, 'message_template_name', 'a',"
    " 'message_template_language', 'en'))))"
    " from public.whatsapp_channels",
    "insert into public.bulk_sends (workspace_id, id, channel_id, template_id, recipients, created_by)"
    " select c.workspace_id, c.id, c.id, t.id, 1, c.id from public.whatsapp_channels c"
    " join public.whatsapp_templates t using (workspace_id)",
    "insert into public.bulk_recipients (workspace_id, bulk_id, n, wa_id)"
    " select workspace_id, id, 1, '1' from public.bulk_sends",
    "insert into public.template_accounts (workspace_id, waba_id)"
    " select workspace_id, waba_id from public.whatsapp_channels on conflict do nothing",
    "select app.count_template_use(workspace_id, id) from public.whatsapp_templates",
    "insert into public.analysis_corrections (workspace_id, id, message_id, content_version, fields, corrected_by)"
    ' select workspace_id, id, id, 1, \'{"intent": "refund"}\', id from public.whatsapp_messages',
    "insert into public.suggestion_feedback (workspace_id, message_id, conversation_id, seq, suggested_at)"
    " select workspace_id, id, conversation_id, seq, now() from public.whatsapp_messages",
    "insert into public.conversation_analyses (workspace_id, conversation_id, content_version, prompt_version,"
    " attempt_id, result, model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd,"
    " latency_ms)"
    " select workspace_id, conversation_id, 'v', 'p', id, '{}', 'm', 1, 1, 0, 0, 0, 1 from app.analysis_attempts",
    "select app.apply_contact_analysis(a.workspace_id, a.conversation_id, c.contact_id, a.id, jsonb_build_object("
    " 'score', 50, 'reasons', '{}'::jsonb, 'half_life_days', 30, 'tags', jsonb_build_array(jsonb_build_object("
    " 'id', gen_random_uuid(), 'name', 'unlisted', 'key', 'unlisted', 'confidence', 1)), 'tasks', jsonb_build_array("
    " jsonb_build_object('id', gen_random_uuid(), 'kind', 'reply', 'title', 'Answer', 'key', 'answer'))))"
    " from app.analysis_attempts a join public.whatsapp_conversations c"
    " on c.workspace_id = a.workspace_id and c.id = a.conversation_id",
    "insert into public.template_analytics (workspace_id, template_id, day)"
    " select workspace_id, id, current_date from public.whatsapp_templates",
)

RELATIONS = """
    select format('%I.%I', n.nspname, c.relname), c.relkind, c.relrowsecurity, c.reloptions, c.relispartition, n.nspname
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'm', 'f')
    order by 1"""
COLUMNS = """
    select format('%I.%I', n.nspname, c.relname), a.attname
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
    where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'm', 'f') and a.attnum = 1"""
# Whoever inherits it from: PUBLIC, another role, a single column.
PRIVILEGES = """
    select r, p, format('%I.%I', n.nspname, c.relname)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    cross join unnest(array['anon', 'authenticated', 'parley_ingest']) r
    cross join unnest(array['select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger']) p
    where n.nspname in ('public', 'app') and case
      when c.relkind = 'S' then p in ('select', 'update') and has_sequence_privilege(r, c.oid, p || ', usage')
      when c.relkind not in ('r', 'p', 'v', 'm', 'f') then false
      when p in ('delete', 'truncate', 'trigger') then has_table_privilege(r, c.oid, p)
      else has_any_column_privilege(r, c.oid, p) end
    union all
    select r, p, n.nspname from pg_namespace n
    cross join unnest(array['anon', 'authenticated', 'parley_ingest']) r
    cross join unnest(array['usage', 'create']) p
    where n.nspname in ('public', 'app') and has_schema_privilege(r, n.oid, p)
      and (n.nspname, p) <> ('public', 'usage')"""
FUNCTIONS = """
    select format('%I.%I', n.nspname, p.proname), p.prosecdef, p.proconfig,
           exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0),
           array(select r from unnest(array['anon', 'authenticated', 'parley_ingest']) r
                 where has_function_privilege(r, p.oid, 'execute')),
           p.proowner::regrole::text
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname in ('public', 'app') order by 1"""


# What parley_writer must not be, each as the problem it would make.
WRITER = (
    """select 'parley_writer is more than a name' from pg_roles where rolname = 'parley_writer'
       and (rolsuper or rolbypassrls or rolcanlogin or rolcreaterole or rolcreatedb or rolinherit)""",
    # Whoever migrates is, so that functions can be replaced; they own the tables anyway.
    """select m.member::regrole || ' may become parley_writer' from pg_auth_members m
       where m.roleid = 'parley_writer'::regrole
         and m.member <> (select nspowner from pg_namespace where nspname = 'app')""",
    """select 'parley_writer may become ' || roleid::regrole from pg_auth_members
       where member = 'parley_writer'::regrole""",
    """select 'parley_writer owns ' || format('%I.%I', n.nspname, c.relname)
       from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relowner = 'parley_writer'::regrole""",
    """select 'parley_writer may create ' || nspname from pg_namespace
       where nspname in ('public', 'app') and has_schema_privilege('parley_writer', oid, 'create')""",
    # Deleting is for work that is called off and tokens taken away; the rest is kept, and columns are named.
    """select format('parley_writer may %s %I.%I', p, n.nspname, c.relname)
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       cross join unnest(array['update', 'delete', 'truncate', 'trigger', 'references']) p
       where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'm', 'f')
         and case when p in ('update', 'references') then has_any_column_privilege('parley_writer', c.oid, p)
             else has_table_privilege('parley_writer', c.oid, p) end
         and not (p = 'update' and c.relname <> 'audit_log'
           or p = 'delete' and c.relname in ('conversation_work', 'channel_tokens'))""",
    """select format('parley_writer may update all of %I.%I', n.nspname, c.relname)
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname in ('public', 'app') and c.relkind in ('r', 'p')
         and has_table_privilege('parley_writer', c.oid, 'update')""",
    """select format('policy %I on %I.%I does not ask who writes', policyname, schemaname, tablename) from pg_policies
       where 'parley_writer' = any (roles)
         and case when cmd = 'SELECT' then qual !~ 'uid\\(\\)|writable_workspaces\\(\\)'
             when cmd = 'INSERT' then with_check !~ 'writable_workspaces\\(\\)'
             else qual !~ 'writable_workspaces\\(\\)' or with_check !~ 'writable_workspaces\\(\\)' end""",
)


@dataclass(frozen=True, slots=True)
class Filled:
    """A database in which both workspaces have rows in every table a member reads."""

    database: Database
    world: World
    admin: psycopg.AsyncConnection

    def people(self) -> dict[str, str]:
        """Everybody who gets as far as role `authenticated`, by claims; only the first is a member of workspace A."""
        world = self.world
        return {
            "member of A": world.claims(world.owner_a),
            "member of B": world.claims(world.owner_b),
            "stranger": world.claims(world.stranger),
            "forged role": json.dumps({"sub": str(world.stranger), "role": "service_role"}),
            "no subject": json.dumps({"role": "service_role"}),
            "null subject": json.dumps({"sub": None, "role": "authenticated"}),
            "no claims": "",
            "subject is a workspace": world.claims(world.workspace_a),
            "subject in a list": json.dumps({"sub": [str(world.owner_a)]}),
            "subject in an object": json.dumps({"sub": {"sub": str(world.owner_a)}}),
            "subject beside the claims": json.dumps({"user_metadata": {"sub": str(world.owner_a)}}),
            "subject with a tail": json.dumps({"sub": f"{world.owner_a}' or true --"}),
        }

    @asynccontextmanager
    async def as_role(self, login: str, role: str, claims: str = "") -> AsyncIterator[psycopg.AsyncConnection]:
        """A connection of that login inside a transaction as `role`, undone at the end."""
        async with await psycopg.AsyncConnection.connect(self.database.url(login), autocommit=True) as connection:
            async with connection.transaction(force_rollback=True):
                await connection.execute(
                    "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)", (role, claims)
                )
                yield connection

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        return await (await self.admin.execute(query.encode())).fetchall()


@pytest.fixture
async def filled(
    database: Database, world: World, admin: psycopg.AsyncConnection, service_store: PostgresTransport
) -> Filled:
    """Messages, contacts, webhooks and analyses in both workspaces, and a webhook that is nobody's."""
    bodies = [
        webhook(text_message("Hello A", wamid="wamid.a", user_id="US.1", wa_id="12025550101")),
        webhook(
            text_message("Hello B", wamid="wamid.b", user_id="US.2", wa_id="12025550102"),
            phone_number_id=PHONE_B,
            waba_id=WABA_B,
        ),
        webhook(text_message("Hello nobody", wamid="wamid.x"), phone_number_id="999999999999999", waba_id="1"),
        b"not json",
    ]
    await Webhooks(service_store).record([received(raw) for raw in bodies], settle_s=0)
    analysis = AnalysisWork(service_store)
    claimed = await analysis.claim_due(limit=10, lease_s=30, most_messages=20, most_attempts=3)
    for work in claimed.work:
        counts = {"input_tokens": 1, "output_tokens": 1, "cache_read_tokens": 0, "cache_write_tokens": 0}
        priced = {**counts, "cost_usd": "0.001"}
        await analysis.finish(
            work.lease,
            attempt={"id": work.attempt_id, "outcome": "ok", "model": "m", "prompt_version": "p", "latency_ms": 1}
            | priced,
            results=[
                {"message_id": m["message_id"], "content_version": 1, "result": {}, "intent": "greeting"} | priced
                for m in work.context["new_messages"]
            ],
            failed=None,
            most_messages=20,
        )
    await Webhooks(service_store).make_partitions()
    for statement in HANG_ON_MESSAGES:
        await admin.execute(statement)
    return Filled(database, world, admin)


async def problems(filled: Filled) -> list[str]:
    """Walk every table, view, partition, sequence and function and name whatever is more open than it may be."""
    found = [*await _relation_problems(filled), *await _function_problems(filled), *await _writer_problems(filled)]
    for who, claims in filled.people().items():
        async with filled.as_role("test_api", "authenticated", claims) as connection:
            found += [f"{who} {what}" for what in await _seen_wrongly(connection, filled, who)]
    return found


async def _relation_problems(filled: Filled) -> list[str]:
    found = []
    for name, kind, has_rls, options, is_partition, schema in await filled.rows(RELATIONS):
        if kind in ("r", "p", "f") and not has_rls:
            found.append(f"{name} has no row level security")
        if kind in ("v", "m") and "security_invoker=true" not in (options or []):
            found.append(f"{name} shows what its owner sees")
        if is_partition and schema != "app":
            found.append(f"{name} is a partition outside app")
    for role, privilege, name in await filled.rows(PRIVILEGES):
        if (role, privilege) != ("authenticated", "select") or name not in READABLE:
            found.append(f"{role} may {privilege} {name}")
    return found


async def _function_problems(filled: Filled) -> list[str]:
    found = []
    for name, is_definer, config, is_public, executed_by, owner in await filled.rows(FUNCTIONS):
        if config is None or 'search_path=""' not in config:
            found.append(f"{name} does not fix its search_path")
        if is_definer and name not in DEFINERS | WRITES:
            found.append(f"{name} runs with its owner's powers")
        if (owner == "parley_writer") != (name in WRITES):
            found.append(f"{name} belongs to {owner}")
        if is_public:
            found.append(f"{name} is executable by everybody")
        allowed = ["authenticated"] if name in FOR_PEOPLE else ["parley_ingest"] if name == FOR_INGEST else []
        found += [f"{role} may execute {name}" for role in executed_by if role not in allowed]
    return found


async def _writer_problems(filled: Filled) -> list[str]:
    return [problem for query in WRITER for (problem,) in await filled.rows(query)]


async def _seen_wrongly(connection: psycopg.AsyncConnection, filled: Filled, who: str) -> list[str]:
    found = []
    mine = {"member of A": filled.world.workspace_a, "member of B": filled.world.workspace_b}.get(who)
    for name, *_ in await filled.rows(RELATIONS):
        seen = await _seen(connection, name)
        if name not in READABLE:
            found += [] if seen is None else [f"reads {name}"]
        elif seen is None:
            found.append(f"is refused {name} altogether")
        elif any(mine is None or row[READABLE[name]] != str(mine) for row in seen):
            found.append(f"sees rows of {name} that are not theirs")
        elif mine and not seen:
            found.append(f"does not see their own rows of {name}")
    return found


def _identifier(name: str) -> sql.Identifier:
    return sql.Identifier(*(part.strip('"') for part in name.split(".")))


async def _seen(connection: psycopg.AsyncConnection, name: str) -> list[dict[str, object]] | None:
    """The rows of a relation as this connection sees them; None when it may not look at all."""
    try:
        async with connection.transaction():
            cursor = await connection.execute(sql.SQL("select to_jsonb(t) from {} t").format(_identifier(name)))
            return [row for (row,) in await cursor.fetchall()]
    except psycopg.errors.InsufficientPrivilege:
        return None
    except psycopg.errors.InvalidTextRepresentation:  # a subject that is no uuid: the policy itself refuses
        return []


async def _is_denied(connection: psycopg.AsyncConnection, statement: sql.Composed) -> bool:
    """Whether this is refused for lack of a privilege, and for no other reason."""
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    except psycopg.Error:
        return False
    return False


async def test_everybody_sees_their_own_and_nobody_does_more(filled: Filled) -> None:
    assert await problems(filled) == []


async def test_the_walk_has_something_to_find(filled: Filled) -> None:
    relations = {name: kind for name, kind, *_ in await filled.rows(RELATIONS)}
    counts = {}
    for name, column in READABLE.items():
        query = sql.SQL("select count(*), count(distinct {}) from {}")
        cursor = await filled.admin.execute(query.format(sql.Identifier(column), _identifier(name)))
        counts[name] = (await cursor.fetchall())[0]

    assert set(READABLE) == {name for name in relations if name.startswith("public.")}
    assert sum(name.startswith("app.webhook_bodies_2") for name in relations) >= 9  # made at run time
    assert {name: count for name, count in counts.items() if count[0] < 2 or count[1] != 2} == {}
    assert await filled.rows("select count(*) from public.whatsapp_webhooks where workspace_id is null") == [(1,)]
    assert {name for name, *_ in await filled.rows(FUNCTIONS)} >= FOR_PEOPLE | DEFINERS
    assert {name for name, is_definer, *_ in await filled.rows(FUNCTIONS) if is_definer} == DEFINERS | WRITES


@pytest.mark.parametrize(
    ("login", "role"),
    [("test_api", "authenticated"), ("test_api", "anon"), ("test_ingest", "anon"), ("test_ingest", "parley_ingest")],
)
async def test_every_write_to_every_table_is_refused(filled: Filled, login: str, role: str) -> None:
    columns = dict(await filled.rows(COLUMNS))

    allowed = []
    async with filled.as_role(login, role, filled.world.claims(filled.world.owner_a)) as connection:
        for name, column in columns.items():
            for statement in (
                sql.SQL("insert into {} default values"),
                sql.SQL("update {} set {} = default"),
                sql.SQL("delete from {}"),
                sql.SQL("truncate {}"),
                sql.SQL("lock table {} in exclusive mode"),
                sql.SQL("select from {} for update"),
            ):
                attempt = statement.format(_identifier(name), sql.Identifier(column))
                if not await _is_denied(connection, attempt):
                    allowed.append(attempt.as_string())

    assert len(columns) > 20
    assert allowed == []


@pytest.mark.parametrize(("login", "role"), [("test_api", "anon"), ("test_ingest", "parley_ingest")])
async def test_who_is_not_signed_in_reads_nothing(filled: Filled, login: str, role: str) -> None:
    async with filled.as_role(login, role, filled.world.claims(filled.world.owner_a)) as connection:
        readable = [name for name, *_ in await filled.rows(RELATIONS) if await _seen(connection, name) is not None]

    assert readable == []


async def test_the_walk_catches_every_kind_of_leak(filled: Filled) -> None:
    function = "returns int language sql set search_path = ''"
    leaks = {
        "create table public.copied as select * from public.contacts": "anon may select public.copied",
        "create table public.bare (id int)": "public.bare has no row level security",
        "create table app.bare (id int)": "app.bare has no row level security",
        "create table public.part partition of app.webhook_bodies for values from ('2031-01-01') to ('2031-01-02')": (
            "public.part is a partition outside app"
        ),
        "create view public.view as select * from public.whatsapp_messages": "public.view shows what its owner sees",
        "create materialized view public.kept as select * from public.contacts": "stranger reads public.kept",
        "create sequence public.numbers": "anon may update public.numbers",
        "alter table public.whatsapp_channels disable row level security": (
            "member of B sees rows of public.whatsapp_channels that are not theirs"
        ),
        "create policy p on public.contacts for select to authenticated using (true)": (
            "forged role sees rows of public.contacts that are not theirs"
        ),
        "create policy p on public.whatsapp_webhooks for select to authenticated using (workspace_id is null)": (
            "stranger sees rows of public.whatsapp_webhooks that are not theirs"
        ),
        'drop policy "Members see their messages" on public.whatsapp_messages': (
            "member of A does not see their own rows of public.whatsapp_messages"
        ),
        "revoke select on public.workspaces from authenticated": "member of A is refused public.workspaces altogether",
        "grant update (name) on public.contacts to authenticated": "authenticated may update public.contacts",
        "grant truncate on public.message_analyses to authenticated": (
            "authenticated may truncate public.message_analyses"
        ),
        "grant insert on public.whatsapp_messages to public": "parley_ingest may insert public.whatsapp_messages",
        "grant select on app.quarantine to anon": "anon may select app.quarantine",
        "grant usage on schema app to authenticated": "authenticated may usage app",
        "grant create on schema public to public": "anon may create public",
        f"create function public.open() {function} as 'select 1'": "public.open is executable by everybody",
        f"create function public.half() {function} as 'select 1'": "anon may execute public.half",
        "revoke execute on function public.half from public": "anon may execute public.half",
        "create function app.loose() returns int language sql as 'select 1'": "app.loose does not fix its search_path",
        f"create function app.owner() {function} security definer as 'select 1'": (
            "app.owner runs with its owner's powers"
        ),
        "alter table public.media owner to parley_writer": "parley_writer owns public.media",
        "grant create on schema public to parley_writer": "parley_writer may create public",
        "grant update on public.audit_log to parley_writer": "parley_writer may update public.audit_log",
        "grant delete on public.contacts to parley_writer": "parley_writer may delete public.contacts",
        "grant update on public.whatsapp_messages to parley_writer": (
            "parley_writer may update all of public.whatsapp_messages"
        ),
        "create policy loose on public.contacts for update to parley_writer using (true)": (
            "policy loose on public.contacts does not ask who writes"
        ),
        "alter function public.me() owner to parley_writer": "public.me belongs to parley_writer",
        "grant execute on function public.record_webhook_batch to authenticated": (
            "authenticated may execute public.record_webhook_batch"
        ),
        "grant execute on function public.claim_webhook_bodies to parley_ingest": (
            "parley_ingest may execute public.claim_webhook_bodies"
        ),
    }
    for change in leaks:
        await filled.admin.execute(change.encode())

    found = await problems(filled)

    assert [leak for leak in leaks.values() if leak not in found] == []


@pytest.mark.parametrize(
    ("change", "leak"),
    [
        ("alter role parley_writer bypassrls", "parley_writer is more than a name"),
        ("grant parley_writer to test_api", "test_api may become parley_writer"),
        ("grant service_role to parley_writer", "parley_writer may become service_role"),
    ],
)
async def test_the_walk_catches_a_writer_that_is_more(
    admin: psycopg.AsyncConnection, database: Database, world: World, change: LiteralString, leak: str
) -> None:
    async with admin.transaction(force_rollback=True):  # roles belong to the server, which others use too
        await admin.execute(change)
        found = await _writer_problems(Filled(database, world, admin))

    assert found == [leak]


async def test_a_table_made_by_the_migrations_owner_leaks_until_it_is_closed(filled: Filled) -> None:
    # As hosted Supabase, the shim grants every new public table to anon: forgetting is a leak, and is seen.
    await filled.admin.execute("create table public.later (workspace_id uuid, note text)")
    leaks = await problems(filled)
    await filled.admin.execute(
        "alter table public.later enable row level security; revoke all on public.later from anon, authenticated"
    )

    assert set(leaks) >= {"anon may select public.later", "stranger reads public.later"}
    assert await problems(filled) == []


async def test_no_function_hands_out_another_workspaces_rows(filled: Filled, api_store: PostgresTransport) -> None:
    world = filled.world
    ((conversation_b,),) = await filled.rows(
        "select conversation_id from public.whatsapp_messages where wamid = 'wamid.b'"
    )
    calls = [
        ("me", {}),
        *(("list_conversations", {"p_workspace_id": str(w)}) for w in (world.workspace_b, world.workspace_a)),
        *(
            ("list_messages", {"p_workspace_id": str(w), "p_conversation_id": str(conversation_b)})
            for w in (world.workspace_b, world.workspace_a)
        ),
    ]
    secrets = ("Hello B", "US.2", "12025550102", "Nordlicht", "wamid.b", str(conversation_b))

    told = {}
    for who, claims in filled.people().items():
        told[who] = ""
        for function, arguments in calls:
            try:
                told[who] += await api_store.call(function, arguments, as_user=claims)
            except ParleyError as error:
                told[who] += f"{error} {error.hint}"

    assert [who for who, text in told.items() if any(secret in text for secret in secrets)] == ["member of B"]
    assert "Hello B" in told["member of B"]


async def test_a_message_handed_in_shows_no_analysis_of_another_workspace(filled: Filled) -> None:
    # message_json takes a whole row: a person may make one up that names somebody else's message.
    world = filled.world
    ((message_b,),) = await filled.rows("select id from public.whatsapp_messages where wamid = 'wamid.b'")
    made_up = json.dumps({"workspace_id": str(world.workspace_b), "id": str(message_b), "content_version": 1})

    async with filled.as_role("test_api", "authenticated", world.claims(world.owner_a)) as connection:
        cursor = await connection.execute(
            "select public.message_json(jsonb_populate_record(null::public.whatsapp_messages, %s))", (made_up,)
        )
        ((shown,),) = await cursor.fetchall()

    assert shown["analysis"]["fields"] is None
    assert shown["analysis"]["model"] is None


@pytest.mark.parametrize(
    ("login", "role"),
    [
        ("test_api", "service_role"),
        ("test_api", "parley_ingest"),
        ("test_api", "parley_writer"),
        ("test_service", "parley_writer"),
        ("test_api", "postgres"),
        ("test_api", "test_service"),
        ("test_ingest", "service_role"),
        ("test_ingest", "authenticated"),
        ("test_ingest", "postgres"),
        ("test_service", "postgres"),
        ("test_service", "authenticated"),
    ],
)
async def test_a_login_becomes_nothing_but_its_own_roles(filled: Filled, login: str, role: str) -> None:
    attempts = (
        f"set role {role}",
        f"set local role {role}",
        f"select set_config('role', '{role}', true)",
        f"set session authorization {role}",
    )

    async with await psycopg.AsyncConnection.connect(filled.database.url(login), autocommit=True) as connection:
        for before in ("reset role", "set role anon"):
            await connection.execute(before)
            for attempt in attempts:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(attempt)


@pytest.mark.parametrize("login", ["test_api", "test_ingest", "test_service"])
async def test_a_login_by_itself_can_do_nothing(filled: Filled, login: str) -> None:
    async with await psycopg.AsyncConnection.connect(filled.database.url(login), autocommit=True) as connection:
        readable = [name for name, *_ in await filled.rows(RELATIONS) if await _seen(connection, name) is not None]
        cursor = await connection.execute(
            "select proname from pg_proc where pronamespace in ('public'::regnamespace, 'app'::regnamespace)"
            " and has_function_privilege(oid, 'execute')"
        )
        executable = await cursor.fetchall()
        makes_tables = not await _is_denied(connection, sql.SQL("create table public.mine (id int)").format())

    assert (readable, executable, makes_tables) == ([], [], False)


async def test_a_pooled_connection_that_forgets_its_role_is_anon(
    filled: Filled, api_store: PostgresTransport, service_store: PostgresTransport, ingest_store: PostgresTransport
) -> None:
    world = filled.world
    await api_store.call("me", {}, as_user=world.claims(world.owner_a))
    await service_store.call("claim_webhook_bodies", {"p_limit": 1, "p_max_bytes": 1, "p_hold_ms": 1})
    await Webhooks(ingest_store).store_bodies([received(b"x").body])

    for store in (api_store, service_store, ingest_store):
        async with store._pool.connection() as connection:  # what a careless call of tomorrow would do
            await connection.set_autocommit(True)
            cursor = await connection.execute(
                "select current_user, current_setting('request.jwt.claims', true), (select auth.uid())"
            )
            assert await cursor.fetchall() in ([("anon", "", None)], [("anon", None, None)])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute("select * from public.contacts")
            await connection.set_autocommit(False)


async def test_one_persons_claims_never_stay_for_the_next(filled: Filled, api_store: PostgresTransport) -> None:
    world = filled.world

    for user in (world.owner_a, world.owner_b, world.stranger, world.owner_a) * 3:
        me = json.loads(await api_store.call("me", {}, as_user=world.claims(user)))
        assert UUID(me["user"]["id"]) == user
        with pytest.raises(ParleyError):
            await api_store.call("list_conversations", {"p_workspace_id": str(new_id())}, as_user=world.claims(user))


async def test_a_process_that_acts_for_people_cannot_act_for_itself(api_store: PostgresTransport) -> None:
    with pytest.raises(Rejected) as caught:
        await api_store.call("me", {})

    assert caught.value.code == "user_required"


async def test_the_webhook_endpoints_login_executes_exactly_one_function(filled: Filled) -> None:
    async with filled.as_role("test_ingest", "parley_ingest") as connection:
        cursor = await connection.execute(
            "select format('%I.%I', n.nspname, p.proname) from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname not in ('pg_catalog', 'information_schema', 'auth')"
            " and has_schema_privilege(n.oid, 'usage') and has_function_privilege(p.oid, 'execute')"
        )
        executable = await cursor.fetchall()
        cursor = await connection.execute("select public.store_webhook_bodies('[]')")
        stored = await cursor.fetchall()

    assert executable == [("public.store_webhook_bodies",)]
    assert stored == [({"stored": 0},)]


async def test_a_service_sees_both_workspaces(filled: Filled) -> None:
    async with filled.as_role("test_service", "service_role") as connection:
        seen = {name: len(await _seen(connection, name) or []) for name in READABLE}

    assert {name: count for name, count in seen.items() if count < 2} == {}


async def test_the_services_cannot_delete_what_customers_wrote(filled: Filled) -> None:
    async with filled.as_role("test_service", "service_role") as connection:
        for name in READABLE:
            seen = await _seen(connection, name)
            assert seen is not None
            assert len(seen) >= 2, name  # both workspaces': the one role that spans tenants
            for statement in ("delete from {}", "truncate {}"):
                assert await _is_denied(connection, sql.SQL(statement).format(_identifier(name))), (statement, name)  # type: ignore[arg-type]
        assert await _is_denied(connection, sql.SQL("update public.audit_log set at = now()").format())
