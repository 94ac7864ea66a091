-- Analysing what was passed over: fed to the workers a little at a time, or sent in batches at half the price.
set lock_timeout = '5s';

create table app.ai_batches (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  remote_id text, -- Anthropic's; null: whether it got there is not known, so it counts as lost
  state text not null default 'made' check (state in (
    'made', -- its requests are reserved and kept here
    'sent', -- Anthropic has it
    'ended' -- its results are stored, or there will be none
  )),
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  primary key (workspace_id, id)
);
comment on table app.ai_batches is 'Message batches at Anthropic: what a backfill that was interrupted goes on with.';
create index ai_batches_open on app.ai_batches (workspace_id, created_at) where state <> 'ended';
alter table app.ai_batches enable row level security;

alter table app.analysis_attempts add column batch_id uuid; -- of the batch it went in; null: a call of its own
create index analysis_attempts_batched on app.analysis_attempts (workspace_id, batch_id, id) where outcome = 'batched';

create table app.ai_batch_requests (
  workspace_id uuid not null,
  attempt_id bigint not null, -- also the request's name at Anthropic
  batch_id uuid not null,
  conversation_id uuid not null,
  context jsonb not null, -- what it was made from, to read the answer by; gone with the answer
  primary key (workspace_id, attempt_id),
  foreign key (workspace_id, attempt_id) references app.analysis_attempts (workspace_id, id) on delete cascade,
  foreign key (workspace_id, batch_id) references app.ai_batches (workspace_id, id)
);
comment on table app.ai_batch_requests is
  'Requests on their way in a batch. Holds what people wrote, so a row goes when any of its conversation''s texts does.';
create index ai_batch_requests_batch on app.ai_batch_requests (workspace_id, batch_id, attempt_id);
create index ai_batch_requests_conversation on app.ai_batch_requests (workspace_id, conversation_id);
alter table app.ai_batch_requests enable row level security;
grant select, insert, update on app.ai_batches to service_role;
grant select, insert, delete on app.ai_batch_requests to service_role;

-- Whatever takes a text away (revoked, deleted, erased, kept long enough) takes the copy that waits for its answer too;
-- the answer is then not stored.
create function app.forget_batch_requests()
returns trigger
language plpgsql
security definer -- whoever may take the text away need not know of batches
set search_path = ''
as $$
begin
  delete from app.ai_batch_requests
  where workspace_id = old.workspace_id
    and conversation_id = old.conversation_id;
  return null;
end;
$$;
revoke execute on function app.forget_batch_requests from public;
create trigger forget_batch_requests
  after update of content on public.whatsapp_messages
  for each row
  when (old.content is not null and new.content is null)
  execute function app.forget_batch_requests();
create trigger forget_batch_requests_of_deleted
  after delete on public.whatsapp_messages
  for each row
  execute function app.forget_batch_requests();

-- The messages since a time that were passed over: history, while AI was off, small talk, over budget. With p_version
-- also those analysed by another version of the prompt. Not those on their way in a batch.
-- p_conversation_id: only of this one; null: of all.
create function app.backfill_wanted(
  p_workspace_id uuid, p_since timestamptz, p_version text, p_conversation_id uuid default null
)
returns table (conversation_id uuid, message_id uuid, bytes integer)
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_custom_plan' -- one conversation is found by its key, not among all of the workspace's
as $$
begin
  return query
  select m.conversation_id, m.id, app.bytes_sent(m.content)
  from public.whatsapp_messages m
  join public.whatsapp_conversations c on c.workspace_id = m.workspace_id and c.id = m.conversation_id
  where m.workspace_id = p_workspace_id
    and (p_conversation_id is null or m.conversation_id = p_conversation_id)
    and m.sent_at >= p_since
    and m.direction = 'inbound'
    and c.deleted_at is null
    and app.not_analysed_because(m.direction, 'live', m.message_type, m.content, true, c.status,
      m.suppressed_at is not null, m.revoked_at is not null) is null
    and (m.ai_state = 'skipped' and m.ai_reason in ('history', 'ai_off', 'small_talk', 'over_budget')
      or p_version is not null and m.ai_state = 'done' and not exists (
        select from public.message_analyses a
        where a.workspace_id = m.workspace_id
          and a.message_id = m.id
          and a.content_version = m.content_version
          and pg_catalog.starts_with(a.prompt_version, p_version)))
    and not exists (
      select from app.ai_batch_requests r
      where r.workspace_id = m.workspace_id
        and r.conversation_id = m.conversation_id);
