"""The same files on a hosted project's database and on a bare one, on PostgreSQL 16 and 18, by whoever comes first."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest

from deploy.local.ports import any_free_port
from deploy.local.postgres import Major, Postgres, embedded_postgres
from shared.domain.errors import Forbidden, NotFound
from shared.domain.person import Person
from shared.store.conversations import Conversations
from shared.store.inbox import Inbox
from shared.store.migrate import migrate
from shared.store.postgres import postgres_transport
from shared.store.webhooks import Recorded, Webhooks
from tests.integration import hosted
from tests.integration.lifecycle_rows import add_talk
from tests.world import build_world, received, text_message, webhook

FILES = sorted((Path(__file__).parents[2] / "supabase" / "migrations").glob("*.sql"))
NAMES = [path.name for path in FILES]
Kind = Literal["hosted", "bare"]

# All that a migration can change and a person or a program can notice. Grants to an object's owner go without saying.
# Partitions are named after days, so they count by how they are closed.
CATALOGUE = {
    "relations": """
        select n.nspname, case when c.relispartition then 'a partition' else c.relname end, c.relkind, c.relrowsecurity,
               c.relforcerowsecurity, c.reloptions, obj_description(c.oid), a.grants
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        cross join lateral (
          select string_agg(x.grantee::regrole || ' ' || x.privilege_type, ', ' order by x.grantee::regrole::text,
                            x.privilege_type) as grants
          from aclexplode(c.relacl) x where x.grantee <> c.relowner) a
        where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'S')""",
    "columns": """
        select n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
               pg_get_expr(d.adbin, d.adrelid)
        from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where n.nspname in ('public', 'app') and c.relkind in ('r', 'p', 'v', 'c') and not c.relispartition
          and a.attnum > 0 and not a.attisdropped""",
    "indexes": """
        select n.nspname, pg_get_indexdef(i.indexrelid), i.indisvalid
        from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'app') and not c.relispartition""",
    "constraints": """
        select n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid), k.convalidated
        from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname in ('public', 'app') and not c.relispartition and k.contype <> 'n'""",
    "policies": "select * from pg_policies where schemaname in ('public', 'app')",
    "functions": """
        select n.nspname, p.oid::regprocedure::text, p.prosecdef, p.proconfig, p.provolatile, p.prosrc, a.grants
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        cross join lateral (
          select string_agg(case when x.grantee = 0 then 'public' else x.grantee::regrole::text end, ', '
                            order by x.grantee::regrole::text) as grants
          from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x where x.grantee <> p.proowner) a
        where n.nspname in ('public', 'app')""",
    "schemas": """
        select n.nspname, string_agg(x.grantee::regrole || ' ' || x.privilege_type, ', ' order by 1)
        from pg_namespace n cross join lateral aclexplode(n.nspacl) x
        where n.nspname = 'app' and x.grantee <> n.nspowner group by 1""",
    "owners": """
        select p.oid::regprocedure::text, p.proowner::regrole from pg_proc p
        where p.pronamespace in ('public'::regnamespace, 'app'::regnamespace)
          and p.proowner::regrole::text like 'parley%'""",
    "roles": "select rolname, rolcanlogin, rolbypassrls, rolsuper from pg_roles where rolname like 'parley%'",
}


def catalogue(url: str) -> dict[str, set[str]]:
    """All there is of ours."""
    with psycopg.connect(url) as connection:
        return {
            name: {repr(row) for row in connection.execute(query.encode()).fetchall()}
            for name, query in CATALOGUE.items()
        }


@dataclass(frozen=True, slots=True)
class Server:
    """A server on which projects are made."""

    postgres: Postgres
    kind: Kind

    def project(self) -> Project:
        """A database no migration has met."""
        name = f"project_{secrets.token_hex(4)}"
        with psycopg.connect(self.postgres.url(), autocommit=True) as connection:
            connection.execute(f"create database {name}")  # type: ignore[call-overload]
        admin = self.postgres.url(database=name)
        if self.kind == "bare":
            return Project(self, admin, admin)
        hosted.make_project(admin)
        return Project(self, admin, self.postgres.url(hosted.MIGRATOR, hosted.PASSWORD, database=name))


@dataclass(frozen=True, slots=True)
class Project:
    """A database: as superuser, and as whoever migrates."""

    server: Server
    admin: str
    migrator: str

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.admin) as connection:
            return connection.execute(query.encode()).fetchall()

    def run(self, statement: str) -> None:
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(statement.encode())


@pytest.fixture(scope="module", params=[16, 18])
async def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[Kind, Server]]:
    """Two servers of that version, since roles belong to a server: one with a hosted project's, one with none."""
    major: Major = request.param
    async with (
        embedded_postgres(
            tmp_path_factory.mktemp(f"hosted{major}"), port=any_free_port(), major=major, durable=False
        ) as for_hosted,
        embedded_postgres(
            tmp_path_factory.mktemp(f"bare{major}"), port=any_free_port(), major=major, durable=False
        ) as for_bare,
    ):
        await asyncio.to_thread(hosted.make_roles, for_hosted.url())
        yield {"hosted": Server(for_hosted, "hosted"), "bare": Server(for_bare, "bare")}


