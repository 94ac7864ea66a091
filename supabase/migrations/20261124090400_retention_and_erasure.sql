-- What goes, and goes for good: raw bodies by the day, and a person when an owner or admin asks for it.
-- How long what is kept, and what erasure does not reach: docs/runbooks/retention-and-erasure.md.
set lock_timeout = '5s';

-- 1. Retention.

-- Drop the oldest day of raw bodies and logged changes that is older than p_keep_days, old rows that have no day of
-- their own, and tombstones that have run out.
-- A day with bodies nobody has recorded yet stays; items still unrouted or set aside go with their day and are counted.
-- What was recorded from them (messages, events, states) is not raw, and stays.
-- Definer: partitions belong to their parent's owner. Gives up after half a second, since whoever records queues behind
-- a waiting drop; the next hour tries again. Drops last, a day a call, so that the parents' locks are held for
-- milliseconds. Not detached first: that locks the parents too, and workspaces besides.
-- Returns {dropped: [partition], postponed: [day] (locked just now), kept: [day] (holds new bodies), lost: {unrouted,
--   quarantined}: items, stray: rows deleted from default partitions, tombstones: deleted, more: call again}.
-- Called by: the recorder's housekeeping. Refuses: PT422 fewer than 8 days or more than 37.
create function public.drop_old_webhooks(p_keep_days integer)
returns jsonb
language plpgsql
security definer
set search_path = ''
set lock_timeout = '500ms'
as $$
declare
  v_limit constant integer := 5000;
  v_today date := (now() at time zone 'utc')::date;
  v_before timestamptz;
  v_from timestamptz;
  v_to timestamptz;
  v_day record;
  v_name text;
  v_dropped text[] := '{}';
  v_postponed date[] := '{}';
  v_kept date[] := '{}';
  v_gone record;
  v_lost record;
  v_strays bigint;
  v_tombstones bigint;
  v_count bigint;
  v_more boolean := false;
begin
  if p_keep_days is null or p_keep_days not between 8 and 37 then
    -- 8: Meta redelivers for 7 days. 37: app.tombstone_life() less those 8, or a replay brought deleted messages back.
    raise exception 'raw bodies are kept for 8 to 37 days' using
      errcode = 'PT422', detail = 'bad_keep_days', hint = 'Set RAW_KEEP_DAYS to a number from 8 to 37.';
  end if;
  v_before := (v_today - p_keep_days)::timestamp at time zone 'utc';
  if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('app.webhook_bodies', 0)) then
    -- Another recorder is at it, or makes days.
    return pg_catalog.jsonb_build_object(
      'dropped', v_dropped, 'postponed', v_postponed, 'kept', v_kept, 'lost', '{"unrouted": 0, "quarantined": 0}'::jsonb,
      'stray', 0, 'tombstones', 0, 'more', false);
  end if;

  -- 1. Days without a partition of their own, and bodies that came after theirs was gone.
  with gone as (
    delete from app.webhook_bodies_default b
    where b.ctid in (
      select o.ctid
      from app.webhook_bodies_default o
      where o.received_at < v_before
        and o.state <> 'new'
      limit v_limit
      for update skip locked)
    returning b.unrouted, b.quarantined
  )
  select count(*) as bodies, coalesce(sum(g.unrouted), 0) as unrouted, coalesce(sum(g.quarantined), 0) as quarantined
  into v_gone
  from gone g;
  delete from app.whatsapp_webhooks_default w
  where w.ctid in (
    select o.ctid
    from app.whatsapp_webhooks_default o
    where o.body_received_at < v_before
    limit v_limit
    for update skip locked);
  get diagnostics v_count = row_count;
  v_more := greatest(v_gone.bodies, v_count) = v_limit;
  v_strays := v_gone.bodies + v_count;

  delete from app.quarantine q
  where q.ctid in (
    select o.ctid
    from app.quarantine o
    where o.body_received_at < v_before
      and not exists (
        select from app.webhook_bodies b where b.received_at = o.body_received_at and b.id = o.body_id)
    limit v_limit
    for update skip locked);
  get diagnostics v_count = row_count;
  v_more := v_more or v_count = v_limit;

  delete from app.tombstones t
  where t.ctid in (
    select o.ctid from app.tombstones o where o.until < now() order by o.until limit v_limit for update skip locked);
  get diagnostics v_tombstones = row_count;
  v_more := v_more or v_tombstones = v_limit;

  -- 2. The oldest day that can go.
  for v_day in
    select d.day, pg_catalog.array_agg(d.name order by d.name) as names
    from (
      select c.relname::text as name, pg_catalog.to_date(pg_catalog.right(c.relname, 8), 'YYYYMMDD') as day
      from pg_catalog.pg_inherits i
      join pg_catalog.pg_class c on c.oid = i.inhrelid
      where i.inhparent in ('app.webhook_bodies'::regclass, 'public.whatsapp_webhooks'::regclass)
        and c.relname ~ '_[0-9]{8}$'
    ) d
    where d.day < v_today - p_keep_days
    group by d.day
    order by d.day
  loop
    if v_dropped <> '{}' then
      v_more := true;
      exit;
    end if;
    v_from := v_day.day::timestamp at time zone 'utc';
    v_to := (v_day.day + 1)::timestamp at time zone 'utc';
    select count(*) filter (where b.state = 'new') as fresh, coalesce(sum(b.unrouted), 0) as unrouted,
           coalesce(sum(b.quarantined), 0) as quarantined
    into v_lost
    from app.webhook_bodies b
    where b.received_at >= v_from
      and b.received_at < v_to
      and (b.state = 'new' or b.unrouted > 0 or b.quarantined > 0);
    if v_lost.fresh > 0 then
      v_kept := v_kept || v_day.day;
      continue;
    end if;
    begin
      delete from app.quarantine q where q.body_received_at >= v_from and q.body_received_at < v_to;
      foreach v_name in array v_day.names loop
        execute pg_catalog.format('drop table app.%I', v_name);
      end loop;
      v_dropped := v_day.names;
      v_gone.unrouted := v_gone.unrouted + v_lost.unrouted;
      v_gone.quarantined := v_gone.quarantined + v_lost.quarantined;
    exception when lock_not_available then
      v_postponed := v_postponed || v_day.day;
      v_more := false;
      exit; -- whoever holds it holds it for the next day, too
    end;
  end loop;

  return pg_catalog.jsonb_build_object(
    'dropped', v_dropped, 'postponed', v_postponed, 'kept', v_kept,
    'lost', pg_catalog.jsonb_build_object('unrouted', v_gone.unrouted, 'quarantined', v_gone.quarantined),
    'stray', v_strays, 'tombstones', v_tombstones, 'more', v_more);
