-- People in the loop: what they correct in an analysis, what they make of suggestions; and what of media, closed windows
-- and thumbs down Claude is told.
set lock_timeout = '5s';

-- 1. Tables.

create table public.analysis_corrections (
  workspace_id uuid not null,
  id uuid not null,
  message_id uuid not null,
  content_version integer not null, -- a correction belongs to the wording it is about, as an analysis does
  fields jsonb not null, -- what they set: {sentiment, sentiment_score, intent, summary, suggested_response, priority, language}; {} once the message is gone
  corrected_by uuid not null,
  corrected_at timestamptz not null default now(),
  undone_by uuid,
  undone_at timestamptz, -- null: it holds
  primary key (workspace_id, id),
  foreign key (workspace_id, message_id) references public.whatsapp_messages (workspace_id, id) on delete cascade,
  check ((undone_at is null) = (undone_by is null))
);
comment on table public.analysis_corrections is
  'What people say instead of Claude about a message: it holds against whatever Claude says later, until it is undone.';
create index analysis_corrections_message
  on public.analysis_corrections (workspace_id, message_id, content_version, corrected_at, id);
alter table public.analysis_corrections enable row level security;
revoke all on public.analysis_corrections from anon, authenticated, service_role;
grant select on public.analysis_corrections to authenticated, service_role, parley_writer;
grant update (fields) on public.analysis_corrections to service_role;
grant insert, update (fields, undone_by, undone_at) on public.analysis_corrections to parley_writer;
create policy "Members see what was corrected" on public.analysis_corrections
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create policy "Writers correct under their own name" on public.analysis_corrections
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()) and corrected_by = (select auth.uid()));
create policy "Writers undo corrections" on public.analysis_corrections
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

create table public.suggestion_feedback (
  workspace_id uuid not null,
  message_id uuid not null, -- the customer's message that the suggestion answers
  conversation_id uuid not null,
  seq bigint not null, -- of that message: the newest suggestion is the one on offer
  suggested_at timestamptz not null,
  intent text, -- as it was when the suggestion was made, for the figures
  prompt_version text,
  outcome text check (outcome in (
    'used', -- sent as it was
    'edited', -- sent with changes
    'ignored', -- something else was sent, or nothing in time
    'superseded' -- a newer suggestion took its place before anything was sent; counts as nothing
  )), -- null: on offer
  similarity real check (similarity between 0 and 1), -- of what was sent to what was suggested
  source text check (source in ('reply', 'person', 'time')),
  reply_id uuid, -- our message it was decided by
  decided_by uuid,
  decided_at timestamptz,
  primary key (workspace_id, message_id),
  foreign key (workspace_id, message_id) references public.whatsapp_messages (workspace_id, id) on delete cascade
);
comment on table public.suggestion_feedback is 'What people made of suggested responses. Holds no text.';
create unique index suggestion_feedback_on_offer
  on public.suggestion_feedback (workspace_id, conversation_id) where outcome is null;
create index suggestion_feedback_old on public.suggestion_feedback (suggested_at) where outcome is null;
create index suggestion_feedback_time on public.suggestion_feedback (workspace_id, suggested_at);
alter table public.suggestion_feedback enable row level security;
revoke all on public.suggestion_feedback from anon, authenticated, service_role;
grant select on public.suggestion_feedback to authenticated, parley_writer;
grant select, insert, update on public.suggestion_feedback to service_role;
grant update (outcome, similarity, source, reply_id, decided_by, decided_at) on public.suggestion_feedback to parley_writer;
create policy "Members see what became of suggestions" on public.suggestion_feedback
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create policy "Writers decide about suggestions" on public.suggestion_feedback
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant update (transcript, ai_attempts) on public.whatsapp_messages to parley_writer;
grant insert on app.conversation_work to parley_writer;
create policy "Writers ask Claude to look" on app.conversation_work
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

-- 2. Corrections.

-- The fields of a message's analysis that people set, the latest of each.
create function app.corrected_fields(p_workspace_id uuid, p_message_id uuid, p_content_version integer)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_object_agg(f.key, f.value order by c.corrected_at, c.id)
  from public.analysis_corrections c
  cross join lateral pg_catalog.jsonb_each(c.fields) f
  where c.workspace_id = p_workspace_id
    and c.message_id = p_message_id
    and c.content_version = p_content_version
    and c.undone_at is null;
$$;
revoke execute on function app.corrected_fields from public;
grant execute on function app.corrected_fields to service_role, parley_writer;

-- A message with what people corrected in place of what Claude said. A score keeps its strength and takes the side of
-- a sentiment that was corrected without one.
create function app.corrected(p_message public.whatsapp_messages)
returns public.whatsapp_messages
language plpgsql
stable
set search_path = ''
as $$
declare
  v_fields jsonb := app.corrected_fields(p_message.workspace_id, p_message.id, p_message.content_version);
begin
  if v_fields is null then
    return p_message;
  end if;
  p_message.sentiment := coalesce(v_fields ->> 'sentiment', p_message.sentiment);
  p_message.sentiment_score := coalesce((v_fields ->> 'sentiment_score')::real, p_message.sentiment_score);
  if v_fields ? 'sentiment' then
    p_message.sentiment_score := case p_message.sentiment
      when 'positive' then abs(p_message.sentiment_score)
      when 'negative' then -abs(p_message.sentiment_score)
      else greatest(-0.2::real, least(0.2::real, p_message.sentiment_score)) end;
  end if;
  p_message.intent := coalesce(v_fields ->> 'intent', p_message.intent);
  p_message.ai_summary := coalesce(v_fields ->> 'summary', p_message.ai_summary);
  p_message.suggested_response := coalesce(v_fields ->> 'suggested_response', p_message.suggested_response);
  p_message.priority := coalesce(v_fields ->> 'priority', p_message.priority);
  p_message.language := coalesce(v_fields ->> 'language', p_message.language);
  return p_message;
