-- What Claude has to look at, each call made for it, and what came of it.
set lock_timeout = '5s';

create table app.conversation_work (
  workspace_id uuid not null,
  conversation_id uuid not null,
  due_at timestamptz not null, -- when to look next; also the retry schedule
  isolate boolean not null default false, -- the last call failed on its content: take one message at a time
  lease_until timestamptz, -- null: nobody is at it
  lease_token uuid, -- fences a worker that lost its lease
  primary key (workspace_id, conversation_id),
  foreign key (workspace_id, conversation_id) references public.whatsapp_conversations (workspace_id, id)
);
comment on table app.conversation_work is
  'A row exists while a conversation has messages Claude has not looked at: the truth behind every wake-up.';
create index conversation_work_due on app.conversation_work (workspace_id, due_at);
create index conversation_work_next on app.conversation_work (due_at) where lease_until is null;
alter table app.conversation_work enable row level security;

create table app.analysis_attempts (
  workspace_id uuid not null,
  id bigint generated always as identity,
  conversation_id uuid not null,
  message_ids uuid[] not null, -- what the call is about
  started_at timestamptz not null default now(), -- committed before the call: a crash leaves a row without an outcome
  finished_at timestamptz,
  outcome text, -- ok, refused, truncated, overloaded, timeout, nonsense, …; lost when the lease ran out
  model text,
  prompt_version text,
  input_tokens integer,
  output_tokens integer,
  cache_read_tokens integer,
  cache_write_tokens integer,
  cost_usd numeric(12, 8),
  latency_ms integer,
  request_id text, -- Anthropic's, for their support
  primary key (workspace_id, id),
  foreign key (workspace_id, conversation_id) references public.whatsapp_conversations (workspace_id, id)
);
comment on table app.analysis_attempts is 'Every call to Claude, paid or not: the sum of cost_usd is what was spent.';
create index analysis_attempts_conversation on app.analysis_attempts (workspace_id, conversation_id, id);
alter table app.analysis_attempts enable row level security;

create table public.message_analyses (
  workspace_id uuid not null,
  message_id uuid not null,
  content_version integer not null,
  prompt_version text not null,
  attempt_id bigint not null, -- the call it came from; a call about n messages is shared by n rows
  result jsonb not null, -- {sentiment|intent|summary|suggested_response|priority: {value, confidence, evidence}, language}
  model text not null,
  input_tokens integer not null, -- this message's share of the call, as are the next four
  output_tokens integer not null,
  cache_read_tokens integer not null,
  cache_write_tokens integer not null,
  cost_usd numeric(12, 8) not null,
  latency_ms integer not null, -- of the whole call
  created_at timestamptz not null default now(),
  primary key (workspace_id, message_id, content_version, prompt_version),
  foreign key (workspace_id, message_id) references public.whatsapp_messages (workspace_id, id),
  foreign key (workspace_id, attempt_id) references app.analysis_attempts (workspace_id, id)
);
comment on table public.message_analyses is 'What Claude answered about one version of a message, with its price.';
create index message_analyses_attempt on public.message_analyses (workspace_id, attempt_id);
alter table public.message_analyses enable row level security;
revoke all on public.message_analyses from anon, authenticated, service_role;
grant select on public.message_analyses to authenticated;
create policy "Members see their analyses" on public.message_analyses
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

grant select, insert, update on public.message_analyses to service_role;
grant select, insert, update, delete on app.conversation_work to service_role;
grant select, insert, update on app.analysis_attempts to service_role;

-- Open an attempt under a lease and return what Claude needs for it; null when nothing is pending any more.
-- The lock on the work row is the caller's.
-- Writes: analysis_attempts, and one try more on each message it is about.
create function app.open_analysis_attempt(p_workspace_id uuid, p_conversation_id uuid, p_max_messages integer)
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
          and content is not null
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
revoke execute on function app.open_analysis_attempt from public;
grant execute on function app.open_analysis_attempt to service_role;