end;
$$;
revoke execute on function public.drop_old_webhooks from public, anon, authenticated;
grant execute on function public.drop_old_webhooks to service_role;

-- 2. Erasure: a row each, worked off by recorders in small steps, so that one that dies is gone on with.

create table app.erasures (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  contact_id uuid not null, -- of somebody who is not there any more: it leads nowhere
  contact_ids uuid[] not null default '{}', -- with those that had been merged into them
  requested_by uuid not null,
  requested_at timestamptz not null default now(),
  state text not null default 'requested' check (state in (
    'requested', -- a recorder begins within seconds
    'erasing', -- out of sight and remembered by digests; the rows are going
    'rewriting', -- rows are gone; raw bodies and logged changes are being rewritten
    'watching', -- rewritten; what Meta still redelivers is rewritten as it comes
    'done' -- and nothing is known of them
  )),
  rows_erased_at timestamptz,
  watch_until timestamptz, -- Meta redelivers for 7 days
  finished_at timestamptz,
  rewritten integer not null default 0, -- bodies and logged changes
  files text[] not null default '{}', -- storage keys of their files, still to be removed from storage
  pass_since timestamptz not null default '-infinity', -- this pass looks at what was recorded since
  pass_started_at timestamptz,
  cursor_at timestamptz not null default '-infinity', -- and has come so far
  cursor_id uuid not null default '00000000-0000-0000-0000-000000000000',
  due_at timestamptz not null default now(),
  lease_until timestamptz, -- null: nobody is at it
  lease_token uuid, -- fences a recorder that lost its lease
  primary key (workspace_id, id),
  unique (workspace_id, contact_id)
);
comment on table app.erasures is 'People to be erased, and how far that has come. Who they were is in erasure_ids until it is done.';
create index erasures_due on app.erasures (due_at) where state <> 'done';
alter table app.erasures enable row level security;
grant select, insert, update, delete on app.erasures to service_role;

-- What to look for. Personal, so it goes when the erasure is done.
create table app.erasure_ids (
  workspace_id uuid not null,
  erasure_id uuid not null,
  kind text not null check (kind in (
    'person', -- an id of theirs
    'other', -- a user id of somebody else who had their phone number before or since
    'message' -- a message, an item about it, or a call
  )),
  scope text not null, -- portfolio or channel
  value text not null,
  sent_before timestamptz, -- of a person: items up to then are theirs
  primary key (workspace_id, erasure_id, value, kind, scope),
  foreign key (workspace_id, erasure_id) references app.erasures (workspace_id, id)
);
comment on table app.erasure_ids is 'Ids to be found and taken out of raw bodies while an erasure is not done.';
alter table app.erasure_ids enable row level security;
grant select, insert, delete on app.erasure_ids to service_role;

-- What was spent on Claude outlives what it was spent on.
alter table app.analysis_attempts drop constraint analysis_attempts_workspace_id_conversation_id_fkey;

create index message_events_participant on public.message_events (workspace_id, key) where key <> ''; -- whose status in a group
create index message_events_calls on public.message_events (workspace_id) where kind like 'call%';

grant select (workspace_id, id, contact_id, contact_ids, requested_at, state, rows_erased_at, watch_until, finished_at, rewritten),
  insert (workspace_id, id, contact_id, requested_by) on app.erasures to parley_writer;
create policy "Writers see their erasures" on app.erasures
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Owners and admins ask for erasure" on app.erasures
  for insert to parley_writer
  with check (
    workspace_id in (select app.writable_workspaces())
    and workspace_id in (
      select m.workspace_id from public.workspace_members m
      where m.user_id = (select auth.uid()) and m.role in ('owner', 'admin'))
    and requested_by = (select auth.uid()));

-- Refuse whoever does not run the workspace. p_noun: as in check_writer.
-- Refuses: PT404 not a member, PT403 an agent or viewer.
create function app.check_admin(p_workspace_id uuid, p_noun text)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_role text;
begin
  select m.role into v_role
  from public.workspace_members m
  where m.workspace_id = p_workspace_id
    and m.user_id = app.actor();
  if v_role is null then
    raise exception '% not found', p_noun using
      errcode = 'PT404', detail = p_noun || '_not_found', hint = 'It does not exist, or it is not yours.';
  elsif v_role not in ('owner', 'admin') then
    raise exception 'only owners and admins erase' using
      errcode = 'PT403', detail = 'role_may_not_erase', hint = 'Ask an owner or admin of the workspace.';
  end if;
end;
$$;
revoke execute on function app.check_admin from public;
grant execute on function app.check_admin to parley_writer;

create function app.erasure_json(p_workspace_id uuid, p_erasure_id uuid)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', e.id, 'workspace_id', e.workspace_id, 'contact_id', e.contact_id, 'state', e.state,
    'requested_at', e.requested_at, 'rows_erased_at', e.rows_erased_at, 'watch_until', e.watch_until,
    'finished_at', e.finished_at, 'rewritten', e.rewritten)
  from app.erasures e
  where e.workspace_id = p_workspace_id
    and e.id = p_erasure_id;
$$;
revoke execute on function app.erasure_json from public;
grant execute on function app.erasure_json to parley_writer;

