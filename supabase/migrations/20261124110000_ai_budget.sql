-- What a workspace may spend on Claude in a day: reserved at the claim, settled at the finish, degraded before it is out.
-- (The claim and the finish take one argument more; workers that do not pass it work on, without a budget.)
set lock_timeout = '5s';

create table app.ai_budget_days (
  workspace_id uuid not null references public.workspaces (id),
  day date not null, -- of the workspace's time zone
  reserved_usd numeric(14, 8) not null default 0 check (reserved_usd >= 0), -- the most that calls under way may cost
  spent_usd numeric(14, 8) not null default 0 check (spent_usd >= 0), -- what finished calls have cost
  primary key (workspace_id, day)
);
comment on table app.ai_budget_days is
  'What a workspace spent on Claude, by day; spent and reserved together never pass its budget.';
alter table app.ai_budget_days enable row level security;
grant select, insert, update on app.ai_budget_days to service_role;

alter table app.analysis_attempts
  add column task text not null default 'message_analysis', -- what was asked: message_analysis, conversation_analysis
  add column tier text check (tier in (
    'usual', -- the task's own model
    'cheap' -- the cheaper one: little of the day's budget is left
  )),
  add column reserved_usd numeric(14, 8), -- null once settled or released
  add column budget_day date; -- of the reservation; the cost counts there, also when it ends the day after

-- Which day it is for a workspace. A time zone nobody knows counts as UTC: a typing error must not stop the analyses.
create function app.budget_day(p_time_zone text, p_at timestamptz)
returns date
language plpgsql
stable
set search_path = ''
as $$
begin
  return (p_at at time zone p_time_zone)::date;
exception
  when invalid_parameter_value then
    return (p_at at time zone 'UTC')::date;
end;
$$;
revoke execute on function app.budget_day from public;
grant execute on function app.budget_day to service_role;

-- When a workspace's day ends: 23, 24 or 25 hours after it began.
create function app.budget_day_ends(p_time_zone text, p_day date)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return (p_day + 1)::timestamp at time zone p_time_zone;
exception
  when invalid_parameter_value then
    return (p_day + 1)::timestamp at time zone 'UTC';
end;
$$;
revoke execute on function app.budget_day_ends from public;
grant execute on function app.budget_day_ends to service_role;

-- A workspace's daily budget by its settings (ai_daily_budget_usd); null: none was set. 0 switches Claude off.
create function app.ai_budget_usd(p_settings jsonb)
returns numeric
language sql
immutable
set search_path = ''
as $$
  select case
    when pg_catalog.jsonb_typeof(p_settings -> 'ai_daily_budget_usd') = 'number'
    then greatest(0, (p_settings ->> 'ai_daily_budget_usd')::numeric)
  end;
$$;
revoke execute on function app.ai_budget_usd from public;
grant execute on function app.ai_budget_usd to service_role;

-- Whether a message only greets, thanks or agrees: what Claude would say of it is not worth money that is short.
-- A lone question mark is no small talk: it is somebody waiting.
create function app.is_small_talk(p_content text)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.length(p_content) <= 40
    and p_content !~ '[0-9?¿؟？]'
    and pg_catalog.btrim(pg_catalog.regexp_replace(
      pg_catalog.regexp_replace(pg_catalog.lower(p_content), '[^[:alpha:][:space:]]', '', 'g'), '\s+', ' ', 'g'))
    in ('', -- emoji, dots
        'hi', 'hello', 'hey', 'hi there', 'hello there', 'good morning', 'good afternoon', 'good evening', 'thanks',
        'thank you', 'thank you so much', 'thank you very much', 'many thanks', 'thx', 'ok', 'okay', 'ok thanks',
        'great', 'great thanks', 'perfect', 'perfect thanks', 'bye', 'goodbye', 'good night', 'have a nice day',
        'oi', 'olá', 'ola', 'bom dia', 'boa tarde', 'boa noite', 'obrigado', 'obrigada', 'muito obrigado',
        'muito obrigada', 'valeu', 'ok obrigado', 'ok obrigada', 'tá bom', 'ta bom', 'perfeito', 'ótimo', 'tchau',
        'hola', 'buenos días', 'buenos dias', 'buenas tardes', 'buenas noches', 'buenas', 'gracias', 'muchas gracias',
        'vale', 'vale gracias', 'ok gracias', 'perfecto', 'perfecto gracias', 'adiós', 'adios', 'hasta luego',
        'hallo', 'guten tag', 'guten morgen', 'guten abend', 'moin', 'servus', 'danke', 'danke schön', 'dankeschön',
        'vielen dank', 'besten dank', 'ok danke', 'super', 'super danke', 'alles klar', 'tschüss', 'schönen tag noch',
        'bonjour', 'bonsoir', 'salut', 'merci', 'merci beaucoup', 'd accord', 'daccord', 'ok merci', 'parfait',
        'parfait merci', 'au revoir', 'bonne journée', 'bonne soirée',
        'ciao', 'buongiorno', 'buonasera', 'grazie', 'grazie mille', 'va bene', 'perfetto', 'arrivederci');
