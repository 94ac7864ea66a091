-- Who works here and which phone numbers are theirs: workspaces, their members, their WhatsApp channels.
set lock_timeout = '5s';

-- Everything users must never see: raw bodies, partitions, work queues, attempts. No grants to anon or authenticated.
create schema app;
revoke all on schema app from public;
grant usage on schema app to service_role;

-- The webhook endpoint's only power over the database: executing store_webhook_bodies().
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'parley_ingest') then
    create role parley_ingest nologin noinherit;
  end if;
  -- Where PostgREST serves us (it logs in as authenticator), a token of that role reaches the same one function.
  if exists (select from pg_catalog.pg_roles where rolname = 'authenticator') then
    grant parley_ingest to authenticator;
  end if;
end;
$$;

create table public.workspaces (
  id uuid primary key,
  name text not null check (name <> ''),
  time_zone text not null default 'UTC', -- IANA name; rules budgets and reports
  settings jsonb not null default '{}', -- ai_enabled (default true), intents [{name, description}], tone
  created_at timestamptz not null default now()
);
comment on table public.workspaces is 'A tenant: one business with its members, channels and conversations.';

create table public.workspace_members (
  workspace_id uuid not null references public.workspaces (id),
  user_id uuid not null, -- Supabase Auth's user; no foreign key, since Auth may live in another database
  role text not null check (role in (
    'owner', -- all, cost and privacy included
    'admin', -- runs the team
    'agent', -- answers customers
    'viewer' -- reads
  )),
  created_at timestamptz not null default now(),
  primary key (workspace_id, user_id)
);
comment on table public.workspace_members is 'Who may see a workspace, and as what.';
create index workspace_members_user on public.workspace_members (user_id, workspace_id);

create table public.whatsapp_channels (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  waba_id text not null,
  portfolio_id text not null, -- the business portfolio that scopes business-scoped user ids
  phone_number_id text not null, -- Meta's id of the business number: what webhooks are routed by
  display_phone_number text not null,
  state text not null default 'connected' check (state in (
    'connected', -- receives and sends
    'paused', -- receives; sending is held
    'disconnected' -- neither; the number may be connected elsewhere
  )),
  created_at timestamptz not null default now(),
  primary key (workspace_id, id)
);
comment on table public.whatsapp_channels is 'A business phone number connected to a workspace.';
-- The one key that spans tenants: a number belongs to one workspace at a time.
create unique index whatsapp_channels_connected_number
  on public.whatsapp_channels (phone_number_id) where state <> 'disconnected';
create index whatsapp_channels_waba on public.whatsapp_channels (waba_id) where state <> 'disconnected';

alter table public.workspaces enable row level security;
alter table public.workspace_members enable row level security;
alter table public.whatsapp_channels enable row level security;

revoke all on public.workspaces, public.workspace_members, public.whatsapp_channels from anon, authenticated, service_role;
grant select on public.workspaces, public.workspace_members, public.whatsapp_channels to authenticated;
grant select, insert, update on public.workspaces, public.workspace_members, public.whatsapp_channels to service_role;

-- Every tenant policy below reads this table, so it must not read them back: a person sees their own rows here.
create policy "People see their own memberships" on public.workspace_members
  for select to authenticated
  using (user_id = (select auth.uid()));

create policy "Members see their workspace" on public.workspaces
  for select to authenticated
  using (id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create policy "Members see their channels" on public.whatsapp_channels
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

notify pgrst, 'reload schema';
