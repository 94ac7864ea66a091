-- What recording does for sending: a status with our callback data settles its attempt, a failure asks for what follows,
-- and a customer's message is marked read.
set lock_timeout = '5s';

-- Settle the attempts that statuses name, and ask for what their failures entail. Their states are locked.
-- Statuses match by callback data within the channel first (<message id>.<attempt>); by wamid they match later.
create function app.settle_by_status(p_items app.batch_item[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_settled app.settled_send[];
begin
  -- All of ours they tell of, at once and in key order: settling locks some here, applying states the others later.
  perform 1
  from (
    select i.workspace_id, (i.fields ->> 'message_id')::uuid as id
    from pg_catalog.unnest(p_items) i
    where i.fields ? 'message_id'
    union
    select m.workspace_id, m.id
    from pg_catalog.unnest(p_items) i
    join public.whatsapp_messages m on m.workspace_id = i.workspace_id and m.channel_id = i.channel_id and m.wamid = i.wamid
    where i.rank is not null
    order by 1, 2
    offset 0
  ) t
  cross join lateral (
    select from public.whatsapp_messages m where m.workspace_id = t.workspace_id and m.id = t.id for no key update
  ) locked;
  if exists (select from pg_catalog.unnest(p_items) i where i.fields ? 'message_id') then
    select pg_catalog.array_agg(distinct row(a.workspace_id, a.message_id, a.attempt, i.wamid, i.kind not in ('sent', 'failed', 'delivered', 'read', 'played'))::app.settled_send)
    into v_settled
    from pg_catalog.unnest(p_items) i
    join app.send_attempts a
      on a.workspace_id = i.workspace_id
     and a.message_id = (i.fields ->> 'message_id')::uuid
     and a.attempt = (i.fields ->> 'attempt')::integer
    join public.whatsapp_messages m on m.workspace_id = a.workspace_id and m.id = a.message_id and m.channel_id = i.channel_id
    where i.fields ? 'message_id'
      and a.wamid is null;
    if v_settled is not null then
      perform app.settle_sends(v_settled, 'status');
    end if;
  end if;

  -- Meta had it held back, and now says what became of it.
  update public.whatsapp_messages m
  set sending = null
  from pg_catalog.unnest(p_items) i
  where i.rank > 0
    and m.workspace_id = i.workspace_id
    and m.channel_id = i.channel_id
    and m.wamid = i.wamid
    and m.sending ->> 'reason' = 'held';

  perform app.queue_chore(
    m.workspace_id, m.channel_id, 'aftermath',
    pg_catalog.jsonb_build_object('then', f.then_do, 'reason', f.reason), 1::smallint, interval '1 day', p_message_id => m.id)
  from (
    select distinct i.workspace_id, i.channel_id, i.wamid, i.fields ->> 'then' as then_do, i.fields #>> '{error,reason}' as reason
    from pg_catalog.unnest(p_items) i
    where i.kind = 'failed'
      and i.fields ? 'then'
  ) f
  join public.whatsapp_messages m
    on m.workspace_id = f.workspace_id and m.channel_id = f.channel_id and m.wamid = f.wamid and m.direction = 'outbound'
  -- Told before: done before.
  where not exists (
    select from public.message_events e
    where e.workspace_id = f.workspace_id and e.channel_id = f.channel_id and e.wamid = f.wamid and e.kind = 'failed');
end;
$$;
revoke execute on function app.settle_by_status from public;
grant execute on function app.settle_by_status to service_role;

alter function app.fold_states(app.batch_item[]) rename to fold_told_states;
-- Fold what the batch tells of each message into its state, and settle the sends it tells of.
create function app.fold_states(p_items app.batch_item[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform app.fold_told_states(p_items);
  if exists (select from pg_catalog.unnest(p_items) i where i.fields ?| array['message_id', 'then']) then
    perform app.settle_by_status(p_items);
  end if;
end;
$$;
revoke execute on function app.fold_states from public;
grant execute on function app.fold_states to service_role;

alter function app.keep_messages(app.batch_item[], app.batch_route[], uuid[], uuid[]) rename to keep_told_messages;
-- Insert the messages we do not have, as before, and have customers' new ones marked read, where that is wished on receipt.
create function app.keep_messages(
  p_items app.batch_item[], p_routes app.batch_route[], p_contacts uuid[], p_conversations uuid[]
)
returns app.batch_outcome
language plpgsql
set search_path = ''
as $$
declare
  v_outcome app.batch_outcome := app.keep_told_messages(p_items, p_routes, p_contacts, p_conversations);
begin
  if v_outcome.message_ids <> '{}' and exists (
    select from pg_catalog.unnest(p_routes) r
    join app.channel_tokens t on t.workspace_id = r.workspace_id and t.channel_id = r.channel_id)
  then
    perform app.queue_chore(n.workspace_id, n.channel_id, 'mark_read', '{}', 3::smallint, interval '1 day', p_lane => n.conversation_id)
    from (
      select distinct m.workspace_id, m.channel_id, m.conversation_id
      from pg_catalog.unnest(p_routes) r
      join app.channel_tokens t on t.workspace_id = r.workspace_id and t.channel_id = r.channel_id
      join public.workspaces w on w.id = r.workspace_id and coalesce(w.settings ->> 'mark_read', 'on_receipt') = 'on_receipt'
      cross join pg_catalog.unnest(v_outcome.message_ids) k(id)
      cross join lateral (
        select x.workspace_id, x.channel_id, x.conversation_id, x.direction, x.origin, x.suppressed_at, x.revoked_at
        from public.whatsapp_messages x
        where x.workspace_id = r.workspace_id
          and x.id = k.id
        offset 0
      ) m
      where m.channel_id = r.channel_id
        and m.direction = 'inbound'
        and m.origin = 'live'
        and m.suppressed_at is null
        and m.revoked_at is null
      order by 1, 3
    ) n;
  end if;
  return v_outcome;
end;
$$;
revoke execute on function app.keep_messages from public;
grant execute on function app.keep_messages to service_role;

notify pgrst, 'reload schema';
