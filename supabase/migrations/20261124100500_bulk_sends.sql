-- One template to many people: asked for by owners and admins, turned into messages a few hundred at a time, so that it can
-- be paused at any moment and never stands before a reply.
set lock_timeout = '5s';

create table public.bulk_sends (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  channel_id uuid not null,
  template_id uuid not null,
  name text not null default '', -- what they call it
  state text not null default 'running' check (state in (
    'running',
    'paused', -- pause_reason says why; what is on its way goes, nothing else
    'cancelled', -- for good: what was not on its way never goes
    'done' -- each recipient has a result
  )),
  pause_reason text, -- while paused: by_person, or why none of it can go: channel_not_connected, template_not_approved, …
  recipients integer not null check (recipients > 0),
  created_by uuid not null,
  created_at timestamptz not null default now(),
  expanded_at timestamptz, -- when recipients were last turned into messages: whoever waited longest is next
  finished_at timestamptz,
  primary key (workspace_id, id),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id),
  foreign key (workspace_id, template_id) references public.whatsapp_templates (workspace_id, id)
);
comment on table public.bulk_sends is 'A template sent to many people, one message each.';
create index bulk_sends_newest on public.bulk_sends (workspace_id, created_at desc, id desc);
create index bulk_sends_running on public.bulk_sends (expanded_at nulls first) where state = 'running';
create index bulk_sends_channel on public.bulk_sends (workspace_id, channel_id);
create index bulk_sends_template on public.bulk_sends (workspace_id, template_id);
alter table public.bulk_sends enable row level security;
revoke all on public.bulk_sends from anon, authenticated, service_role;
grant select on public.bulk_sends to authenticated, service_role;
grant update (state, pause_reason, expanded_at, finished_at) on public.bulk_sends to service_role;

create table public.bulk_recipients (
  workspace_id uuid not null,
  bulk_id uuid not null,
  n integer not null, -- place in the list they gave
  contact_id uuid, -- one of the two, until there is a message: then the contact. No foreign key: contacts are erased
  wa_id text,
  state text not null default 'waiting' check (state in (
    'waiting', -- not a message yet
    'queued', -- a message: what became of it says its status
    'opted_out', 'blocked', 'invalid', 'duplicate', -- never a message: they want no marketing, we blocked them, no such
                                                    -- person or no way to reach them, they have theirs already
    'cancelled',
    'erased' -- of whoever asked to be forgotten nothing is left here
  )),
  message_id uuid,
  content text, -- what it will say, and payload, until there is a message
  payload jsonb,
  primary key (workspace_id, bulk_id, n),
  foreign key (workspace_id, bulk_id) references public.bulk_sends (workspace_id, id)
);
comment on table public.bulk_recipients is 'Whom a bulk send goes to, and what came of it for each.';
create index bulk_recipients_waiting on public.bulk_recipients (workspace_id, bulk_id, n) where state = 'waiting';
create index bulk_recipients_contact on public.bulk_recipients (workspace_id, contact_id) where contact_id is not null;
create index bulk_recipients_wa_id on public.bulk_recipients (workspace_id, wa_id) where wa_id is not null;
alter table public.bulk_recipients enable row level security;
revoke all on public.bulk_recipients from anon, authenticated, service_role;
grant select on public.bulk_recipients to authenticated, service_role;
grant update (contact_id, wa_id, state, message_id, content, payload) on public.bulk_recipients to service_role;

-- Reading and writing are of those who run a workspace.
create policy "Owners and admins see their bulk sends" on public.bulk_sends
  for select to authenticated, parley_writer
  using (workspace_id in (
    select m.workspace_id from public.workspace_members m
    where m.user_id = (select auth.uid()) and m.role in ('owner', 'admin')));
create policy "Owners and admins see whom theirs go to" on public.bulk_recipients
  for select to authenticated, parley_writer
  using (workspace_id in (
    select m.workspace_id from public.workspace_members m
    where m.user_id = (select auth.uid()) and m.role in ('owner', 'admin')));
grant select, insert, update (state, pause_reason, finished_at) on public.bulk_sends to parley_writer;
create policy "Writers begin bulk sends" on public.bulk_sends
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers pause, resume and cancel their bulk sends" on public.bulk_sends
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
grant select, insert, update (state, content, payload) on public.bulk_recipients to parley_writer;
create policy "Writers name whom theirs go to" on public.bulk_recipients
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers cancel what waits" on public.bulk_recipients
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

-- Refuse whoever does not run the workspace. Refuses: PT404 not a member, PT403 an agent or viewer.
create function app.check_bulk_sender(p_workspace_id uuid, p_noun text)
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
    perform app.raise_not_found(p_noun);
  elsif v_role not in ('owner', 'admin') then
    raise exception 'only owners and admins send in bulk' using
      errcode = 'PT403', detail = 'role_may_not_send_bulk', hint = 'Ask an owner or admin of the workspace.';
  end if;
end;
$$;
revoke execute on function app.check_bulk_sender from public;
grant execute on function app.check_bulk_sender to parley_writer;

