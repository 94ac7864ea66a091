-- What people and Claude see of what intake records: reactions, files, edits and revokes; nothing that is suppressed.
-- (These replace functions of the same signature: what was there stays, fields are added.)
set lock_timeout = '5s';

-- One message as the API shows it, with what Claude made of it and where that rests.
create or replace function public.message_json(p_message public.whatsapp_messages)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_message.id,
    'conversation_id', p_message.conversation_id,
    'contact_id', p_message.contact_id,
    'seq', p_message.seq,
    'wamid', p_message.wamid,
    'direction', p_message.direction,
    'message_type', p_message.message_type,
    'content', p_message.content,
    'status', p_message.status,
    'sent_at', p_message.sent_at,
    'reply_to_wamid', p_message.reply_to_wamid,
    'origin', p_message.origin,
    'edited_at', p_message.edited_at,
    'revoked_at', p_message.revoked_at,
    'error', p_message.error,
    'payload', p_message.payload, -- places, cards, orders, the advertisement they came from, what was forwarded
    'reactions', coalesce((
      -- The latest of each person; one of ours has no contact.
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'contact_id', r.contact_id, 'emoji', r.emoji, 'sent_at', r.sent_at) order by r.sent_at, r.emoji)
      from (
        select distinct on (e.contact_id) e.contact_id, e.payload ->> 'emoji' as emoji, e.sent_at
        from public.message_events e
        where e.workspace_id = p_message.workspace_id
          and e.channel_id = p_message.channel_id
          and e.wamid = p_message.wamid
          and e.kind = 'reaction'
        order by e.contact_id, e.sent_at desc, e.payload ->> 'emoji' desc
      ) r
      where r.emoji <> ''
    ), '[]'),
    'media', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', f.id, 'kind', f.kind, 'mime_type', f.mime_type, 'filename', f.filename, 'size_bytes', f.size_bytes,
        'is_voice', f.is_voice, 'is_animated', f.is_animated, 'state', f.state) order by f.created_at, f.id)
      from public.media f
      where f.workspace_id = p_message.workspace_id
        and f.message_id = p_message.id
    ), '[]'),
    'sentiment', p_message.sentiment,
    'sentiment_score', p_message.sentiment_score,
    'intent', p_message.intent,
    'ai_summary', p_message.ai_summary,
    'suggested_response', p_message.suggested_response,
    'priority', p_message.priority,
    'language', p_message.language,
    'analysed_at', p_message.analysed_at,
    'analysis', pg_catalog.jsonb_build_object(
      'state', p_message.ai_state,
      'reason', p_message.ai_reason,
      'fields', a.result,
      'model', a.model,
      'prompt_version', a.prompt_version,
      'input_tokens', a.input_tokens,
      'output_tokens', a.output_tokens,
      'cost_usd', a.cost_usd,
      'latency_ms', a.latency_ms
    ),
    'created_at', p_message.created_at
  )
  from (select) one
  left join lateral (
    select *
    from public.message_analyses m
    where m.workspace_id = p_message.workspace_id
      and m.message_id = p_message.id
      and m.content_version = p_message.content_version
    order by m.created_at desc
    limit 1
  ) a on true;
$$;

-- A workspace's conversations, newest first.
-- p_cursor: next_cursor of the page before, null for the first. p_limit: 1 to 100.
-- Refuses: PT404 unknown or not theirs, PT422 a cursor or limit we did not issue.
create or replace function public.list_conversations(p_workspace_id uuid, p_limit integer default 50, p_cursor text default null)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_before_at timestamptz := 'infinity';
  v_before_id uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  v_page jsonb;