end;
$$;
revoke execute on function app.backfill_wanted from public;
grant execute on function app.backfill_wanted to service_role;

-- How much a backfill is about. Returns {} for an unknown workspace, else {ai_enabled, budget_usd, budget_used,
-- messages, conversations, calls, bytes, history_bytes (at most), waiting: conversations workers still have to look at,
-- batched: requests on their way, output_tokens: of an analysed message so far (null: none was)}.
create function public.backfill_scope(p_workspace_id uuid, p_since timestamptz, p_version text, p_max_messages integer)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce((select pg_catalog.jsonb_build_object(
    'ai_enabled', w.settings -> 'ai_enabled' is distinct from 'false',
    'budget_usd', app.ai_budget_usd(w.settings),
    'budget_used', app.ai_budget_used(w),
    'messages', coalesce(sum(c.messages), 0),
    'conversations', count(c.messages),
    'calls', coalesce(sum(pg_catalog.ceil(c.messages::numeric / p_max_messages)), 0)::bigint,
    'bytes', coalesce(sum(c.bytes), 0),
    'history_bytes', coalesce(sum(pg_catalog.ceil(c.messages::numeric / p_max_messages) * 20 * c.bytes / c.messages), 0)::bigint,
    'waiting', (select count(*) from app.conversation_work k where k.workspace_id = w.id),
    'batched', (select count(*) from app.ai_batch_requests r where r.workspace_id = w.id),
    'output_tokens', (
      select pg_catalog.round(avg(a.output_tokens))
      from (
        select x.output_tokens
        from public.message_analyses x
        where x.workspace_id = w.id
        limit 1000
      ) a))
  from public.workspaces w
  left join lateral (
    select count(*) as messages, sum(b.bytes) as bytes
    from app.backfill_wanted(w.id, p_since, p_version) b
    group by b.conversation_id
  ) c on true
  where w.id = p_workspace_id
  group by w.id), '{}');
$$;
revoke execute on function public.backfill_scope from public, anon, authenticated;
grant execute on function public.backfill_scope to service_role;

-- Let the workers look at some more of what was passed over: so many conversations that, with those they have already,
-- p_most wait; a fresh message then waits for no more than these. Nothing while over 70 % of the day's budget is spent.
-- Writes: whatsapp_messages, conversation_work.
-- Returns {fed: conversations, waiting, until: when there is money again, or null}.
create function public.backfill_feed(p_workspace_id uuid, p_since timestamptz, p_version text, p_most integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_workspace public.workspaces;
  v_waiting integer;
  v_conversation record;
  v_fed integer := 0;
begin
  select * into strict v_workspace from public.workspaces where id = p_workspace_id;
  select count(*) into v_waiting from app.conversation_work where workspace_id = p_workspace_id;
  if app.ai_budget_used(v_workspace) >= 0.70 then
    return pg_catalog.jsonb_build_object('fed', 0, 'waiting', v_waiting, 'until',
      app.budget_day_ends(v_workspace.time_zone, app.budget_day(v_workspace.time_zone, now())));
  end if;

  for v_conversation in
    select c.id
    from public.whatsapp_conversations c
    where c.workspace_id = p_workspace_id
      and c.id in (
        select distinct b.conversation_id
        from app.backfill_wanted(p_workspace_id, p_since, p_version) b
        order by 1
        limit greatest(0, p_most - v_waiting))
    order by c.id
    for no key update skip locked
  loop
    update public.whatsapp_messages m
    set ai_state = 'pending', ai_reason = null, ai_attempts = 0
    from app.backfill_wanted(p_workspace_id, p_since, p_version, v_conversation.id) b
    where m.workspace_id = p_workspace_id
      and m.id = b.message_id;
    insert into app.conversation_work (workspace_id, conversation_id, due_at)
    values (p_workspace_id, v_conversation.id, now())
    on conflict do nothing;
    v_fed := v_fed + 1;
  end loop;
  return pg_catalog.jsonb_build_object('fed', v_fed, 'waiting', v_waiting + v_fed, 'until', null);
end;
$$;
revoke execute on function public.backfill_feed from public, anon, authenticated;
grant execute on function public.backfill_feed to service_role;

-- How much of today's budget is spent or reserved, from 0; 0 without one.
create function app.ai_budget_held(p_workspace public.workspaces)
returns numeric
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select (d.spent_usd + d.reserved_usd) / nullif(app.ai_budget_usd(p_workspace.settings), 0)
    from app.ai_budget_days d
    where d.workspace_id = p_workspace.id
      and d.day = app.budget_day(p_workspace.time_zone, now())), 0);