end;
$$;
revoke execute on function app.corrected from public;
grant execute on function app.corrected to service_role, parley_writer;

-- Whoever stores an analysis, now or later: what people corrected stays. (A trigger, so that no path can forget it.)
create function app.keep_corrections()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  return app.corrected(new);
end;
$$;
revoke execute on function app.keep_corrections from public;
create trigger keep_corrections
  before update of analysed_at on public.whatsapp_messages
  for each row
  when (new.ai_state = 'done' and new.analysed_at is distinct from old.analysed_at)
  execute function app.keep_corrections();

-- Of a message that was deleted, by whomever, no words stay: neither transcript nor what people wrote about it.
create function app.forget_corrections()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.transcript := null;
  update public.analysis_corrections c
  set fields = '{}'
  where c.workspace_id = new.workspace_id
    and c.message_id = new.id
    and c.fields <> '{}';
  return new;
end;
$$;
revoke execute on function app.forget_corrections from public;
create trigger forget_corrections
  before update of ai_reason, revoked_at on public.whatsapp_messages
  for each row
  when (new.revoked_at is not null and old.revoked_at is null or new.ai_reason = 'deleted' and old.ai_reason is distinct from 'deleted')
  execute function app.forget_corrections();

-- What was spoken is in the copies that wait for a batch's answer as what was written is.
drop trigger forget_batch_requests on public.whatsapp_messages;
create trigger forget_batch_requests
  after update of content on public.whatsapp_messages
  for each row
  when (old.content is not null and new.content is null or old.transcript is not null and new.transcript is null)
  execute function app.forget_batch_requests();

-- The names of a workspace's intents: its own, or those of services/ai_worker/message_analysis.py (a test compares).
create function app.intent_names(p_settings jsonb)
returns text[]
language sql
immutable
set search_path = ''
as $$
  select coalesce(
    (select pg_catalog.array_agg(i ->> 'name')
     from pg_catalog.jsonb_array_elements(
       case when pg_catalog.jsonb_typeof(p_settings -> 'intents') = 'array' then p_settings -> 'intents' else '[]' end) i
     where pg_catalog.jsonb_typeof(i) = 'object' and pg_catalog.jsonb_typeof(i -> 'name') = 'string' and i ->> 'name' <> ''),
    array['order_status', 'price_question', 'product_question', 'appointment', 'complaint', 'refund', 'cancellation',
      'payment', 'account_help', 'human_agent', 'greeting', 'thanks', 'spam', 'other']);
$$;
revoke execute on function app.intent_names from public;
grant execute on function app.intent_names to parley_writer, service_role;

-- Refuse a correction that says nothing, or what a field cannot say.
-- Refuses: PT422 correction_not_valid.
create function app.check_correction(p_workspace_id uuid, p_fields jsonb)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_intents text[];
  v_problem text;
  v_score real;