begin
  if not exists (select from public.workspaces where id = p_workspace_id) then
    raise exception 'workspace not found' using
      errcode = 'PT404', detail = 'workspace_not_found', hint = 'It does not exist, or it is not yours. GET /api/me lists yours.';
  end if;
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
    select c.*
    from public.whatsapp_conversations c
    where c.workspace_id = p_workspace_id
      and c.status <> 'deleted'
      and (c.last_message_at, c.id) < (v_before_at, v_before_id)
    order by c.last_message_at desc, c.id desc
    limit p_limit + 1
  ), numbered as (
    select p.*, pg_catalog.row_number() over (order by p.last_message_at desc, p.id desc) as n
    from page p
  )
  select pg_catalog.jsonb_build_object(
    'items', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'id', c.id,
      'workspace_id', c.workspace_id,
      'channel_id', c.channel_id,
      'contact', case when k.id is not null then pg_catalog.jsonb_build_object(
        'id', k.id, 'name', k.name, 'username', k.username, 'phone_number', c.phone_number) end,
      'group_id', c.group_id,
      'status', c.status,
      'assigned_to', c.assigned_to,
      'unread_count', c.unread_count,
      'last_message_at', c.last_message_at,
      'window_expires_at', c.window_expires_at,
      'next_seq', c.next_seq,
      'read_seq', c.read_seq,
      'last_message', case when l.id is not null then pg_catalog.jsonb_build_object(
        'id', l.id, 'direction', l.direction, 'message_type', l.message_type,
        'preview', pg_catalog.left(l.content, 160), 'status', l.status, 'sent_at', l.sent_at,
        'revoked_at', l.revoked_at) end,
      'sentiment', a.sentiment,
      'intent', a.intent,
      'priority', a.priority,
      'created_at', c.created_at
    ) order by c.n) filter (where c.n <= p_limit), '[]'),
    'next_cursor', (
      select pg_catalog.trunc(extract(epoch from e.last_message_at) * 1000000)::bigint || '_' || e.id
      from numbered e
      where e.n = p_limit
        and exists (select from numbered more where more.n > p_limit)
    ),
    'server_time', now()
  ) into v_page
  from numbered c
  left join public.contacts k on k.workspace_id = c.workspace_id and k.id = c.contact_id
  left join lateral (
    select m.id, m.direction, m.message_type, m.content, m.status, m.sent_at, m.revoked_at
    from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and m.conversation_id = c.id
      and m.suppressed_at is null
    order by m.seq desc
    limit 1
  ) l on true
  left join lateral (
    -- the newest message Claude has understood; "newest" is bounded so that a long silent tail costs nothing
    select r.sentiment, r.intent, r.priority
    from (
      select m.seq, m.ai_state, m.sentiment, m.intent, m.priority
      from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id
        and m.conversation_id = c.id
      order by m.seq desc
      limit 20
    ) r
    where r.ai_state = 'done'
    order by r.seq desc
    limit 1
  ) a on true;
  return v_page;
end;
$$;

-- A conversation's messages. Newest first by default or before p_before; oldest first after p_after (for polling).
-- p_before, p_after: a seq; at most one of them. p_limit: 1 to 100.
-- Refuses: PT404 unknown or not theirs, PT422 limit or both ends given.
create or replace function public.list_messages(
  p_workspace_id uuid, p_conversation_id uuid, p_limit integer default 50,
  p_before bigint default null, p_after bigint default null
)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_rows public.whatsapp_messages[];
  v_more boolean;
begin
  if not exists (
    select from public.whatsapp_conversations
    where workspace_id = p_workspace_id
      and id = p_conversation_id
      and deleted_at is null
  ) then
    raise exception 'conversation not found' using
      errcode = 'PT404', detail = 'conversation_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  if p_limit is null or p_limit not between 1 and 100 then
    raise exception 'limit out of range' using
      errcode = 'PT422', detail = 'bad_limit', hint = 'Ask for 1 to 100 at a time.';
  end if;
  if p_before is not null and p_after is not null then
    raise exception 'both before and after given' using
      errcode = 'PT422', detail = 'bad_range', hint = 'Give before or after, not both.';
  end if;

  if p_after is not null then
    v_rows := array(
      select m from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id and m.conversation_id = p_conversation_id and m.seq > p_after
        and m.suppressed_at is null
      order by m.seq limit p_limit + 1);
  else
    v_rows := array(
      select m from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id and m.conversation_id = p_conversation_id
        and m.seq < coalesce(p_before, 9223372036854775807)
        and m.suppressed_at is null
      order by m.seq desc limit p_limit + 1);
  end if;

  v_more := coalesce(pg_catalog.array_length(v_rows, 1), 0) > p_limit;
  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(public.message_json(v_rows[n]) order by n)
      from pg_catalog.generate_subscripts(v_rows, 1) n
      where n <= p_limit
    ), '[]'),
    'next_cursor', case when v_more then (v_rows[p_limit]).seq end,
    'server_time', now()
  );
end;
$$;