$$;
revoke execute on function app.is_small_talk from public;
grant execute on function app.is_small_talk to service_role;

-- How many bytes a text has as it is sent: JSON's escapes, and "<" as \u003c. Claude's tokens have at least a byte each,
-- so this bounds their number; what is redacted becomes fewer tokens than it had bytes.
create function app.bytes_sent(p_text text)
returns integer
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.octet_length(pg_catalog.to_json(c.cut)::text)
    + 5 * (pg_catalog.length(c.cut) - pg_catalog.length(pg_catalog.replace(c.cut, '<', '')))
    -- A mail address may be shorter than what stands for it.
    + 3 * (pg_catalog.length(c.cut) - pg_catalog.length(pg_catalog.replace(c.cut, '@', '')))
    + 64 -- the names of its fields
  from (select pg_catalog.left(coalesce(p_text, ''), 4000) as cut) c; -- as prompt.MOST_CHARACTERS
$$;
revoke execute on function app.bytes_sent from public;
grant execute on function app.bytes_sent to service_role;

-- Reserve the most one call may cost, in the order usual model → cheaper model → later → off.
-- p_prices: {usual: {model, input_usd, output_usd}, cheap: {…}}, USD per token, the input's as dear as it can become;
--   null: an older worker, which reserves nothing.
-- Writes: ai_budget_days (one row, locked until the transaction ends; the last lock that is taken).
-- Returns {tier, model, reserved_usd, day}; {deferred_until} when there is no money for it now; {off: true}.
create function app.reserve_ai(p_workspace_id uuid, p_prices jsonb, p_input_bytes bigint, p_output_tokens bigint)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_workspace public.workspaces;
  v_budget numeric;
  v_day date;
  v_row app.ai_budget_days;
  v_tier text;
  v_most numeric;
begin
  if p_prices is null then
    return pg_catalog.jsonb_build_object('tier', 'usual');
  end if;
  select * into strict v_workspace
  from public.workspaces
  where id = p_workspace_id;
  v_budget := app.ai_budget_usd(v_workspace.settings);
  if v_budget = 0 then
    return pg_catalog.jsonb_build_object('off', true);
  end if;

  v_day := app.budget_day(v_workspace.time_zone, now());
  insert into app.ai_budget_days (workspace_id, day)
  values (p_workspace_id, v_day)
  on conflict do nothing;
  select * into strict v_row
  from app.ai_budget_days
  where workspace_id = p_workspace_id
    and day = v_day
  for update;

  -- What is spent decides how much is asked; what is reserved, mostly in vain, only whether now or in a moment.
  foreach v_tier in array array['usual', 'cheap'] loop
    v_most := pg_catalog.round(p_input_bytes * (p_prices -> v_tier ->> 'input_usd')::numeric
      + p_output_tokens * (p_prices -> v_tier ->> 'output_usd')::numeric, 8);
    continue when v_tier = 'usual' and (v_row.spent_usd >= 0.85 * v_budget or v_row.spent_usd + v_most > v_budget);
    if v_budget is null or v_row.spent_usd + v_row.reserved_usd + v_most <= v_budget then
      update app.ai_budget_days
      set reserved_usd = reserved_usd + v_most
      where workspace_id = p_workspace_id
        and day = v_day;
      return pg_catalog.jsonb_build_object(
        'tier', v_tier, 'model', p_prices -> v_tier ->> 'model', 'reserved_usd', v_most, 'day', v_day);
    end if;
    exit;
  end loop;

  return pg_catalog.jsonb_build_object('deferred_until', case
    -- What others have reserved and will not need comes back within a call.
    when v_row.spent_usd + v_most <= v_budget then now() + interval '1 second'
    else app.budget_day_ends(v_workspace.time_zone, v_day)
  end);