begin
  if pg_catalog.jsonb_typeof(p_fields) is distinct from 'object' or p_fields = '{}' then
    raise exception 'nothing is corrected' using errcode = 'PT422', detail = 'correction_not_valid',
      hint = 'Name at least one field.';
  end if;
  select app.intent_names(w.settings) into v_intents
  from public.workspaces w
  where w.id = p_workspace_id;
  if pg_catalog.jsonb_typeof(p_fields -> 'sentiment_score') = 'number' then
    v_score := (p_fields ->> 'sentiment_score')::real;
  end if;

  select case
    when f.key not in ('sentiment', 'sentiment_score', 'intent', 'summary', 'suggested_response', 'priority', 'language')
      then 'There is no field ' || pg_catalog.left(f.key, 40) || ' to correct.'
    when f.key = 'sentiment_score' and (v_score is null or v_score not between -1 and 1) then 'A score is from -1 to 1.'
    when f.key = 'sentiment_score' and not p_fields ? 'sentiment' then 'Say the sentiment with its score.'
    when f.key = 'sentiment_score' and (p_fields ->> 'sentiment', pg_catalog.sign(v_score)) in (('positive', -1), ('negative', 1))
      then 'The score says the opposite of the sentiment.'
    when f.key <> 'sentiment_score' and pg_catalog.jsonb_typeof(f.value) <> 'string' then 'Every field but the score is a text.'
    when f.key = 'sentiment' and f.value #>> '{}' not in ('positive', 'neutral', 'negative')
      then 'A sentiment is positive, neutral or negative.'
    when f.key = 'priority' and f.value #>> '{}' not in ('low', 'normal', 'high', 'urgent')
      then 'A priority is low, normal, high or urgent.'
    when f.key = 'intent' and not f.value #>> '{}' = any (v_intents)
      then 'The workspace has no such intent; it has ' || pg_catalog.array_to_string(v_intents, ', ') || '.'
    when f.key = 'language' and f.value #>> '{}' !~ '^[A-Za-z]{2,3}(-[A-Za-z]{4})?(-([A-Za-z]{2}|[0-9]{3}))?$'
      then 'A language is a tag such as pt-BR.'
    when f.key = 'summary' and pg_catalog.length(pg_catalog.btrim(f.value #>> '{}')) not between 1 and 400
      then 'A summary has up to 400 characters.'
    when f.key = 'suggested_response' and pg_catalog.length(pg_catalog.btrim(f.value #>> '{}')) not between 1 and 1200
      then 'A suggested response has up to 1,200 characters.'
  end into v_problem
  from pg_catalog.jsonb_each(p_fields) f
  order by 1 nulls last
  limit 1;
  if v_problem is not null then
    raise exception 'the correction is not valid' using errcode = 'PT422', detail = 'correction_not_valid', hint = v_problem;
  end if;
end;
$$;
revoke execute on function app.check_correction from public;
grant execute on function app.check_correction to parley_writer;

-- Lock a customer's message for the person who says something about its analysis.
-- Refuses: PT404 unknown, not theirs, ours or in a deleted conversation, PT403 a viewer, PT409 message_revoked.
create function app.lock_analysed(p_workspace_id uuid, p_message_id uuid)
returns public.whatsapp_messages
language plpgsql
set search_path = ''
as $$
declare
  v_message public.whatsapp_messages;
begin
  perform app.check_writer(p_workspace_id, 'message');
  select m.* into v_message
  from public.whatsapp_messages m
  join public.whatsapp_conversations v on v.workspace_id = m.workspace_id and v.id = m.conversation_id
  where m.workspace_id = p_workspace_id
    and m.id = p_message_id
    and m.direction = 'inbound'
    and m.suppressed_at is null
    and v.deleted_at is null
  for no key update of m;
  if not found then
    perform app.raise_not_found('message');
  elsif v_message.revoked_at is not null then
    raise exception 'the message was deleted by its author' using errcode = 'PT409', detail = 'message_revoked',
      hint = 'The customer deleted it for everyone; there is nothing left to say about it.';
  end if;
  return v_message;
end;
$$;
revoke execute on function app.lock_analysed from public;
grant execute on function app.lock_analysed to parley_writer;

-- Show on a message what Claude said with what people corrected. The message is locked.
create function app.show_corrections(p_message public.whatsapp_messages)
returns public.whatsapp_messages
language plpgsql
set search_path = ''
as $$
declare
  v_result jsonb;
  v_shown public.whatsapp_messages := p_message;
begin
  select a.result into v_result
  from public.message_analyses a
  where a.workspace_id = p_message.workspace_id
    and a.message_id = p_message.id
    and a.content_version = p_message.content_version
  order by a.created_at desc
  limit 1;
  v_shown.sentiment := v_result #>> '{sentiment,value}';
  v_shown.sentiment_score := (v_result ->> 'sentiment_score')::real;
  v_shown.intent := v_result #>> '{intent,value}';
  v_shown.ai_summary := v_result #>> '{summary,value}';
  v_shown.suggested_response := v_result #>> '{suggested_response,value}';
  v_shown.priority := v_result #>> '{priority,value}';
  v_shown.language := v_result ->> 'language';
  v_shown := app.corrected(v_shown);
  update public.whatsapp_messages m
  set sentiment = v_shown.sentiment, sentiment_score = v_shown.sentiment_score, intent = v_shown.intent,
      ai_summary = v_shown.ai_summary, suggested_response = v_shown.suggested_response, priority = v_shown.priority,
      language = v_shown.language
  where m.workspace_id = p_message.workspace_id
    and m.id = p_message.id
  returning * into v_shown;
  return v_shown;
end;
$$;
revoke execute on function app.show_corrections from public;
grant execute on function app.show_corrections to parley_writer;

-- What the log may keep of a correction: which fields, and the values that are no text of anybody's.
create function app.correction_facts(p_id uuid, p_fields jsonb, p_message public.whatsapp_messages)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'correction_id', p_id,
    'fields', (select pg_catalog.jsonb_agg(k order by k) from pg_catalog.jsonb_object_keys(p_fields) k),
    'sentiment', p_message.sentiment, 'intent', p_message.intent, 'priority', p_message.priority, 'language', p_message.language);
$$;
revoke execute on function app.correction_facts from public;
grant execute on function app.correction_facts to parley_writer;

-- Say what is right about a message, in place of what Claude said, now and later.
-- p_id: for the correction, new. p_fields: those that are corrected: {sentiment, sentiment_score, intent, summary,
-- suggested_response, priority, language}. The same again is the same correction.
-- Writes: analysis_corrections, whatsapp_messages (one row each), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT422 correction_not_valid, and as app.lock_analysed.
create function public.correct_analysis(p_workspace_id uuid, p_message_id uuid, p_id uuid, p_fields jsonb)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_message public.whatsapp_messages;
  v_shown public.whatsapp_messages;
begin
  v_message := app.lock_analysed(p_workspace_id, p_message_id);
  perform app.check_correction(p_workspace_id, p_fields);
  if p_fields is not distinct from (
    select c.fields
    from public.analysis_corrections c
    where c.workspace_id = p_workspace_id
      and c.message_id = p_message_id
      and c.content_version = v_message.content_version
      and c.undone_at is null
    order by c.corrected_at desc, c.id desc
    limit 1)
  then
    return public.message_json(v_message);
  end if;
  insert into public.analysis_corrections (workspace_id, id, message_id, content_version, fields, corrected_by, corrected_at)
  values (p_workspace_id, p_id, p_message_id, v_message.content_version, p_fields, app.actor(), pg_catalog.clock_timestamp());
  v_shown := app.show_corrections(v_message);
  perform app.audit(
    p_workspace_id, 'message.analysis_corrected', p_message_id,
    app.correction_facts(p_id, p_fields, v_message), app.correction_facts(p_id, p_fields, v_shown));
  return public.message_json(v_shown);
end;
$$;
revoke execute on function public.correct_analysis from public, anon, service_role;
grant execute on function public.correct_analysis to authenticated;
select app.give_to_writer('public.correct_analysis');

-- Take a correction back: what Claude said holds again, or what was corrected before. Undone already: fine.
-- p_correction_id: null: the latest that holds.
-- Writes: analysis_corrections, whatsapp_messages (one row each), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 correction_not_found, and as app.lock_analysed.
create function public.undo_correction(p_workspace_id uuid, p_message_id uuid, p_correction_id uuid default null)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_message public.whatsapp_messages;
  v_shown public.whatsapp_messages;
  v_correction public.analysis_corrections;
begin
  v_message := app.lock_analysed(p_workspace_id, p_message_id);
  select * into v_correction
  from public.analysis_corrections c
  where c.workspace_id = p_workspace_id
    and c.message_id = p_message_id
    and c.content_version = v_message.content_version
    and (c.id = p_correction_id or p_correction_id is null and c.undone_at is null)
  order by c.corrected_at desc, c.id desc
  limit 1;
  if not found then
    perform app.raise_not_found('correction');
  elsif v_correction.undone_at is not null then
    return public.message_json(v_message);
  end if;
  update public.analysis_corrections c
  set undone_at = now(), undone_by = app.actor()
  where c.workspace_id = p_workspace_id
    and c.id = v_correction.id;
  v_shown := app.show_corrections(v_message);
  perform app.audit(
    p_workspace_id, 'message.correction_undone', p_message_id,
    app.correction_facts(v_correction.id, v_correction.fields, v_message),
    app.correction_facts(v_correction.id, v_correction.fields, v_shown));
  return public.message_json(v_shown);
end;
$$;
revoke execute on function public.undo_correction from public, anon, service_role;
grant execute on function public.undo_correction to authenticated;
select app.give_to_writer('public.undo_correction');

-- What was said before a place in a conversation, oldest first, as Claude is shown it: [{direction, kind, content, sent_at,
-- reaction}]. Not: what was revoked or suppressed, and what Claude refused. reaction: the customer's, to one of ours.
create function app.said_before(p_workspace_id uuid, p_conversation_id uuid, p_seq bigint)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'direction', h.direction, 'kind', h.message_type, 'content', coalesce(h.transcript, h.content, ''), 'sent_at', h.sent_at,
    'reaction', case when h.direction = 'outbound' then (
      select nullif(e.payload ->> 'emoji', '')
      from public.message_events e
      where e.workspace_id = p_workspace_id
        and e.channel_id = h.channel_id
        and e.wamid = h.wamid
        and e.kind = 'reaction'
        and e.by_customer
      order by e.sent_at desc, e.payload ->> 'emoji' desc
      limit 1) end)) order by h.seq), '[]')
  from (
    select m.*
    from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and m.conversation_id = p_conversation_id
      and m.seq < p_seq
      and m.revoked_at is null
      and m.suppressed_at is null
      and (coalesce(m.transcript, m.content) is not null or m.message_type in ('image', 'video', 'document', 'audio', 'sticker'))
      and m.ai_state <> 'failed' -- what Claude refused alone would be refused again as context
    order by m.seq desc
    limit 20 -- enough to tell "yes, that one" from noise; more costs tokens on every message
  ) h;