@pytest.fixture(params=["hosted", "bare"])
def project(request: pytest.FixtureRequest, servers: dict[Kind, Server]) -> Project:
    kind: Kind = request.param
    return servers[kind].project()


def test_every_file_is_applied_and_recorded_where_the_cli_looks(project: Project) -> None:
    applied = migrate(project.migrator)

    assert applied == NAMES
    assert project.rows(
        "select version, name, statements from supabase_migrations.schema_migrations order by version"
    ) == [(path.name[:14], path.stem[15:], [path.read_text()]) for path in FILES]


def test_whoever_migrates_a_hosted_project_is_no_superuser(servers: dict[Kind, Server]) -> None:
    project = servers["hosted"].project()

    with psycopg.connect(project.migrator) as connection:
        found = connection.execute(
            "select rolsuper, rolcreaterole, rolbypassrls from pg_roles where rolname = current_user"
        ).fetchone()

    assert found == (False, True, True)


def test_applying_twice_changes_nothing(project: Project) -> None:
    migrate(project.migrator)
    before = catalogue(project.admin)
    history = project.rows("select * from supabase_migrations.schema_migrations")

    again = migrate(project.migrator)

    assert again == []
    assert catalogue(project.admin) == before
    assert project.rows("select * from supabase_migrations.schema_migrations") == history
    assert all(before.values()), "the catalogue query sees nothing"


def test_a_hosted_project_and_a_bare_database_come_out_the_same(servers: dict[Kind, Server]) -> None:
    projects = {kind: server.project() for kind, server in servers.items()}
    for project in projects.values():
        migrate(project.migrator)

    found = {kind: catalogue(project.admin) for kind, project in projects.items()}

    for part in CATALOGUE:
        assert found["hosted"][part] == found["bare"][part], part


def test_a_table_that_forgets_to_revoke_leaks_on_both_alike(servers: dict[Kind, Server]) -> None:
    leaks = {}
    for kind, server in servers.items():
        project = server.project()
        migrate(project.migrator)
        with psycopg.connect(project.migrator) as connection:
            connection.execute("create table public.forgetful (id integer)")
        leaks[kind] = project.rows(
            "select grantee, privilege_type from information_schema.role_table_grants"
            " where table_name = 'forgetful' and grantee in ('anon', 'authenticated', 'service_role') order by 1, 2"
        )

    assert leaks["hosted"] == leaks["bare"]
    assert ("anon", "SELECT") in leaks["bare"]


def test_runners_that_start_together_apply_each_file_once(project: Project) -> None:
    with ThreadPoolExecutor(6) as runners:
        outcomes = list(runners.map(migrate, [project.migrator] * 6))

    assert sorted(outcomes, key=len) == [[], [], [], [], [], NAMES]


def test_a_runner_goes_on_where_supabases_cli_stopped(servers: dict[Kind, Server]) -> None:
    project = servers["hosted"].project()
    project.run(hosted.CLI_HISTORY)
    with psycopg.connect(project.migrator) as connection:
        for path in FILES[:2]:
            connection.execute(path.read_bytes())
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, name, statements, created_by)"
                " values (%s, %s, %s, 'someone')",
                (path.name[:14], path.stem[15:], ["select 1", "select 2"]),
            )

    assert migrate(project.migrator) == NAMES[2:]
    assert project.rows(
        "select created_by, count(*) from supabase_migrations.schema_migrations group by 1 order by 1"
    ) == [
        ("someone", 2),
        (None, len(FILES) - 2),
    ]


def test_a_file_that_fails_leaves_nothing_and_the_next_run_goes_on(project: Project) -> None:
    with psycopg.connect(project.migrator) as connection:
        connection.execute("create table public.whatsapp_messages (in_the_way boolean)")

    with pytest.raises(psycopg.errors.DuplicateTable) as caught:
        migrate(project.migrator)

    assert f"while applying {NAMES[1]}" in caught.value.__notes__
    assert project.rows("select version from supabase_migrations.schema_migrations") == [(NAMES[0][:14],)]
    assert project.rows("select to_regclass('public.contacts')") == [(None,)]
    project.run("drop table public.whatsapp_messages")
    assert migrate(project.migrator) == NAMES[1:]