end;
$$;
revoke execute on function app.reserve_ai from public;
grant execute on function app.reserve_ai to service_role;

-- Give an attempt's reservation back and count what it cost, once. p_cost_usd 0: the call was not made, or died with
-- its worker. Its row is the caller's; the day's is the last lock that is taken.
create function app.settle_ai(p_workspace_id uuid, p_attempt_id bigint, p_cost_usd numeric)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_attempt app.analysis_attempts;
begin
  select * into strict v_attempt
  from app.analysis_attempts
  where workspace_id = p_workspace_id
    and id = p_attempt_id
  for update;
  if v_attempt.budget_day is null then
    return; -- an older worker's
  end if;
  update app.analysis_attempts
  set reserved_usd = null
  where workspace_id = p_workspace_id
    and id = p_attempt_id;
  update app.ai_budget_days
  set reserved_usd = reserved_usd - coalesce(v_attempt.reserved_usd, 0),
      spent_usd = spent_usd + p_cost_usd
  where workspace_id = p_workspace_id
    and day = v_attempt.budget_day;
end;
$$;
revoke execute on function app.settle_ai from public;
grant execute on function app.settle_ai to service_role;

-- How much of today's budget is spent, from 0; 0 without one. Not locked: a hint.
create function app.ai_budget_used(p_workspace public.workspaces)
returns numeric
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select d.spent_usd / nullif(app.ai_budget_usd(p_workspace.settings), 0)
    from app.ai_budget_days d
    where d.workspace_id = p_workspace.id
      and d.day = app.budget_day(p_workspace.time_zone, now())), 0);
$$;
revoke execute on function app.ai_budget_used from public;
grant execute on function app.ai_budget_used to service_role;

-- Open an attempt under a lease and return what Claude needs for it; null when nothing is pending any more;
-- {deferred: true} when there is no money for it now: the lease is given back, the messages stay pending.
-- The lock on the work row is the caller's.
-- p_prices: as of app.reserve_ai, and {prefix_bytes, output_tokens_base, output_tokens_per_message}.
-- Writes: analysis_attempts, one try more on each message it is about, ai_budget_days; conversation_work when deferred.
drop function app.open_analysis_attempt(uuid, uuid, integer);
create function app.open_analysis_attempt(
  p_workspace_id uuid, p_conversation_id uuid, p_max_messages integer, p_prices jsonb default null
)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_work app.conversation_work;
  v_workspace public.workspaces;
  v_new jsonb;
  v_history jsonb;
  v_ids uuid[];
  v_first_seq bigint;
  v_bytes bigint;
  v_reserved jsonb;
  v_attempt_id bigint;
  v_context jsonb;
