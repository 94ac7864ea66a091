"""`python -m deploy.compose.logins`: give each process its own login to the database.

The names and passwords are those in the addresses the processes connect with, so .env stays the one place that knows
them. Safe to repeat; a changed password is set. On a hosted database an operator runs it once, after `migrate`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import sql

# What each login may become. NOINHERIT: it has no power of its own until a process says `set role`.
ROLES: Mapping[str, tuple[str, ...]] = {
    "INGEST_DATABASE_URL": ("anon", "parley_ingest"),
    "SERVICE_DATABASE_URL": ("anon", "service_role"),
    "API_DATABASE_URL": ("anon", "authenticated"),
    "SENDER_DATABASE_URL": ("anon", "authenticated"),
}
OWNER = "MIGRATE_DATABASE_URL"


class NotUsable(Exception):
    """An address cannot be used; the sentence names the variable, never what it holds."""


@dataclass(frozen=True, slots=True)
class Login:
    """A login role as it should be."""

    name: str
    password: str = field(repr=False)
    roles: tuple[str, ...]


def logins_of(environment: Mapping[str, str]) -> list[Login]:
    """Read the logins off the addresses. Raises: NotUsable."""
    found: dict[str, Login] = {}
    owner = urlsplit(environment.get(OWNER, "")).username
    for variable, roles in ROLES.items():
        address = environment.get(variable, "")
        if not address:
            continue  # that process goes through Supabase's REST API
        parts = urlsplit(address)
        if not parts.username or not parts.password:
            raise NotUsable(
                f"{variable} must name a user and a password: postgresql://user:password@host:5432/database"
            )
        if parts.username == owner:
            raise NotUsable(f"{variable} names the owner of the database: give the process a login of its own")
        # A session pooler's user names are role.project.
        name = unquote(parts.username).partition(".")[0]
        if name in found:
            raise NotUsable(f"{variable} names a login that another process has: each needs its own")
        found[name] = Login(name, unquote(parts.password), roles)
    return list(found.values())


def set_login(connection: psycopg.Connection, login: Login) -> None:
    """Create the role, or set it as it should be."""
    known = connection.execute("select from pg_roles where rolname = %s", (login.name,)).fetchone()
    connection.execute(
        sql.SQL("{verb} role {name} login noinherit nocreatedb nocreaterole password {password}").format(
            verb=sql.SQL("create" if known is None else "alter"),
            name=sql.Identifier(login.name),
            password=sql.Literal(login.password),
        )
    )
    roles = sql.SQL(", ").join(map(sql.Identifier, login.roles))
    connection.execute(sql.SQL("grant {} to {}").format(roles, sql.Identifier(login.name)))


def main() -> int:
    """Run from the command line. Returns: the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compose.logins", description=__doc__)
    parser.add_argument("--story", action="store_true", help="also fill the local profile's database with made-up data")
    arguments = parser.parse_args()
    try:
        owner = os.environ.get(OWNER, "")
        if not owner:
            raise NotUsable(f"Set {OWNER} to the address of the database, as its owner.")
        logins = logins_of(os.environ)
        with psycopg.connect(owner, connect_timeout=10) as connection:
            for login in logins:
                set_login(connection, login)
                sys.stdout.write(f"{login.name}: may become {' or '.join(login.roles)}\n")
        if arguments.story:
            _tell_story(owner)
    except (NotUsable, psycopg.Error) as error:
        # psycopg's sentences name hosts and roles, never a password.
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


def _tell_story(owner: str) -> None:
    if urlsplit(owner).hostname != "postgres":
        raise NotUsable(f"{OWNER} is not the local profile's PostgreSQL: no made-up data are written there.")
    from deploy.local.seed import seed  # only here: an operator's run needs nothing of the story

    seed(owner, embedded=True, token_public_key=os.environ.get("WHATSAPP_TOKEN_PUBLIC_KEY") or None)
    sys.stdout.write("two made-up workspaces, their people and numbers\n")


if __name__ == "__main__":
    sys.exit(main())
