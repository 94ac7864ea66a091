-- What operators and recorders do again with bodies that were recorded before: look, compare, retry, drop, reroute.
set lock_timeout = '5s';

alter table app.quarantine
  add column dropped_at timestamptz,
  add column dropped_by text; -- who said so: a login of the machine they sat at
create index quarantine_body on app.quarantine (body_id); -- operators know a body by its id

-- When a body was received, by its id: all that its key lacks. Ids begin with the time they were made at; one that was
-- made elsewhere is searched for. Null: unknown, or gone.
create function app.body_received_at(p_body_id uuid)
returns timestamptz
language sql
stable
set search_path = ''
as $$
  with made as (
    select pg_catalog.to_timestamp(
      ('x' || pg_catalog.substr(pg_catalog.replace(p_body_id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0) as at
  )
  select coalesce(
    (select q.body_received_at from app.quarantine q where q.body_id = p_body_id limit 1),
    (select b.received_at from app.webhook_bodies b
     where b.id = p_body_id
       and b.received_at >= (select at from made) - interval '10 seconds'
       and b.received_at <= (select at from made) + interval '10 seconds'),
    (select b.received_at from app.webhook_bodies b where b.id = p_body_id limit 1));
$$;
revoke execute on function app.body_received_at from public;
grant execute on function app.body_received_at to service_role;

-- List what is set aside, newest first, with totals over all of it.
-- p_state: open, retried, dropped or all. p_reason: a reason, or the code before its colon; null: any.
-- Returns {rows: [{body_id, received_at, item, reason, state, set_aside_at, tried_at, has_bytes}],
--   totals: [{reason, state, items, bodies}]}. Called by: python -m services.ingest quarantine.
create function public.list_quarantine(p_state text, p_reason text, p_limit integer)
returns jsonb
language sql
stable
set search_path = ''
as $$
  with wanted as (
    select q.*
    from app.quarantine q
    where (p_state = 'all' or q.state = p_state)
      and (p_reason is null or q.reason = p_reason or pg_catalog.split_part(q.reason, ':', 1) = p_reason)
  ), newest as (
    select w.*, b.recorded_at, pg_catalog.octet_length(b.raw) > 0 as has_bytes
    from (select * from wanted order by body_received_at desc, body_id desc, item limit p_limit) w
    left join app.webhook_bodies b on b.received_at = w.body_received_at and b.id = w.body_id
  )
  select pg_catalog.jsonb_build_object(
    'rows', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'body_id', n.body_id, 'received_at', n.body_received_at, 'item', n.item, 'reason', n.reason, 'state', n.state,
        'set_aside_at', n.created_at, 'tried_at', n.recorded_at, 'has_bytes', coalesce(n.has_bytes, false)
      ) order by n.body_received_at desc, n.body_id desc, n.item), '[]')
      from newest n),
    'totals', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'reason', t.reason, 'state', t.state, 'items', t.items, 'bodies', t.bodies) order by t.items desc, t.reason, t.state), '[]')
      from (
        select w.reason, w.state, count(*) as items, count(distinct w.body_id) as bodies
        from wanted w
        group by w.reason, w.state
      ) t));
$$;
revoke execute on function public.list_quarantine from public, anon, authenticated;
grant execute on function public.list_quarantine to service_role;