-- Ask for somebody to be erased, on behalf of the owner or admin who asks. A recorder does it: this role may not delete.
-- Writes: erasures, audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 unknown or not theirs, PT403 neither owner nor admin. Asked already: that erasure, whatever became of it.
create function public.request_contact_erasure(p_workspace_id uuid, p_contact_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_contact_id uuid;
  v_id uuid;
begin
  perform app.check_admin(p_workspace_id, 'contact');

  -- The contact that goes on under this id.
  with recursive up as (
    select c.id, c.merged_into
    from public.contacts c
    where c.workspace_id = p_workspace_id
      and c.id = p_contact_id
    union
    select c.id, c.merged_into
    from up
    join public.contacts c on c.workspace_id = p_workspace_id and c.id = up.merged_into
  )
  select up.id into v_contact_id
  from up
  where up.merged_into is null;

  select e.id into v_id
  from app.erasures e
  where e.workspace_id = p_workspace_id
    and (e.contact_id in (p_contact_id, v_contact_id) or p_contact_id = any (e.contact_ids))
  order by e.requested_at desc
  limit 1;
  if v_id is null and v_contact_id is null then
    raise exception 'contact not found' using
      errcode = 'PT404', detail = 'contact_not_found', hint = 'It does not exist, or it is not yours.';
  elsif v_id is null then
    v_id := pg_catalog.gen_random_uuid();
    insert into app.erasures (workspace_id, id, contact_id, requested_by)
    values (p_workspace_id, v_id, v_contact_id, app.actor())
    on conflict (workspace_id, contact_id) do nothing;
    if found then
      perform app.audit(p_workspace_id, 'contact.erasure_requested', v_contact_id);
    else
      select e.id into strict v_id from app.erasures e where e.workspace_id = p_workspace_id and e.contact_id = v_contact_id;
    end if;
  end if;
  return app.erasure_json(p_workspace_id, v_id);
end;
$$;
revoke execute on function public.request_contact_erasure from public, anon, service_role;
grant execute on function public.request_contact_erasure to authenticated;
select app.give_to_writer('public.request_contact_erasure');

-- How far an erasure has come. Refuses: PT404 unknown or not theirs, PT403 neither owner nor admin.
create function public.contact_erasure(p_workspace_id uuid, p_erasure_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's: people see nothing of app
set search_path = ''
as $$
declare
  v_erasure jsonb;
begin
  perform app.check_admin(p_workspace_id, 'erasure');
  v_erasure := app.erasure_json(p_workspace_id, p_erasure_id);
  if v_erasure is null then
    raise exception 'erasure not found' using
      errcode = 'PT404', detail = 'erasure_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return v_erasure;
end;
$$;
revoke execute on function public.contact_erasure from public, anon, service_role;
grant execute on function public.contact_erasure to authenticated;
select app.give_to_writer('public.contact_erasure');

-- Hand a recorder an erasure that is due, for p_lease_ms.
-- Returns {open: how many are not done, erasure: null or {workspace_id, id, lease_token, state, ids: [[id, sent_before]],
--   others: [user id], wamids, numbers: [phone_number_id], accounts: [waba_id]: the workspace's, past ones included}}.
create function public.claim_erasure(p_lease_ms integer)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_erasure app.erasures;
begin
  update app.erasures e
  set lease_token = pg_catalog.gen_random_uuid(),
      lease_until = now() + pg_catalog.make_interval(secs => p_lease_ms / 1000.0),
      pass_started_at = coalesce(e.pass_started_at, now())
  from (
    select o.workspace_id, o.id
    from app.erasures o
    where o.state <> 'done'
      and o.due_at <= now()
      and (o.lease_until is null or o.lease_until < now())
    order by o.due_at
    limit 1
    for update skip locked
  ) due
  where e.workspace_id = due.workspace_id
    and e.id = due.id
  returning e.* into v_erasure;

  return pg_catalog.jsonb_build_object(
    'open', (select count(*) from app.erasures where state <> 'done'),
    'erasure', case when v_erasure.id is not null then pg_catalog.jsonb_build_object(
      'workspace_id', v_erasure.workspace_id, 'id', v_erasure.id, 'lease_token', v_erasure.lease_token, 'state', v_erasure.state,
      'ids', (
        select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(i.value, i.sent_before)), '[]')
        from app.erasure_ids i
        where i.workspace_id = v_erasure.workspace_id and i.erasure_id = v_erasure.id and i.kind = 'person'),
      'others', (
        select coalesce(pg_catalog.jsonb_agg(distinct i.value), '[]')
        from app.erasure_ids i
        where i.workspace_id = v_erasure.workspace_id and i.erasure_id = v_erasure.id and i.kind = 'other'),
      'wamids', (
        select coalesce(pg_catalog.jsonb_agg(distinct i.value), '[]')
        from app.erasure_ids i
        where i.workspace_id = v_erasure.workspace_id and i.erasure_id = v_erasure.id and i.kind = 'message'),
      'numbers', (
        select coalesce(pg_catalog.jsonb_agg(distinct c.phone_number_id), '[]')
        from public.whatsapp_channels c where c.workspace_id = v_erasure.workspace_id),
      'accounts', (
        select coalesce(pg_catalog.jsonb_agg(distinct c.waba_id), '[]')
        from public.whatsapp_channels c where c.workspace_id = v_erasure.workspace_id)) end);
end;
$$;
revoke execute on function public.claim_erasure from public, anon, authenticated;
grant execute on function public.claim_erasure to service_role;

-- Lock an erasure under one's lease and prolong that. Refuses: PT409 the lease is another's, or has run out.
create function app.hold_erasure(p_workspace_id uuid, p_erasure_id uuid, p_lease_token uuid, p_lease_ms integer)
returns app.erasures
language plpgsql
set search_path = ''
as $$
declare
  v_erasure app.erasures;
begin
  update app.erasures e
  set lease_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => p_lease_ms / 1000.0)
  where e.workspace_id = p_workspace_id
    and e.id = p_erasure_id
    and e.lease_token = p_lease_token
    and e.lease_until > pg_catalog.clock_timestamp()
  returning e.* into v_erasure;
  if not found then
    raise exception 'another has the erasure' using errcode = 'PT409', detail = 'lease_lost';
  end if;
  return v_erasure;
end;
$$;
revoke execute on function app.hold_erasure from public;
grant execute on function app.hold_erasure to service_role;

-- A payload without the objects in lists that name one of these ids.
create function app.without_ids(p_value jsonb, p_ids text[])
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case pg_catalog.jsonb_typeof(p_value)
    when 'object' then (
      select coalesce(pg_catalog.jsonb_object_agg(o.key, app.without_ids(o.value, p_ids)), '{}')
      from pg_catalog.jsonb_each(p_value) o)
    when 'array' then (
      select coalesce(pg_catalog.jsonb_agg(app.without_ids(a.value, p_ids) order by a.ordinality), '[]')
      from pg_catalog.jsonb_array_elements(p_value) with ordinality a
      where not exists (
        select from pg_catalog.jsonb_each_text(case pg_catalog.jsonb_typeof(a.value) when 'object' then a.value else '{}' end) f
        where pg_catalog.ltrim(f.value, '+') = any (p_ids)))
    else p_value
  end;
end;
$$;
revoke execute on function app.without_ids from public;

-- Take a person out of what Meta told of groups up to their erasure. It may tell it again later, so this is done again.
create function app.leave_groups(p_workspace_id uuid, p_erasure_id uuid)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_ids text[];
  v_before timestamptz;
begin
  select coalesce(pg_catalog.array_agg(distinct i.value), '{}'), max(i.sent_before)
  into v_ids, v_before
  from app.erasure_ids i
  where i.workspace_id = p_workspace_id
    and i.erasure_id = p_erasure_id
    and i.kind = 'person';

  update public.whatsapp_groups g
  set facts = l.facts,
      participants = (
        select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'wa_id', f.value -> 2, 'user_id', f.value -> 3) order by f.key collate "C"), '[]')
        from pg_catalog.jsonb_each(l.facts) f
        where f.key like 'participant:%' and f.value ->> 1 = 'joined')
  from (
    select o.channel_id, o.group_id, pg_catalog.jsonb_object_agg(f.key, f.value) filter (where not d.is_theirs) as facts
    from public.whatsapp_groups o
    cross join lateral pg_catalog.jsonb_each(o.facts) f
    cross join lateral (
      select f.key like 'participant:%' and coalesce(f.value ->> 2 = any (v_ids) or f.value ->> 3 = any (v_ids), false)
        and pg_catalog.to_timestamp((f.value ->> 0)::numeric / 1000) <= v_before as is_theirs
    ) d
    where o.workspace_id = p_workspace_id
    group by o.channel_id, o.group_id
    having pg_catalog.bool_or(d.is_theirs)
  ) n
  cross join lateral (select coalesce(n.facts, '{}') as facts) l
  where g.workspace_id = p_workspace_id
    and g.channel_id = n.channel_id
    and g.group_id = n.group_id;

  -- The digest stays that of what Meta sent: told again, it is a duplicate.
  update public.account_events a
  set payload = app.without_ids(a.payload, v_ids)
  where a.workspace_id = p_workspace_id
    and (a.field like 'group\_%' or a.field = 'user_id_update')
    and a.happened_at <= v_before
    and a.payload is distinct from app.without_ids(a.payload, v_ids);