$$;
revoke execute on function app.said_before from public;
grant execute on function app.said_before to service_role;

-- What people corrected, with what Claude was shown: labelled examples for the evaluation, oldest first.
-- p_after: the last message_id of the page before, null for the first.
-- Returns {items: [{message_id, content, message_type, history, fields, intents, tone, is_reply_window_open}]}; of intents
-- and tone what the workspace sets. Called by: services/ai_worker, for an operator.
create function public.list_corrections(p_workspace_id uuid, p_after uuid, p_limit integer)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('items', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'message_id', m.id,
    'message_type', m.message_type,
    'content', coalesce(m.transcript, m.content),
    'fields', m.fields,
    'intents', w.settings -> 'intents',
    'tone', w.settings -> 'tone',
    'is_reply_window_open', coalesce(m.analysed_at, m.sent_at) < m.sent_at + interval '24 hours',
    'history', app.said_before(p_workspace_id, m.conversation_id, m.seq)) order by m.id), '[]'))
  from public.workspaces w
  cross join lateral (
    select x.*, app.corrected_fields(x.workspace_id, x.id, x.content_version) as fields
    from (
      select distinct c.message_id
      from public.analysis_corrections c
      where c.workspace_id = p_workspace_id
        and c.undone_at is null
        and c.fields <> '{}'
        and (p_after is null or c.message_id > p_after)
    ) c
    join public.whatsapp_messages x on x.workspace_id = p_workspace_id and x.id = c.message_id
    where x.revoked_at is null
      and coalesce(x.transcript, x.content, '') <> ''
    order by x.id
    limit p_limit
  ) m
  where w.id = p_workspace_id
    and m.fields is not null;
$$;
revoke execute on function public.list_corrections from public, anon, authenticated;
grant execute on function public.list_corrections to service_role;

-- 3. What becomes of suggestions.

-- How alike two texts are, 0 to 1: the share of three-letter pieces they have in common, case and spaces aside. Of long
-- ones the first 1,200 characters.
create function app.alikeness(p_one text, p_other text)
returns real
language sql
immutable
set search_path = ''
as $$
  with texts as (
    select 1 as n, pg_catalog.regexp_split_to_array('  ' || pg_catalog.left(pg_catalog.regexp_replace(pg_catalog.lower(pg_catalog.btrim(p_one)), '\s+', ' ', 'g'), 1200) || '  ', '') as c
    union all
    select 2, pg_catalog.regexp_split_to_array('  ' || pg_catalog.left(pg_catalog.regexp_replace(pg_catalog.lower(pg_catalog.btrim(p_other)), '\s+', ' ', 'g'), 1200) || '  ', '')
  ), pieces as (
    select t.n, t.c[i] || t.c[i + 1] || t.c[i + 2] as piece, count(*) as times
    from texts t
    cross join lateral pg_catalog.generate_series(1, pg_catalog.array_length(t.c, 1) - 2) i
    group by 1, 2
  )
  select coalesce((
    select 2 * sum(least(a.times, b.times))
    from pieces a
    join pieces b on b.piece = a.piece and b.n = 2
    where a.n = 1), 0)::real / (select sum(times) from pieces)::real;
$$;
revoke execute on function app.alikeness from public;
grant execute on function app.alikeness to parley_writer;

