-- Recording: a batch of webhook bodies in, rows out, in one transaction.
set lock_timeout = '5s';

-- Find or make the contact behind a sender's ids. Caller holds the workspace's row lock.
-- A business-scoped user id is the identity. A phone-derived id alone leads to whoever holds it now; with a new
-- user id it joins only a contact that had no user id yet: otherwise the number was re-used by someone else.
create function app.resolve_contact(
  p_workspace_id uuid, p_portfolio_id text, p_bsuid text, p_wa_id text, p_new_contact_id uuid, p_seen_at timestamptz
)
returns uuid
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_contact_id uuid;
  v_phone_owner uuid;
begin
  select i.contact_id into v_contact_id
  from public.contact_identities i
  where i.workspace_id = p_workspace_id
    and i.portfolio_id = p_portfolio_id
    and i.kind = 'bsuid'
    and i.value = p_bsuid
    and i.valid_to is null;

  select i.contact_id into v_phone_owner
  from public.contact_identities i
  where i.workspace_id = p_workspace_id
    and i.portfolio_id = p_portfolio_id
    and i.kind = 'wa_id'
    and i.value = p_wa_id
    and i.valid_to is null;

  if v_contact_id is null and v_phone_owner is not null and (p_bsuid is null or not exists (
    select from public.contact_identities i
    where i.workspace_id = p_workspace_id
      and i.contact_id = v_phone_owner
      and i.kind = 'bsuid'
  )) then
    v_contact_id := v_phone_owner;
  end if;

  if v_contact_id is null then
    insert into public.contacts (workspace_id, id, first_seen_at)
    values (p_workspace_id, p_new_contact_id, p_seen_at);
    v_contact_id := p_new_contact_id;
  end if;

  if p_bsuid is not null then
    insert into public.contact_identities (workspace_id, portfolio_id, kind, value, contact_id, seen_at)
    values (p_workspace_id, p_portfolio_id, 'bsuid', p_bsuid, v_contact_id, p_seen_at)
    on conflict do nothing;
  end if;

  if p_wa_id is not null and v_phone_owner is distinct from v_contact_id then
    update public.contact_identities
    set valid_to = p_seen_at
    where workspace_id = p_workspace_id
      and portfolio_id = p_portfolio_id
      and kind = 'wa_id'
      and value = p_wa_id
      and valid_to is null;
    insert into public.contact_identities (workspace_id, portfolio_id, kind, value, contact_id, seen_at)
    values (p_workspace_id, p_portfolio_id, 'wa_id', p_wa_id, v_contact_id, p_seen_at)
    on conflict (workspace_id, portfolio_id, kind, value, seen_at, contact_id) do update set valid_to = null;
  end if;

  return v_contact_id;
end;
$$;
revoke execute on function app.resolve_contact from public;
grant execute on function app.resolve_contact to service_role;

-- One inbound message on its way into the tables.
create type app.inbound_item as (
  body_id uuid,
  change integer,
  item integer,
  workspace_id uuid, -- null: no connected channel has that number
  channel_id uuid,
  portfolio_id text,
  ai_enabled boolean,
  message_id uuid,
  contact_id uuid, -- proposed by the caller, replaced by the one found
  conversation_id uuid, -- likewise
  wamid text,
  message_type text,
  content text,
  payload jsonb,
  sent_at timestamptz,
  reply_to_wamid text,
  sender_user_id text,
  sender_wa_id text,
  name text,
  username text,
  group_id text
);