end;
$$;
revoke execute on function app.leave_groups from public;

-- Put a person out of sight and remember them by digests alone: from here on nothing of theirs comes in. The caller
-- holds the workspace's identities alone.
create function app.bury_contact(p_erasure app.erasures)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_workspace_id uuid := p_erasure.workspace_id;
  v_now timestamptz := pg_catalog.clock_timestamp(); -- not now(): recorders went on while this waited for them
  v_contact_ids uuid[];
  v_ids text[];
  v_groups uuid[];
begin
  with recursive up as (
    select c.id, c.merged_into
    from public.contacts c
    where c.workspace_id = v_workspace_id and c.id = p_erasure.contact_id
    union
    select c.id, c.merged_into
    from up
    join public.contacts c on c.workspace_id = v_workspace_id and c.id = up.merged_into
  ), down as (
    select up.id from up where up.merged_into is null
    union
    select c.id
    from down
    join public.contacts c on c.workspace_id = v_workspace_id and c.merged_into = down.id
  )
  select coalesce(pg_catalog.array_agg(down.id), '{}') into v_contact_ids from down;

  perform 1 from public.contacts c where c.workspace_id = v_workspace_id and c.id = any (v_contact_ids) order by c.id for update;
  perform 1 from public.whatsapp_conversations v
  where v.workspace_id = v_workspace_id and v.contact_id = any (v_contact_ids) order by v.id for update;

  -- Who they are. A phone number is theirs only until somebody else was seen with it.
  insert into app.erasure_ids (workspace_id, erasure_id, kind, scope, value, sent_before)
  select v_workspace_id, p_erasure.id, 'person', i.portfolio_id, i.value, coalesce((
      select min(o.seen_at) - interval '1 microsecond'
      from public.contact_identities o
      where o.workspace_id = v_workspace_id and o.portfolio_id = i.portfolio_id and o.kind = 'wa_id' and o.value = i.value
        and o.user_id <> '' and o.contact_id <> all (v_contact_ids)
        and o.seen_at > min(i.seen_at) and pg_catalog.bool_and(i.kind = 'wa_id')), v_now)
  from public.contact_identities i
  where i.workspace_id = v_workspace_id and i.contact_id = any (v_contact_ids)
  group by i.portfolio_id, i.value
  on conflict do nothing;
  insert into app.erasure_ids (workspace_id, erasure_id, kind, scope, value)
  select distinct v_workspace_id, p_erasure.id, 'other', o.portfolio_id, o.user_id
  from public.contact_identities i
  join public.contact_identities o
    on o.workspace_id = i.workspace_id and o.portfolio_id = i.portfolio_id and o.kind = 'wa_id' and o.value = i.value
   and o.user_id <> '' and o.contact_id <> all (v_contact_ids)
  where i.workspace_id = v_workspace_id and i.contact_id = any (v_contact_ids) and i.kind = 'wa_id'
  on conflict do nothing;
  select coalesce(pg_catalog.array_agg(distinct i.value), '{}') into v_ids
  from app.erasure_ids i
  where i.workspace_id = v_workspace_id and i.erasure_id = p_erasure.id and i.kind = 'person';

  -- What they wrote, what we wrote to them, and what was done to either.
  insert into app.erasure_ids (workspace_id, erasure_id, kind, scope, value)
  select v_workspace_id, p_erasure.id, 'message', m.channel_id::text, m.wamid
  from public.whatsapp_messages m
  where m.workspace_id = v_workspace_id
    and m.wamid is not null
    and (m.contact_id = any (v_contact_ids) or m.conversation_id in (
      select v.id from public.whatsapp_conversations v
      where v.workspace_id = v_workspace_id and v.contact_id = any (v_contact_ids)))
  union
  select v_workspace_id, p_erasure.id, 'message', e.channel_id::text, case when e.kind like 'call%' then e.wamid else e.key end
  from public.message_events e
  where e.workspace_id = v_workspace_id
    and e.contact_id = any (v_contact_ids)
  union
  select v_workspace_id, p_erasure.id, 'message', e.channel_id::text, e.wamid
  from public.message_events e
  where e.workspace_id = v_workspace_id
    and e.kind like 'call%'
    and exists (
      select from pg_catalog.jsonb_each_text(case pg_catalog.jsonb_typeof(e.payload) when 'object' then e.payload else '{}' end) f
      where pg_catalog.ltrim(f.value, '+') = any (v_ids))
  union
  select v_workspace_id, p_erasure.id, 'message', '', c.wamid
  from app.identity_changes c
  where c.workspace_id = v_workspace_id
    and (c.user_id = any (v_ids) or c.previous_user_id = any (v_ids)
      or coalesce(c.user_id, c.previous_user_id) is null and (c.wa_id = any (v_ids) or c.previous_wa_id = any (v_ids)))
  on conflict do nothing;
  insert into app.erasure_ids (workspace_id, erasure_id, kind, scope, value)
  select v_workspace_id, p_erasure.id, 'message', e.channel_id::text, e.key
  from app.erasure_ids i
  join public.message_events e
    on e.workspace_id = v_workspace_id and e.channel_id = i.scope::uuid and e.wamid = i.value
   and e.kind in ('reaction', 'edit', 'revoke')
  where i.workspace_id = v_workspace_id and i.erasure_id = p_erasure.id and i.kind = 'message' and i.scope <> ''
  on conflict do nothing;

  insert into app.tombstones as t (workspace_id, digest, sent_before, until)
  select v_workspace_id,
         case i.kind when 'person' then app.person_digest(i.scope, i.value) else app.message_digest(i.scope::uuid, i.value) end,
         i.sent_before, v_now + app.tombstone_life()
  from app.erasure_ids i
  where i.workspace_id = v_workspace_id
    and i.erasure_id = p_erasure.id
    and (i.kind = 'person' or i.kind = 'message' and i.scope <> '')
  order by 2
  on conflict (workspace_id, digest) do update
    set until = greatest(t.until, excluded.until), sent_before = greatest(t.sent_before, excluded.sent_before);

  -- Out of sight, and met by nothing new.
  delete from app.identity_changes c
  using app.erasure_ids i
  where i.workspace_id = v_workspace_id and i.erasure_id = p_erasure.id and i.kind = 'message' and i.scope = ''
    and c.workspace_id = v_workspace_id and c.wamid = i.value;
  delete from public.contact_identities i where i.workspace_id = v_workspace_id and i.contact_id = any (v_contact_ids);
  delete from app.phone_facts f
  using app.erasure_ids i
  where i.workspace_id = v_workspace_id and i.erasure_id = p_erasure.id and i.kind = 'person'
    and f.workspace_id = v_workspace_id and f.portfolio_id = i.scope and f.wa_id = i.value and f.sent_at <= i.sent_before;
  update public.contacts c
  set name = null, username = null, facts = '{}', phone_facts = '{}', opted_out_at = null
  where c.workspace_id = v_workspace_id and c.id = any (v_contact_ids);
  update public.whatsapp_conversations v
  set status = 'deleted', deleted_at = coalesce(v.deleted_at, now()), unread_count = 0, phone_number = null, archived_at = null
  where v.workspace_id = v_workspace_id and v.contact_id = any (v_contact_ids);
  delete from app.conversation_work k
  using public.whatsapp_conversations v
  where v.workspace_id = v_workspace_id and v.contact_id = any (v_contact_ids)
    and k.workspace_id = v_workspace_id and k.conversation_id = v.id;

  delete from public.message_events e
  where e.workspace_id = v_workspace_id
    and (e.contact_id = any (v_contact_ids) or e.key <> '' and e.key = any (v_ids));
  delete from public.message_events e
  using app.erasure_ids i
  where i.workspace_id = v_workspace_id and i.erasure_id = p_erasure.id and i.kind = 'message' and i.scope <> ''
    and e.workspace_id = v_workspace_id and e.channel_id = i.scope::uuid and e.wamid = i.value;

  -- In groups: their membership, and whom others quote.
  perform app.leave_groups(v_workspace_id, p_erasure.id);
  v_groups := array(
    select distinct v.id
    from public.whatsapp_messages m
    join public.whatsapp_conversations v on v.workspace_id = m.workspace_id and v.id = m.conversation_id
    where m.workspace_id = v_workspace_id and m.contact_id = any (v_contact_ids) and v.group_id is not null);
  perform 1 from app.conversation_work k -- before messages, as whoever is at it with Claude does
  where k.workspace_id = v_workspace_id and k.conversation_id = any (v_groups)
  order by k.conversation_id for update;
  update public.whatsapp_messages m
  set reply_to_wamid = null, payload = m.payload - 'context'
  where m.workspace_id = v_workspace_id
    and m.conversation_id = any (v_groups)
    and m.reply_to_wamid in (
      select i.value from app.erasure_ids i
      where i.workspace_id = v_workspace_id and i.erasure_id = p_erasure.id and i.kind = 'message');

  update app.erasures e
  set state = 'erasing', contact_ids = v_contact_ids, watch_until = v_now + interval '8 days'
  where e.workspace_id = v_workspace_id and e.id = p_erasure.id;