-- What a suggestion is on: the newest of a conversation, until something is sent. Those before it are out of the way.
create function app.offer_suggestion()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from public.whatsapp_messages o
    where o.workspace_id = new.workspace_id and o.conversation_id = new.conversation_id and o.seq > new.seq and o.direction = 'outbound')
    or exists (
      select from public.suggestion_feedback f
      where f.workspace_id = new.workspace_id and f.conversation_id = new.conversation_id and f.outcome is null and f.seq > new.seq)
  then
    return null; -- nobody will be offered it
  end if;
  update public.suggestion_feedback f
  set outcome = 'superseded', decided_at = now()
  where f.workspace_id = new.workspace_id
    and f.conversation_id = new.conversation_id
    and f.outcome is null
    and f.message_id <> new.id;
  insert into public.suggestion_feedback as f (workspace_id, message_id, conversation_id, seq, suggested_at, intent, prompt_version)
  select new.workspace_id, new.id, new.conversation_id, new.seq, new.analysed_at, new.intent, (
    select a.prompt_version
    from public.message_analyses a
    where a.workspace_id = new.workspace_id and a.message_id = new.id and a.content_version = new.content_version
    order by a.created_at desc
    limit 1)
  on conflict (workspace_id, message_id) do update
    set suggested_at = excluded.suggested_at, intent = excluded.intent, prompt_version = excluded.prompt_version
    where f.outcome is null;
  return null;
end;
$$;
revoke execute on function app.offer_suggestion from public;
create trigger offer_suggestion
  after update of analysed_at on public.whatsapp_messages
  for each row
  when (new.ai_state = 'done' and new.analysed_at is distinct from old.analysed_at and new.suggested_response is not null
    and new.direction = 'inbound' and new.origin = 'live')
  execute function app.offer_suggestion();

-- Note what a reply says about the suggestion it names, or about the one on offer that it passes over.
create function app.note_reply(p_reply public.whatsapp_messages, p_suggestion_id uuid)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_feedback public.suggestion_feedback;
  v_similarity real;
begin
  for v_feedback in
    select *
    from public.suggestion_feedback f
    where f.workspace_id = p_reply.workspace_id
      and f.conversation_id = p_reply.conversation_id
      and (f.outcome is null or f.message_id = p_suggestion_id and f.source is distinct from 'person')
    order by f.message_id
    for no key update
  loop
    if v_feedback.message_id is distinct from p_suggestion_id then
      v_similarity := null;
    else
      select greatest(
               app.alikeness(p_reply.content, m.suggested_response),
               app.alikeness(p_reply.content, (
                 select a.result #>> '{suggested_template,text}'
                 from public.message_analyses a
                 where a.workspace_id = m.workspace_id and a.message_id = m.id and a.content_version = m.content_version
                 order by a.created_at desc
                 limit 1)))
      into v_similarity
      from public.whatsapp_messages m
      where m.workspace_id = p_reply.workspace_id
        and m.id = p_suggestion_id;
    end if;
    update public.suggestion_feedback f
    -- One word changed in a short reply leaves about 0.8; a reply of one's own about 0.2 (tried on replies of 60 to 400
    -- characters, 2026-11-24).
    set outcome = case when v_similarity >= 0.98 then 'used' when v_similarity >= 0.4 then 'edited' else 'ignored' end,
        similarity = v_similarity, source = 'reply', reply_id = p_reply.id, decided_by = app.actor(), decided_at = now()
    where f.workspace_id = v_feedback.workspace_id
      and f.message_id = v_feedback.message_id;
  end loop;
end;
$$;
revoke execute on function app.note_reply from public;
grant execute on function app.note_reply to parley_writer;

-- Say what became of a suggestion that no reply of ours tells about.
-- p_outcome: used, edited, ignored.
-- Writes: suggestion_feedback (one row), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 suggestion_not_found, PT422 outcome_not_valid, and as app.lock_analysed.
create function public.rate_suggestion(p_workspace_id uuid, p_message_id uuid, p_outcome text)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_message public.whatsapp_messages;
  v_before text;
begin
  v_message := app.lock_analysed(p_workspace_id, p_message_id);
  if p_outcome is null or p_outcome not in ('used', 'edited', 'ignored') then
    raise exception 'no such outcome' using errcode = 'PT422', detail = 'outcome_not_valid', hint = 'Say used, edited or ignored.';
  end if;
  select f.outcome into v_before
  from public.suggestion_feedback f
  where f.workspace_id = p_workspace_id
    and f.message_id = p_message_id
  for no key update;
  if not found then
    perform app.raise_not_found('suggestion');
  end if;
  update public.suggestion_feedback f
  set outcome = p_outcome, source = 'person', decided_by = app.actor(), decided_at = now()
  where f.workspace_id = p_workspace_id
    and f.message_id = p_message_id
    and (f.outcome, f.source) is distinct from (p_outcome, 'person');
  if found then
    perform app.audit(
      p_workspace_id, 'message.suggestion_rated', p_message_id,
      pg_catalog.jsonb_build_object('outcome', v_before), pg_catalog.jsonb_build_object('outcome', p_outcome));
  end if;
  return public.message_json(v_message);
end;
$$;
revoke execute on function public.rate_suggestion from public, anon, service_role;
grant execute on function public.rate_suggestion to authenticated;
select app.give_to_writer('public.rate_suggestion');

-- Suggestions nobody used in p_hours count as ignored. Called by: services/ai_worker, now and then. Returns how many.
create function public.close_suggestions(p_hours integer)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with old as (
    select f.workspace_id, f.message_id
    from public.suggestion_feedback f
    where f.outcome is null
      and f.suggested_at < now() - pg_catalog.make_interval(hours => p_hours)
    order by f.suggested_at
    limit 1000
    for no key update skip locked
  ), closed as (
    update public.suggestion_feedback f
    set outcome = 'ignored', source = 'time', decided_at = now()
    from old
    where f.workspace_id = old.workspace_id
      and f.message_id = old.message_id
    returning 1
  )
  select pg_catalog.jsonb_build_object('closed', count(*)) from closed;