$$;
revoke execute on function app.ai_budget_held from public;
grant execute on function app.ai_budget_held to service_role;

-- Make a batch of up to p_most requests, each about up to p_max_messages of one conversation: what a worker would be
-- given, its price reserved, the messages as they were (a batch may take a day; a fresh message must not wait for it).
-- p_prices: as of app.open_analysis_attempt, at the price of batches.
-- Writes: ai_batches, ai_batch_requests, analysis_attempts, ai_budget_days.
-- Returns {requests: [context], until: when there is money again, if it did not suffice, else null}.
create function public.backfill_make_batch(
  p_workspace_id uuid, p_batch_id uuid, p_since timestamptz, p_version text, p_most integer, p_max_messages integer, p_prices jsonb
)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_workspace public.workspaces;
  v_conversation record;
  v_before jsonb;
  v_context jsonb;
  v_requests jsonb := '[]';
  v_until timestamptz;
begin
  select * into strict v_workspace from public.workspaces where id = p_workspace_id;
  insert into app.ai_batches (workspace_id, id)
  values (p_workspace_id, p_batch_id);
  for v_conversation in
    select c.id
    from public.whatsapp_conversations c
    where c.workspace_id = p_workspace_id
      and c.id in (
        select distinct b.conversation_id
        from app.backfill_wanted(p_workspace_id, p_since, p_version) b
        where not exists ( -- a worker has it: what it leaves is the next batch's
          select from app.conversation_work k
          where k.workspace_id = p_workspace_id
            and k.conversation_id = b.conversation_id)
        order by 1
        limit p_most)
    order by c.id
    for no key update skip locked
  loop
    if app.ai_budget_used(v_workspace) >= 0.70 then
      v_until := app.budget_day_ends(v_workspace.time_zone, app.budget_day(v_workspace.time_zone, now()));
      exit;
    elsif app.ai_budget_held(v_workspace) >= 0.70 then
      exit; -- a batch may hold what it reserved for a day; the rest is for fresh messages
    end if;
    insert into app.conversation_work (workspace_id, conversation_id, due_at, lease_token)
    values (p_workspace_id, v_conversation.id, now(), p_batch_id)
    on conflict do nothing;
    continue when not found;

    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'id', m.id, 'state', m.ai_state, 'reason', m.ai_reason, 'attempts', m.ai_attempts))
    into v_before
    from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and m.conversation_id = v_conversation.id
      and m.id in (
        select b.message_id from app.backfill_wanted(p_workspace_id, p_since, p_version, v_conversation.id) b);
    update public.whatsapp_messages m
    set ai_state = 'pending', ai_reason = null
    from pg_catalog.jsonb_to_recordset(v_before) as b(id uuid)
    where m.workspace_id = p_workspace_id
      and m.id = b.id;

    v_context := app.open_analysis_attempt(p_workspace_id, v_conversation.id, p_max_messages, p_prices);

    update public.whatsapp_messages m
    set ai_state = b.state, ai_reason = b.reason, ai_attempts = b.attempts
    from pg_catalog.jsonb_to_recordset(v_before) as b(id uuid, state text, reason text, attempts smallint)
    where m.workspace_id = p_workspace_id
      and m.id = b.id;
    delete from app.conversation_work
    where workspace_id = p_workspace_id
      and conversation_id = v_conversation.id;

    if v_context ? 'deferred' then
      v_until := app.budget_day_ends(v_workspace.time_zone, app.budget_day(v_workspace.time_zone, now()));
      exit;
    end if;
    continue when v_context is null or not v_context ? 'new_messages';
    v_context := v_context || pg_catalog.jsonb_build_object('made_at', now());
    update app.analysis_attempts
    set batch_id = p_batch_id,
        outcome = 'batched' -- not open: whoever claims the conversation meanwhile must not call it lost
    where workspace_id = p_workspace_id
      and id = (v_context ->> 'attempt_id')::bigint;
    insert into app.ai_batch_requests (workspace_id, attempt_id, batch_id, conversation_id, context)
    values (p_workspace_id, (v_context ->> 'attempt_id')::bigint, p_batch_id, v_conversation.id, v_context);
    v_requests := v_requests || pg_catalog.jsonb_build_array(v_context);
  end loop;
  return pg_catalog.jsonb_build_object('requests', v_requests, 'until', v_until);