end;
$$;
revoke execute on function app.bury_contact from public;

-- Take one step of erasing a contact's rows: bury them, or delete up to p_limit messages, or, when none is left, the
-- conversations and the contact. Small steps, each with recorders of the workspace held up only so long.
-- Definer: services may not delete what customers wrote, but for this.
-- Returns {state}: erasing as long as there is more to do; after that the lease is given back.
-- Locks: identities alone, contacts, conversations, message_states, messages, then the rest.
create function public.erase_contact_rows(
  p_workspace_id uuid, p_erasure_id uuid, p_lease_token uuid, p_lease_ms integer, p_limit integer
)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_erasure app.erasures;
  v_message_ids uuid[];
  v_groups uuid[];
begin
  perform app.lock_identities(array[p_workspace_id], true);
  v_erasure := app.hold_erasure(p_workspace_id, p_erasure_id, p_lease_token, p_lease_ms);
  if v_erasure.state = 'requested' then
    perform app.bury_contact(v_erasure);
    return '{"state": "erasing"}';
  elsif v_erasure.state <> 'erasing' then
    return pg_catalog.jsonb_build_object('state', v_erasure.state);
  end if;

  v_message_ids := array(
    select m.id
    from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and (m.contact_id = any (v_erasure.contact_ids) or m.conversation_id in (
        select v.id from public.whatsapp_conversations v
        where v.workspace_id = p_workspace_id and v.contact_id = any (v_erasure.contact_ids)))
    limit p_limit);

  if v_message_ids = '{}' then
    delete from app.message_states s
    using app.erasure_ids i
    where i.workspace_id = p_workspace_id and i.erasure_id = p_erasure_id and i.kind = 'message' and i.scope <> ''
      and s.workspace_id = p_workspace_id and s.channel_id = i.scope::uuid and s.wamid = i.value;
    delete from public.whatsapp_conversations v
    where v.workspace_id = p_workspace_id and v.contact_id = any (v_erasure.contact_ids);
    delete from app.contact_blocks b where b.workspace_id = p_workspace_id and b.contact_id = any (v_erasure.contact_ids);
    delete from public.contacts c where c.workspace_id = p_workspace_id and c.id = any (v_erasure.contact_ids);
    update app.erasures e
    set state = 'rewriting', rows_erased_at = now(), pass_started_at = now(), lease_until = null, lease_token = null
    where e.workspace_id = p_workspace_id and e.id = p_erasure_id;
    perform app.audit(p_workspace_id, 'contact.erased', v_erasure.contact_id, p_source => 'system');
    return '{"state": "rewriting"}';
  end if;

  v_groups := array(
    select distinct v.id
    from public.whatsapp_messages m
    join public.whatsapp_conversations v on v.workspace_id = m.workspace_id and v.id = m.conversation_id
    where m.workspace_id = p_workspace_id and m.id = any (v_message_ids) and v.group_id is not null);
  perform 1 from public.whatsapp_conversations v
  where v.workspace_id = p_workspace_id and (v.id = any (v_groups) or v.contact_id = any (v_erasure.contact_ids))
  order by v.id for update;

  -- Whoever is at such a group with Claude has read what goes, and must not write of it: the rest is read anew.
  perform 1 from app.conversation_work k
  where k.workspace_id = p_workspace_id and k.conversation_id = any (v_groups)
  order by k.conversation_id for update;
  update app.conversation_work k
  set lease_until = null, lease_token = null, due_at = least(k.due_at, now())
  where k.workspace_id = p_workspace_id and k.conversation_id = any (v_groups)
    and k.lease_token is not null;

  delete from app.message_states s
  using public.whatsapp_messages m
  where m.workspace_id = p_workspace_id and m.id = any (v_message_ids)
    and s.workspace_id = p_workspace_id and s.channel_id = m.channel_id and s.wamid = m.wamid;
  delete from public.message_events e
  using public.whatsapp_messages m
  where m.workspace_id = p_workspace_id and m.id = any (v_message_ids)
    and e.workspace_id = p_workspace_id and e.channel_id = m.channel_id and e.wamid = m.wamid;
  delete from app.outbox o where o.workspace_id = p_workspace_id and o.message_id = any (v_message_ids);
  delete from public.message_analyses a where a.workspace_id = p_workspace_id and a.message_id = any (v_message_ids);
  with gone as (
    delete from public.media f
    where f.workspace_id = p_workspace_id and f.message_id = any (v_message_ids)
    returning f.storage_key
  )
  update app.erasures e
  set files = e.files || array(select g.storage_key from gone g where g.storage_key is not null)
  where e.workspace_id = p_workspace_id and e.id = p_erasure_id
    and exists (select from gone g where g.storage_key is not null);
  delete from public.whatsapp_messages m where m.workspace_id = p_workspace_id and m.id = any (v_message_ids);

  update public.whatsapp_conversations v
  set unread_count = c.unread,
      last_message_at = coalesce(c.last_message_at, v.last_message_at),
      status = case when c.messages = 0 then 'deleted' else v.status end,
      deleted_at = case when c.messages = 0 then now() else v.deleted_at end
  from (
    select o.id, count(m.id) as messages, max(m.sent_at) filter (where m.suppressed_at is null) as last_message_at,
           count(m.id) filter (where m.direction = 'inbound' and m.origin = 'live' and m.suppressed_at is null
             and m.revoked_at is null and m.seq > o.read_seq and o.deleted_at is null) as unread
    from public.whatsapp_conversations o
    left join public.whatsapp_messages m on m.workspace_id = o.workspace_id and m.conversation_id = o.id
    where o.workspace_id = p_workspace_id and o.id = any (v_groups)
    group by o.id
  ) c
  where v.workspace_id = p_workspace_id and v.id = c.id and v.deleted_at is null;
  return '{"state": "erasing"}';