-- One at a time works on a bulk send. Always taken before anything else: only the expansion holds more while it waits, and
-- it never waits for this.
create function app.bulk_key(p_bulk_id uuid)
returns bigint
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.hashtextextended('bulk ' || p_bulk_id, 0);
$$;
revoke execute on function app.bulk_key from public;
grant execute on function app.bulk_key to parley_writer, service_role;

-- A bulk send as the API shows it. What became of a recipient: the state of what never was a message, the status of what is
-- one; where that is gone it was erased.
create function app.bulk_json(p_bulk public.bulk_sends)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_bulk.id,
    'workspace_id', p_bulk.workspace_id,
    'channel_id', p_bulk.channel_id,
    'template_id', p_bulk.template_id,
    'name', p_bulk.name,
    'state', p_bulk.state,
    'pause_reason', p_bulk.pause_reason,
    'recipients', p_bulk.recipients,
    'counts', coalesce((
      select pg_catalog.jsonb_object_agg(c.result, c.count)
      from (
        select e.result, sum(e.count) as count
        from (
          select case r.state when 'queued' then 'erased' else r.state end as result, count(*) as count
          from public.bulk_recipients r
          where r.workspace_id = p_bulk.workspace_id
            and r.bulk_id = p_bulk.id
          group by 1
          union all
          select s.result, s.count
          from (
            select m.status, count(*) as count
            from public.whatsapp_messages m
            where m.workspace_id = p_bulk.workspace_id
              and m.bulk_id = p_bulk.id
            group by 1
          ) t
          cross join lateral (values (t.status, t.count), ('erased', -t.count)) as s(result, count)
        ) e
        group by 1
        having sum(e.count) > 0
      ) c
    ), '{}'),
    'created_by', p_bulk.created_by,
    'created_at', p_bulk.created_at,
    'finished_at', p_bulk.finished_at);
$$;
revoke execute on function app.bulk_json from public;
grant execute on function app.bulk_json to parley_writer;

