"""Apply supabase/migrations to a database: `python -m shared.store.migrate`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psycopg

_SUPABASE = Path(__file__).parents[2] / "supabase"
_LOCK = 7_305_801_477  # any constant: one migration at a time, whoever runs it


def migrate(database_url: str) -> list[str]:
    """Apply what has not been applied yet, each file in a transaction of its own; return their names.

    Where Supabase's roles and auth schema are missing, supplies them first. Records versions where Supabase's CLI
    does, so either may go on after the other. Raises: psycopg.Error, with the file's name in its notes.
    """
    with psycopg.connect(database_url, autocommit=True, connect_timeout=10) as connection:
        connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
        _supply_supabase(connection)
        applied = _applied(connection)
        files = [path for path in sorted((_SUPABASE / "migrations").glob("*.sql")) if _version(path) not in applied]
        for path in files:
            _apply(connection, path)
    return [path.name for path in files]


def _supply_supabase(connection: psycopg.Connection) -> None:
    if connection.execute("select from pg_namespace where nspname = 'auth'").fetchone() is None:
        with connection.transaction():
            connection.execute((_SUPABASE / "shim" / "supabase_roles_and_auth.sql").read_bytes())


def _applied(connection: psycopg.Connection) -> set[str]:
    connection.execute(b"""
        create schema if not exists supabase_migrations;
        create table if not exists supabase_migrations.schema_migrations (
          version text primary key, statements text[], name text
        );
        alter table supabase_migrations.schema_migrations enable row level security""")
    return {row[0] for row in connection.execute("select version from supabase_migrations.schema_migrations")}


def _version(path: Path) -> str:
    return path.name.split("_", 1)[0]


def _apply(connection: psycopg.Connection, path: Path) -> None:
    source = path.read_bytes()
    try:
        with connection.transaction():
            connection.execute(source)
            connection.execute(
                "insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)",
                (_version(path), [source.decode()], path.stem.split("_", 1)[1]),
            )
    except psycopg.Error as error:
        error.add_note(f"while applying {path.name}")
        raise


def main() -> int:
    """Run from the command line; the database is DATABASE_URL, as a role that may create schemas and roles."""
    database_url = os.environ.get("DATABASE_URL")
    if not database_url:
        sys.stderr.write("Set DATABASE_URL to the database to migrate, e.g. postgresql://postgres@localhost/parley\n")
        return 2
    for name in migrate(database_url) or ["nothing to do: every migration is applied"]:
        sys.stdout.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