$$;
revoke execute on function public.close_suggestions from public, anon, authenticated;
grant execute on function public.close_suggestions to service_role;

-- How often suggestions are accepted, by intent and prompt version, of those made from p_from until before p_to.
-- acceptance: (used + edited) / (used + edited + ignored), null where nothing is decided.
-- Refuses: PT404 not a member, PT403 an agent or viewer, PT422 a time missing, or more than 366 days.
create function public.suggestion_acceptance(p_workspace_id uuid, p_from timestamptz, p_to timestamptz)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's, since it asks for the role
set search_path = ''
as $$
begin
  perform app.check_manager(p_workspace_id, 'workspace');
  if p_from is null or p_to is null or p_from >= p_to or p_to - p_from > interval '366 days' then
    raise exception 'bad range' using errcode = 'PT422', detail = 'bad_range', hint = 'Ask for up to 366 days, the earlier time first.';
  end if;
  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'intent', g.intent, 'prompt_version', g.prompt_version, 'used', g.used, 'edited', g.edited, 'ignored', g.ignored,
        'on_offer', g.on_offer,
        'acceptance', pg_catalog.round((g.used + g.edited)::numeric / nullif(g.used + g.edited + g.ignored, 0), 4)
      ) order by g.used + g.edited + g.ignored desc, g.intent, g.prompt_version)
      from (
        select f.intent, f.prompt_version,
               count(*) filter (where f.outcome = 'used') as used,
               count(*) filter (where f.outcome = 'edited') as edited,
               count(*) filter (where f.outcome = 'ignored') as ignored,
               count(*) filter (where f.outcome is null) as on_offer
        from public.suggestion_feedback f
        where f.workspace_id = p_workspace_id
          and f.suggested_at >= p_from
          and f.suggested_at < p_to
          and f.outcome is distinct from 'superseded'
        group by f.intent, f.prompt_version
      ) g
    ), '[]'),
    'server_time', now());
end;
$$;
revoke execute on function public.suggestion_acceptance from public, anon, service_role;
grant execute on function public.suggestion_acceptance to authenticated;
select app.give_to_writer('public.suggestion_acceptance');

-- 4. What Claude is shown.

-- Why Claude is not to look at a message; null: it is. Pictures, films and files are looked at by their kind, too; a
-- voice note once there is a transcript (public.set_transcript).
create or replace function app.not_analysed_because(
  p_direction text, p_origin text, p_type text, p_content text, p_ai_enabled boolean, p_conversation_status text,
  p_is_suppressed boolean, p_is_revoked boolean
)
returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when p_direction = 'outbound' then 'outbound'
    when p_origin <> 'live' then 'history'
    when p_is_revoked then 'revoked'
    when p_is_suppressed or p_conversation_status = 'blocked' then 'blocked'
    when not p_ai_enabled then 'ai_off'
    when p_type = 'audio' then 'no_transcript'
    when p_type in ('image', 'video', 'document') then null
    when p_type not in ('text', 'button', 'interactive', 'order') then 'unsupported_type'
    when coalesce(p_content, '') = '' then 'empty'
  end;
$$;

-- The approved templates that can be sent while a conversation's window is closed; [] while it is open, and in groups.
create function app.templates_on_offer(p_workspace_id uuid, p_conversation_id uuid)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'id', t.id, 'template_name', t.template_name, 'language', t.language, 'category', t.category, 'components', t.components)
    order by t.usage_count desc, t.template_name, t.language), '[]')
  from (
    select x.*
    from public.whatsapp_conversations v
    join public.whatsapp_channels c on c.workspace_id = v.workspace_id and c.id = v.channel_id
    join public.whatsapp_templates x on x.workspace_id = c.workspace_id and x.waba_id = c.waba_id
    left join public.contacts k on k.workspace_id = v.workspace_id and k.id = v.contact_id
    where v.workspace_id = p_workspace_id
      and v.id = p_conversation_id
      and v.group_id is null
      and coalesce(v.window_expires_at, '-infinity') <= now()
      and x.status = 'approved'
      and x.category is distinct from 'authentication'
      and (x.category is distinct from 'marketing' or k.opted_out_at is null)
    order by x.usage_count desc, x.template_name, x.language
    limit 40 -- of which the worker shows Claude the few that texts alone can fill
  ) t;
$$;
revoke execute on function app.templates_on_offer from public;
grant execute on function app.templates_on_offer to service_role;

-- Images that came in after Claude had read their caption are read again, with the picture: those of the last hour, where
-- the workspace's setting `vision` is on. An analysis that had the chance of a picture says so in its version.
create function app.reread_pictures(p_workspace_id uuid, p_conversation_id uuid)
returns void
language sql
set search_path = ''
as $$
  update public.whatsapp_messages m
  set ai_state = 'pending', ai_reason = null, ai_attempts = 0
  where m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
    and m.message_type = 'image'
    and m.ai_state = 'done'
    and m.created_at > now() - interval '1 hour'
    and exists (select from public.workspaces w where w.id = p_workspace_id and w.settings -> 'vision' = 'true')
    and exists (
      select from public.media f
      where f.workspace_id = m.workspace_id and f.message_id = m.id and f.kind = 'image' and f.state = 'stored'
        and not f.is_mismatched)
    and not exists (
      select from public.message_analyses a
      where a.workspace_id = m.workspace_id and a.message_id = m.id and a.content_version = m.content_version
        and a.prompt_version like '%+vision');
$$;
revoke execute on function app.reread_pictures from public;
grant execute on function app.reread_pictures to service_role;

