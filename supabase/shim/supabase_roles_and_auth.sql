-- What hosted Supabase has before our first migration: its API roles, its auth schema, its default privileges.
-- Applied only where schema auth is missing (the embedded database, a plain PostgreSQL server). The default
-- privileges are reproduced on purpose: they grant every new public table to anon, so a table of ours that
-- forgets to revoke leaks here as it would there, and the role test sees it.

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'anon') then
    create role anon nologin noinherit;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    create role authenticated nologin noinherit;
  end if;
  if not exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    create role service_role nologin noinherit bypassrls;
  end if;
end;
$$;

grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;

create schema auth;
grant usage on schema auth to anon, authenticated, service_role;

create table auth.users (
  id uuid primary key,
  email text unique
);
comment on table auth.users is 'Stand-in for Supabase Auth''s table: only what a local seed fills.';
alter table auth.users enable row level security;

-- The claims PostgREST, or our transport, set for this transaction; null outside a user call.
create function auth.jwt()
returns jsonb
language sql
stable
set search_path = ''
as $$
  select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb;
$$;

create function auth.uid()
returns uuid
language sql
stable
set search_path = ''
as $$
  select (auth.jwt() ->> 'sub')::uuid;
$$;

create function auth.role()
returns text
language sql
stable
set search_path = ''
as $$
  select auth.jwt() ->> 'role';
$$;