-- Claim conversations that are due, taking turns among workspaces, and open an attempt for each.
-- Writes: conversation_work, analysis_attempts; a message whose workers died p_max_attempts times becomes failed.
-- Returns {claimed: [context], next_due_in_ms: when the next unclaimed row falls due, or null}.
create function public.claim_conversation_work(
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
    where w.due_at <= now()
      and (w.lease_until is null or w.lease_until < now())
    order by w.workspace_id, w.conversation_id
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
    then greatest(0, pg_catalog.ceil(extract(epoch from min(w.due_at) - now()) * 1000))::bigint
  end
  into v_next_due_in_ms
  from app.conversation_work w
  where w.lease_until is null;

  return pg_catalog.jsonb_build_object('claimed', v_claimed, 'next_due_in_ms', v_next_due_in_ms);
end;
$$;
revoke execute on function public.claim_conversation_work from public, anon, authenticated;
grant execute on function public.claim_conversation_work to service_role;

-- Keep the leases a worker holds. Returns the lease tokens that are no longer its own.
create function public.renew_conversation_work(p_lease_tokens jsonb, p_lease_ms integer)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with held as (
    select h.workspace_id, h.conversation_id, h.lease_token
    from pg_catalog.jsonb_to_recordset(p_lease_tokens) as h(workspace_id uuid, conversation_id uuid, lease_token uuid)
  ), locked as (
    select w.workspace_id, w.conversation_id, w.lease_token
    from held
    join app.conversation_work w using (workspace_id, conversation_id, lease_token)
    order by w.workspace_id, w.conversation_id
    for update of w
  ), renewed as (
    update app.conversation_work w
    set lease_until = now() + pg_catalog.make_interval(secs => p_lease_ms / 1000.0)
    from locked
    where w.workspace_id = locked.workspace_id
      and w.conversation_id = locked.conversation_id
    returning w.lease_token
  )
  select coalesce(pg_catalog.jsonb_agg(held.lease_token), '[]')
  from held
  where held.lease_token not in (select renewed.lease_token from renewed);
$$;
revoke execute on function public.renew_conversation_work from public, anon, authenticated;
grant execute on function public.renew_conversation_work to service_role;

-- Give claimed work back untouched (shutdown): due at once, the attempt not counted.
create function public.release_conversation_work(p_lease_tokens jsonb)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with locked as (
    select w.workspace_id, w.conversation_id
    from pg_catalog.jsonb_to_recordset(p_lease_tokens) as h(workspace_id uuid, conversation_id uuid, lease_token uuid)
    join app.conversation_work w using (workspace_id, conversation_id, lease_token)
    order by w.workspace_id, w.conversation_id
    for update of w
  ), closed as (
    update app.analysis_attempts a
    set outcome = 'released', finished_at = now()
    from locked
    where a.workspace_id = locked.workspace_id
      and a.conversation_id = locked.conversation_id
      and a.outcome is null
    returning a.workspace_id, a.message_ids
  ), untried as (
    update public.whatsapp_messages m
    set ai_attempts = m.ai_attempts - 1
    from closed
    where m.workspace_id = closed.workspace_id
      and m.id = any (closed.message_ids)
      and m.ai_attempts > 0
  ), released as (
    update app.conversation_work w
    set lease_until = null, lease_token = null, due_at = now()
    from locked
    where w.workspace_id = locked.workspace_id
      and w.conversation_id = locked.conversation_id
    returning 1
  )
  select pg_catalog.jsonb_build_object('released', count(*)) from released;
$$;
revoke execute on function public.release_conversation_work from public, anon, authenticated;
grant execute on function public.release_conversation_work to service_role;

-- Record what a call came to and decide, under the work row's lock, whether the worker goes on or lets go.
-- p_attempt: {id, outcome, model, prompt_version, input_tokens, output_tokens, cache_read_tokens,
--   cache_write_tokens, cost_usd, latency_ms, request_id}. The attempt is closed even when the lease was lost: it was paid.
-- p_results: [{message_id, content_version, result, sentiment, sentiment_score, intent, ai_summary,
--   suggested_response, priority, language, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd}].
-- p_failed: {reason, given_up: [{message_id, content_version}], retry_in_ms, isolate}: messages without a result that
--   are given up, and when to try the others again (null: there are none).
-- Returns {lost: true}, or {next: context | null}.
create function public.finish_conversation_analysis(
  p_workspace_id uuid, p_conversation_id uuid, p_lease_token uuid,
  p_attempt jsonb, p_results jsonb, p_failed jsonb, p_max_messages integer
)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_attempt_id bigint := (p_attempt ->> 'id')::bigint;
  v_is_ours boolean;
  v_next jsonb;
begin
  -- Conversations come before messages and work in the lock order.
  perform 1
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id
  for no key update;

  -- Work rows before attempts, as claiming does: a late finish and a new claim meet here.
  perform 1
  from app.conversation_work
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id
    and lease_token = p_lease_token
  for update;
  v_is_ours := found;

  update app.analysis_attempts
  set outcome = p_attempt ->> 'outcome',
      finished_at = now(),
      model = p_attempt ->> 'model',
      prompt_version = p_attempt ->> 'prompt_version',
      input_tokens = (p_attempt ->> 'input_tokens')::integer,
      output_tokens = (p_attempt ->> 'output_tokens')::integer,
      cache_read_tokens = (p_attempt ->> 'cache_read_tokens')::integer,
      cache_write_tokens = (p_attempt ->> 'cache_write_tokens')::integer,
      cost_usd = (p_attempt ->> 'cost_usd')::numeric,
      latency_ms = (p_attempt ->> 'latency_ms')::integer,
      request_id = p_attempt ->> 'request_id'
  where workspace_id = p_workspace_id
    and id = v_attempt_id;

  if not v_is_ours then
    return pg_catalog.jsonb_build_object('lost', true);
  end if;

  with results as (
    select *
    from pg_catalog.jsonb_to_recordset(p_results) as r(
      message_id uuid, content_version integer, result jsonb, sentiment text, sentiment_score real, intent text,
      ai_summary text, suggested_response text, priority text, language text, input_tokens integer,
      output_tokens integer, cache_read_tokens integer, cache_write_tokens integer, cost_usd numeric)
  ), kept as (
    insert into public.message_analyses (
      workspace_id, message_id, content_version, prompt_version, attempt_id, result, model, input_tokens,
      output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, latency_ms)
    select p_workspace_id, r.message_id, r.content_version, p_attempt ->> 'prompt_version', v_attempt_id, r.result,
           p_attempt ->> 'model', r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens,
           r.cost_usd, (p_attempt ->> 'latency_ms')::integer
    from results r
    on conflict do nothing
  )
  update public.whatsapp_messages m
  set ai_state = 'done', ai_reason = null, analysed_at = now(),
      sentiment = r.sentiment, sentiment_score = r.sentiment_score, intent = r.intent, ai_summary = r.ai_summary,
      suggested_response = r.suggested_response, priority = r.priority, language = r.language
  from results r
  where m.workspace_id = p_workspace_id
    and m.id = r.message_id
    and m.content_version = r.content_version; -- edited meanwhile: stays pending

  if p_failed is not null then
    update public.whatsapp_messages m
    set ai_state = 'failed', ai_reason = p_failed ->> 'reason'
    from pg_catalog.jsonb_to_recordset(p_failed -> 'given_up') as g(message_id uuid, content_version integer)
    where m.workspace_id = p_workspace_id
      and m.id = g.message_id
      and m.content_version = g.content_version
      and m.ai_state = 'pending';

    if p_failed ->> 'retry_in_ms' is not null then
      update app.conversation_work
      set lease_until = null,
          lease_token = null,
          due_at = now() + pg_catalog.make_interval(secs => (p_failed ->> 'retry_in_ms')::integer / 1000.0),
          isolate = isolate or (p_failed ->> 'isolate')::boolean
      where workspace_id = p_workspace_id
        and conversation_id = p_conversation_id;
      return pg_catalog.jsonb_build_object('next', null);
    end if;
  end if;

  -- What arrived meanwhile is this worker's too.
  v_next := app.open_analysis_attempt(p_workspace_id, p_conversation_id, p_max_messages);
  if v_next is null then
    delete from app.conversation_work
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id;
  end if;
  return pg_catalog.jsonb_build_object('next', v_next);
end;
$$;
revoke execute on function public.finish_conversation_analysis from public, anon, authenticated;
grant execute on function public.finish_conversation_analysis to service_role;

notify pgrst, 'reload schema';