create function app.note_picture()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  -- Only the work row: messages come before media in the lock order, and the claim looks for itself.
  insert into app.conversation_work as k (workspace_id, conversation_id, due_at)
  select m.workspace_id, m.conversation_id, now()
  from public.whatsapp_messages m
  join public.workspaces w on w.id = m.workspace_id
  where m.workspace_id = new.workspace_id
    and m.id = new.message_id
    and m.direction = 'inbound'
    and w.settings -> 'vision' = 'true'
  -- Waits for whoever is about to let the row go: they may have looked before this picture was there.
  on conflict (workspace_id, conversation_id) do update set due_at = k.due_at;
  return null;
end;
$$;
revoke execute on function app.note_picture from public;
create trigger note_picture
  after update of state on public.media
  for each row
  when (new.state = 'stored' and old.state <> 'stored' and new.kind = 'image' and new.message_id is not null)
  execute function app.note_picture();

-- Open the next attempt under a lease: as before, and with what media and closed windows need. Each new message has also
-- kind, transcript, and, of an image, its stored file {media_id, storage_key, mime_type, size_bytes} where the
-- workspace's setting `vision` is on; history as of app.said_before; templates as of app.templates_on_offer.
alter function app.open_analysis_attempt(uuid, uuid, integer, jsonb) rename to open_attempt;
create function app.open_analysis_attempt(
  p_workspace_id uuid, p_conversation_id uuid, p_max_messages integer, p_prices jsonb default null
)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_templates jsonb := app.templates_on_offer(p_workspace_id, p_conversation_id);
  v_more_bytes bigint;
  v_context jsonb;
  v_new jsonb;
  v_first_seq bigint;
begin
  perform app.reread_pictures(p_workspace_id, p_conversation_id);
  if p_prices is not null then
    -- What is sent beyond the texts that are counted already: templates, transcripts, kinds, reactions; of pictures, up
    -- to 5 of 5,000 tokens each (services/ai_worker/pictures.py).
    select pg_catalog.octet_length(v_templates::text) + 8192
           + coalesce(sum(app.bytes_sent(m.transcript)), 0)
           + 5000 * least(5, count(*) filter (where m.message_type = 'image' and m.ai_state = 'pending'))
    into v_more_bytes
    from (
      select x.transcript, x.message_type, x.ai_state
      from public.whatsapp_messages x
      where x.workspace_id = p_workspace_id
        and x.conversation_id = p_conversation_id
        and (x.transcript is not null or x.message_type = 'image')
      order by x.seq desc
      limit 60
    ) m;
    p_prices := p_prices || pg_catalog.jsonb_build_object(
      'prefix_bytes', coalesce((p_prices ->> 'prefix_bytes')::bigint, 0) + v_more_bytes);
  end if;
  v_context := app.open_attempt(p_workspace_id, p_conversation_id, p_max_messages, p_prices);
  if not coalesce(v_context ? 'new_messages', false) then
    return v_context;
  end if;

  select pg_catalog.jsonb_agg(
           n.value || pg_catalog.jsonb_build_object(
             'kind', m.message_type,
             'transcript', m.transcript,
             'file', case when m.message_type = 'image' and v_context #> '{settings,vision}' = 'true' then (
               select pg_catalog.jsonb_build_object(
                 'media_id', f.id, 'storage_key', f.storage_key, 'mime_type', coalesce(f.sniffed_type, f.mime_type), 'size_bytes', f.size_bytes)
               from public.media f
               where f.workspace_id = p_workspace_id and f.message_id = m.id and f.state = 'stored' and f.kind = 'image'
                 and not f.is_mismatched
               order by f.created_at, f.id
               limit 1) end
           ) order by m.seq),
         min(m.seq)
  into v_new, v_first_seq
  from pg_catalog.jsonb_array_elements(v_context -> 'new_messages') n
  join public.whatsapp_messages m on m.workspace_id = p_workspace_id and m.id = (n.value ->> 'message_id')::uuid;

  return v_context || pg_catalog.jsonb_build_object(
    'new_messages', v_new,
    'history', app.said_before(p_workspace_id, p_conversation_id, v_first_seq),
    'templates', v_templates);
end;
$$;
revoke execute on function app.open_analysis_attempt from public;
grant execute on function app.open_analysis_attempt to service_role;

-- A customer's thumbs down on what we wrote says as much as a sentence: the conversation is read again, so that the score
-- follows. (One that comes before its message has nothing to be about yet.)
create function app.note_thumbs_down()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  perform app.want_conversation_analysis(m.workspace_id, m.conversation_id)
  from public.whatsapp_messages m
  where m.workspace_id = new.workspace_id
    and m.channel_id = new.channel_id
    and m.wamid = new.wamid
    and m.direction = 'outbound'
    and m.origin = 'live';
  return null;
end;
$$;
revoke execute on function app.note_thumbs_down from public;
create trigger note_thumbs_down
  after insert on public.message_events
  for each row
  when (new.kind = 'reaction' and new.by_customer and new.payload ->> 'emoji' like '👎%')
  execute function app.note_thumbs_down();

-- Let Claude look at a message, again or for the first time. The caller holds the message.
create function app.look_again(p_message public.whatsapp_messages)
returns void
language plpgsql
set search_path = ''
as $$
begin
  update public.whatsapp_messages m
  set ai_state = 'pending', ai_reason = null, ai_attempts = 0
  where m.workspace_id = p_message.workspace_id
    and m.id = p_message.id;
  insert into app.conversation_work (workspace_id, conversation_id, due_at)
  values (p_message.workspace_id, p_message.conversation_id, now())
  on conflict (workspace_id, conversation_id) do nothing;
end;
$$;
revoke execute on function app.look_again from public;
grant execute on function app.look_again to service_role, parley_writer;