end;
$$;
revoke execute on function public.backfill_make_batch from public, anon, authenticated;
grant execute on function public.backfill_make_batch to service_role;

-- Note under which name Anthropic has a batch.
create function public.backfill_note_sent(p_workspace_id uuid, p_batch_id uuid, p_remote_id text)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with sent as (
    update app.ai_batches
    set remote_id = p_remote_id, state = 'sent'
    where workspace_id = p_workspace_id
      and id = p_batch_id
      and state = 'made'
    returning 1
  )
  select pg_catalog.jsonb_build_object('sent', count(*)) from sent;
$$;
revoke execute on function public.backfill_note_sent from public, anon, authenticated;
grant execute on function public.backfill_note_sent to service_role;

-- A workspace's batches that have not ended, oldest first: [{id, remote_id, created_at, requests}].
create function public.backfill_batches(p_workspace_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'id', b.id, 'remote_id', b.remote_id, 'created_at', b.created_at,
    'requests', (select count(*) from app.ai_batch_requests r where r.workspace_id = b.workspace_id and r.batch_id = b.id)
  ) order by b.created_at, b.id), '[]')
  from app.ai_batches b
  where b.workspace_id = p_workspace_id
    and b.state <> 'ended';
$$;
revoke execute on function public.backfill_batches from public, anon, authenticated;
grant execute on function public.backfill_batches to service_role;