async def test_what_was_migrated_records_and_shows_a_message(project: Project) -> None:
    await asyncio.to_thread(migrate, project.migrator)
    login = f"login_{secrets.token_hex(4)}"
    # As an operator does there: the migrator makes the logins, no superuser is asked.
    with psycopg.connect(project.migrator, autocommit=True) as connection:
        connection.execute(f"create role {login} login noinherit password 'p'".encode())
        connection.execute(f"grant anon, authenticated, service_role, parley_ingest to {login}".encode())
    name = psycopg.conninfo.conninfo_to_dict(project.admin)["dbname"]
    url = project.server.postgres.url(login, "p", database=str(name))
    async with await psycopg.AsyncConnection.connect(project.admin, autocommit=True) as admin:
        world = await build_world(admin)

    async with (
        postgres_transport(url, service_role="service_role", max_connections=2) as service,
        postgres_transport(url, service_role="parley_ingest", max_connections=1) as ingest,
    ):
        raw = webhook(text_message("Olá", wamid="wamid.1"))
        recorded = await Webhooks(service).record([received(raw)], settle_s=0)
        await Webhooks(ingest).store_bodies([received(raw).body])
        drained = await Webhooks(service).claim_bodies(limit=10, hold_s=1)
        partitions = await Webhooks(service).make_partitions()
        people = [Person(user, world.claims(user)) for user in (world.owner_a, world.owner_b)]

        async def conversations(person: Person) -> Any:
            page = await Inbox(service).list_conversations(world.workspace_a, limit=1, cursor=None, as_user=person)
            return json.loads(page)["items"]

        mine = await conversations(people[0])
        with pytest.raises(NotFound):
            await conversations(people[1])
        with pytest.raises(Forbidden):
            await Webhooks(ingest).make_partitions()

    assert recorded == Recorded(stored=1, due=1)
    assert len(drained) == 1
    assert partitions == 0
    assert [item["last_message"]["preview"] for item in mine] == ["Olá"]


async def test_people_write_through_parley_writer_and_whoever_migrates_goes_on(project: Project) -> None:
    await asyncio.to_thread(migrate, project.migrator)
    login = f"login_{secrets.token_hex(4)}"
    with psycopg.connect(project.migrator, autocommit=True) as connection:
        connection.execute(f"create role {login} login noinherit password 'p'".encode())
        connection.execute(f"grant anon, authenticated to {login}".encode())
    name = psycopg.conninfo.conninfo_to_dict(project.admin)["dbname"]
    url = project.server.postgres.url(login, "p", database=str(name))
    async with await psycopg.AsyncConnection.connect(project.admin, autocommit=True) as admin:
        world = await build_world(admin)
        talk = await add_talk(admin, world, messages=1)
    owner, stranger = (Person(user, world.claims(user)) for user in (world.owner_a, world.stranger))

    async with postgres_transport(url, service_role=None, max_connections=1) as store:
        conversations = Conversations(store)
        await conversations.mark_read(talk.workspace_id, talk.id, seen_seq=1, as_user=owner)
        await conversations.archive(talk.workspace_id, talk.id, seen_seq=1, as_user=owner)
        await conversations.block_contact(talk.workspace_id, talk.contact_id, as_user=owner)
        # A later migration replaces a function of parley_writer's, and hands over another; no superuser is asked.
        with psycopg.connect(project.migrator) as connection:
            row = connection.execute(
                "select pg_get_functiondef('public.unblock_contact(uuid, uuid)'::regprocedure)"
            ).fetchone()
            assert row is not None
            connection.execute(row[0])
            connection.execute(
                "create function public.later(a int) returns int language sql set search_path = '' as 'select 1';"
                " select app.give_to_writer('public.later')"
            )
        await conversations.unblock_contact(talk.workspace_id, talk.contact_id, as_user=owner)
        await conversations.block_contact(talk.workspace_id, talk.contact_id, as_user=owner)
        deleted = await conversations.delete(talk.workspace_id, talk.id, as_user=owner)
        with pytest.raises(NotFound):
            await conversations.delete(talk.workspace_id, talk.id, as_user=stranger)

    assert json.loads(deleted)["status"] == "deleted"
    assert project.rows(
        "select proname from pg_proc where proowner = 'parley_writer'::regrole"
        " and pronamespace = 'public'::regnamespace and proname in ('later', 'unblock_contact') order by 1"
    ) == [("later",), ("unblock_contact",)]
    assert (
        project.rows(
            "select nspname from pg_namespace where nspname in ('app', 'public')"
            " and has_schema_privilege('parley_writer', oid, 'create')"
        )
        == []
    )


def test_postgrests_login_may_become_ingest_and_ingest_alone(servers: dict[Kind, Server]) -> None:
    project = servers["hosted"].project()
    migrate(project.migrator)

    memberships = project.rows(
        "select r.roleid::regrole::text from pg_auth_members r where r.member = 'authenticator'::regrole order by 1"
    )

    assert memberships == [("anon",), ("authenticated",), ("parley_ingest",), ("service_role",)]