end;
$$;
revoke execute on function public.erase_contact_rows from public, anon, authenticated;
grant execute on function public.erase_contact_rows to service_role;

-- Whether a payload holds one of the ids an erasure is about, alone in a string or as a word of one that says who
-- somebody was. A probe of the index for each string: as a join this was a scan of all ids (tried: 5 s for 1,000 changes).
create function app.names_erased(p_workspace_id uuid, p_erasure_id uuid, p_payload jsonb)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_text text;
begin
  for v_text in
    select s.v #>> '{}'
    from pg_catalog.jsonb_path_query(p_payload, 'strict $.** ? (@.type() == "string" || @.type() == "number")') s(v)
    union all
    select pg_catalog.rtrim(w, '.')
    from pg_catalog.jsonb_path_query(p_payload, 'lax $.messages[*].system.body') s(v)
    cross join lateral pg_catalog.regexp_split_to_table(s.v #>> '{}', '\s+') w
  loop
    if exists (
      select from app.erasure_ids i
      where i.workspace_id = p_workspace_id
        and i.erasure_id = p_erasure_id
        and i.value = pg_catalog.ltrim(v_text, '+')
        and i.kind in ('person', 'message')
    ) then
      return true;
    end if;
  end loop;
  return false;
end;
$$;
revoke execute on function app.names_erased from public;
grant execute on function app.names_erased to service_role;

-- The next p_limit changes and bodies of this pass, of which those that name the person are handed out to be rewritten:
-- the workspace's logged changes and unrouted ones with their bodies, and bodies that have no change or hold something
-- set aside or new. Never more than p_max_bytes of them (but one).
-- Returns {cursor: [at, id] | null: the pass is over, seen, changes: [{at, id, event_type, payload, was}],
--   bodies: [{received_at, id, raw (base64), was, unrouted_numbers, others_numbers}]}. was: md5 of what is there now.
create function public.find_erased_raw(
  p_workspace_id uuid, p_erasure_id uuid, p_lease_token uuid, p_lease_ms integer, p_limit integer, p_max_bytes integer
)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_erasure app.erasures;
  v_result jsonb;
begin
  v_erasure := app.hold_erasure(p_workspace_id, p_erasure_id, p_lease_token, p_lease_ms);
  with logged as materialized (
    (select w.body_received_at as at, w.id, w.body_id, w.created_at as since, true as is_change, w.payload
     from public.whatsapp_webhooks w
     where w.workspace_id = p_workspace_id
       and w.body_received_at >= v_erasure.cursor_at
       and (w.body_received_at, w.id) > (v_erasure.cursor_at, v_erasure.cursor_id)
       and w.created_at >= v_erasure.pass_since
     order by w.body_received_at, w.id
     limit p_limit)
    union all
    (select w.body_received_at, w.id, w.body_id, w.created_at, true, w.payload
     from public.whatsapp_webhooks w
     where w.workspace_id is null
       and w.body_received_at >= v_erasure.cursor_at
       and (w.body_received_at, w.id) > (v_erasure.cursor_at, v_erasure.cursor_id)
       and w.created_at >= v_erasure.pass_since
     order by w.body_received_at, w.id
     limit p_limit)
    union all
    (select b.received_at, b.id, b.id, coalesce(b.recorded_at, now()), false, null
     from app.webhook_bodies b
     where (b.quarantined > 0 or b.state = 'new')
       and b.received_at >= v_erasure.cursor_at
       and (b.received_at, b.id) > (v_erasure.cursor_at, v_erasure.cursor_id)
       and coalesce(b.recorded_at, now()) >= v_erasure.pass_since
     order by b.received_at, b.id
     limit p_limit)
  ), next as (
    select l.* from logged l order by l.at, l.id limit p_limit
  ), named as (
    select n.*,
           sum(pg_catalog.octet_length(b.raw)) over (order by n.at, n.id) - pg_catalog.octet_length(b.raw) as before_bytes,
           pg_catalog.octet_length(b.raw) as size_bytes
    from next n
    left join app.webhook_bodies b on b.received_at = n.at and b.id = n.body_id
    where not n.is_change
       or app.names_erased(p_workspace_id, p_erasure_id, n.payload)
  ), fitting as (
    select n.* from named n where coalesce(n.before_bytes, 0) = 0 or n.before_bytes + n.size_bytes <= p_max_bytes
  ), reached as (
    -- As far as was handed out: up to the first that did not fit.
    select x.at, x.id
    from next x
    where not exists (
      select from named n
      where (n.at, n.id) <= (x.at, x.id)
        and coalesce(n.before_bytes, 0) > 0 and n.before_bytes + n.size_bytes > p_max_bytes)
    order by x.at desc, x.id desc
    limit 1
  )
  select pg_catalog.jsonb_build_object(
    'cursor', (select pg_catalog.jsonb_build_array(r.at, r.id) from reached r),
    'seen', (select count(*) from next),
    'changes', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'at', w.body_received_at, 'id', w.id, 'event_type', w.event_type, 'payload', w.payload, 'was', pg_catalog.md5(w.payload::text))), '[]')
      from fitting f
      join public.whatsapp_webhooks w on w.body_received_at = f.at and w.id = f.id
      where f.is_change),
    'bodies', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'received_at', b.received_at, 'id', b.id, 'raw', pg_catalog.encode(b.raw, 'base64'), 'was', pg_catalog.md5(b.raw),
        'unrouted_numbers', (
          select coalesce(pg_catalog.jsonb_agg(distinct w.phone_number_id), '[]')
          from public.whatsapp_webhooks w
          where w.body_received_at = b.received_at and w.body_id = b.id
            and w.workspace_id is null and w.phone_number_id is not null),
        'others_numbers', (
          select coalesce(pg_catalog.jsonb_agg(distinct w.phone_number_id), '[]')
          from public.whatsapp_webhooks w
          where w.body_received_at = b.received_at and w.body_id = b.id
            and w.workspace_id <> p_workspace_id and w.phone_number_id is not null))), '[]')
      from (select distinct f.at, f.body_id from fitting f) d
      join app.webhook_bodies b on b.received_at = d.at and b.id = d.body_id
      where pg_catalog.octet_length(b.raw) > 0))
  into v_result;
  return v_result;
