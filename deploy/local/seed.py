"""Write the story into a database, and give the processes their logins."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from deploy.local.state import StackError
from deploy.local.story import PEOPLE, WORKSPACES

FLAG = "--seed-foreign-database"
# What each login may become. NOINHERIT: it has no power of its own until it says `set role`.
LOGINS: Mapping[str, tuple[str, ...]] = {
    "parley_ingest_login": ("anon", "parley_ingest"),
    "parley_service_login": ("anon", "service_role"),
    "parley_api_login": ("anon", "authenticated"),
}


def refuse_foreign(*, embedded: bool, allowed: bool, what: str) -> None:
    """Keep made-up data out of a database that is not ours to fill. Raises: StackError unless embedded or allowed."""
    if not embedded and not allowed:
        raise StackError(
            f"{what} refused: DATABASE_URL names a database that is not the embedded one, and this writes made-up "
            f"workspaces and messages. Unset DATABASE_URL, or pass {FLAG} if you mean it."
        )


def seed(database_url: str, *, embedded: bool, allowed: bool = False) -> None:
    """Insert the story; what is there already stays as it is.

    Raises: StackError for a database that is not the embedded one, unless `allowed`.
    """
    refuse_foreign(embedded=embedded, allowed=allowed, what="Seeding")
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        if embedded:  # elsewhere Supabase Auth fills its own table
            _seed_people(connection)
        _seed_workspaces(connection)


def _seed_people(connection: psycopg.Connection) -> None:
    if connection.execute("select to_regclass('auth.users')").fetchone() == (None,):
        return
    for person in PEOPLE:
        connection.execute(
            "insert into auth.users (id, email) values (%s, %s) on conflict do nothing", (person.id, person.email)
        )


def _seed_workspaces(connection: psycopg.Connection) -> None:
    for workspace in WORKSPACES:
        connection.execute(
            "insert into public.workspaces (id, name, time_zone, settings) values (%s, %s, %s, %s)"
            " on conflict do nothing",
            (workspace.id, workspace.name, workspace.time_zone, Jsonb(workspace.settings)),
        )
        for person, role in workspace.members:
            connection.execute(
                "insert into public.workspace_members (workspace_id, user_id, role) values (%s, %s, %s)"
                " on conflict do nothing",
                (workspace.id, person.id, role),
            )
        for channel in workspace.channels:
            connection.execute(
                "insert into public.whatsapp_channels"
                " (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number)"
                " values (%s, %s, %s, %s, %s, %s) on conflict do nothing",
                (
                    workspace.id,
                    channel.id,
                    channel.waba_id,
                    channel.portfolio_id,
                    channel.phone_number_id,
                    channel.display_phone_number,
                ),
            )


def create_logins(database_url: str, passwords: Mapping[str, str]) -> None:
    """Create the processes' login roles, or set them as they should be; for an embedded, migrated database only."""
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        for login, roles in LOGINS.items():
            known = connection.execute("select from pg_roles where rolname = %s", (login,)).fetchone()
            statement = sql.SQL("{verb} role {login} login noinherit password {password}").format(
                verb=sql.SQL("create" if known is None else "alter"),
                login=sql.Identifier(login),
                password=sql.Literal(passwords[login]),
            )
            connection.execute(statement)
            granted = sql.SQL(", ").join(map(sql.Identifier, roles))
            connection.execute(sql.SQL("grant {} to {}").format(granted, sql.Identifier(login)))