-- Refuse a list of which a payload is not that template's, or an entry names nobody: people may call create_bulk_send without
-- the API in front of it, and what is written here is sent as it stands. Whether values fit is the API's to check.
create function app.check_bulk_recipients(p_recipients jsonb, p_template public.whatsapp_templates)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if pg_catalog.jsonb_typeof(p_recipients) is distinct from 'array'
    or pg_catalog.jsonb_array_length(p_recipients) not between 1 and 10000
  then
    raise exception 'too few or too many recipients' using
      errcode = 'PT422', detail = 'recipients_not_valid', hint = 'A bulk send goes to 1 to 10,000 people.';
  elsif exists (
    select from pg_catalog.jsonb_array_elements(p_recipients) r
    where (r ->> 'contact_id' is null) = (r ->> 'wa_id' is null)
       or (r ->> 'wa_id') !~ '^[0-9]{5,20}$'
       or (r -> 'payload') - 'type' - 'template' <> '{}'
       or (r #>> '{payload,type}', r #>> '{payload,template,name}', r #>> '{payload,template,language,code}')
         is distinct from ('template', p_template.template_name, p_template.language))
  then
    raise exception 'a recipient is not valid' using errcode = 'PT422', detail = 'recipients_not_valid',
      hint = 'Begin it by POST /api/whatsapp/bulk-sends, which fills in the template for each.';
  end if;
end;
$$;
revoke execute on function app.check_bulk_recipients from public;
grant execute on function app.check_bulk_recipients to parley_writer;

-- Begin a bulk send on behalf of the owner or admin who asks; dispatchers turn its recipients into messages.
-- p_bulk: {id, channel_id, template_id, name, recipients: [{contact_id | wa_id, content, payload}]}; payloads as Meta's
--   request body has them, checked against the template by the caller.
-- Writes: send_requests, bulk_sends, bulk_recipients, audit_log. Called by: services/api, as the user.
-- Refuses: PT404, PT403 neither owner nor admin, PT409 the number cannot send, PT422 the template may not be sent.
create function public.create_bulk_send(p_workspace_id uuid, p_request_id text, p_digest text, p_bulk jsonb)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_id uuid := (p_bulk ->> 'id')::uuid;
  v_bulk public.bulk_sends;
  v_channel public.whatsapp_channels;
  v_template public.whatsapp_templates;
begin
  perform app.check_bulk_sender(p_workspace_id, 'workspace');
  if not app.is_new_request(p_workspace_id, p_request_id, p_digest, v_id) then
    select b.* into v_bulk
    from app.send_requests r
    join public.bulk_sends b on b.workspace_id = r.workspace_id and b.id = r.subject_id
    where r.workspace_id = p_workspace_id
      and r.request_id = p_request_id;
    if not found then
      perform app.raise_not_found('bulk_send');
    end if;
    return app.bulk_json(v_bulk);
  end if;
  v_channel := app.check_sending(p_workspace_id, (p_bulk ->> 'channel_id')::uuid);
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = (p_bulk ->> 'template_id')::uuid
    and t.waba_id = v_channel.waba_id;
  if not found then
    perform app.raise_not_found('template');
  elsif v_template.status <> 'approved' then
    raise exception 'the template is %', v_template.status using errcode = 'PT422', detail = 'template_not_approved',
      hint = 'Only approved templates can be sent; this one is ' || v_template.status || '. Choose another.';
  end if;

  perform app.check_bulk_recipients(p_bulk -> 'recipients', v_template);

  insert into public.bulk_sends (workspace_id, id, channel_id, template_id, name, recipients, created_by)
  values (p_workspace_id, v_id, v_channel.id, v_template.id, coalesce(p_bulk ->> 'name', ''),
          pg_catalog.jsonb_array_length(p_bulk -> 'recipients'), app.actor())
  returning * into v_bulk;
  insert into public.bulk_recipients (workspace_id, bulk_id, n, contact_id, wa_id, content, payload)
  select p_workspace_id, v_id, e.n, (e.r ->> 'contact_id')::uuid, e.r ->> 'wa_id', e.r ->> 'content', e.r -> 'payload'
  from pg_catalog.jsonb_array_elements(p_bulk -> 'recipients') with ordinality e(r, n);
  perform app.audit(p_workspace_id, 'bulk_send.begun', v_id, null, pg_catalog.jsonb_build_object(
    'template_id', v_template.id, 'channel_id', v_channel.id, 'recipients', v_bulk.recipients));
  return app.bulk_json(v_bulk);
end;
$$;
revoke execute on function public.create_bulk_send from public, anon, service_role;
grant execute on function public.create_bulk_send to authenticated;
select app.give_to_writer('public.create_bulk_send');

-- Lock a bulk send of the owner or admin who asks. Refuses: PT404, PT403.
create function app.lock_bulk(p_workspace_id uuid, p_bulk_id uuid)
returns public.bulk_sends
language plpgsql
set search_path = ''
as $$
declare
  v_bulk public.bulk_sends;
begin
  perform app.check_bulk_sender(p_workspace_id, 'bulk_send');
  perform pg_catalog.pg_advisory_xact_lock(app.bulk_key(p_bulk_id));
  select * into v_bulk
  from public.bulk_sends b
  where b.workspace_id = p_workspace_id
    and b.id = p_bulk_id;
  if not found then
    perform app.raise_not_found('bulk_send');
  end if;
  return v_bulk;
end;
$$;
revoke execute on function app.lock_bulk from public;
grant execute on function app.lock_bulk to parley_writer;

-- Lock those messages of a bulk send of which nothing has left the house, then their places in the outbox.
create function app.lock_bulk_messages(p_workspace_id uuid, p_bulk_id uuid)
returns setof app.outbox
language plpgsql
set search_path = ''
as $$
begin
  perform 1
  from app.outbox o
  join public.whatsapp_messages m on m.workspace_id = o.workspace_id and m.id = o.message_id
  where o.workspace_id = p_workspace_id
    and o.bulk_id = p_bulk_id
    and o.state in ('due', 'waiting', 'held')
  order by m.id
  for no key update of m;
  return query
    select o.*
    from app.outbox o
    where o.workspace_id = p_workspace_id
      and o.bulk_id = p_bulk_id
      and o.state in ('due', 'waiting', 'held')
      and o.lease_token is null
      and o.doubt_since is null
    order by o.id
    for no key update;
end;
$$;
revoke execute on function app.lock_bulk_messages from public;
grant execute on function app.lock_bulk_messages to parley_writer, service_role;

-- Keep back what has not left the house. What a message says of itself while it waits: see `sending`.
create function app.hold_bulk_messages(p_workspace_id uuid, p_bulk_id uuid)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_ids uuid[] := array(
    select l.id
    from app.lock_bulk_messages(p_workspace_id, p_bulk_id) l
    where l.state in ('due', 'waiting')
       or l.error ->> 'reason' = 'marketing_paused'); -- held for that: once marketing goes on they still have to wait
begin
  update public.whatsapp_messages m
  set sending = pg_catalog.jsonb_build_object(
    'state', 'held', 'reason', 'bulk_paused', 'since', now(), 'sentence', 'It waits: the bulk send it is part of is paused.')
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids)
    and m.workspace_id = o.workspace_id
    and m.id = o.message_id;
  -- Paused is not late: its time begins again when it goes on.
  update app.outbox o
  set state = 'held', wait_reason = null, error = null, next_attempt_at = now(), expires_at = now() + interval '90 days'
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids);
end;
$$;
revoke execute on function app.hold_bulk_messages from public;
grant execute on function app.hold_bulk_messages to parley_writer, service_role;

-- How long a message of a bulk send may wait before it makes no sense.
create function app.bulk_life(p_is_marketing boolean)
returns interval
language sql
immutable
set search_path = ''
as $$
  select case when p_is_marketing then interval '2 days' else interval '1 day' end;
$$;
revoke execute on function app.bulk_life from public;
grant execute on function app.bulk_life to parley_writer, service_role;

