"""What a hosted Supabase project has before our first migration, on a server of ours: its roles, its schema auth.

Written down from Supabase's own image (github.com/supabase/postgres, migrations/db, read 2026-11-23), as far as
migrations can tell the difference: who is superuser and who is not, who owns what, default privileges, auth.uid().
"""

from __future__ import annotations

import psycopg

MIGRATOR = "hosted_postgres"  # there it is called postgres; here that name is the superuser's
PASSWORD = "hosted"

# Roles belong to the server, so this must not meet one that has them already.
ROLES = f"""
    create role supabase_admin superuser createdb createrole replication bypassrls;
    create role anon nologin inherit;
    create role authenticated nologin inherit;
    create role service_role nologin inherit bypassrls;
    create role authenticator login noinherit password '{PASSWORD}';
    grant anon, authenticated, service_role to authenticator;
    alter role anon set statement_timeout = '3s';
    alter role authenticated set statement_timeout = '8s';
    create role supabase_auth_admin login noinherit createrole;
    create role {MIGRATOR} login createdb createrole bypassrls nosuperuser password '{PASSWORD}';
    grant anon, authenticated, service_role to {MIGRATOR} with admin option;
    grant authenticator to {MIGRATOR} with admin option;
"""

DATABASE = f"""
    grant all on schema public to {MIGRATOR};
    grant usage on schema public to anon, authenticated, service_role;
    alter default privileges for role {MIGRATOR} in schema public
      grant all on tables to {MIGRATOR}, anon, authenticated, service_role;
    alter default privileges for role {MIGRATOR} in schema public
      grant all on functions to {MIGRATOR}, anon, authenticated, service_role;
    alter default privileges for role {MIGRATOR} in schema public
      grant all on sequences to {MIGRATOR}, anon, authenticated, service_role;

    create schema auth authorization supabase_admin;
    grant usage on schema auth to anon, authenticated, service_role, {MIGRATOR};
    create table auth.users (
      instance_id uuid, id uuid primary key, aud varchar(255), role varchar(255), email varchar(255),
      encrypted_password varchar(255), raw_app_meta_data jsonb, created_at timestamptz
    );
    alter table auth.users owner to supabase_auth_admin;
    alter table auth.users enable row level security;
    create function auth.uid() returns uuid language sql stable as $$
      select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
      )::uuid
    $$;
    create function auth.role() returns text language sql stable as $$
      select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
      )::text
    $$;
    create function auth.jwt() returns jsonb language sql stable as $$
      select coalesce(
        nullif(current_setting('request.jwt.claim', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')
      )::jsonb
    $$;
    alter function auth.uid() owner to supabase_auth_admin;
    alter function auth.role() owner to supabase_auth_admin;
    alter function auth.jwt() owner to supabase_auth_admin;
"""

# The table as Supabase's CLI makes it (2.x), with a column of its own that we know nothing about.
CLI_HISTORY = f"""
    create schema supabase_migrations authorization {MIGRATOR};
    create table supabase_migrations.schema_migrations (
      version text not null primary key, statements text[], name text, created_by text, idempotency_key text unique
    );
    alter table supabase_migrations.schema_migrations owner to {MIGRATOR};
"""


def make_roles(superuser_url: str) -> None:
    """Give a server the roles of a hosted project."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        connection.execute(ROLES)  # type: ignore[call-overload]


def make_project(superuser_url: str) -> None:
    """Give an empty database what a hosted project's has."""
    with psycopg.connect(superuser_url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"grant all on database {name} to {MIGRATOR}")  # type: ignore[call-overload]
        connection.execute(DATABASE)  # type: ignore[call-overload]