begin
  select * into strict v_work
  from app.conversation_work
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id;
  select * into strict v_workspace
  from public.workspaces
  where id = p_workspace_id;

  -- Blocked, or AI switched off, since the message was recorded.
  update public.whatsapp_messages m
  set ai_state = 'skipped',
      ai_reason = case when c.status = 'blocked' then 'blocked' else 'ai_off' end
  from public.whatsapp_conversations c
  where c.workspace_id = p_workspace_id
    and c.id = p_conversation_id
    and (c.status = 'blocked' or v_workspace.settings -> 'ai_enabled' = 'false')
    and m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
    and m.ai_state = 'pending';

  -- The first step when money gets short; what is said here still is context of what follows.
  if app.ai_budget_used(v_workspace) >= 0.70 then
    update public.whatsapp_messages
    set ai_state = 'skipped', ai_reason = 'small_talk'
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id
      and ai_state = 'pending'
      and app.is_small_talk(content);
  end if;

  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
           'message_id', m.id, 'seq', m.seq, 'content', m.content,
           'content_version', m.content_version, 'sent_at', m.sent_at, 'attempt', m.ai_attempts + 1
         ) order by m.seq),
         pg_catalog.array_agg(m.id),
         min(m.seq),
         sum(app.bytes_sent(m.content))
  into v_new, v_ids, v_first_seq, v_bytes
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

  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
           'direction', h.direction, 'content', h.content, 'sent_at', h.sent_at) order by h.seq), '[]'),
         v_bytes + coalesce(sum(app.bytes_sent(h.content)), 0)
  into v_history, v_bytes
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
  ) h;

  v_reserved := app.reserve_ai(
    p_workspace_id, p_prices,
    -- The workspace's own intents are listed in words, and once more in the answer's form.
    v_bytes + 2 * pg_catalog.octet_length(v_workspace.settings::text) + coalesce((p_prices ->> 'prefix_bytes')::bigint, 0),
    (p_prices ->> 'output_tokens_base')::bigint
      + pg_catalog.cardinality(v_ids) * (p_prices ->> 'output_tokens_per_message')::bigint);

  if v_reserved ? 'off' or v_reserved ? 'deferred_until' then
    -- The last step: what has waited two days no longer helps anybody, and must not keep fresh messages waiting.
    update public.whatsapp_messages
    set ai_state = case when v_reserved ? 'off' or created_at < now() - interval '2 days' then 'skipped' else 'pending' end,
        ai_reason = 'over_budget'
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id
      and ai_state = 'pending';
    if v_reserved ? 'off' or not exists (
      select from public.whatsapp_messages
      where workspace_id = p_workspace_id
        and conversation_id = p_conversation_id
        and ai_state = 'pending')
    then
      return null;
    end if;
    update app.conversation_work
    set lease_until = null, lease_token = null, due_at = (v_reserved ->> 'deferred_until')::timestamptz
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id;
    return pg_catalog.jsonb_build_object('deferred', true);
  end if;

  update public.whatsapp_messages
  set ai_attempts = ai_attempts + 1, ai_reason = null
  where workspace_id = p_workspace_id
    and id = any (v_ids);

  insert into app.analysis_attempts (workspace_id, conversation_id, message_ids, tier, reserved_usd, budget_day)
  values (p_workspace_id, p_conversation_id, v_ids, v_reserved ->> 'tier',
    (v_reserved ->> 'reserved_usd')::numeric, (v_reserved ->> 'day')::date)
  returning id into v_attempt_id;

  select pg_catalog.jsonb_build_object(
    'workspace_id', p_workspace_id,
    'conversation_id', c.id,
    'lease_token', v_work.lease_token,
    'attempt_id', v_attempt_id,
    'tier', v_reserved -> 'tier',
    'reserved_usd', v_reserved -> 'reserved_usd',
    'settings', v_workspace.settings,
    'window_expires_at', c.window_expires_at,
    'new_messages', v_new,
    'history', v_history
  ) into v_context
  from public.whatsapp_conversations c
  where c.workspace_id = p_workspace_id
    and c.id = p_conversation_id;
  return v_context;
end;
$$;
revoke execute on function app.open_analysis_attempt from public;
grant execute on function app.open_analysis_attempt to service_role;

-- Claim conversations that are due, taking turns among workspaces, and open an attempt for each, its price reserved;
-- passing over those a recorder holds. So whoever holds a conversation holds its work, and nobody locks the two in
-- another order.
-- Writes: conversation_work, analysis_attempts, ai_budget_days; a message whose workers died p_max_attempts times
-- becomes failed. What dead workers had reserved is free again.
-- Returns {claimed: [context], next_due_in_ms: when the next unclaimed row falls due, or null}.
drop function public.claim_conversation_work(integer, integer, integer, integer);
create function public.claim_conversation_work(
  p_limit integer, p_lease_ms integer, p_max_messages integer, p_max_attempts integer, p_prices jsonb default null
)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_row record;
  v_lost bigint;
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
    v_was_lost := false;
    for v_lost in
      update app.analysis_attempts
      set outcome = 'lost', finished_at = now()
      where workspace_id = v_row.workspace_id
        and conversation_id = v_row.conversation_id
        and outcome is null
      returning id
    loop
      v_was_lost := true;
      perform app.settle_ai(v_row.workspace_id, v_lost, 0);
    end loop;

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

    v_context := app.open_analysis_attempt(v_row.workspace_id, v_row.conversation_id, p_max_messages, p_prices);
    if v_context is null then
      delete from app.conversation_work
      where workspace_id = v_row.workspace_id
        and conversation_id = v_row.conversation_id;
    elsif not v_context ? 'deferred' then
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
revoke execute on function public.claim_conversation_work from public, anon, authenticated;
grant execute on function public.claim_conversation_work to service_role;