-- Pause: what is on its way goes, nothing else does. Paused already: fine.
-- Writes: whatsapp_messages, outbox, bulk_sends, audit_log. Called by: services/api, as the user.
-- Refuses: PT404, PT403, PT409 done or cancelled.
create function public.pause_bulk_send(p_workspace_id uuid, p_bulk_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_bulk public.bulk_sends := app.lock_bulk(p_workspace_id, p_bulk_id);
begin
  if v_bulk.state = 'paused' then
    return app.bulk_json(v_bulk);
  elsif v_bulk.state <> 'running' then
    raise exception 'the bulk send is %', v_bulk.state using
      errcode = 'PT409', detail = 'bulk_send_not_running', hint = 'It is over; there is nothing to pause.';
  end if;
  perform app.hold_bulk_messages(p_workspace_id, p_bulk_id);
  update public.bulk_sends b
  set state = 'paused', pause_reason = 'by_person'
  where b.workspace_id = p_workspace_id
    and b.id = p_bulk_id
  returning * into v_bulk;
  perform app.audit(p_workspace_id, 'bulk_send.paused', p_bulk_id, '{"state": "running"}', '{"state": "paused"}');
  return app.bulk_json(v_bulk);
end;
$$;
revoke execute on function public.pause_bulk_send from public, anon, service_role;
grant execute on function public.pause_bulk_send to authenticated;
select app.give_to_writer('public.pause_bulk_send');

-- Go on with a paused one. Running already: fine. If what stopped it still does, it stops again by itself.
-- Refuses: PT404, PT403, PT409 done or cancelled.
create function public.resume_bulk_send(p_workspace_id uuid, p_bulk_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_bulk public.bulk_sends := app.lock_bulk(p_workspace_id, p_bulk_id);
  v_ids uuid[];
begin
  if v_bulk.state = 'running' then
    return app.bulk_json(v_bulk);
  elsif v_bulk.state <> 'paused' then
    raise exception 'the bulk send is %', v_bulk.state using
      errcode = 'PT409', detail = 'bulk_send_not_paused', hint = 'It is over; begin a new one.';
  end if;
  v_ids := array(select l.id from app.lock_bulk_messages(p_workspace_id, p_bulk_id) l where l.state = 'held');
  update public.whatsapp_messages m
  set sending = null
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids)
    and m.workspace_id = o.workspace_id
    and m.id = o.message_id;
  update app.outbox o -- a claim finds out what each still has to wait for
  set state = 'due', next_attempt_at = now(), expires_at = now() + app.bulk_life(o.is_marketing)
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids);
  update public.bulk_sends b
  set state = 'running', pause_reason = null
  where b.workspace_id = p_workspace_id
    and b.id = p_bulk_id
  returning * into v_bulk;
  perform app.audit(p_workspace_id, 'bulk_send.resumed', p_bulk_id, '{"state": "paused"}', '{"state": "running"}');
  return app.bulk_json(v_bulk);
end;
$$;
revoke execute on function public.resume_bulk_send from public, anon, service_role;
grant execute on function public.resume_bulk_send to authenticated;
select app.give_to_writer('public.resume_bulk_send');

-- Cancel for good: what has not left the house never goes. Cancelled already: fine.
-- Refuses: PT404, PT403, PT409 done.
create function public.cancel_bulk_send(p_workspace_id uuid, p_bulk_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_bulk public.bulk_sends := app.lock_bulk(p_workspace_id, p_bulk_id);
  v_before text := v_bulk.state;
  v_ids uuid[];
begin
  if v_bulk.state = 'cancelled' then
    return app.bulk_json(v_bulk);
  elsif v_bulk.state = 'done' then
    raise exception 'the bulk send is done' using
      errcode = 'PT409', detail = 'bulk_send_done', hint = 'Everybody has theirs; nothing can be called back.';
  end if;
  v_ids := array(select l.id from app.lock_bulk_messages(p_workspace_id, p_bulk_id) l);
  update public.whatsapp_messages m
  set status = 'failed', sending = null,
      error = app.send_error('cancelled', 'Cancelled', 'Cancelled, with the bulk send it is part of, before it was sent.')
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids)
    and m.workspace_id = o.workspace_id
    and m.id = o.message_id;
  update app.outbox o
  set state = 'cancelled', wait_reason = null, finished_at = now()
  where o.workspace_id = p_workspace_id
    and o.id = any (v_ids);
  update public.bulk_recipients r
  set state = 'cancelled', content = null, payload = null
  where r.workspace_id = p_workspace_id
    and r.bulk_id = p_bulk_id
    and r.state = 'waiting';
  update public.bulk_sends b
  set state = 'cancelled', pause_reason = null, finished_at = now()
  where b.workspace_id = p_workspace_id
    and b.id = p_bulk_id
  returning * into v_bulk;
  perform app.audit(p_workspace_id, 'bulk_send.cancelled', p_bulk_id,
    pg_catalog.jsonb_build_object('state', v_before), '{"state": "cancelled"}');
  return app.bulk_json(v_bulk);
end;
$$;
revoke execute on function public.cancel_bulk_send from public, anon, service_role;
grant execute on function public.cancel_bulk_send to authenticated;
select app.give_to_writer('public.cancel_bulk_send');

-- A workspace's bulk sends, newest first. p_cursor: next_cursor of the page before. p_limit: 1 to 100.
-- Refuses: PT404 not a member, PT403 neither owner nor admin, PT422 a cursor or limit we did not issue.
create function public.list_bulk_sends(p_workspace_id uuid, p_limit integer default 20, p_cursor text default null)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_before_at timestamptz := 'infinity';
  v_before_id uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  v_page jsonb;