-- All that is known of one body, its bytes included: {body: {…, raw (base64)} or null, quarantine: […], changes: […]}.
-- Called by: python -m services.ingest quarantine show.
create function public.show_webhook_body(p_body_id uuid)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_received_at timestamptz := app.body_received_at(p_body_id);
begin
  return pg_catalog.jsonb_build_object(
    'body', (
      select pg_catalog.jsonb_build_object(
        'id', b.id, 'received_at', b.received_at, 'state', b.state, 'items', b.items, 'stored', b.stored, 'duplicate', b.duplicate,
        'unrouted', b.unrouted, 'suppressed', b.suppressed, 'quarantined', b.quarantined, 'recorded_at', b.recorded_at,
        'erased_at', b.erased_at, 'size_bytes', pg_catalog.octet_length(b.raw), 'partition', b.tableoid::regclass::text,
        'raw', pg_catalog.encode(b.raw, 'base64'))
      from app.webhook_bodies b
      where b.received_at = v_received_at
        and b.id = p_body_id),
    'quarantine', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'item', q.item, 'reason', q.reason, 'state', q.state, 'set_aside_at', q.created_at,
        'dropped_at', q.dropped_at, 'dropped_by', q.dropped_by) order by q.item), '[]')
      from app.quarantine q
      where q.body_id = p_body_id),
    'changes', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'field', w.event_type, 'workspace_id', w.workspace_id, 'phone_number_id', w.phone_number_id,
        'waba_id', w.waba_id, 'is_routed', w.processed) order by w.id), '[]')
      from public.whatsapp_webhooks w
      where w.body_received_at = v_received_at
        and w.body_id = p_body_id));
end;
$$;
revoke execute on function public.show_webhook_body from public, anon, authenticated;
grant execute on function public.show_webhook_body to service_role;

-- Give items of a body up: they are no longer open, their bytes stay as long as any. Safe to repeat.
-- p_items: null: every open one. Returns {dropped: [item], left: open items that remain}.
-- Refuses: PT404 no such body in quarantine. Called by: python -m services.ingest quarantine drop.
create function public.drop_quarantined(p_body_id uuid, p_items jsonb, p_by text)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_dropped jsonb;
begin
  if not exists (select from app.quarantine q where q.body_id = p_body_id) then
    raise exception 'nothing of this body is in quarantine' using errcode = 'PT404', detail = 'not_in_quarantine',
      hint = 'Compare the id with: quarantine list --state all';
  end if;
  with dropped as (
    update app.quarantine q
    set state = 'dropped', dropped_at = now(), dropped_by = p_by
    where q.body_id = p_body_id
      and q.state = 'open'
      and (p_items is null or q.item in (select i::integer from pg_catalog.jsonb_array_elements_text(p_items) i))
    returning q.item
  )
  select coalesce(pg_catalog.jsonb_agg(item order by item), '[]') into v_dropped from dropped;
  return pg_catalog.jsonb_build_object(
    'dropped', v_dropped,
    'left', (select count(*) from app.quarantine q where q.body_id = p_body_id and q.state = 'open'));
end;
$$;
revoke execute on function public.drop_quarantined from public, anon, authenticated;
grant execute on function public.drop_quarantined to service_role;

-- Keys of recorded bodies that still have bytes, after a place, up to a time, in key order; null limit: all.
-- p_only: {outcome: unrouted | quarantined, phone_number_id, is_open: true, reason, body_ids: [id]}, each optional.
create function app.wanted_bodies(p_only jsonb, p_after_at timestamptz, p_after_id uuid, p_to timestamptz, p_limit integer)
returns table (received_at timestamptz, id uuid)
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_custom_plan' -- so that partitions and partial indexes are chosen by the values
as $$
declare
  v_outcome text := p_only ->> 'outcome';
  v_is_open boolean := p_only ? 'is_open';
  v_reason text := p_only ->> 'reason';
  v_number bytea := pg_catalog.convert_to(p_only ->> 'phone_number_id', 'UTF8');
