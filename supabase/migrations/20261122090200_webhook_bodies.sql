-- What Meta sent, as bytes and as changes, and what became of each item in it.
set lock_timeout = '5s';

create table app.webhook_bodies (
  received_at timestamptz not null,
  id uuid not null,
  raw bytea not null, -- exactly the bytes that were signed
  state text not null check (state in (
    'new', -- stored while Redis was out; a recorder drains it
    'recorded' -- every item accounted for
  )),
  items integer not null default 0,
  stored integer not null default 0,
  duplicate integer not null default 0,
  unrouted integer not null default 0,
  suppressed integer not null default 0,
  quarantined integer not null default 0,
  traceparent text, -- W3C trace context, for a body that waits here
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  recorded_at timestamptz,
  primary key (received_at, id),
  check (state <> 'recorded' or items = stored + duplicate + unrouted + suppressed + quarantined)
) partition by range (received_at);
comment on table app.webhook_bodies is 'One row per POST from Meta; partitioned by UTC day.';
create index webhook_bodies_new on app.webhook_bodies (next_attempt_at) where state = 'new';
alter table app.webhook_bodies enable row level security;

create table app.webhook_bodies_default partition of app.webhook_bodies default;
comment on table app.webhook_bodies_default is 'Bodies of days without a partition: should stay empty.';
alter table app.webhook_bodies_default enable row level security;

create table public.whatsapp_webhooks (
  id uuid primary key,
  workspace_id uuid references public.workspaces (id), -- null: no connected channel had that number
  event_type text not null, -- Meta's field: messages, account_update, …
  payload jsonb not null, -- the change as Meta sent it, sanitised
  processed boolean not null, -- false: still unrouted
  phone_number_id text,
  body_received_at timestamptz not null,
  body_id uuid not null,
  created_at timestamptz not null default now()
);
comment on table public.whatsapp_webhooks is 'One row per change of a webhook body and workspace it concerns.';
create index whatsapp_webhooks_workspace on public.whatsapp_webhooks (workspace_id, created_at desc);
create index whatsapp_webhooks_unrouted on public.whatsapp_webhooks (phone_number_id) where not processed;
alter table public.whatsapp_webhooks enable row level security;
revoke all on public.whatsapp_webhooks from anon, authenticated, service_role;
grant select on public.whatsapp_webhooks to authenticated;
grant select, insert, update on public.whatsapp_webhooks to service_role;
create policy "Members see their webhooks" on public.whatsapp_webhooks
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create table app.quarantine (
  body_received_at timestamptz not null,
  body_id uuid not null,
  item integer not null, -- place among the body's items, from 0; the whole body when it holds one item
  reason text not null, -- stable code, then what was wrong
  state text not null default 'open' check (state in ('open', 'retried', 'dropped')),
  created_at timestamptz not null default now(),
  primary key (body_received_at, body_id, item)
);
comment on table app.quarantine is 'Items that could not be recorded; their bytes are in the body.';
alter table app.quarantine enable row level security;

grant select, insert, update on app.webhook_bodies, app.quarantine to service_role;

-- Make the partitions of yesterday to seven days ahead; say how many rows sit in the default partition.
-- Definer: a partition belongs to its parent's owner. It lives in app and has RLS on, since partitions inherit none.
-- Called by: the recorder's housekeeping, and this migration.
create function public.make_webhook_partitions()
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_day date;
  v_name text;
  v_made text[] := '{}';
  v_stray bigint;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('app.webhook_bodies', 0));
  for v_day in
    select d::date
    from pg_catalog.generate_series((now() at time zone 'utc')::date - 1, (now() at time zone 'utc')::date + 7, interval '1 day') d
  loop
    v_name := 'webhook_bodies_' || pg_catalog.to_char(v_day, 'YYYYMMDD');
    continue when pg_catalog.to_regclass('app.' || v_name) is not null;
    begin
      execute pg_catalog.format(
        'create table app.%I partition of app.webhook_bodies for values from (%L) to (%L)',
        v_name, v_day::text || ' 00:00:00+00', (v_day + 1)::text || ' 00:00:00+00'
      );
      execute pg_catalog.format('alter table app.%I enable row level security', v_name);
      v_made := v_made || v_name;
    exception when check_violation then
      -- Rows of that day already sit in the default partition: they work there, and the count below alerts.
      null;
    end;
  end loop;
  select count(*) into v_stray from app.webhook_bodies_default;
  return pg_catalog.jsonb_build_object('made', v_made, 'in_default', v_stray);
end;
$$;
revoke execute on function public.make_webhook_partitions from public, anon, authenticated;
grant execute on function public.make_webhook_partitions to service_role;
select public.make_webhook_partitions();

-- Keep raw bodies while Redis cannot. The webhook endpoint's only function: it adds, it cannot read.
-- p_bodies: [{id, received_at, raw (base64), traceparent}]. Repeating it changes nothing.
create function public.store_webhook_bodies(p_bodies jsonb)
returns jsonb
language sql
security definer -- parley_ingest holds no table
set search_path = ''
as $$
  with added as (
    insert into app.webhook_bodies (received_at, id, raw, state, traceparent)
    select b.received_at, b.id, pg_catalog.decode(b.raw, 'base64'), 'new', b.traceparent
    from pg_catalog.jsonb_to_recordset(p_bodies) as b(id uuid, received_at timestamptz, raw text, traceparent text)
    on conflict do nothing
    returning 1
  )
  select pg_catalog.jsonb_build_object('stored', count(*)) from added;
$$;
revoke execute on function public.store_webhook_bodies from public, anon, authenticated;
grant execute on function public.store_webhook_bodies to parley_ingest, service_role;

-- Hand a recorder bodies that were stored while Redis was out; they stay its own for p_hold_ms. At most p_limit, and
-- no more than p_max_bytes of them (but one).
create function public.claim_webhook_bodies(p_limit integer, p_max_bytes integer, p_hold_ms integer)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with due as (
    select b.received_at, b.id, b.next_attempt_at, pg_catalog.octet_length(b.raw) as size_bytes
    from app.webhook_bodies b
    where b.state = 'new'
      and b.next_attempt_at <= now()
    order by b.next_attempt_at
    limit p_limit
    for update skip locked
  ), fitting as (
    select received_at, id
    from (
      select d.*, sum(d.size_bytes) over (order by d.next_attempt_at, d.id) - d.size_bytes as before_bytes
      from due d
    ) s
    where before_bytes = 0
       or before_bytes + size_bytes <= p_max_bytes
  ), claimed as (
    update app.webhook_bodies b
    set attempts = b.attempts + 1,
        next_attempt_at = now() + pg_catalog.make_interval(secs => p_hold_ms / 1000.0)
    from fitting
    where b.received_at = fitting.received_at
      and b.id = fitting.id
    returning b.id, b.received_at, b.raw, b.attempts, b.traceparent
  )
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'id', c.id,
    'received_at', c.received_at,
    'raw', pg_catalog.encode(c.raw, 'base64'),
    'attempts', c.attempts,
    'traceparent', c.traceparent
  ) order by c.received_at, c.id), '[]')
  from claimed c;
$$;
revoke execute on function public.claim_webhook_bodies from public, anon, authenticated;
grant execute on function public.claim_webhook_bodies to service_role;

notify pgrst, 'reload schema';
