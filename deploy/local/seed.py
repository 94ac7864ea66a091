"""Write the story into a database, and give the processes their logins."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from deploy.local.state import StackError
from deploy.local.story import GRAPH_TOKEN, PEOPLE, WORKSPACES
from shared.auth.seal import seal

FLAG = "--seed-foreign-database"
# What each login may become. NOINHERIT: it has no power of its own until it says `set role`.
LOGINS: Mapping[str, tuple[str, ...]] = {
    "parley_ingest_login": ("anon", "parley_ingest"),
    "parley_service_login": ("anon", "service_role"),
    "parley_api_login": ("anon", "authenticated"),
    "parley_sender_login": ("anon", "authenticated"),
}


def refuse_foreign(*, embedded: bool, allowed: bool, what: str) -> None:
    """Keep made-up data out of a database that is not ours to fill. Raises: StackError unless embedded or allowed."""
    if not embedded and not allowed:
        raise StackError(
            f"{what} refused: DATABASE_URL names a database that is not the embedded one, and this writes made-up "
            f"workspaces and messages. Unset DATABASE_URL, or pass {FLAG} if you mean it."
        )


def seed(database_url: str, *, embedded: bool, token_public_key: str | None, allowed: bool = False) -> None:
    """Insert the story; what is there already stays as it is.

    token_public_key: seals the sandbox's token for the story's numbers; None: they get none, as Meta knows none of
    them.
    Raises: StackError for a database that is not the embedded one, unless `allowed`.
    """
    refuse_foreign(embedded=embedded, allowed=allowed, what="Seeding")
    with psycopg.connect(database_url, connect_timeout=10) as connection:
        if embedded:  # elsewhere Supabase Auth fills its own table
            _seed_people(connection)
        _seed_workspaces(connection)
        _seed_tokens(connection, token_public_key)


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


def _seed_tokens(connection: psycopg.Connection, public_key: str | None) -> None:
    """Give the story's numbers the sandbox's token, or take it away: a key made anew, a Graph API that is Meta's."""
    for workspace in WORKSPACES:
        for channel in workspace.channels:
            number = (workspace.id, channel.id)
            if public_key is None:
                connection.execute("delete from app.channel_tokens where workspace_id = %s and channel_id = %s", number)
                continue
            sealed = seal(GRAPH_TOKEN, public_key)
            connection.execute(
                "insert into app.channel_tokens as known (workspace_id, channel_id, token_sealed, key_id)"
                " values (%s, %s, %s, %s) on conflict (workspace_id, channel_id) do update"
                " set token_sealed = excluded.token_sealed, key_id = excluded.key_id, set_at = now()"
                " where known.key_id <> excluded.key_id",  # what somebody set through the API stays
                (*number, sealed.token_sealed, sealed.key_id),
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