begin
  if p_only ? 'body_ids' then
    return query
    select b.received_at, b.id
    from (
      select distinct i::uuid as id, app.body_received_at(i::uuid) as received_at
      from pg_catalog.jsonb_array_elements_text(p_only -> 'body_ids') i
    ) k
    join app.webhook_bodies b on b.received_at = k.received_at and b.id = k.id
    where (b.received_at, b.id) > (p_after_at, p_after_id)
      and pg_catalog.octet_length(b.raw) > 0
    order by b.received_at, b.id
    limit p_limit;
    return;
  end if;
  return query
  select b.received_at, b.id
  from app.webhook_bodies b
  where b.state = 'recorded' -- a new one has not had its first turn yet
    and b.received_at >= p_after_at
    and (b.received_at, b.id) > (p_after_at, p_after_id)
    and b.received_at < p_to
    and (v_outcome is distinct from 'unrouted' or b.unrouted > 0)
    and (v_outcome is distinct from 'quarantined' or b.quarantined > 0)
    and (not v_is_open or exists (
      select from app.quarantine q
      where q.body_received_at = b.received_at
        and q.body_id = b.id
        and q.state = 'open'
        and (v_reason is null or q.reason = v_reason or pg_catalog.split_part(q.reason, ':', 1) = v_reason)))
    and pg_catalog.octet_length(b.raw) > 0
    and (v_number is null or pg_catalog.position(b.raw, v_number) > 0)
  order by b.received_at, b.id
  limit p_limit;
end;
$$;
revoke execute on function app.wanted_bodies from public;
grant execute on function app.wanted_bodies to service_role;

-- Count what read_webhook_bodies would hand out in all. Arguments: as there.
create function public.count_webhook_bodies(p_only jsonb, p_after_at timestamptz, p_after_id uuid, p_to timestamptz)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('bodies', count(*))
  from app.wanted_bodies(p_only, p_after_at, p_after_id, p_to, null);
$$;
revoke execute on function public.count_webhook_bodies from public, anon, authenticated;
grant execute on function public.count_webhook_bodies to service_role;

-- Read recorded bodies in the order of their keys, to record them again. At most p_limit, and no more than p_max_bytes
-- of them (but one). p_only: see app.wanted_bodies. p_after_at, p_after_id: the last key read, excluded.
create function public.read_webhook_bodies(
  p_only jsonb, p_after_at timestamptz, p_after_id uuid, p_to timestamptz, p_limit integer, p_max_bytes integer
)
returns jsonb
language sql
stable
set search_path = ''
as $$
  with page as (
    select b.received_at, b.id, b.raw, b.traceparent,
           sum(pg_catalog.octet_length(b.raw)) over (order by b.received_at, b.id) as through_bytes,
           pg_catalog.row_number() over (order by b.received_at, b.id) as place
    from app.wanted_bodies(p_only, p_after_at, p_after_id, p_to, p_limit) k
    cross join lateral ( -- a probe of one partition each, however many it is thought to be
      select o.* from app.webhook_bodies o where o.received_at = k.received_at and o.id = k.id limit 1
    ) b
  )
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'id', p.id, 'received_at', p.received_at, 'raw', pg_catalog.encode(p.raw, 'base64'), 'traceparent', p.traceparent
  ) order by p.received_at, p.id), '[]')
  from page p
  where p.place = 1
     or p.through_bytes <= p_max_bytes;
$$;
revoke execute on function public.read_webhook_bodies from public, anon, authenticated;
grant execute on function public.read_webhook_bodies to service_role;

-- A row as it is at some moment, to be compared with what it is at another.
create type app.seen_row as (
  relation text,
  key text,
  content jsonb
);