-- Record a batch of webhook bodies. Repeating it, in any order, beside any other recorder, changes nothing more.
-- p_bodies: [{id, received_at, raw (base64; null when the row exists), items,
--   changes: [{phone_number_id, waba_id, event_type, payload, kept}],  kept = items that are neither of the next two
--   messages: [{phone_number_id, change, item, message_id, contact_id, conversation_id, wamid, message_type, content, payload,
--               sent_at, reply_to_wamid, sender_user_id, sender_wa_id, name, username, group_id}],
--   quarantined: [{item, reason}]}]; ids are proposals, used if the row turns out to be new.
-- p_settle_ms: how long a conversation may settle before Claude looks, so that a burst is one call.
-- Returns {stored, duplicate, unrouted, suppressed, quarantined, due}: items by outcome, conversations due.
-- Locks: workspaces (only to make contacts), contacts, conversations, then the rest; each in key order.
create function public.record_webhooks(p_bodies jsonb, p_settle_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_channels public.whatsapp_channels[];
  v_items app.inbound_item[];
  v_inserted uuid[] := '{}'; -- message ids that became rows
  v_due integer := 0;
begin
  -- 1. Route each message by the number of its own change, drop repeats within the batch. The channels are read
  -- once: one that is connected while we are at it must not be there for the account but not for the messages.
  select pg_catalog.array_agg(c)
  into v_channels
  from public.whatsapp_channels c
  where c.state <> 'disconnected'
    and (c.phone_number_id in (
        select x ->> 'phone_number_id' from pg_catalog.jsonb_to_recordset(p_bodies) b(changes jsonb)
        cross join lateral pg_catalog.jsonb_array_elements(b.changes) x)
      or c.waba_id in (
        select x ->> 'waba_id' from pg_catalog.jsonb_to_recordset(p_bodies) b(changes jsonb)
        cross join lateral pg_catalog.jsonb_array_elements(b.changes) x));

  select pg_catalog.array_agg(routed.i order by (routed.i).channel_id, (routed.i).wamid)
  into v_items
  from (
    select distinct on (c.id, m.wamid)
      row(
        b.id, m.change, m.item, c.workspace_id, c.id, c.portfolio_id,
        w.settings -> 'ai_enabled' is distinct from 'false',
        m.message_id, m.contact_id, m.conversation_id, m.wamid, m.message_type, m.content, m.payload, m.sent_at,
        m.reply_to_wamid, m.sender_user_id, m.sender_wa_id, m.name, m.username, m.group_id
      )::app.inbound_item as i
    from pg_catalog.jsonb_to_recordset(p_bodies) as b(id uuid, messages jsonb)
    cross join lateral pg_catalog.jsonb_to_recordset(b.messages) as m(
      phone_number_id text, change integer, item integer, message_id uuid, contact_id uuid, conversation_id uuid, wamid text,
      message_type text, content text, payload jsonb, sent_at timestamptz, reply_to_wamid text,
      sender_user_id text, sender_wa_id text, name text, username text, group_id text)
    join pg_catalog.unnest(v_channels) c
      on c.phone_number_id = m.phone_number_id -- the change's, carried on each message: looking it up there copies the change
    join public.workspaces w on w.id = c.workspace_id
    order by c.id, m.wamid, m.sent_at, m.message_id
  ) routed(i);

  if v_items is not null then
    v_items := app.resolve_contacts(v_items);
    v_items := app.resolve_conversations(v_items);
    v_inserted := app.insert_messages(v_items);
  end if;

  -- 2. What Claude has to look at.
  with due as (
    select distinct m.workspace_id, m.conversation_id
    from public.whatsapp_messages m
    join pg_catalog.unnest(v_items) i on i.workspace_id = m.workspace_id and i.message_id = m.id
    where m.ai_state = 'pending'
      and m.id = any (v_inserted)
  ), queued as (
    insert into app.conversation_work (workspace_id, conversation_id, due_at)
    select workspace_id, conversation_id, now() + pg_catalog.make_interval(secs => p_settle_ms / 1000.0)
    from due
    order by workspace_id, conversation_id
    on conflict (workspace_id, conversation_id) do update
      -- A conversation that waits for its next try keeps its turn: who goes on writing during Claude's bad hour must
      -- not use up the tries of what was written before.
      set due_at = conversation_work.due_at
    returning 1
  )
  select count(*) into v_due from queued;

  return app.account_for_bodies(p_bodies, v_channels, v_inserted) || pg_catalog.jsonb_build_object('due', v_due);
end;
$$;
revoke execute on function public.record_webhooks from public, anon, authenticated;
grant execute on function public.record_webhooks to service_role;

-- Account for every item of every body; a body recorded before keeps the account it has.
-- p_channels: those the batch was routed by. p_inserted: message ids that became rows.
create function app.account_for_bodies(p_bodies jsonb, p_channels public.whatsapp_channels[], p_inserted uuid[])
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_result jsonb;
begin
  with bodies as (
    select *
    from pg_catalog.jsonb_to_recordset(p_bodies) as b(
      id uuid, received_at timestamptz, raw text, items integer, changes jsonb, messages jsonb, quarantined jsonb)
  ), changes as (
    select b.id as body_id, b.received_at, (x.ordinality - 1)::integer as change, x.value as fields, r.workspace_id,
           r.workspace_id is not null as is_routed
    from bodies b
    cross join lateral pg_catalog.jsonb_array_elements(b.changes) with ordinality x
    left join lateral (
      select distinct c.workspace_id
      from pg_catalog.unnest(p_channels) c
      where case when x.value ->> 'phone_number_id' is not null
              then c.phone_number_id = x.value ->> 'phone_number_id'
              else c.waba_id = x.value ->> 'waba_id' -- account-level: everyone on that account
            end
    ) r on true
  ), routes as (
    select distinct body_id, change, is_routed, (fields ->> 'kept')::integer as kept
    from changes
  ), messages as (
    select b.id as body_id,
           count(*) filter (where r.is_routed and m.message_id = any (p_inserted)) as stored,
           count(*) filter (where r.is_routed and m.message_id <> all (p_inserted)) as duplicate,
           count(*) filter (where not r.is_routed) as unrouted
    from bodies b
    cross join lateral pg_catalog.jsonb_to_recordset(b.messages) as m(change integer, message_id uuid)
    join routes r on r.body_id = b.id and r.change = m.change
    group by b.id
  ), kept as (
    select r.body_id,
           coalesce(sum(r.kept) filter (where r.is_routed), 0) as stored,
           coalesce(sum(r.kept) filter (where not r.is_routed), 0) as unrouted
    from routes r
    group by r.body_id
  ), recorded as (
    insert into app.webhook_bodies as b (
      received_at, id, raw, state, items, stored, duplicate, unrouted, suppressed, quarantined, recorded_at)
    select n.received_at, n.id, coalesce(pg_catalog.decode(n.raw, 'base64'), ''), 'recorded', n.items,
           coalesce(m.stored, 0) + coalesce(k.stored, 0),
           coalesce(m.duplicate, 0),
           coalesce(m.unrouted, 0) + coalesce(k.unrouted, 0),
           0,
           pg_catalog.jsonb_array_length(n.quarantined),
           now()
    from bodies n
    left join messages m on m.body_id = n.id
    left join kept k on k.body_id = n.id
    order by n.received_at, n.id
    on conflict (received_at, id) do update
      set state = 'recorded', items = excluded.items, stored = excluded.stored, duplicate = excluded.duplicate,
          unrouted = excluded.unrouted, suppressed = excluded.suppressed, quarantined = excluded.quarantined,
          recorded_at = now()
      where b.state <> 'recorded'
    returning b.id, b.received_at, b.stored, b.duplicate, b.unrouted, b.suppressed, b.quarantined
  ), logged as (
    insert into public.whatsapp_webhooks (
      id, workspace_id, event_type, payload, processed, phone_number_id, body_received_at, body_id)
    select pg_catalog.gen_random_uuid(), c.workspace_id, c.fields ->> 'event_type', c.fields -> 'payload', c.is_routed,
           c.fields ->> 'phone_number_id', c.received_at, c.body_id
    from changes c
    join recorded r on r.id = c.body_id
  ), isolated as (
    insert into app.quarantine (body_received_at, body_id, item, reason)
    select b.received_at, b.id, q.item, q.reason
    from bodies b
    join recorded r on r.id = b.id
    cross join lateral pg_catalog.jsonb_to_recordset(b.quarantined) as q(item integer, reason text)
    on conflict do nothing
  )
  select pg_catalog.jsonb_build_object(
    'stored', coalesce(sum(r.stored), 0),
    'duplicate', coalesce(sum(r.duplicate), 0),
    'unrouted', coalesce(sum(r.unrouted), 0),
    'suppressed', coalesce(sum(r.suppressed), 0),
    'quarantined', coalesce(sum(r.quarantined), 0)
  ) into v_result
  from recorded r;

  return v_result;
end;
$$;
revoke execute on function app.account_for_bodies from public;
grant execute on function app.account_for_bodies to service_role;

-- Give every item its contact; keep each contact's newest profile.
create function app.resolve_contacts(p_items app.inbound_item[])
returns app.inbound_item[]
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_unknown app.inbound_item[];
  v_items app.inbound_item[];
  v_item app.inbound_item;
begin
  -- Known senders, by far the most, take no workspace lock.
  select pg_catalog.array_agg(s order by s.workspace_id, s.sent_at, s.wamid)
  into v_unknown
  from pg_catalog.unnest(p_items) s
  where (s.sender_user_id is not null and not exists (
      select from public.contact_identities i
      where i.workspace_id = s.workspace_id and i.portfolio_id = s.portfolio_id
        and i.kind = 'bsuid' and i.value = s.sender_user_id and i.valid_to is null))
    or (s.sender_wa_id is not null and not exists (
      select from public.contact_identities i
      where i.workspace_id = s.workspace_id and i.portfolio_id = s.portfolio_id
        and i.kind = 'wa_id' and i.value = s.sender_wa_id and i.valid_to is null
        and (s.sender_user_id is null or exists (
          select from public.contact_identities j
          where j.workspace_id = s.workspace_id and j.portfolio_id = s.portfolio_id
            and j.kind = 'bsuid' and j.value = s.sender_user_id and j.valid_to is null
            and j.contact_id = i.contact_id))));

  if v_unknown is not null then
    perform 1
    from public.workspaces w
    where w.id in (select u.workspace_id from pg_catalog.unnest(v_unknown) u)
    order by w.id
    for no key update;

    foreach v_item in array v_unknown loop
      perform app.resolve_contact(
        v_item.workspace_id, v_item.portfolio_id, v_item.sender_user_id, v_item.sender_wa_id,
        v_item.contact_id, v_item.sent_at);
    end loop;
  end if;

  select pg_catalog.array_agg(
    row(
      s.body_id, s.change, s.item, s.workspace_id, s.channel_id, s.portfolio_id, s.ai_enabled, s.message_id,
      coalesce(b.contact_id, p.contact_id), s.conversation_id, s.wamid, s.message_type, s.content, s.payload,
      s.sent_at, s.reply_to_wamid, s.sender_user_id, s.sender_wa_id, s.name, s.username, s.group_id
    )::app.inbound_item order by s.channel_id, s.wamid)
  into v_items
  from pg_catalog.unnest(p_items) s
  left join public.contact_identities b
    on b.workspace_id = s.workspace_id and b.portfolio_id = s.portfolio_id
   and b.kind = 'bsuid' and b.value = s.sender_user_id and b.valid_to is null
  left join public.contact_identities p
    on p.workspace_id = s.workspace_id and p.portfolio_id = s.portfolio_id
   and p.kind = 'wa_id' and p.value = s.sender_wa_id and p.valid_to is null;

  -- Latest (Meta time, value) wins, so that order of arrival does not matter.
  with profiles as (
    select distinct on (i.workspace_id, i.contact_id) i.workspace_id, i.contact_id, i.sent_at, i.name, i.username
    from pg_catalog.unnest(v_items) i
    where i.name is not null or i.username is not null
    order by i.workspace_id, i.contact_id, i.sent_at desc, i.name desc nulls last, i.username desc nulls last
  ), newer as (
    select c.workspace_id, c.id, p.sent_at, p.name, p.username
    from profiles p
    join public.contacts c on c.workspace_id = p.workspace_id and c.id = p.contact_id
    where c.profile_seen_at is null
       or ((c.name is distinct from p.name or c.username is distinct from p.username)
           and (p.sent_at, coalesce(p.name, ''), coalesce(p.username, ''))
             > (c.profile_seen_at, coalesce(c.name, ''), coalesce(c.username, '')))
    order by c.workspace_id, c.id
    for no key update of c
  )
  update public.contacts c
  set name = n.name, username = n.username, profile_seen_at = n.sent_at
  from newer n
  where c.workspace_id = n.workspace_id
    and c.id = n.id;

  return v_items;
end;
$$;
revoke execute on function app.resolve_contacts from public;
grant execute on function app.resolve_contacts to service_role;

-- Give every item its live conversation, opening those that are missing; leaves them locked.
create function app.resolve_conversations(p_items app.inbound_item[])
returns app.inbound_item[]
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_items app.inbound_item[];
begin
  insert into public.whatsapp_conversations (workspace_id, id, channel_id, contact_id, group_id, last_message_at)
  select distinct on (i.workspace_id, i.channel_id, i.group_id, case when i.group_id is null then i.contact_id end)
    i.workspace_id, i.conversation_id, i.channel_id, case when i.group_id is null then i.contact_id end, i.group_id, i.sent_at
  from pg_catalog.unnest(p_items) i
  where not exists (
    select from public.whatsapp_conversations c
    where c.workspace_id = i.workspace_id and c.channel_id = i.channel_id and c.deleted_at is null
      and (c.contact_id = i.contact_id and i.group_id is null or c.group_id = i.group_id))
  order by i.workspace_id, i.channel_id, i.group_id, case when i.group_id is null then i.contact_id end, i.sent_at
  on conflict do nothing;

  select pg_catalog.array_agg(
    row(
      i.body_id, i.change, i.item, i.workspace_id, i.channel_id, i.portfolio_id, i.ai_enabled, i.message_id,
      i.contact_id, c.id, i.wamid, i.message_type, i.content, i.payload, i.sent_at, i.reply_to_wamid,
      i.sender_user_id, i.sender_wa_id, i.name, i.username, i.group_id
    )::app.inbound_item order by i.channel_id, i.wamid)
  into v_items
  from pg_catalog.unnest(p_items) i
  join public.whatsapp_conversations c
    on c.workspace_id = i.workspace_id and c.channel_id = i.channel_id and c.deleted_at is null
   and (c.contact_id = i.contact_id and i.group_id is null or c.group_id = i.group_id);

  perform 1
  from public.whatsapp_conversations c
  where (c.workspace_id, c.id) in (select i.workspace_id, i.conversation_id from pg_catalog.unnest(v_items) i)
  order by c.workspace_id, c.id
  for no key update;

  return v_items;
end;
$$;
revoke execute on function app.resolve_conversations from public;
grant execute on function app.resolve_conversations to service_role;

-- Insert the messages we do not have, give each its place, move the conversations on. Conversations are locked.
-- Returns the ids that became rows.
create function app.insert_messages(p_items app.inbound_item[])
returns uuid[]
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_inserted uuid[];
begin
  with fresh as (
    select i.*
    from pg_catalog.unnest(p_items) i
    where not exists (
      select from public.whatsapp_messages m
      where m.workspace_id = i.workspace_id and m.channel_id = i.channel_id and m.wamid = i.wamid)
  ), inserted as (
    insert into public.whatsapp_messages (
      workspace_id, id, conversation_id, channel_id, contact_id, phone_number, direction, message_type, content,
      wamid, seq, payload, sent_at, reply_to_wamid, sender_wa_id, sender_user_id, ai_state, ai_reason)
    select
      f.workspace_id, f.message_id, f.conversation_id, f.channel_id, f.contact_id, f.sender_wa_id, 'inbound',
      f.message_type, f.content, f.wamid,
      c.next_seq - 1 + pg_catalog.row_number() over (
        partition by f.workspace_id, f.conversation_id order by f.sent_at, f.wamid),
      f.payload, f.sent_at, f.reply_to_wamid, f.sender_wa_id, f.sender_user_id,
      case when a.reason is null then 'pending' else 'skipped' end, a.reason
    from fresh f
    join public.whatsapp_conversations c on c.workspace_id = f.workspace_id and c.id = f.conversation_id
    cross join lateral (
      select case
        when not f.ai_enabled then 'ai_off'
        when c.status = 'blocked' then 'blocked'
        when f.message_type <> 'text' then 'unsupported_type'
        when coalesce(f.content, '') = '' then 'empty'
      end as reason
    ) a
    on conflict (workspace_id, channel_id, wamid) do nothing
    returning workspace_id, id, conversation_id, seq, sent_at, phone_number
  ), moved as (
    select n.workspace_id, n.conversation_id, max(n.seq) as last_seq, max(n.sent_at) as last_at, count(*) as arrived,
           (pg_catalog.array_agg(n.phone_number order by n.sent_at desc) filter (where n.phone_number is not null))[1] as phone_number
    from inserted n
    group by n.workspace_id, n.conversation_id
  ), counted as (
    update public.whatsapp_conversations c
    set next_seq = m.last_seq + 1,
        unread_count = c.unread_count + m.arrived,
        last_message_at = greatest(c.last_message_at, m.last_at),
        last_inbound_at = greatest(c.last_inbound_at, m.last_at),
        window_expires_at = greatest(c.last_inbound_at, m.last_at) + interval '24 hours',
        phone_number = case when c.group_id is null then coalesce(m.phone_number, c.phone_number) end
    from moved m
    where c.workspace_id = m.workspace_id
      and c.id = m.conversation_id
  )
  select coalesce(pg_catalog.array_agg(n.id), '{}') into v_inserted from inserted n;
  return v_inserted;
end;
$$;
revoke execute on function app.insert_messages from public;
grant execute on function app.insert_messages to service_role;

-- Set a whole body aside that the database refuses: its bytes are kept, its reason is on the row.
create function public.quarantine_webhook(
  p_body_id uuid, p_received_at timestamptz, p_raw text, p_items integer, p_reason text
)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
begin
  insert into app.webhook_bodies as b (received_at, id, raw, state, items, quarantined, recorded_at)
  values (p_received_at, p_body_id, coalesce(pg_catalog.decode(p_raw, 'base64'), ''), 'recorded', p_items, p_items, now())
  on conflict (received_at, id) do update
    set state = 'recorded', items = excluded.items, quarantined = excluded.quarantined, recorded_at = now()
    where b.state <> 'recorded';
  if found then
    insert into app.quarantine (body_received_at, body_id, item, reason)
    select p_received_at, p_body_id, i, p_reason
    from pg_catalog.generate_series(0, p_items - 1) i
    on conflict do nothing;
  end if;
  return pg_catalog.jsonb_build_object('quarantined', p_items);
end;
$$;
revoke execute on function public.quarantine_webhook from public, anon, authenticated;
grant execute on function public.quarantine_webhook to service_role;

notify pgrst, 'reload schema';