begin
  perform app.check_bulk_sender(p_workspace_id, 'workspace');
  if p_limit is null or p_limit not between 1 and 100 then
    raise exception 'limit out of range' using
      errcode = 'PT422', detail = 'bad_limit', hint = 'Ask for 1 to 100 at a time.';
  end if;
  if p_cursor is not null then
    if p_cursor !~ '^\d{1,17}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
      raise exception 'bad cursor' using
        errcode = 'PT422', detail = 'bad_cursor', hint = 'Pass next_cursor of the page before, unchanged.';
    end if;
    v_before_at := timestamptz 'epoch' + pg_catalog.split_part(p_cursor, '_', 1)::bigint * interval '1 microsecond';
    v_before_id := pg_catalog.split_part(p_cursor, '_', 2)::uuid;
  end if;
  with page as (
    select b as bulk, b.created_at, b.id, pg_catalog.row_number() over (order by b.created_at desc, b.id desc) as n
    from public.bulk_sends b
    where b.workspace_id = p_workspace_id
      and (b.created_at, b.id) < (v_before_at, v_before_id)
    order by b.created_at desc, b.id desc
    limit p_limit + 1
  )
  select pg_catalog.jsonb_build_object(
    'items', coalesce(pg_catalog.jsonb_agg(app.bulk_json(p.bulk) order by p.n) filter (where p.n <= p_limit), '[]'),
    'next_cursor', (
      select pg_catalog.trunc(extract(epoch from e.created_at) * 1000000)::bigint || '_' || e.id
      from page e
      where e.n = p_limit
        and exists (select from page more where more.n > p_limit)))
  into v_page
  from page p;
  return v_page;
end;
$$;
revoke execute on function public.list_bulk_sends from public, anon, service_role;
grant execute on function public.list_bulk_sends to authenticated;
select app.give_to_writer('public.list_bulk_sends');

-- One bulk send. Refuses: PT404, PT403.
create function public.read_bulk_send(p_workspace_id uuid, p_bulk_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_bulk public.bulk_sends;
begin
  perform app.check_bulk_sender(p_workspace_id, 'bulk_send');
  select * into v_bulk
  from public.bulk_sends b
  where b.workspace_id = p_workspace_id
    and b.id = p_bulk_id;
  if not found then
    perform app.raise_not_found('bulk_send');
  end if;
  return app.bulk_json(v_bulk);
end;
$$;
revoke execute on function public.read_bulk_send from public, anon, service_role;
grant execute on function public.read_bulk_send to authenticated;
select app.give_to_writer('public.read_bulk_send');

-- What became of each recipient, in the order they were given. p_state: only these results; null: all.
-- p_after: next_cursor of the page before. p_limit: 1 to 1,000. Refuses: PT404, PT403, PT422.
create function public.list_bulk_recipients(
  p_workspace_id uuid, p_bulk_id uuid, p_state text default null, p_limit integer default 100, p_after integer default 0
)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_page jsonb;
begin
  perform app.check_bulk_sender(p_workspace_id, 'bulk_send');
  if not exists (select from public.bulk_sends b where b.workspace_id = p_workspace_id and b.id = p_bulk_id) then
    perform app.raise_not_found('bulk_send');
  end if;
  if p_limit is null or p_limit not between 1 and 1000 then
    raise exception 'limit out of range' using
      errcode = 'PT422', detail = 'bad_limit', hint = 'Ask for 1 to 1000 at a time.';
  end if;
  with page as (
    select r.n, r.contact_id, r.wa_id, r.message_id, case when r.state = 'queued' then coalesce(m.status, 'erased') else r.state end as result, m.error,
           pg_catalog.row_number() over (order by r.n) as nth
    from public.bulk_recipients r
    left join lateral ( -- one probe each, whatever the planner knows of a young table
      select x.status, x.error from public.whatsapp_messages x
      where r.state = 'queued' and x.workspace_id = r.workspace_id and x.id = r.message_id
      limit 1
    ) m on true
    where r.workspace_id = p_workspace_id
      and r.bulk_id = p_bulk_id
      and r.n > coalesce(p_after, 0)
      and (p_state is null or case when r.state = 'queued' then coalesce(m.status, 'erased') else r.state end = p_state)
    order by r.n
    limit p_limit + 1
  )
  select pg_catalog.jsonb_build_object(
    'items', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'n', p.n, 'contact_id', p.contact_id, 'wa_id', p.wa_id, 'state', p.result, 'message_id', p.message_id,
      'error', p.error) order by p.n) filter (where p.nth <= p_limit), '[]'),
    'next_cursor', (
      select e.n
      from page e
      where e.nth = p_limit
        and exists (select from page more where more.nth > p_limit)))
  into v_page
  from page p;
  return v_page;
end;
$$;
revoke execute on function public.list_bulk_recipients from public, anon, service_role;
grant execute on function public.list_bulk_recipients to authenticated;
select app.give_to_writer('public.list_bulk_recipients');

-- Why none of a bulk send can go right now; null: it can.
create function app.bulk_obstacle(p_bulk public.bulk_sends)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
  v_template public.whatsapp_templates;
  v_detail text;