-- The rows a batch is about, as far as its ids lead to them; p_batch as record_webhook_batch has it.
create function app.rows_of_batch(p_batch jsonb)
returns app.seen_row[]
language sql
stable
set search_path = ''
as $$
  with numbers as materialized (
    select n.ordinality - 1 as number, c.workspace_id, c.id as channel_id, c.portfolio_id, c.waba_id
    from pg_catalog.jsonb_array_elements_text(p_batch -> 'numbers') with ordinality n(phone_number_id)
    join public.whatsapp_channels c on c.phone_number_id = n.phone_number_id and c.state <> 'disconnected'
  ), accounts as materialized (
    select n.workspace_id, n.waba_id from numbers n
    union
    select c.workspace_id, c.waba_id
    from pg_catalog.jsonb_array_elements_text(p_batch -> 'accounts') a(waba_id)
    join public.whatsapp_channels c on c.waba_id = a.waba_id and c.state <> 'disconnected'
  ), items as materialized (
    select distinct i.kind, r.workspace_id, r.channel_id, r.portfolio_id, i.wamid, i.key
    from pg_catalog.jsonb_to_recordset(p_batch -> 'items') as i(kind text, number integer, wamid text, key text)
    join numbers r on r.number = i.number
  ), ids as materialized (
    select distinct r.workspace_id, r.portfolio_id, v.kind, v.value
    from pg_catalog.jsonb_to_recordset(p_batch -> 'people') as p(number integer, user_id text, wa_id text, parent_user_id text)
    join numbers r on r.number = p.number
    cross join lateral (values ('bsuid', p.user_id), ('wa_id', p.wa_id), ('parent_bsuid', p.parent_user_id)) v(kind, value)
    where v.value is not null
  ), identities as materialized (
    select c.*
    from ids i
    join public.contact_identities c
      on c.workspace_id = i.workspace_id and c.portfolio_id = i.portfolio_id and c.kind = i.kind and c.value = i.value
  ), messages as materialized (
    select m.*
    from (select distinct i.workspace_id, i.channel_id, i.wamid from items i where i.wamid is not null) i
    join public.whatsapp_messages m on m.workspace_id = i.workspace_id and m.channel_id = i.channel_id and m.wamid = i.wamid
  ), people as materialized (
    select i.workspace_id, i.contact_id from identities i
    union
    select m.workspace_id, m.contact_id from messages m where m.contact_id is not null
  ), bodies as materialized (
    select b.received_at, b.id from pg_catalog.jsonb_to_recordset(p_batch -> 'bodies') as b(id uuid, received_at timestamptz)
  ), seen as (
    select 'whatsapp_messages' as relation, m.id::text as key, pg_catalog.to_jsonb(m) as content from messages m
    union all
    select 'message_states', s.channel_id || ' ' || s.wamid, pg_catalog.to_jsonb(s)
    from (select distinct i.workspace_id, i.channel_id, i.wamid from items i where i.wamid is not null) i
    join app.message_states s on s.workspace_id = i.workspace_id and s.channel_id = i.channel_id and s.wamid = i.wamid
    union all
    select 'message_events', e.channel_id || ' ' || e.wamid || ' ' || e.kind || ' ' || e.key, pg_catalog.to_jsonb(e)
    from items i
    join public.message_events e
      on e.workspace_id = i.workspace_id and e.channel_id = i.channel_id and e.wamid = i.wamid and e.kind = i.kind and e.key = i.key
    union all
    select 'media', f.id::text, pg_catalog.to_jsonb(f)
    from messages m
    join public.media f on f.workspace_id = m.workspace_id and f.message_id = m.id
    union all
    select 'contacts', c.id::text, pg_catalog.to_jsonb(c)
    from people p
    join public.contacts c on c.workspace_id = p.workspace_id and c.id = p.contact_id
    union all
    select 'contact_identities', i.portfolio_id || ' ' || i.kind || ' ' || i.value || ' ' || i.user_id || ' ' || i.workspace_id,
           pg_catalog.to_jsonb(i)
    from identities i
    union all
    select 'identity_changes', c.portfolio_id || ' ' || c.wamid || ' ' || c.workspace_id, pg_catalog.to_jsonb(c)
    from items i
    join app.identity_changes c on c.workspace_id = i.workspace_id and c.portfolio_id = i.portfolio_id and c.wamid = i.key
    where i.kind = 'identity'
    union all
    select 'whatsapp_conversations', v.id::text, pg_catalog.to_jsonb(v)
    from public.whatsapp_conversations v
    where (v.workspace_id, v.id) in (
      select m.workspace_id, m.conversation_id from messages m
      union
      select o.workspace_id, o.id
      from people p
      join public.whatsapp_conversations o on o.workspace_id = p.workspace_id and o.contact_id = p.contact_id)
    union all
    select 'whatsapp_channels', c.id::text, pg_catalog.to_jsonb(c)
    from public.whatsapp_channels c
    where (c.workspace_id, c.waba_id) in (select a.workspace_id, a.waba_id from accounts a)
      and p_batch ? 'account_items'
    union all
    select 'whatsapp_templates', t.id::text, pg_catalog.to_jsonb(t)
    from accounts a
    join public.whatsapp_templates t on t.workspace_id = a.workspace_id and t.waba_id = a.waba_id
    where p_batch ? 'account_items'
    union all
    select 'whatsapp_groups', g.channel_id || ' ' || g.group_id, pg_catalog.to_jsonb(g)
    from numbers n
    join public.whatsapp_groups g on g.workspace_id = n.workspace_id and g.channel_id = n.channel_id
    where p_batch ? 'account_items'
    union all
    select 'account_events', e.id::text, pg_catalog.jsonb_build_object('field', e.field)
    from (
      select distinct a.workspace_id, c.event_type, coalesce(i.sent_at, c.received_at) as at
      from pg_catalog.jsonb_to_recordset(p_batch -> 'account_items') as i(change integer, sent_at timestamptz)
      join pg_catalog.jsonb_to_recordset(p_batch -> 'changes') as c(n integer, event_type text, received_at timestamptz) on c.n = i.change
      cross join accounts a
    ) i
    join public.account_events e on e.workspace_id = i.workspace_id and e.happened_at = i.at and e.field = i.event_type
    union all
    select 'whatsapp_webhooks', w.id::text, pg_catalog.jsonb_build_object('workspace_id', w.workspace_id, 'processed', w.processed)
    from bodies b
    cross join lateral (
      select o.* from public.whatsapp_webhooks o where o.body_received_at = b.received_at and o.body_id = b.id offset 0
    ) w
    union all
    select 'quarantine', q.body_id || ' ' || q.item, pg_catalog.to_jsonb(q)
    from bodies b
    join app.quarantine q on q.body_received_at = b.received_at and q.body_id = b.id
  )
  select pg_catalog.array_agg(row(s.relation, s.key, s.content)::app.seen_row) from seen s;