-- What requests of a batch were made from, by their attempts; those whose texts are gone are not among them.
create function public.backfill_requests(p_workspace_id uuid, p_batch_id uuid, p_attempt_ids jsonb)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(r.context), '[]')
  from app.ai_batch_requests r
  where r.workspace_id = p_workspace_id
    and r.batch_id = p_batch_id
    and r.attempt_id in (select (i.value #>> '{}')::bigint from pg_catalog.jsonb_array_elements(p_attempt_ids) i);
$$;
revoke execute on function public.backfill_requests from public, anon, authenticated;
grant execute on function public.backfill_requests to service_role;

-- Store what came of one request. p_attempt, p_results: as of finish_conversation_analysis; p_given_up: the reason, when
-- trying again would bring the same, else null. A message that was edited, taken back or analysed anew meanwhile stays as
-- it is. Coming twice changes nothing.
-- Returns {stored: messages}; 0 when the texts it was about are gone: it is paid all the same.
-- Writes: message_analyses, whatsapp_messages, analysis_attempts, ai_batch_requests, ai_budget_days.
create function public.backfill_finish(p_workspace_id uuid, p_attempt jsonb, p_results jsonb, p_given_up text)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_attempt app.analysis_attempts;
begin
  perform 1
  from public.whatsapp_conversations c
  join app.analysis_attempts a on a.workspace_id = c.workspace_id and a.conversation_id = c.id
  where a.workspace_id = p_workspace_id
    and a.id = (p_attempt ->> 'id')::bigint
  for no key update of c;

  select * into v_attempt
  from app.analysis_attempts
  where workspace_id = p_workspace_id
    and id = (p_attempt ->> 'id')::bigint
    and outcome = 'batched'
  for update;
  if not found then
    return pg_catalog.jsonb_build_object('stored', 0);
  end if;

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
      latency_ms = (p_attempt ->> 'latency_ms')::integer
  where workspace_id = p_workspace_id
    and id = v_attempt.id;

  with results as (
    select r.*
    from pg_catalog.jsonb_to_recordset(p_results) as r(
      message_id uuid, content_version integer, result jsonb, sentiment text, sentiment_score real, intent text,
      ai_summary text, suggested_response text, priority text, language text, input_tokens integer,
      output_tokens integer, cache_read_tokens integer, cache_write_tokens integer, cost_usd numeric)
    join public.whatsapp_messages m
      on m.workspace_id = p_workspace_id and m.id = r.message_id and m.content_version = r.content_version
    where m.revoked_at is null
      and m.suppressed_at is null
      and exists (
        select from app.ai_batch_requests q
        where q.workspace_id = p_workspace_id
          and q.attempt_id = v_attempt.id)
  ), kept as (
    insert into public.message_analyses (
      workspace_id, message_id, content_version, prompt_version, attempt_id, result, model, input_tokens,
      output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, latency_ms)
    select p_workspace_id, r.message_id, r.content_version, p_attempt ->> 'prompt_version', v_attempt.id, r.result,
           p_attempt ->> 'model', r.input_tokens, r.output_tokens, r.cache_read_tokens, r.cache_write_tokens,
           r.cost_usd, (p_attempt ->> 'latency_ms')::integer
    from results r
    on conflict do nothing
    returning message_id
  )
  update public.whatsapp_messages m
  set ai_state = 'done', ai_reason = null, analysed_at = now(),
      sentiment = r.sentiment, sentiment_score = r.sentiment_score, intent = r.intent, ai_summary = r.ai_summary,
      suggested_response = r.suggested_response, priority = r.priority, language = r.language
  from results r
  join kept using (message_id)
  where m.workspace_id = p_workspace_id
    and m.id = r.message_id;

  if p_given_up is not null then
    update public.whatsapp_messages m
    set ai_state = 'failed', ai_reason = p_given_up
    where m.workspace_id = p_workspace_id
      and m.id = any (v_attempt.message_ids)
      and m.ai_state = 'skipped'
      and m.ai_reason in ('history', 'ai_off', 'small_talk', 'over_budget');
  end if;

  delete from app.ai_batch_requests
  where workspace_id = p_workspace_id
    and attempt_id = v_attempt.id;
  perform app.settle_ai(p_workspace_id, v_attempt.id, coalesce((p_attempt ->> 'cost_usd')::numeric, 0));
  return pg_catalog.jsonb_build_object('stored', pg_catalog.jsonb_array_length(p_results));
end;
$$;
revoke execute on function public.backfill_finish from public, anon, authenticated;
grant execute on function public.backfill_finish to service_role;

-- End a batch: attempts without a result are lost, their reservations free again, their messages wanted again.
-- Writes: ai_batches, analysis_attempts, ai_batch_requests, ai_budget_days. Returns {lost}.
create function public.backfill_end_batch(p_workspace_id uuid, p_batch_id uuid)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_attempt_id bigint;
  v_lost integer := 0;
begin
  for v_attempt_id in
    select a.id
    from app.analysis_attempts a
    where a.workspace_id = p_workspace_id
      and a.batch_id = p_batch_id
      and a.outcome = 'batched'
    order by a.id
  loop
    update app.analysis_attempts
    set outcome = 'lost', finished_at = now()
    where workspace_id = p_workspace_id
      and id = v_attempt_id;
    delete from app.ai_batch_requests
    where workspace_id = p_workspace_id
      and attempt_id = v_attempt_id;
    perform app.settle_ai(p_workspace_id, v_attempt_id, 0);
    v_lost := v_lost + 1;
  end loop;
  update app.ai_batches
  set state = 'ended', ended_at = now()
  where workspace_id = p_workspace_id
    and id = p_batch_id;
  return pg_catalog.jsonb_build_object('lost', v_lost);
end;
$$;
revoke execute on function public.backfill_end_batch from public, anon, authenticated;
grant execute on function public.backfill_end_batch to service_role;

notify pgrst, 'reload schema';