begin
  v_channel := app.check_sending(p_bulk.workspace_id, p_bulk.channel_id);
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_bulk.workspace_id
    and t.id = p_bulk.template_id;
  if v_template.status is distinct from 'approved' then
    return 'template_not_approved';
  elsif v_template.category = 'marketing' and v_channel.marketing_paused_at is not null then
    return 'marketing_paused';
  end if;
  return null;
exception when sqlstate 'PT409' or sqlstate 'PT404' then
  get stacked diagnostics v_detail = pg_exception_detail;
  return v_detail;
end;
$$;
revoke execute on function app.bulk_obstacle from public;
grant execute on function app.bulk_obstacle to service_role;

create type app.bulk_person as (
  n integer,
  contact_id uuid, -- null: nobody with that id
  result text -- null: they may have a message
);

-- Who the next recipients are, made if nobody knows them, and which of them get nothing. The caller holds the identities.
create function app.bulk_people(p_bulk public.bulk_sends, p_is_marketing boolean, p_most integer)
returns app.bulk_person[]
language plpgsql
set search_path = ''
as $$
declare
  v_recipient record;
  v_contact_id uuid;
  v_contact public.contacts;
  v_result text;
  v_people app.bulk_person[] := '{}';
begin
  for v_recipient in
    select r.n, r.contact_id, r.wa_id
    from public.bulk_recipients r
    where r.workspace_id = p_bulk.workspace_id
      and r.bulk_id = p_bulk.id
      and r.state = 'waiting'
    order by r.n
    limit p_most
  loop
    v_contact_id := coalesce(
      v_recipient.contact_id, app.outbound_contact(p_bulk.workspace_id, p_bulk.channel_id, v_recipient.wa_id, null));
    loop
      select * into v_contact
      from public.contacts c
      where c.workspace_id = p_bulk.workspace_id
        and c.id = v_contact_id;
      v_contact_id := v_contact.merged_into;
      exit when v_contact_id is null;
    end loop;
    v_result := case
      when v_contact.id is null then 'invalid'
      when v_contact.blocked_at is not null then 'blocked'
      when p_is_marketing and v_contact.opted_out_at is not null then 'opted_out'
      when exists (select from pg_catalog.unnest(v_people) p where p.contact_id = v_contact.id and p.result is null)
        or exists (
          select from public.bulk_recipients r
          where r.workspace_id = p_bulk.workspace_id and r.bulk_id = p_bulk.id and r.contact_id = v_contact.id
            and r.state = 'queued')
      then 'duplicate' end;
    v_people := v_people || row(v_recipient.n, v_contact.id, v_result)::app.bulk_person;
  end loop;
  return v_people;
end;
$$;
revoke execute on function app.bulk_people from public;
grant execute on function app.bulk_people to service_role;

-- Turn the next recipients of a bulk send into messages: identities, conversations, messages, the outbox, recipients.
-- Returns how many recipients have a result now.
create function app.expand_bulk_send(p_bulk public.bulk_sends, p_most integer)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_is_marketing boolean;
  v_people app.bulk_person[];
  v_conversation_ids uuid[];
  v_person record;
  v_message public.whatsapp_messages;
begin
  select t.category is not distinct from 'marketing' into v_is_marketing
  from public.whatsapp_templates t
  where t.workspace_id = p_bulk.workspace_id
    and t.id = p_bulk.template_id;
  -- Alone: among so many somebody is new, nearly always. A few milliseconds for a hundred.
  perform app.lock_identities(array[p_bulk.workspace_id], true);
  v_people := app.bulk_people(p_bulk, v_is_marketing, p_most);

  v_conversation_ids := array(
    select app.outbound_conversation(p_bulk.workspace_id, p_bulk.channel_id, p.contact_id)
    from pg_catalog.unnest(v_people) p
    where p.result is null);
  perform 1
  from public.whatsapp_conversations v
  where v.workspace_id = p_bulk.workspace_id
    and v.id = any (v_conversation_ids)
  order by v.id
  for no key update;

  for v_person in
    select p.n, p.contact_id, r.content, r.payload, v.id as conversation_id, v.next_seq, v.status, a.wa_id, a.user_id
    from pg_catalog.unnest(v_people) p
    join public.bulk_recipients r on r.workspace_id = p_bulk.workspace_id and r.bulk_id = p_bulk.id and r.n = p.n
    join public.whatsapp_conversations v on v.workspace_id = p_bulk.workspace_id and v.channel_id = p_bulk.channel_id
      and v.contact_id = p.contact_id and v.deleted_at is null
    cross join lateral app.address_of(p_bulk.workspace_id, p_bulk.channel_id, p.contact_id) a
    where p.result is null
      and (a.wa_id is not null or a.user_id is not null)
    order by p.n
  loop
    insert into public.whatsapp_messages (
      workspace_id, id, conversation_id, channel_id, contact_id, phone_number, direction, message_type, content, status, seq,
      payload, sent_at, sender_wa_id, sender_user_id, ai_state, ai_reason, template_id, bulk_id)
    values (
      p_bulk.workspace_id, pg_catalog.gen_random_uuid(), v_person.conversation_id, p_bulk.channel_id, v_person.contact_id,
      v_person.wa_id, 'outbound', 'template', v_person.content, 'queued', v_person.next_seq, v_person.payload, now(),
      v_person.wa_id, v_person.user_id, 'skipped', 'outbound', p_bulk.template_id, p_bulk.id)
    returning * into v_message;
    update public.whatsapp_conversations v
    set next_seq = v.next_seq + 1,
        last_message_at = greatest(v.last_message_at, now())
    where v.workspace_id = p_bulk.workspace_id
      and v.id = v_person.conversation_id;
    perform app.queue_message(
      v_message, 6::smallint, v_is_marketing, app.media_in(v_message.payload), now() + app.bulk_life(v_is_marketing));
    update public.bulk_recipients r
    set state = 'queued', contact_id = v_person.contact_id, wa_id = null, message_id = v_message.id, content = null, payload = null
    where r.workspace_id = p_bulk.workspace_id
      and r.bulk_id = p_bulk.id
      and r.n = v_person.n;
  end loop;

  update public.bulk_recipients r -- whoever is left has no message, and no way to get one
  set state = coalesce(p.result, 'invalid'), content = null, payload = null,
      contact_id = coalesce(p.contact_id, r.contact_id), wa_id = case when p.contact_id is null then r.wa_id end
  from pg_catalog.unnest(v_people) p
  where r.workspace_id = p_bulk.workspace_id
    and r.bulk_id = p_bulk.id
    and r.n = p.n
    and r.state = 'waiting';
  return pg_catalog.cardinality(v_people);