-- Open an attempt under a lease and return what Claude needs for it; null when nothing is pending any more.
-- The lock on the work row is the caller's.
-- Writes: analysis_attempts, and one try more on each message it is about.
create or replace function app.open_analysis_attempt(p_workspace_id uuid, p_conversation_id uuid, p_max_messages integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_work app.conversation_work;
  v_new jsonb;
  v_ids uuid[];
  v_first_seq bigint;
  v_attempt_id bigint;
  v_context jsonb;
begin
  select * into strict v_work
  from app.conversation_work
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id;

  -- Blocked, or AI switched off, since the message was recorded.
  update public.whatsapp_messages m
  set ai_state = 'skipped',
      ai_reason = case when c.status = 'blocked' then 'blocked' else 'ai_off' end
  from public.whatsapp_conversations c
  join public.workspaces w on w.id = c.workspace_id
  where c.workspace_id = p_workspace_id
    and c.id = p_conversation_id
    and (c.status = 'blocked' or w.settings -> 'ai_enabled' = 'false')
    and m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
    and m.ai_state = 'pending';

  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
           'message_id', m.id, 'seq', m.seq, 'content', m.content,
           'content_version', m.content_version, 'sent_at', m.sent_at, 'attempt', m.ai_attempts + 1
         ) order by m.seq),
         pg_catalog.array_agg(m.id),
         min(m.seq)
  into v_new, v_ids, v_first_seq
  from (
    select *
    from public.whatsapp_messages
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id
      and ai_state = 'pending'
    order by seq
    limit case when v_work.isolate then 1 else p_max_messages end
  ) m;

  if v_new is null then
    return null;
  end if;

  update public.whatsapp_messages
  set ai_attempts = ai_attempts + 1
  where workspace_id = p_workspace_id
    and id = any (v_ids);

  insert into app.analysis_attempts (workspace_id, conversation_id, message_ids)
  values (p_workspace_id, p_conversation_id, v_ids)
  returning id into v_attempt_id;

  select pg_catalog.jsonb_build_object(
    'workspace_id', w.id,
    'conversation_id', c.id,
    'lease_token', v_work.lease_token,
    'attempt_id', v_attempt_id,
    'settings', w.settings,
    'window_expires_at', c.window_expires_at,
    'new_messages', v_new,
    'history', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'direction', h.direction, 'content', h.content, 'sent_at', h.sent_at) order by h.seq), '[]')
      from (
        select direction, content, sent_at, seq
        from public.whatsapp_messages
        where workspace_id = p_workspace_id
          and conversation_id = p_conversation_id
          and seq < v_first_seq
          and content is not null -- revoked ones have none
          and suppressed_at is null
          and ai_state <> 'failed' -- what Claude refused alone would be refused again as context
        order by seq desc
        limit 20 -- enough to tell "yes, that one" from noise; more costs tokens on every message
      ) h
    )
  ) into v_context
  from public.whatsapp_conversations c
  join public.workspaces w on w.id = c.workspace_id
  where c.workspace_id = p_workspace_id
    and c.id = p_conversation_id;
  return v_context;
end;
$$;

-- A workspace's numbers: their state, and how far behind Meta each is.
-- Refuses: PT404 unknown or not theirs.
create function public.list_channels(p_workspace_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  if not exists (select from public.workspaces where id = p_workspace_id) then
    raise exception 'workspace not found' using
      errcode = 'PT404', detail = 'workspace_not_found', hint = 'It does not exist, or it is not yours. GET /api/me lists yours.';
  end if;
  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', c.id, 'workspace_id', c.workspace_id, 'display_phone_number', c.display_phone_number, 'waba_id', c.waba_id,
        'phone_number_id', c.phone_number_id, 'state', c.state, 'quality', c.quality, 'tier_mps', c.tier_mps,
        'messaging_limit', c.messaging_limit, 'verified_name', c.verified_name, 'hold_reason', c.hold_reason,
        'newest_sent_at', k.newest_sent_at, 'recorded_at', k.recorded_at,
        'lag_ms', pg_catalog.round(greatest(0, extract(epoch from k.recorded_at - k.newest_sent_at)) * 1000)::bigint
      ) order by c.display_phone_number, c.id)
      from public.whatsapp_channels c
      left join public.channel_intake k on k.workspace_id = c.workspace_id and k.channel_id = c.id
      where c.workspace_id = p_workspace_id
    ), '[]'),
    'server_time', now());
end;
$$;
revoke execute on function public.list_channels from public, anon;
grant execute on function public.list_channels to authenticated;

-- What an operator watches of intake. Called by: the recorder, for its metrics.
create function public.intake_health()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'bodies_waiting', (select count(*) from app.webhook_bodies where state = 'new'),
    'bodies_unrouted', (select count(*) from app.webhook_bodies where unrouted > 0),
    'quarantine_open', (select count(*) from app.quarantine where state = 'open'),
    'account_mismatches', (
      -- The check on the table holds this at 0; counted all the same, since it is the promise.
      select count(*) from app.webhook_bodies
      where state = 'recorded' and received_at > now() - interval '10 minutes'
        and items <> stored + duplicate + unrouted + suppressed + quarantined),
    'deadlocks', (select d.deadlocks from pg_catalog.pg_stat_database d where d.datname = pg_catalog.current_database()),
    'slowest_channel_lag_ms', (
      select coalesce(max(pg_catalog.round(greatest(0, extract(epoch from k.recorded_at - k.newest_sent_at)) * 1000)), 0)
      from public.channel_intake k
      where k.recorded_at > now() - interval '1 minute'));
