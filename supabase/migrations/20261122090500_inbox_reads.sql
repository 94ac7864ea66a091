-- What a signed-in person reads: who they are, their conversations, a conversation's messages.
-- All run as the person (invoker), so RLS decides; each builds the JSON that the API passes straight through.
set lock_timeout = '5s';

-- Who is asking, and which workspaces are theirs.
create function public.me()
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'user', pg_catalog.jsonb_build_object('id', auth.uid(), 'email', auth.jwt() ->> 'email'),
    'workspaces', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', w.id, 'name', w.name, 'role', m.role, 'time_zone', w.time_zone) order by w.name, w.id)
      from public.workspace_members m
      join public.workspaces w on w.id = m.workspace_id
      where m.user_id = auth.uid()
    ), '[]'),
    'server_time', now()
  );
$$;
revoke execute on function public.me from public, anon;
grant execute on function public.me to authenticated;

-- A workspace's conversations, newest first.
-- p_cursor: next_cursor of the page before, null for the first. p_limit: 1 to 100.
-- Refuses: PT404 unknown or not theirs, PT422 a cursor or limit we did not issue.
create function public.list_conversations(p_workspace_id uuid, p_limit integer default 50, p_cursor text default null)
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
      and c.deleted_at is null
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
        'preview', pg_catalog.left(l.content, 160), 'status', l.status, 'sent_at', l.sent_at) end,
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
    select m.id, m.direction, m.message_type, m.content, m.status, m.sent_at
    from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and m.conversation_id = c.id
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
revoke execute on function public.list_conversations from public, anon;
grant execute on function public.list_conversations to authenticated;

-- One message as the API shows it, with what Claude made of it and where that rests.
create function public.message_json(p_message public.whatsapp_messages)
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
revoke execute on function public.message_json from public, anon;
grant execute on function public.message_json to authenticated;

-- A conversation's messages. Newest first by default or before p_before; oldest first after p_after (for polling).
-- p_before, p_after: a seq; at most one of them. p_limit: 1 to 100.
-- Refuses: PT404 unknown or not theirs, PT422 limit or both ends given.
create function public.list_messages(
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
      order by m.seq limit p_limit + 1);
  else
    v_rows := array(
      select m from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id and m.conversation_id = p_conversation_id
        and m.seq < coalesce(p_before, 9223372036854775807)
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
revoke execute on function public.list_messages from public, anon;
grant execute on function public.list_messages to authenticated;

notify pgrst, 'reload schema';