end;
$$;
revoke execute on function public.find_erased_raw from public, anon, authenticated;
grant execute on function public.find_erased_raw to service_role;

-- Write back what was rewritten, forget what else it was about, and move the pass on; at its end, wait for the next.
-- p_changes: [{at, id, payload, was}]. p_bodies: [{received_at, id, raw (base64), was, dropped: [item]}]: an item's place
-- moves up when those before it are gone. p_found: [{phone_number_id, wamid}]: messages nobody had, told of by statuses.
-- p_cursor: as find_erased_raw gave it.
-- Returns {state, is_pass_over}. Refuses: 40001 somebody else rewrote one of them meanwhile.
create function public.rewrite_erased_raw(
  p_workspace_id uuid, p_erasure_id uuid, p_lease_token uuid, p_lease_ms integer,
  p_changes jsonb, p_bodies jsonb, p_found jsonb, p_cursor jsonb
)
returns jsonb
language plpgsql
security definer -- deletes what a message nobody had left behind
set search_path = ''
as $$
declare
  v_erasure app.erasures;
  v_changes bigint;
  v_bodies bigint;
  v_body record;
  v_item record;
  v_is_over boolean := p_cursor is null or pg_catalog.jsonb_typeof(p_cursor) = 'null';
begin
  if p_found <> '[]' then
    perform app.lock_identities(array[p_workspace_id], true);
  end if;
  v_erasure := app.hold_erasure(p_workspace_id, p_erasure_id, p_lease_token, p_lease_ms);

  update public.whatsapp_webhooks w
  set payload = c.payload
  from pg_catalog.jsonb_to_recordset(p_changes) as c(at timestamptz, id uuid, payload jsonb, was text)
  where w.body_received_at = c.at and w.id = c.id
    and pg_catalog.md5(w.payload::text) = c.was;
  get diagnostics v_changes = row_count;
  update app.webhook_bodies o
  set raw = pg_catalog.decode(b.raw, 'base64'), erased_at = now(),
      -- Of one that waited to be recorded nothing is left to record.
      state = case when b.raw = '' then 'recorded' else o.state end
  from pg_catalog.jsonb_to_recordset(p_bodies) as b(received_at timestamptz, id uuid, raw text, was text)
  where o.received_at = b.received_at and o.id = b.id
    and pg_catalog.md5(o.raw) = b.was;
  get diagnostics v_bodies = row_count;
  if v_changes < pg_catalog.jsonb_array_length(p_changes) or v_bodies < pg_catalog.jsonb_array_length(p_bodies) then
    raise exception 'rewritten meanwhile, or dropped' using errcode = '40001';
  end if;

  for v_body in
    select b.received_at, b.id, b.dropped
    from pg_catalog.jsonb_to_recordset(p_bodies) as b(received_at timestamptz, id uuid, dropped integer[])
    where b.dropped <> '{}'
  loop
    delete from app.quarantine q
    where q.body_received_at = v_body.received_at and q.body_id = v_body.id and q.item = any (v_body.dropped);
    for v_item in
      select q.item, (select count(*) from pg_catalog.unnest(v_body.dropped) d where d < q.item)::integer as up
      from app.quarantine q
      where q.body_received_at = v_body.received_at and q.body_id = v_body.id
      order by q.item
    loop
      update app.quarantine q
      set item = v_item.item - v_item.up
      where q.body_received_at = v_body.received_at and q.body_id = v_body.id and q.item = v_item.item
        and v_item.up > 0;
    end loop;
  end loop;

  with found_messages as (
    select distinct c.id as channel_id, f.wamid
    from pg_catalog.jsonb_to_recordset(p_found) as f(phone_number_id text, wamid text)
    join public.whatsapp_channels c on c.workspace_id = p_workspace_id and c.phone_number_id = f.phone_number_id
    where not exists (
      select from public.whatsapp_messages m where m.workspace_id = p_workspace_id and m.channel_id = c.id and m.wamid = f.wamid)
  ), noted as (
    insert into app.erasure_ids (workspace_id, erasure_id, kind, scope, value)
    select p_workspace_id, p_erasure_id, 'message', f.channel_id::text, f.wamid from found_messages f
    on conflict do nothing
  ), buried as (
    insert into app.tombstones as t (workspace_id, digest, until)
    select p_workspace_id, app.message_digest(f.channel_id, f.wamid), now() + app.tombstone_life() from found_messages f
    order by 2
    on conflict (workspace_id, digest) do update set until = greatest(t.until, excluded.until)
  ), told as (
    delete from public.message_events e
    using found_messages f
    where e.workspace_id = p_workspace_id and e.channel_id = f.channel_id and e.wamid = f.wamid
  )
  delete from app.message_states s
  using found_messages f
  where s.workspace_id = p_workspace_id and s.channel_id = f.channel_id and s.wamid = f.wamid;

  update app.erasures e
  set rewritten = e.rewritten + v_changes + v_bodies,
      cursor_at = case when v_is_over then '-infinity' else (p_cursor ->> 0)::timestamptz end,
      cursor_id = case when v_is_over then '00000000-0000-0000-0000-000000000000' else (p_cursor ->> 1)::uuid end
  where e.workspace_id = p_workspace_id and e.id = p_erasure_id;
  if not v_is_over then
    return pg_catalog.jsonb_build_object('state', v_erasure.state, 'is_pass_over', false);
  end if;
  perform app.leave_groups(p_workspace_id, p_erasure_id);

  if v_erasure.state = 'watching' and v_erasure.pass_started_at >= v_erasure.watch_until then
    delete from app.erasure_ids i where i.workspace_id = p_workspace_id and i.erasure_id = p_erasure_id;
    update app.erasures e
    set state = 'done', finished_at = now(), lease_until = null, lease_token = null
    where e.workspace_id = p_workspace_id and e.id = p_erasure_id;
    return '{"state": "done", "is_pass_over": true}';
  end if;
  -- The next pass looks at what was recorded since this one began, and a little before: transactions take time.
  update app.erasures e
  set state = 'watching', pass_since = e.pass_started_at - interval '10 minutes', pass_started_at = null,
      due_at = least(now() + interval '1 hour', greatest(e.watch_until, now())),
      lease_until = null, lease_token = null
  where e.workspace_id = p_workspace_id and e.id = p_erasure_id;
  return '{"state": "watching", "is_pass_over": true}';
end;
$$;
revoke execute on function public.rewrite_erased_raw from public, anon, authenticated;
grant execute on function public.rewrite_erased_raw to service_role;

notify pgrst, 'reload schema';