$$;
revoke execute on function app.rows_of_batch from public;
grant execute on function app.rows_of_batch to service_role;

-- What became of rows, in counts: {relation: {new, changed, gone, columns: {column: rows}}}; never a value.
create function app.rows_differing(p_before app.seen_row[], p_after app.seen_row[])
returns jsonb
language sql
immutable
set search_path = ''
as $$
  with pairs as (
    select coalesce(o.relation, n.relation) as relation, o.content as before, n.content as after
    from pg_catalog.unnest(p_before) o
    full join pg_catalog.unnest(p_after) n on n.relation = o.relation and n.key = o.key
    where o.content is distinct from n.content
  ), columns as (
    select c.relation, pg_catalog.jsonb_object_agg(c.name, c.rows) as columns
    from (
      select p.relation, v.key as name, count(*) as rows
      from pairs p
      cross join lateral pg_catalog.jsonb_each(p.after) v
      where p.before is not null
        and p.after is not null
        and v.value is distinct from p.before -> v.key
      group by p.relation, v.key
    ) c
    group by c.relation
  )
  select coalesce(pg_catalog.jsonb_object_agg(t.relation, pg_catalog.jsonb_build_object(
    'new', t.new, 'changed', t.changed, 'gone', t.gone, 'columns', coalesce(c.columns, '{}'))), '{}')
  from (
    select p.relation,
           count(*) filter (where p.before is null) as new,
           count(*) filter (where p.before is not null and p.after is not null) as changed,
           count(*) filter (where p.after is null) as gone
    from pairs p
    group by p.relation
  ) t
  left join columns c on c.relation = t.relation;