$$;
revoke execute on function public.intake_health from public, anon, authenticated;
grant execute on function public.intake_health to service_role;

notify pgrst, 'reload schema';

-- Claim conversations that are due, taking turns among workspaces, and open an attempt for each: as before, but passing
-- over those a recorder holds. So whoever holds a conversation holds its work, and nobody locks the two in another order.
create or replace function public.claim_conversation_work(
  p_limit integer, p_lease_ms integer, p_max_messages integer, p_max_attempts integer
)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_row record;
  v_was_lost boolean;
  v_context jsonb;
  v_claimed jsonb := '[]';
  v_next_due_in_ms bigint;
begin
  for v_row in
    with recursive waiting(workspace_id) as (
      -- one index probe per workspace, not one per row
      (select w.workspace_id from app.conversation_work w order by w.workspace_id limit 1)
      union all
      select (select w.workspace_id from app.conversation_work w where w.workspace_id > waiting.workspace_id
              order by w.workspace_id limit 1)
      from waiting
      where waiting.workspace_id is not null
    ), due as (
      select d.*
      from waiting
      cross join lateral (
        select w.workspace_id, w.conversation_id, w.due_at,
               pg_catalog.row_number() over (order by w.due_at) as turn
        from app.conversation_work w
        where w.workspace_id = waiting.workspace_id
          and w.due_at <= now()
          and (w.lease_until is null or w.lease_until < now())
        order by w.due_at
        limit p_limit
      ) d
      order by d.turn, d.due_at
      limit p_limit
    )
    select w.workspace_id, w.conversation_id
    from due
    join app.conversation_work w using (workspace_id, conversation_id)
    join public.whatsapp_conversations c on c.workspace_id = w.workspace_id and c.id = w.conversation_id
    where w.due_at <= now()
      and (w.lease_until is null or w.lease_until < now())
    order by w.workspace_id, w.conversation_id
    for no key update of c skip locked
    for update of w skip locked
  loop
    update app.analysis_attempts
    set outcome = 'lost', finished_at = now()
    where workspace_id = v_row.workspace_id
      and conversation_id = v_row.conversation_id
      and outcome is null;
    v_was_lost := found;

    update public.whatsapp_messages
    set ai_state = 'failed', ai_reason = 'worker_lost'
    where workspace_id = v_row.workspace_id
      and conversation_id = v_row.conversation_id
      and ai_state = 'pending'
      and ai_attempts >= p_max_attempts;

    -- Whose workers keep dying is looked at alone, so that only the message that kills them is given up.
    update app.conversation_work
    set isolate = isolate or v_was_lost and exists (
          select from public.whatsapp_messages m
          where m.workspace_id = v_row.workspace_id
            and m.conversation_id = v_row.conversation_id
            and m.ai_state = 'pending'
            and m.ai_attempts >= 3),
        lease_token = pg_catalog.gen_random_uuid(),
        lease_until = now() + pg_catalog.make_interval(secs => p_lease_ms / 1000.0)
    where workspace_id = v_row.workspace_id
      and conversation_id = v_row.conversation_id;

    v_context := app.open_analysis_attempt(v_row.workspace_id, v_row.conversation_id, p_max_messages);
    if v_context is null then
      delete from app.conversation_work
      where workspace_id = v_row.workspace_id
        and conversation_id = v_row.conversation_id;
    else
      v_claimed := v_claimed || pg_catalog.jsonb_build_array(v_context);
    end if;
  end loop;

  -- greatest() passes over nulls: an empty table must say null, not "at once", or idle workers ask without a pause.
  select case
    when min(w.due_at) is not null
    -- What is due and was not claimed is at a recorder for a moment: ask again, but not at once.
    then greatest(case when v_claimed = '[]' then 50 else 0 end, pg_catalog.ceil(extract(epoch from min(w.due_at) - now()) * 1000))::bigint
  end
  into v_next_due_in_ms
  from app.conversation_work w
  where w.lease_until is null;

  return pg_catalog.jsonb_build_object('claimed', v_claimed, 'next_due_in_ms', v_next_due_in_ms);
end;
$$;

notify pgrst, 'reload schema';