end;
$$;
revoke execute on function app.expand_bulk_send from public;
grant execute on function app.expand_bulk_send to service_role;

-- Turn recipients of one bulk send into messages: of that which waited longest and has fewer than 300 unfinished, so that
-- pausing holds all but those. Stops one of which nothing can go, and ends one of which everything went.
-- p_most: recipients at a time; they hold up recorders of the workspace meanwhile. Called by: dispatchers, every second.
-- Returns {expanded, paused, finished, is_more: call again at once}.
create function public.expand_bulk_sends(p_most integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_bulk public.bulk_sends;
  v_obstacle text;
  v_unfinished integer;
  v_expanded integer := 0;
  v_paused integer := 0;
  v_finished integer := 0;
begin
  for v_bulk in
    select b.* from public.bulk_sends b where b.state = 'running' order by b.expanded_at nulls first, b.id limit 20
  loop
    continue when not pg_catalog.pg_try_advisory_xact_lock(app.bulk_key(v_bulk.id));
    select * into v_bulk -- as it is now that nobody else is at it
    from public.bulk_sends b
    where b.workspace_id = v_bulk.workspace_id
      and b.id = v_bulk.id;
    continue when v_bulk.state <> 'running';
    select count(*) into v_unfinished
    from app.outbox o
    where o.workspace_id = v_bulk.workspace_id
      and o.bulk_id = v_bulk.id
      and o.finished_at is null;
    v_obstacle := app.bulk_obstacle(v_bulk);
    if v_obstacle is not null then
      perform app.hold_bulk_messages(v_bulk.workspace_id, v_bulk.id);
      v_paused := v_paused + 1;
    elsif v_unfinished < 300 then
      v_expanded := app.expand_bulk_send(v_bulk, least(p_most, 300 - v_unfinished));
      if v_expanded = 0 and v_unfinished = 0 then
        v_finished := v_finished + 1;
      end if;
    end if;
    update public.bulk_sends b
    set expanded_at = pg_catalog.clock_timestamp(),
        state = case when v_obstacle is not null then 'paused' when v_expanded = 0 and v_unfinished = 0 then 'done' else b.state end,
        pause_reason = v_obstacle,
        finished_at = case when v_obstacle is null and v_expanded = 0 and v_unfinished = 0 then now() end
    where b.workspace_id = v_bulk.workspace_id
      and b.id = v_bulk.id;
    exit when v_expanded > 0; -- the identities of one workspace at a time
  end loop;
  return pg_catalog.jsonb_build_object(
    'expanded', v_expanded, 'paused', v_paused, 'finished', v_finished, 'is_more', v_expanded >= p_most);
end;
$$;
revoke execute on function public.expand_bulk_sends from public, anon, authenticated;
grant execute on function public.expand_bulk_sends to service_role;

-- Whoever is erased leaves no number and no words here.
alter function app.bury_contact(app.erasures) rename to bury_known_contact;
create function app.bury_contact(p_erasure app.erasures)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_contact_ids uuid[];
begin
  perform app.bury_known_contact(p_erasure);
  select e.contact_ids into strict v_contact_ids
  from app.erasures e
  where e.workspace_id = p_erasure.workspace_id
    and e.id = p_erasure.id;
  update public.bulk_recipients r
  set state = case when r.state = 'waiting' then 'erased' else r.state end,
      contact_id = null, wa_id = null, content = null, payload = null
  where r.workspace_id = p_erasure.workspace_id
    and (r.contact_id = any (v_contact_ids) or r.wa_id in (
      select i.value from app.erasure_ids i
      where i.workspace_id = p_erasure.workspace_id and i.erasure_id = p_erasure.id and i.kind = 'person'));
end;
$$;
revoke execute on function app.bury_contact from public;

-- For the send API, which must know a template before it can check values, and when somebody last wrote.

-- A template as Meta keeps it. p_wanted: {template_id} or {channel_id | conversation_id, name, language}.
-- Whether it may be sent is asked when it is: of a request that was made before, it does not matter any more.
-- Refuses: PT404 not theirs, PT422 the account has none of that name.
create function public.template_to_send(p_workspace_id uuid, p_wanted jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  select t.* into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and case
      when p_wanted ? 'template_id' then t.id = (p_wanted ->> 'template_id')::uuid
      else t.template_name = p_wanted ->> 'name' and t.language = p_wanted ->> 'language' and t.waba_id = (
        select c.waba_id
        from public.whatsapp_channels c
        where c.workspace_id = p_workspace_id
          and c.id = coalesce((p_wanted ->> 'channel_id')::uuid, (
            select v.channel_id from public.whatsapp_conversations v
            where v.workspace_id = p_workspace_id and v.id = (p_wanted ->> 'conversation_id')::uuid)))
    end;
  if not found and p_wanted ? 'template_id' then
    raise exception 'template not found' using
      errcode = 'PT404', detail = 'template_not_found', hint = 'It does not exist, or it is not yours.';
  elsif not found then
    raise exception 'there is no such template' using errcode = 'PT422', detail = 'template_not_approved',
      hint = 'The number''s account has no template of this name in this language. Synchronise the templates, or choose another.';
  end if;
  return pg_catalog.to_jsonb(v_template) - 'facts';
end;
$$;
revoke execute on function public.template_to_send from public, anon;
grant execute on function public.template_to_send to authenticated;

-- As what files of ours may be sent: {id: {kind, is_voice}}. What is not there, or not theirs, is left out.
create function public.files_to_send(p_workspace_id uuid, p_media_ids jsonb)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_object_agg(f.id, pg_catalog.jsonb_build_object('kind', f.kind, 'is_voice', f.is_voice)), '{}')
  from public.media f
  where f.workspace_id = p_workspace_id
    and f.id in (select m::uuid from pg_catalog.jsonb_array_elements_text(p_media_ids) m);
$$;
revoke execute on function public.files_to_send from public, anon, service_role;
grant execute on function public.files_to_send to authenticated;

-- Which group a conversation is with: {group_id}, null for a contact; a group takes less than a contact does.
-- Refuses: PT404 unknown or not theirs.
create function public.group_of_conversation(p_workspace_id uuid, p_conversation_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
begin
  select * into v_conversation
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id
    and deleted_at is null;
  if not found then
    raise exception 'conversation not found' using
      errcode = 'PT404', detail = 'conversation_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return pg_catalog.jsonb_build_object('group_id', v_conversation.group_id);
end;
$$;
revoke execute on function public.group_of_conversation from public, anon, service_role;
grant execute on function public.group_of_conversation to authenticated;

-- As reply_window, of whom a message names, whether or not there is a conversation with them yet.
-- p_recipient: {conversation_id} or {channel_id, contact_id} or {channel_id, to: {wa_id | user_id}} or {message_id}: whom
--   that one went to.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer.
create function public.recipient_window(p_workspace_id uuid, p_recipient jsonb)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's: who a number belongs to is asked of app
set search_path = ''
as $$
declare
  v_conversation_id uuid := (p_recipient ->> 'conversation_id')::uuid;
begin
  perform app.check_writer(p_workspace_id, 'conversation');
  if p_recipient ? 'message_id' then
    select m.conversation_id into v_conversation_id
    from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and m.id = (p_recipient ->> 'message_id')::uuid;
  elsif v_conversation_id is null then
    select v.id into v_conversation_id
    from public.whatsapp_conversations v
    join public.whatsapp_channels c on c.workspace_id = v.workspace_id and c.id = v.channel_id
    where v.workspace_id = p_workspace_id
      and v.channel_id = (p_recipient ->> 'channel_id')::uuid
      and v.deleted_at is null
      and v.contact_id = coalesce((p_recipient ->> 'contact_id')::uuid, app.contact_of(
        p_workspace_id, c.portfolio_id, p_recipient #>> '{to,user_id}', p_recipient #>> '{to,wa_id}', pg_catalog.clock_timestamp()));
  end if;
  if v_conversation_id is not null then
    return public.reply_window(p_workspace_id, v_conversation_id);
  end if;
  return pg_catalog.jsonb_build_object(
    'last_inbound_at', null, 'window_expires_at', null, 'server_time', now(),
    'templates', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', t.id, 'template_name', t.template_name, 'language', t.language, 'category', t.category,
        'body_content', t.body_content, 'components', t.components) order by t.usage_count desc, t.template_name, t.language)
      from public.whatsapp_templates t
      join public.whatsapp_channels c on c.workspace_id = t.workspace_id and c.waba_id = t.waba_id
      where t.workspace_id = p_workspace_id
        and c.id = (p_recipient ->> 'channel_id')::uuid
        and t.status = 'approved'
        and t.category is distinct from 'authentication'
    ), '[]'));
end;
$$;
revoke execute on function public.recipient_window from public, anon, service_role;
grant execute on function public.recipient_window to authenticated;
grant execute on function public.reply_window to parley_writer;
select app.give_to_writer('public.recipient_window');

notify pgrst, 'reload schema';