-- Give claimed work back untouched (shutdown): due at once, the attempt not counted, its reservation free again.
create or replace function public.release_conversation_work(p_lease_tokens jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_row record;
  v_attempt record;
  v_released integer := 0;
begin
  for v_row in
    select w.workspace_id, w.conversation_id
    from pg_catalog.jsonb_to_recordset(p_lease_tokens) as h(workspace_id uuid, conversation_id uuid, lease_token uuid)
    join app.conversation_work w using (workspace_id, conversation_id, lease_token)
    order by w.workspace_id, w.conversation_id
    for update of w
  loop
    for v_attempt in
      update app.analysis_attempts
      set outcome = 'released', finished_at = now()
      where workspace_id = v_row.workspace_id
        and conversation_id = v_row.conversation_id
        and outcome is null
      returning id, message_ids
    loop
      update public.whatsapp_messages
      set ai_attempts = ai_attempts - 1
      where workspace_id = v_row.workspace_id
        and id = any (v_attempt.message_ids)
        and ai_attempts > 0;
      perform app.settle_ai(v_row.workspace_id, v_attempt.id, 0);
    end loop;
    update app.conversation_work
    set lease_until = null, lease_token = null, due_at = now()
    where workspace_id = v_row.workspace_id
      and conversation_id = v_row.conversation_id;
    v_released := v_released + 1;
  end loop;
  return pg_catalog.jsonb_build_object('released', v_released);
end;
$$;

-- Settle an attempt as it was before it was finished: a finish that comes twice (its first answer was lost) costs once.
create function app.settle_finished(p_before app.analysis_attempts, p_attempt jsonb)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
begin
  if p_before.id is not null and (p_before.outcome is null or p_before.outcome = 'lost') then
    perform app.settle_ai(p_before.workspace_id, p_before.id, coalesce((p_attempt ->> 'cost_usd')::numeric, 0));
  end if;
end;
$$;
revoke execute on function app.settle_finished from public;
grant execute on function app.settle_finished to service_role;

-- Record what a call came to and decide, under the work row's lock, whether the worker goes on or lets go.
-- p_attempt: {id, outcome, model, prompt_version, input_tokens, output_tokens, cache_read_tokens,
--   cache_write_tokens, cost_usd, latency_ms, request_id}. The attempt is closed even when the lease was lost: it was paid.
-- p_results: [{message_id, content_version, result, sentiment, sentiment_score, intent, ai_summary,
--   suggested_response, priority, language, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, cost_usd}].
-- p_failed: {reason, given_up: [{message_id, content_version}], retry_in_ms, isolate}: messages without a result that
--   are given up, and when to try the others again (null: there are none).
-- The reservation is settled by what the call cost, once, also when the lease was lost.
-- p_failed may say not_counted: true: the call was not made (Claude is out), so it is no try of the messages.
-- Returns {lost: true}, or {next: context | null}.
drop function public.finish_conversation_analysis(uuid, uuid, uuid, jsonb, jsonb, jsonb, integer);
create function public.finish_conversation_analysis(
  p_workspace_id uuid, p_conversation_id uuid, p_lease_token uuid,
  p_attempt jsonb, p_results jsonb, p_failed jsonb, p_max_messages integer, p_prices jsonb default null
)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_attempt_id bigint := (p_attempt ->> 'id')::bigint;
  v_attempt app.analysis_attempts;
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

  select * into v_attempt
  from app.analysis_attempts
  where workspace_id = p_workspace_id
    and id = v_attempt_id
  for update;

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
    perform app.settle_finished(v_attempt, p_attempt);
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

    if p_failed -> 'not_counted' = 'true' then
      update public.whatsapp_messages
      set ai_attempts = ai_attempts - 1
      where workspace_id = p_workspace_id
        and id = any (v_attempt.message_ids)
        and ai_attempts > 0;
    end if;

    if p_failed ->> 'retry_in_ms' is not null then
      update app.conversation_work
      set lease_until = null,
          lease_token = null,
          due_at = now() + pg_catalog.make_interval(secs => (p_failed ->> 'retry_in_ms')::integer / 1000.0),
          isolate = isolate or (p_failed ->> 'isolate')::boolean
      where workspace_id = p_workspace_id
        and conversation_id = p_conversation_id;
      perform app.settle_finished(v_attempt, p_attempt);
      return pg_catalog.jsonb_build_object('next', null);
    end if;
  end if;

  perform app.settle_finished(v_attempt, p_attempt);

  -- What arrived meanwhile is this worker's too.
  v_next := app.open_analysis_attempt(p_workspace_id, p_conversation_id, p_max_messages, p_prices);
  if v_next ? 'deferred' then
    v_next := null;
  elsif v_next is null then
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