-- Write down what a voice note says, as somebody or some program heard it; Claude then reads it. The same again is fine.
-- Writes: whatsapp_messages, conversation_work (one row each), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT409 not_a_voice_note, transcript_exists, PT422 transcript_not_valid, and as app.lock_analysed.
create function public.set_transcript(p_workspace_id uuid, p_message_id uuid, p_transcript text)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_message public.whatsapp_messages;
begin
  perform app.check_writer(p_workspace_id, 'message');
  -- Conversations come before messages in the lock order, and the work row is made under the conversation.
  perform 1
  from public.whatsapp_conversations v
  join public.whatsapp_messages m on m.workspace_id = v.workspace_id and m.conversation_id = v.id
  where v.workspace_id = p_workspace_id
    and m.id = p_message_id
  for no key update of v;
  v_message := app.lock_analysed(p_workspace_id, p_message_id);
  if v_message.message_type <> 'audio' then
    raise exception 'not a voice note' using errcode = 'PT409', detail = 'not_a_voice_note', hint = 'Only what was spoken has a transcript.';
  elsif pg_catalog.length(pg_catalog.btrim(coalesce(p_transcript, ''))) not between 1 and 20000 then
    raise exception 'bad transcript' using errcode = 'PT422', detail = 'transcript_not_valid', hint = 'A transcript has 1 to 20,000 characters.';
  elsif v_message.transcript = pg_catalog.btrim(p_transcript) then
    return public.message_json(v_message);
  elsif v_message.transcript is not null then
    -- Claude may have read it, and a result belongs to one wording.
    raise exception 'it has a transcript' using errcode = 'PT409', detail = 'transcript_exists', hint = 'It was written down already; correct the analysis instead.';
  end if;
  update public.whatsapp_messages m
  set transcript = pg_catalog.btrim(p_transcript)
  where m.workspace_id = p_workspace_id
    and m.id = p_message_id;
  if v_message.origin = 'live' and v_message.ai_reason = 'no_transcript' then
    perform app.look_again(v_message);
  end if;
  perform app.audit(p_workspace_id, 'message.transcribed', p_message_id);
  select * into v_message
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.id = p_message_id;
  return public.message_json(v_message);
end;
$$;
revoke execute on function public.set_transcript from public, anon, service_role;
grant execute on function public.set_transcript to authenticated;
select app.give_to_writer('public.set_transcript');

-- 5. What people are shown of it.

-- Settings as people read them: as before, and whether Claude is shown the pictures customers send.
create or replace function app.workspace_settings_json(p_workspace public.workspaces)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'workspace_id', p_workspace.id,
    'mark_read', coalesce(p_workspace.settings ->> 'mark_read', 'on_receipt'),
    'reopen_archived', p_workspace.settings -> 'reopen_archived' is not distinct from 'true',
    'vision', p_workspace.settings -> 'vision' is not distinct from 'true');
$$;

-- Change some of a workspace's settings: mark_read ('on_receipt', 'on_open', 'never'), reopen_archived,
-- vision (true, false).
-- Writes: workspaces (one row), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 not a member, PT403 an agent or viewer, PT422 another name or value. As they are already: fine.
create or replace function public.change_workspace_settings(p_workspace_id uuid, p_changes jsonb)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_workspace public.workspaces;
  v_before jsonb;
begin
  perform app.check_manager(p_workspace_id, 'workspace');
  if p_changes is null or pg_catalog.jsonb_typeof(p_changes) <> 'object'
    or p_changes - 'mark_read' - 'reopen_archived' - 'vision' <> '{}'
    or coalesce(p_changes -> 'mark_read', '"never"') not in ('"on_receipt"', '"on_open"', '"never"')
    or coalesce(p_changes -> 'reopen_archived', 'true') not in ('true', 'false')
    or coalesce(p_changes -> 'vision', 'true') not in ('true', 'false')
  then
    raise exception 'no such setting or value' using
      errcode = 'PT422', detail = 'setting_not_valid', hint = 'mark_read: on_receipt, on_open or never; reopen_archived and vision: true or false.';
  end if;
  select * into v_workspace
  from public.workspaces
  where id = p_workspace_id
  for no key update;
  if v_workspace.settings @> p_changes then
    return app.workspace_settings_json(v_workspace);
  end if;
  v_before := app.workspace_settings_json(v_workspace) - 'workspace_id';
  update public.workspaces
  set settings = settings || p_changes
  where id = p_workspace_id
  returning * into v_workspace;
  perform app.audit(
    p_workspace_id, 'workspace.settings_changed', p_workspace_id, v_before,
    app.workspace_settings_json(v_workspace) - 'workspace_id');
  return app.workspace_settings_json(v_workspace);
end;
$$;

-- One message as the API shows it: what intake knows of it, what sending does, and what people made of the analysis.
create or replace function public.message_json(p_message public.whatsapp_messages)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select r.message || pg_catalog.jsonb_build_object(
    'sent_by', p_message.sent_by,
    'retry_of', p_message.retry_of,
    'template_id', p_message.template_id,
    'bulk_id', p_message.bulk_id,
    'send_at', p_message.send_at,
    'sending', p_message.sending,
    'transcript', p_message.transcript,
    'analysis', r.message -> 'analysis' || pg_catalog.jsonb_build_object(
      'corrections', coalesce((
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'id', c.id, 'fields', c.fields, 'corrected_by', c.corrected_by, 'corrected_at', c.corrected_at) order by c.corrected_at, c.id)
        from public.analysis_corrections c
        where c.workspace_id = p_message.workspace_id
          and c.message_id = p_message.id
          and c.content_version = p_message.content_version
          and c.undone_at is null
      ), '[]'),
      'suggestion', (
        select pg_catalog.jsonb_build_object(
          'outcome', f.outcome, 'similarity', f.similarity, 'source', f.source, 'reply_id', f.reply_id, 'decided_at', f.decided_at)
        from public.suggestion_feedback f
        where f.workspace_id = p_message.workspace_id
          and f.message_id = p_message.id
      )))
  from (select public.recorded_message_json(p_message) as message) r;
$$;

notify pgrst, 'reload schema';