$$;
revoke execute on function app.rows_differing from public;
grant execute on function app.rows_differing to service_role;

-- The account of a batch's bodies, all together.
create function app.account_of_batch(p_batch jsonb)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'items', coalesce(sum(o.items), 0), 'stored', coalesce(sum(o.stored), 0), 'duplicate', coalesce(sum(o.duplicate), 0),
    'unrouted', coalesce(sum(o.unrouted), 0), 'suppressed', coalesce(sum(o.suppressed), 0), 'quarantined', coalesce(sum(o.quarantined), 0))
  from pg_catalog.jsonb_to_recordset(p_batch -> 'bodies') as b(id uuid, received_at timestamptz)
  cross join lateral (
    select x.* from app.webhook_bodies x where x.received_at = b.received_at and x.id = b.id limit 1
  ) o;
$$;
revoke execute on function app.account_of_batch from public;
grant execute on function app.account_of_batch to service_role;

-- Messages that are stored otherwise than the batch has them, by column: an older parser read them so, or Meta sent two
-- that differ. Recording leaves them: a message is what its first copy said. Edited and revoked ones differ on purpose.
create function app.messages_read_otherwise(p_batch jsonb)
returns jsonb
language sql
stable
set search_path = ''
as $$
  with compared as (
    select m.message_type is distinct from i.fields ->> 'message_type' as message_type,
           m.content is distinct from i.fields ->> 'content' as content,
           m.payload is distinct from i.fields -> 'payload' as payload,
           m.reply_to_wamid is distinct from i.fields ->> 'reply_to' as reply_to_wamid
    from pg_catalog.jsonb_to_recordset(p_batch -> 'items') as i(kind text, number integer, wamid text, fields jsonb)
    join public.whatsapp_channels c
      on c.phone_number_id = p_batch -> 'numbers' ->> i.number and c.state <> 'disconnected'
    join public.whatsapp_messages m on m.workspace_id = c.workspace_id and m.channel_id = c.id and m.wamid = i.wamid
    where i.kind = 'message'
      and m.origin = i.fields ->> 'origin'
      and i.fields ->> 'message_type' <> 'media_placeholder' -- history's real message replaced it
      and m.edited_at is null
      and m.revoked_at is null
  )
  select pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'messages', nullif(count(*) filter (where message_type or content or payload or reply_to_wamid), 0),
    'message_type', nullif(count(*) filter (where message_type), 0),
    'content', nullif(count(*) filter (where content), 0),
    'payload', nullif(count(*) filter (where payload), 0),
    'reply_to_wamid', nullif(count(*) filter (where reply_to_wamid), 0)))
  from compared;
$$;
revoke execute on function app.messages_read_otherwise from public;
grant execute on function app.messages_read_otherwise to service_role;

-- Record a batch and say, besides what record_webhook_batch does, what that changed:
-- {before, after: the bodies' account, diff: see app.rows_differing, read_otherwise: see app.messages_read_otherwise}.
-- What others change meanwhile is counted too. Called by: python -m services.ingest replay, quarantine retry.
create function public.record_webhook_batch_diff(p_batch jsonb, p_settle_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_account jsonb := app.account_of_batch(p_batch);
  v_rows app.seen_row[] := app.rows_of_batch(p_batch);
  v_result jsonb;
begin
  v_result := public.record_webhook_batch(p_batch, p_settle_ms);
  return v_result || pg_catalog.jsonb_build_object(
    'before', v_account,
    'after', app.account_of_batch(p_batch),
    'diff', app.rows_differing(v_rows, app.rows_of_batch(p_batch)),
    'read_otherwise', app.messages_read_otherwise(p_batch));
end;
$$;
revoke execute on function public.record_webhook_batch_diff from public, anon, authenticated;
grant execute on function public.record_webhook_batch_diff to service_role;

-- Say what record_webhook_batch_diff would change, and leave everything as it is.
create function public.try_webhook_batch_diff(p_batch jsonb, p_settle_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_result jsonb;
begin
  begin
    v_result := public.record_webhook_batch_diff(p_batch, p_settle_ms);
    raise exception 'only tried' using errcode = 'PT299';
  exception when sqlstate 'PT299' then
    null; -- its rows are undone, the variable is not
  end;
  return v_result;
end;
$$;
revoke execute on function public.try_webhook_batch_diff from public, anon, authenticated;
grant execute on function public.try_webhook_batch_diff to service_role;

-- Hand a recorder bodies with items that went nowhere, and whose number (or account, where the change names no number)
-- is connected by now. They stay its own for p_hold_ms; a body that comes back again and again waits twice as long each
-- time, up to a day. At most p_limit, and no more than p_max_bytes of them (but one).
create function public.claim_reroutable_bodies(p_limit integer, p_max_bytes integer, p_hold_ms integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
set plan_cache_mode = 'force_custom_plan'
as $$
declare
  v_bodies jsonb;
begin
  -- From the connected numbers to what waits for them, each a probe of a small index: what waits for nobody, and may be
  -- a lot, is not looked at.
  with waiting as materialized (
    select w.body_received_at, w.body_id
    from (
      select c.phone_number_id, null::text as waba_id from public.whatsapp_channels c where c.state <> 'disconnected'
      union all
      select null, c.waba_id from public.whatsapp_channels c where c.state <> 'disconnected' group by c.waba_id
    ) c
    cross join lateral (
      select x.body_received_at, x.body_id
      from public.whatsapp_webhooks x
      where not x.processed
        and x.phone_number_id = c.phone_number_id
      union all
      select x.body_received_at, x.body_id
      from public.whatsapp_webhooks x
      where not x.processed
        and x.phone_number_id is null
        and x.waba_id = c.waba_id
    ) w
    join app.webhook_bodies b on b.received_at = w.body_received_at and b.id = w.body_id
    where b.unrouted > 0
      and b.state = 'recorded'
      and b.next_attempt_at <= now()
      and pg_catalog.octet_length(b.raw) > 0
    limit p_limit * 4 -- a body has several changes now and then
  ), due as (
    select b.received_at, b.id, pg_catalog.octet_length(b.raw) as size_bytes
    from app.webhook_bodies b
    where (b.received_at, b.id) in (select w.body_received_at, w.body_id from waiting w)
      and b.unrouted > 0
      and b.next_attempt_at <= now() -- again: another recorder may have just claimed it
    order by b.received_at, b.id
    limit p_limit
    for update skip locked
  ), fitting as (
    select s.received_at, s.id
    from (
      select d.*, sum(d.size_bytes) over (order by d.received_at, d.id) - d.size_bytes as before_bytes
      from due d
    ) s
    where s.before_bytes = 0
       or s.before_bytes + s.size_bytes <= p_max_bytes
  ), claimed as (
    update app.webhook_bodies b
    set attempts = b.attempts + 1,
        next_attempt_at = now() + least(
          pg_catalog.make_interval(secs => p_hold_ms / 1000.0 * (1 << least(b.attempts, 16))), interval '1 day')
    from fitting f
    where b.received_at = f.received_at
      and b.id = f.id
    returning b.id, b.received_at, b.raw, b.attempts, b.traceparent
  )
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'id', c.id,
    'received_at', c.received_at,
    'raw', pg_catalog.encode(c.raw, 'base64'),
    'attempts', c.attempts,
    'traceparent', c.traceparent
  ) order by c.received_at, c.id), '[]')
  into v_bodies
  from claimed c;
  return v_bodies;
end;
$$;
revoke execute on function public.claim_reroutable_bodies from public, anon, authenticated;
grant execute on function public.claim_reroutable_bodies to service_role;

notify pgrst, 'reload schema';
