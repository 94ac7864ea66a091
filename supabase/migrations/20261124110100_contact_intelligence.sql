-- What Claude makes of a conversation: score, tags, stage and tasks of its contact; and what people make of that.
set lock_timeout = '5s';

-- 1. Where it is kept.

alter table public.contacts
  add column ai_score smallint check (ai_score between 0 and 100), -- as of scored_at; app.decayed_score says what is left of it
  add column score_reasons jsonb, -- {features: {name: {value (0 to 1), weight, points}}}: numbers only, no words of theirs
  add column scored_at timestamptz,
  add column score_half_life_days real check (score_half_life_days > 0),
  add column lifecycle_stage text,
  add column stage_source text check (stage_source in ('user', 'ai')), -- a person's is not changed by Claude
  add column tags text[] not null default '{}', -- those of tag_choices that are set, in order of their letters
  add column tag_choices jsonb not null default '{}'; -- {tag: {source: user|ai, is_set}}: what a person chose, Claude leaves

alter table public.whatsapp_messages
  add column transcript text; -- of a voice note; made elsewhere, by a person or a program (set_transcript)

alter table app.conversation_work
  add column conversation_wanted_at timestamptz; -- since when the whole conversation is to be read, after its new messages
comment on table app.conversation_work is
  'A row exists while Claude has something to read in a conversation, new messages or all of it: the truth behind every wake-up.';

create index analysis_attempts_of_conversations on app.analysis_attempts (workspace_id, conversation_id, started_at)
  where task = 'conversation_analysis'; -- their message_ids are empty

create table public.conversation_analyses (
  workspace_id uuid not null,
  conversation_id uuid not null,
  content_version text not null, -- a digest of the messages read, their versions and reactions
  prompt_version text not null,
  attempt_id bigint not null,
  result jsonb not null, -- {summary, features|stage|tags|tasks with confidence and evidence [{message_id, start, end, quote}]}
  model text not null,
  input_tokens integer not null,
  output_tokens integer not null,
  cache_read_tokens integer not null,
  cache_write_tokens integer not null,
  cost_usd numeric(12, 8) not null,
  latency_ms integer not null,
  created_at timestamptz not null default now(),
  primary key (workspace_id, conversation_id, content_version, prompt_version),
  foreign key (workspace_id, conversation_id) references public.whatsapp_conversations (workspace_id, id) on delete cascade,
  foreign key (workspace_id, attempt_id) references app.analysis_attempts (workspace_id, id)
);
comment on table public.conversation_analyses is 'What Claude answered about a conversation as it stood then, with its price.';
create index conversation_analyses_newest on public.conversation_analyses (workspace_id, conversation_id, created_at);
create index conversation_analyses_attempt on public.conversation_analyses (workspace_id, attempt_id);

create table public.contact_scores (
  workspace_id uuid not null,
  id bigint generated always as identity,
  contact_id uuid not null,
  conversation_id uuid, -- the one it was read from
  attempt_id bigint not null,
  score smallint not null check (score between 0 and 100),
  reasons jsonb not null, -- as contacts.score_reasons
  half_life_days real not null check (half_life_days > 0),
  at timestamptz not null default now(),
  undone_at timestamptz, -- a person took it back
  primary key (workspace_id, id),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id) on delete cascade
);
comment on table public.contact_scores is 'Every score a contact has had, and what it was made of.';
create index contact_scores_contact on public.contact_scores (workspace_id, contact_id, id);

create table public.tasks (
  workspace_id uuid not null,
  id uuid not null,
  contact_id uuid not null,
  conversation_id uuid not null,
  kind text not null, -- one of the workspace's task_kinds, when it was made
  title text not null check (title <> '' and pg_catalog.length(title) <= 200),
  key text not null, -- of the title: what makes two the same
  due_at timestamptz,
  team text, -- whom it is for, a hint: one of the workspace's teams
  evidence jsonb, -- [{message_id, start, end, quote}]
  state text not null default 'open' check (state in (
    'open',
    'done',
    'dismissed' -- not to be done at all
  )),
  assigned_to uuid, -- a member
  source text not null default 'ai' check (source in ('ai', 'user')),
  attempt_id bigint, -- the call it came from
  created_at timestamptz not null default now(),
  closed_at timestamptz,
  closed_by uuid,
  primary key (workspace_id, id),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id) on delete cascade,
  foreign key (workspace_id, conversation_id) references public.whatsapp_conversations (workspace_id, id) on delete cascade,
  check ((state = 'open') = (closed_at is null))
);
comment on table public.tasks is 'What somebody has to do for a contact.';
create unique index tasks_once on public.tasks (workspace_id, conversation_id, key) where state = 'open';
create index tasks_conversation on public.tasks (workspace_id, conversation_id, closed_at);
create index tasks_contact on public.tasks (workspace_id, contact_id);
create index tasks_state on public.tasks (workspace_id, state, id desc);

create table public.ai_proposals (
  workspace_id uuid not null,
  id uuid not null,
  contact_id uuid not null,
  conversation_id uuid not null,
  kind text not null check (kind in ('tag', 'stage', 'task')),
  key text not null, -- of the name or title: what makes two the same
  name text not null check (name <> '' and pg_catalog.length(name) <= 200), -- the tag, the stage, or the task's title
  payload jsonb not null default '{}', -- of a task: {kind, due_at, team, evidence}
  confidence real not null,
  state text not null default 'open' check (state in ('open', 'accepted', 'rejected')),
  attempt_id bigint not null,
  created_at timestamptz not null default now(),
  decided_at timestamptz,
  decided_by uuid,
  primary key (workspace_id, id),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id) on delete cascade,
  foreign key (workspace_id, conversation_id) references public.whatsapp_conversations (workspace_id, id) on delete cascade
);
comment on table public.ai_proposals is
  'What Claude would do but may not by itself, since it is on no list of the workspace or a person chose otherwise.';
-- Once decided it is not proposed again.
create unique index ai_proposals_once on public.ai_proposals (workspace_id, contact_id, kind, key);
create index ai_proposals_conversation on public.ai_proposals (workspace_id, conversation_id);
create index ai_proposals_state on public.ai_proposals (workspace_id, state, id desc);

create index audit_log_ai_changes on public.audit_log (workspace_id, subject_id, id) where source = 'ai';

alter table public.conversation_analyses enable row level security;
alter table public.contact_scores enable row level security;
alter table public.tasks enable row level security;
alter table public.ai_proposals enable row level security;
revoke all on public.conversation_analyses, public.contact_scores, public.tasks, public.ai_proposals
  from anon, authenticated, service_role;
revoke all on sequence public.contact_scores_id_seq from anon, authenticated, service_role;
grant select on public.conversation_analyses, public.contact_scores, public.tasks, public.ai_proposals
  to authenticated, parley_writer;
grant select, insert, update on public.conversation_analyses, public.contact_scores, public.tasks, public.ai_proposals
  to service_role;
create policy "Members see their conversations' analyses" on public.conversation_analyses
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create policy "Members see their contacts' scores" on public.contact_scores
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create policy "Members see their tasks" on public.tasks
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create policy "Members see what is proposed to them" on public.ai_proposals
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

-- What parley_writer changes for the functions below.
grant update (ai_score, score_reasons, scored_at, score_half_life_days, lifecycle_stage, stage_source, tags, tag_choices)
  on public.contacts to parley_writer;
grant update (undone_at) on public.contact_scores to parley_writer;
create policy "Writers take their contacts' scores back" on public.contact_scores
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
grant insert (workspace_id, id, contact_id, conversation_id, kind, title, key, due_at, team, evidence, source, attempt_id),
  update (state, assigned_to, closed_at, closed_by) on public.tasks to parley_writer;
create policy "Writers make tasks" on public.tasks
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers change their tasks" on public.tasks
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
grant update (state, decided_at, decided_by) on public.ai_proposals to parley_writer;
create policy "Writers decide what is proposed to them" on public.ai_proposals
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
grant select on public.audit_log to parley_writer;
alter policy "Members see what was changed" on public.audit_log to authenticated, parley_writer;

-- 2. Rules.

-- A workspace's list of names with descriptions, read leniently: what an owner mistyped must not stop anything.
-- Without a list, the default; an empty list is one.
create function app.named_in(p_setting jsonb, p_default jsonb)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select case
    when pg_catalog.jsonb_typeof(p_setting) is distinct from 'array' then p_default
    else coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', n.name, 'description', n.description) order by n.place)
      from (
        select min(e.place) as place, e.name, pg_catalog.left(coalesce(min(e.description), ''), 300) as description
        from (
          select pg_catalog.btrim(case pg_catalog.jsonb_typeof(x.value) when 'string' then x.value #>> '{}'
                                    when 'object' then x.value ->> 'name' end) as name,
                 case pg_catalog.jsonb_typeof(x.value) when 'object' then x.value ->> 'description' end as description,
                 x.place
          from pg_catalog.jsonb_array_elements(p_setting) with ordinality x(value, place)
        ) e
        where e.name <> '' and pg_catalog.length(e.name) <= 60
        group by e.name
        order by 1
        limit 200
      ) n), '[]')
  end;
$$;
revoke execute on function app.named_in from public;
grant execute on function app.named_in to parley_writer, service_role;

-- All that Claude may set by itself in a workspace, the lists of its settings or sensible ones; and how scores are made:
-- {tags, stages, task_kinds, teams: [{name, description}], score: {weights, half_life_days} as the settings have it}.
create function app.ai_lists(p_settings jsonb)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'tags', app.named_in(p_settings -> 'tags', '[
      {"name": "interested", "description": "considers buying"},
      {"name": "price_question", "description": "asked what something costs"},
      {"name": "order_status", "description": "asked where an order is"},
      {"name": "complaint", "description": "something went wrong for them"},
      {"name": "refund", "description": "wants money back, or to return something"},
      {"name": "appointment", "description": "wants to come, or to be visited"},
      {"name": "repeat_customer", "description": "bought before"},
      {"name": "wants_call", "description": "wants to talk to a person"},
      {"name": "spam", "description": "advertising or fraud"}]'),
    'stages', app.named_in(p_settings -> 'stages', '[
      {"name": "lead", "description": "has shown no clear interest yet"},
      {"name": "qualified", "description": "wants something we offer: asked for a price, a time, an offer"},
      {"name": "customer", "description": "has bought"},
      {"name": "at_risk", "description": "has bought and may leave"},
      {"name": "lost", "description": "has cancelled or turned away"}]'),
    'task_kinds', app.named_in(p_settings -> 'task_kinds', '[
      {"name": "reply", "description": "answer a question"},
      {"name": "call_back", "description": "call them"},
      {"name": "send_offer", "description": "send a price or an offer"},
      {"name": "check_order", "description": "find out where an order is"},
      {"name": "handle_refund", "description": "decide on a refund or return"},
      {"name": "fix_problem", "description": "put something right"},
      {"name": "book_appointment", "description": "make, move or cancel an appointment"},
      {"name": "follow_up", "description": "come back to them later"}]'),
    'teams', app.named_in(p_settings -> 'teams', '[
      {"name": "support", "description": ""}, {"name": "sales", "description": ""}, {"name": "billing", "description": ""},
      {"name": "logistics", "description": ""}, {"name": "management", "description": ""}]'),
    'score', case pg_catalog.jsonb_typeof(p_settings -> 'score') when 'object' then p_settings -> 'score' else '{}' end);
$$;
revoke execute on function app.ai_lists from public;
grant execute on function app.ai_lists to parley_writer, service_role;

create function app.is_listed(p_list jsonb, p_name text)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select exists (select from pg_catalog.jsonb_array_elements(p_list) e where e ->> 'name' = p_name);
$$;
revoke execute on function app.is_listed from public;
grant execute on function app.is_listed to parley_writer, service_role;

create function app.tags_set(p_choices jsonb)
returns text[]
language sql
immutable
set search_path = ''
as $$
  select array(select c.key from pg_catalog.jsonb_each(p_choices) c where c.value -> 'is_set' = 'true' order by c.key collate "C");
$$;
revoke execute on function app.tags_set from public;
grant execute on function app.tags_set to parley_writer, service_role;

-- What is left of a score: half of it after each half-life without a new one. Twin of shared.domain.score.decayed.
create function app.decayed_score(p_score smallint, p_scored_at timestamptz, p_half_life_days real, p_now timestamptz)
returns smallint
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.round(p_score * pg_catalog.power(0.5::float8,
    greatest(0, extract(epoch from p_now - p_scored_at)::float8) / 86400 / p_half_life_days))::smallint;
$$;
revoke execute on function app.decayed_score from public;
grant execute on function app.decayed_score to parley_writer, service_role;

-- 3. The work: after its new messages, the whole conversation, under the same lease.

alter function app.open_analysis_attempt(uuid, uuid, integer, jsonb) rename to open_message_attempt;

-- Ask that a conversation be read as a whole. The lock on the conversation is the caller's.
create function app.want_conversation_analysis(p_workspace_id uuid, p_conversation_id uuid)
returns void
language sql
set search_path = ''
as $$
  insert into app.conversation_work as w (workspace_id, conversation_id, due_at, conversation_wanted_at)
  values (p_workspace_id, p_conversation_id, now(), now())
  on conflict (workspace_id, conversation_id) do update
    -- When the row is held, not when we began: a call that was opened in between has not seen this.
    set conversation_wanted_at = pg_catalog.clock_timestamp();
$$;
revoke execute on function app.want_conversation_analysis from public;
grant execute on function app.want_conversation_analysis to service_role;

-- Open the next attempt under a lease and return what Claude needs for it: first new messages, then all of the
-- conversation, if it has three messages; null when nothing is left to read. The lock on the work row is the caller's.
-- {deferred: true} when there is no money for it now: the lease is given back.
-- What is wanted stands in the row from before the call until the transaction that keeps its result: a kill loses nothing.
-- p_prices: as of open_message_attempt; and {conversation}, those of a conversation. A worker that does not pass these is
-- an older one, which could not read one: it is left to another.
create function app.open_analysis_attempt(
  p_workspace_id uuid, p_conversation_id uuid, p_max_messages integer, p_prices jsonb default null
)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_context jsonb;
begin
  v_context := app.open_message_attempt(p_workspace_id, p_conversation_id, p_max_messages, p_prices);
  if v_context ? 'deferred' then
    return v_context;
  elsif v_context is not null then
    update app.conversation_work
    set conversation_wanted_at = now()
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id
      and 3 = (
        select count(*)
        from (
          select from public.whatsapp_messages m
          where m.workspace_id = p_workspace_id
            and m.conversation_id = p_conversation_id
            and m.suppressed_at is null
            and m.revoked_at is null
          limit 3
        ) m);
    return v_context || '{"task": "message_analysis"}';
  end if;

  perform 1
  from app.conversation_work
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id
    and conversation_wanted_at is not null;
  if not found then
    return null;
  elsif not coalesce(p_prices ? 'conversation', false) then
    update app.conversation_work
    set lease_until = null, lease_token = null, due_at = now() + interval '5 seconds'
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id;
    return pg_catalog.jsonb_build_object('deferred', true);
  end if;
  v_context := app.open_conversation_attempt(p_workspace_id, p_conversation_id, p_prices -> 'conversation');
  if v_context is null then
    update app.conversation_work
    set conversation_wanted_at = null
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id;
  end if;
  return v_context;
end;
$$;
revoke execute on function app.open_analysis_attempt from public;
grant execute on function app.open_analysis_attempt to service_role;

-- Open an attempt at a whole conversation; null when it is not to be read, has been read as it stands, or every worker
-- that read it died; {deferred: true} as above. Groups are not read: they are no one contact.
-- p_prices: as of app.reserve_ai, and {prefix_bytes, output_tokens}.
-- Returns {workspace_id, conversation_id, lease_token, attempt_id, task, attempt (from 1), settings, lists, time_zone,
--   content_version, contact: {stage, tags}, open_tasks: [{title, due_at}],
--   messages: [{message_id, content_version, direction, content, sent_at, sentiment_score, reactions}], oldest first}.
create function app.open_conversation_attempt(p_workspace_id uuid, p_conversation_id uuid, p_prices jsonb)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_work app.conversation_work;
  v_conversation public.whatsapp_conversations;
  v_workspace public.workspaces;
  v_messages jsonb;
  v_version text;
  v_tries bigint;
  v_reserved jsonb;
  v_attempt_id bigint;
begin
  select * into strict v_work
  from app.conversation_work
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id;
  select * into strict v_conversation
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id;
  select * into strict v_workspace
  from public.workspaces
  where id = p_workspace_id;
  if v_conversation.contact_id is null or v_conversation.deleted_at is not null or v_conversation.status = 'blocked'
    or v_workspace.settings -> 'ai_enabled' = 'false' or v_workspace.settings -> 'analyse_conversations' = 'false'
  then
    return null;
  end if;

  select count(*) into v_tries
  from app.analysis_attempts
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id
    and task = 'conversation_analysis'
    and started_at >= v_work.conversation_wanted_at
    and outcome is distinct from 'released'
    and outcome is distinct from 'circuit_open'; -- no try of anybody's
  if v_tries >= 10 then -- services.ai_worker.retries.MOST_ATTEMPTS
    return null;
  end if;

  with shown as (
    select m.id, m.seq, m.direction, coalesce(m.transcript, m.content) as content, m.content_version, m.sent_at,
           m.sentiment_score,
           coalesce((
             select pg_catalog.jsonb_agg(e.payload ->> 'emoji' order by e.key)
             from public.message_events e
             where e.workspace_id = p_workspace_id and e.channel_id = m.channel_id and e.wamid = m.wamid
               and e.kind = 'reaction' and e.by_customer and e.payload ->> 'emoji' <> ''), '[]') as reactions
    from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and m.conversation_id = p_conversation_id
      and coalesce(m.transcript, m.content) <> '' -- revoked ones have none
      and m.suppressed_at is null
      and m.ai_state <> 'failed' -- what Claude refused alone would be refused again here
      and (m.direction = 'inbound' or m.status <> 'failed') -- what was never said
    order by m.seq desc
    limit 40 -- what matters of a customer shows in so many; older ones are in the contact's tags and stage
  )
  select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
           'message_id', s.id, 'content_version', s.content_version, 'direction', s.direction, 'content', s.content,
           'sent_at', s.sent_at, 'sentiment_score', s.sentiment_score, 'reactions', s.reactions) order by s.seq),
         pg_catalog.md5(pg_catalog.string_agg(s.id || ':' || s.content_version || ':' || s.reactions, ',' order by s.id))
  into v_messages, v_version
  from shown s;
  if v_messages is null or not v_messages @> '[{"direction": "inbound"}]' or exists (
    select from public.conversation_analyses
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id
      and content_version = v_version)
  then
    return null;
  end if;

  v_reserved := app.reserve_ai(
    p_workspace_id, p_prices,
    (select sum(app.bytes_sent(e ->> 'content') + pg_catalog.octet_length(e ->> 'reactions') + 64)
     from pg_catalog.jsonb_array_elements(v_messages) e)::bigint
      + 2 * pg_catalog.octet_length(app.ai_lists(v_workspace.settings)::text)
      + 20 * 300 -- open tasks
      + coalesce((p_prices ->> 'prefix_bytes')::bigint, 0),
    (p_prices ->> 'output_tokens')::bigint);
  if v_reserved ? 'off' then
    return null;
  elsif v_reserved ? 'deferred_until' then
    update app.conversation_work
    set lease_until = null, lease_token = null, due_at = (v_reserved ->> 'deferred_until')::timestamptz
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id;
    return pg_catalog.jsonb_build_object('deferred', true);
  end if;

  insert into app.analysis_attempts (workspace_id, conversation_id, message_ids, task, tier, reserved_usd, budget_day)
  values (p_workspace_id, p_conversation_id, '{}', 'conversation_analysis', v_reserved ->> 'tier',
    (v_reserved ->> 'reserved_usd')::numeric, (v_reserved ->> 'day')::date)
  returning id into v_attempt_id;

  return pg_catalog.jsonb_build_object(
    'workspace_id', p_workspace_id,
    'conversation_id', p_conversation_id,
    'lease_token', v_work.lease_token,
    'attempt_id', v_attempt_id,
    'task', 'conversation_analysis',
    'attempt', v_tries + 1,
    'tier', v_reserved -> 'tier',
    'reserved_usd', v_reserved -> 'reserved_usd',
    'settings', v_workspace.settings,
    'lists', app.ai_lists(v_workspace.settings),
    'time_zone', v_workspace.time_zone,
    'content_version', v_version,
    'messages', v_messages,
    'contact', (
      select pg_catalog.jsonb_build_object('stage', c.lifecycle_stage, 'tags', c.tags)
      from public.contacts c
      where c.workspace_id = p_workspace_id
        and c.id = v_conversation.contact_id),
    'open_tasks', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('title', t.title, 'due_at', t.due_at) order by t.id), '[]')
      from (
        select o.id, o.title, o.due_at
        from public.tasks o
        where o.workspace_id = p_workspace_id
          and o.conversation_id = p_conversation_id
          and o.state = 'open'
        order by o.id desc
        limit 20
      ) t));
end;
$$;
revoke execute on function app.open_conversation_attempt from public;
grant execute on function app.open_conversation_attempt to service_role;

-- Record what a call about a whole conversation came to, and go on as finish_conversation_analysis does.
-- p_attempt: as there. p_analysis, null when there is none: {content_version, read: [{message_id, content_version}], result, score, reasons, half_life_days,
--   stage: {id, name, key, confidence} | null, tags: [{id, name, key, confidence}],
--   tasks: [{id, kind, title, key, due_at, team, evidence, confidence}]}; what of it is on the workspace's lists is
--   done, the rest proposed. p_retry_in_ms: without an analysis, when to try again; null: never.
-- Writes: contacts, conversation_work, analysis_attempts, conversation_analyses, contact_scores, tasks, ai_proposals, audit_log.
-- Locks: contact, conversation, work row, then these. Returns {lost: true}, or {next: context | null}.
create function public.finish_contact_analysis(
  p_workspace_id uuid, p_conversation_id uuid, p_lease_token uuid,
  p_attempt jsonb, p_analysis jsonb, p_retry_in_ms integer, p_max_messages integer, p_prices jsonb default null
)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_attempt_id bigint := (p_attempt ->> 'id')::bigint;
  v_contact_id uuid;
  v_contact_now uuid;
  v_attempt app.analysis_attempts;
  v_is_ours boolean;
  v_unchanged bigint;
  v_next jsonb;
begin
  select contact_id into v_contact_id
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id;
  perform 1
  from public.contacts
  where workspace_id = p_workspace_id
    and id = v_contact_id
  for no key update;
  select contact_id into v_contact_now
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id
  for no key update;
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

  -- Revoked, edited or moved to another person meanwhile: nothing made of those words is kept.
  perform 1
  from pg_catalog.jsonb_to_recordset(p_analysis -> 'read') as r(message_id uuid, content_version integer)
  join public.whatsapp_messages m on m.workspace_id = p_workspace_id and m.id = r.message_id
  where m.conversation_id = p_conversation_id
    and m.content_version = r.content_version
    and m.revoked_at is null
  order by m.id
  for share of m;
  get diagnostics v_unchanged = row_count;
  if v_contact_now is distinct from v_contact_id
    or p_analysis is not null and v_unchanged < pg_catalog.jsonb_array_length(p_analysis -> 'read')
    or p_analysis is null and p_retry_in_ms is not null
  then
    update app.conversation_work
    set lease_until = null,
        lease_token = null,
        due_at = now() + pg_catalog.make_interval(secs => coalesce(p_retry_in_ms, 0) / 1000.0)
    where workspace_id = p_workspace_id
      and conversation_id = p_conversation_id;
    perform app.settle_finished(v_attempt, p_attempt);
    return pg_catalog.jsonb_build_object('next', null);
  end if;

  if p_analysis is not null then
    insert into public.conversation_analyses (
      workspace_id, conversation_id, content_version, prompt_version, attempt_id, result, model, input_tokens,
      output_tokens, cache_read_tokens, cache_write_tokens, cost_usd, latency_ms)
    values (
      p_workspace_id, p_conversation_id, p_analysis ->> 'content_version', p_attempt ->> 'prompt_version', v_attempt_id,
      p_analysis -> 'result', p_attempt ->> 'model', (p_attempt ->> 'input_tokens')::integer,
      (p_attempt ->> 'output_tokens')::integer, (p_attempt ->> 'cache_read_tokens')::integer,
      (p_attempt ->> 'cache_write_tokens')::integer, (p_attempt ->> 'cost_usd')::numeric,
      (p_attempt ->> 'latency_ms')::integer)
    on conflict do nothing;
    if found then
      perform app.apply_contact_analysis(p_workspace_id, p_conversation_id, v_contact_id, v_attempt_id, p_analysis);
    end if;
  end if;

  update app.conversation_work
  set conversation_wanted_at = null
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id
    and conversation_wanted_at <= v_attempt.started_at; -- what was asked for since is read next
  perform app.settle_finished(v_attempt, p_attempt);
  v_next := app.open_analysis_attempt(p_workspace_id, p_conversation_id, p_max_messages, p_prices); -- what arrived meanwhile
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
revoke execute on function public.finish_contact_analysis from public, anon, authenticated;
grant execute on function public.finish_contact_analysis to service_role;

-- Do what Claude may, propose what it may not; log each change. The locks are the caller's.
create function app.apply_contact_analysis(
  p_workspace_id uuid, p_conversation_id uuid, p_contact_id uuid, p_attempt_id bigint, p_analysis jsonb
)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_contact public.contacts;
  v_lists jsonb;
  v_score smallint := (p_analysis ->> 'score')::smallint;
  v_stage text := p_analysis -> 'stage' ->> 'name';
  v_tag record;
  v_task record;
begin
  select * into strict v_contact
  from public.contacts
  where workspace_id = p_workspace_id
    and id = p_contact_id;
  select app.ai_lists(w.settings) into strict v_lists
  from public.workspaces w
  where w.id = p_workspace_id;

  insert into public.contact_scores (workspace_id, contact_id, conversation_id, attempt_id, score, reasons, half_life_days)
  values (p_workspace_id, p_contact_id, p_conversation_id, p_attempt_id, v_score, p_analysis -> 'reasons',
          (p_analysis ->> 'half_life_days')::real);
  update public.contacts
  set ai_score = v_score, score_reasons = p_analysis -> 'reasons', scored_at = now(),
      score_half_life_days = (p_analysis ->> 'half_life_days')::real
  where workspace_id = p_workspace_id
    and id = p_contact_id;
  if v_contact.ai_score is distinct from v_score then
    perform app.audit(p_workspace_id, 'contact.scored', p_contact_id,
      pg_catalog.jsonb_build_object('score', v_contact.ai_score),
      pg_catalog.jsonb_build_object('score', v_score, 'attempt', p_attempt_id), 'ai');
  end if;

  if v_stage is not null and v_stage is distinct from v_contact.lifecycle_stage then
    if app.is_listed(v_lists -> 'stages', v_stage) and v_contact.stage_source is distinct from 'user' then
      update public.contacts
      set lifecycle_stage = v_stage, stage_source = 'ai'
      where workspace_id = p_workspace_id
        and id = p_contact_id;
      perform app.audit(p_workspace_id, 'contact.staged', p_contact_id,
        pg_catalog.jsonb_build_object('stage', v_contact.lifecycle_stage),
        pg_catalog.jsonb_build_object('stage', v_stage, 'attempt', p_attempt_id), 'ai');
    else
      perform app.propose(p_workspace_id, p_conversation_id, p_contact_id, p_attempt_id, 'stage',
        p_analysis -> 'stage', v_stage, '{}');
    end if;
  end if;

  for v_tag in
    select t.value as tag, t.value ->> 'name' as name
    from pg_catalog.jsonb_array_elements(p_analysis -> 'tags') t
  loop
    if v_contact.tag_choices ? v_tag.name then
      continue; -- set already, or a person decided
    elsif app.is_listed(v_lists -> 'tags', v_tag.name) then
      v_contact.tag_choices := v_contact.tag_choices
        || pg_catalog.jsonb_build_object(v_tag.name, '{"source": "ai", "is_set": true}'::jsonb);
      perform app.audit(p_workspace_id, 'contact.tagged', p_contact_id, null,
        pg_catalog.jsonb_build_object('tag', v_tag.name, 'attempt', p_attempt_id), 'ai');
    else
      perform app.propose(p_workspace_id, p_conversation_id, p_contact_id, p_attempt_id, 'tag', v_tag.tag, v_tag.name, '{}');
    end if;
  end loop;
  update public.contacts
  set tag_choices = v_contact.tag_choices, tags = app.tags_set(v_contact.tag_choices)
  where workspace_id = p_workspace_id
    and id = p_contact_id
    and tag_choices <> v_contact.tag_choices;

  for v_task in
    select t.value as task, x.*
    from pg_catalog.jsonb_array_elements(p_analysis -> 'tasks') t
    cross join lateral pg_catalog.jsonb_to_record(t.value) as x(
      id uuid, kind text, title text, key text, due_at timestamptz, team text, evidence jsonb)
  loop
    if exists ( -- the same: open, or closed so lately that it is the same words read again
      select from public.tasks o
      where o.workspace_id = p_workspace_id
        and o.conversation_id = p_conversation_id
        and o.key = v_task.key
        and (o.state = 'open' or o.closed_at > now() - interval '30 days')
    ) or 20 <= (
      select count(*) from public.tasks o
      where o.workspace_id = p_workspace_id and o.conversation_id = p_conversation_id and o.state = 'open'
    ) then
      continue;
    elsif not app.is_listed(v_lists -> 'task_kinds', v_task.kind) then
      perform app.propose(p_workspace_id, p_conversation_id, p_contact_id, p_attempt_id, 'task', v_task.task, v_task.title,
        pg_catalog.jsonb_build_object('kind', v_task.kind, 'due_at', v_task.due_at, 'team', v_task.team, 'evidence', v_task.evidence));
      continue;
    end if;
    insert into public.tasks (
      workspace_id, id, contact_id, conversation_id, kind, title, key, due_at, team, evidence, attempt_id)
    values (
      p_workspace_id, v_task.id, p_contact_id, p_conversation_id, v_task.kind, v_task.title, v_task.key, v_task.due_at,
      case when app.is_listed(v_lists -> 'teams', v_task.team) then v_task.team end, v_task.evidence, p_attempt_id)
    on conflict do nothing;
    if found then
      perform app.audit(p_workspace_id, 'task.created', v_task.id, null,
        pg_catalog.jsonb_build_object('kind', v_task.kind, 'attempt', p_attempt_id), 'ai');
    end if;
  end loop;
end;
$$;
revoke execute on function app.apply_contact_analysis from public;
grant execute on function app.apply_contact_analysis to service_role;

-- Propose something to people, once; and no more than they can look at, whatever a customer talks Claude into.
-- p_what: {id, key, confidence}.
create function app.propose(
  p_workspace_id uuid, p_conversation_id uuid, p_contact_id uuid, p_attempt_id bigint,
  p_kind text, p_what jsonb, p_name text, p_payload jsonb
)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_id uuid := (p_what ->> 'id')::uuid;
begin
  insert into public.ai_proposals (
    workspace_id, id, contact_id, conversation_id, kind, key, name, payload, confidence, attempt_id)
  select p_workspace_id, v_id, p_contact_id, p_conversation_id, p_kind, p_what ->> 'key', p_name, p_payload,
         (p_what ->> 'confidence')::real, p_attempt_id
  where 20 > (
    select count(*) from public.ai_proposals o
    where o.workspace_id = p_workspace_id and o.contact_id = p_contact_id and o.state = 'open')
  on conflict do nothing;
  if found then
    perform app.audit(p_workspace_id, 'proposal.made', v_id, null,
      pg_catalog.jsonb_build_object('kind', p_kind, 'attempt', p_attempt_id), 'ai');
  end if;
end;
$$;
revoke execute on function app.propose from public;
grant execute on function app.propose to service_role;

-- 4. What becomes of it when people merge, and when words go.

-- As before; and with the conversations go what was made of them and, where the contact has none of its own, the rest.
alter function app.merge_contacts(uuid, uuid, uuid[]) rename to merge_contact_rows;
create function app.merge_contacts(p_workspace_id uuid, p_contact_id uuid, p_others uuid[])
returns void
language plpgsql
set search_path = ''
as $$
begin
  perform app.merge_contact_rows(p_workspace_id, p_contact_id, p_others);
  update public.tasks
  set contact_id = p_contact_id
  where workspace_id = p_workspace_id
    and contact_id = any (p_others);
  update public.contact_scores
  set contact_id = p_contact_id
  where workspace_id = p_workspace_id
    and contact_id = any (p_others);
  update public.ai_proposals o
  set contact_id = p_contact_id
  where o.workspace_id = p_workspace_id
    and o.contact_id = any (p_others)
    and not exists (
      select from public.ai_proposals k
      where k.workspace_id = p_workspace_id
        and k.kind = o.kind
        and k.key = o.key
        and (k.contact_id = p_contact_id or k.contact_id = any (p_others) and k.id < o.id));
  update public.ai_proposals -- what is left is proposed to the one that goes on as well, or decided there
  set state = 'rejected', decided_at = now()
  where workspace_id = p_workspace_id
    and contact_id = any (p_others)
    and state = 'open';

  update public.contacts c
  set ai_score = coalesce(c.ai_score, o.ai_score),
      score_reasons = case when c.ai_score is null then o.score_reasons else c.score_reasons end,
      scored_at = case when c.ai_score is null then o.scored_at else c.scored_at end,
      score_half_life_days = case when c.ai_score is null then o.score_half_life_days else c.score_half_life_days end,
      lifecycle_stage = case when s.stage_source is null then c.lifecycle_stage else s.lifecycle_stage end,
      stage_source = coalesce(s.stage_source, c.stage_source),
      tag_choices = o.tag_choices,
      tags = app.tags_set(o.tag_choices)
  from (
    select x.ai_score, x.score_reasons, x.scored_at, x.score_half_life_days,
           coalesce((
             -- "user" comes last, and holds; of two alike that of the one that goes on.
             select pg_catalog.jsonb_object_agg(t.key, t.value order by t.value ->> 'source', y.id = p_contact_id)
             from public.contacts y
             cross join pg_catalog.jsonb_each(y.tag_choices) t
             where y.workspace_id = p_workspace_id
               and y.id = any (p_others || p_contact_id)), '{}') as tag_choices
    from public.contacts x
    where x.workspace_id = p_workspace_id
      and x.id = any (p_others)
    order by x.scored_at desc nulls last
    limit 1
  ) o
  left join lateral (
    select y.lifecycle_stage, y.stage_source
    from public.contacts y
    where y.workspace_id = p_workspace_id
      and y.id = any (p_others || p_contact_id)
      and y.stage_source is not null
    order by y.stage_source desc, y.id = p_contact_id desc, y.scored_at desc nulls last -- a person's choice first
    limit 1
  ) s on true
  where c.workspace_id = p_workspace_id
    and c.id = p_contact_id;
end;
$$;
revoke execute on function app.merge_contacts from public;
grant execute on function app.merge_contacts to service_role;

-- A conversation that is gone takes with it what quotes it. One that was merged hands it on.
create function app.forget_conversation()
returns trigger
language plpgsql
security definer -- whoever deletes a conversation may not delete these by themselves
set search_path = ''
as $$
begin
  if new.merged_into is not null then
    update public.tasks t
    set conversation_id = new.merged_into
    where t.workspace_id = new.workspace_id
      and t.conversation_id = new.id
      and not (t.state = 'open' and exists (
        select from public.tasks o
        where o.workspace_id = t.workspace_id and o.conversation_id = new.merged_into and o.key = t.key and o.state = 'open'));
    update public.ai_proposals
    set conversation_id = new.merged_into
    where workspace_id = new.workspace_id
      and conversation_id = new.id;
  end if;
  delete from public.tasks
  where workspace_id = new.workspace_id
    and conversation_id = new.id;
  delete from public.ai_proposals
  where workspace_id = new.workspace_id
    and conversation_id = new.id;
  update public.conversation_analyses
  set result = '{}'
  where workspace_id = new.workspace_id
    and conversation_id = new.id;
  return null;
end;
$$;
revoke execute on function app.forget_conversation from public;
create trigger forget_conversation
  after update of deleted_at on public.whatsapp_conversations
  for each row when (old.deleted_at is null and new.deleted_at is not null)
  execute function app.forget_conversation();

-- What a customer took back is quoted nowhere.
create function app.forget_quotations()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  update public.conversation_analyses
  set result = '{}'
  where workspace_id = new.workspace_id
    and conversation_id = new.conversation_id;
  update public.tasks
  set evidence = '[]'
  where workspace_id = new.workspace_id
    and conversation_id = new.conversation_id
    and evidence @> pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('message_id', new.id));
  update public.ai_proposals
  set payload = payload || '{"evidence": []}'
  where workspace_id = new.workspace_id
    and conversation_id = new.conversation_id
    and payload -> 'evidence' @> pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('message_id', new.id));
  return null;
end;
$$;
revoke execute on function app.forget_quotations from public;
create trigger forget_quotations
  after update of revoked_at on public.whatsapp_messages
  for each row when (old.revoked_at is null and new.revoked_at is not null)
  execute function app.forget_quotations();

-- 5. What people read and do.

create function app.task_json(p_task public.tasks)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_task.id, 'workspace_id', p_task.workspace_id, 'contact_id', p_task.contact_id,
    'conversation_id', p_task.conversation_id, 'kind', p_task.kind, 'title', p_task.title, 'due_at', p_task.due_at,
    'team', p_task.team, 'evidence', coalesce(p_task.evidence, '[]'), 'state', p_task.state,
    'assigned_to', p_task.assigned_to, 'source', p_task.source, 'created_at', p_task.created_at,
    'closed_at', p_task.closed_at, 'closed_by', p_task.closed_by);
$$;
revoke execute on function app.task_json from public;
grant execute on function app.task_json to parley_writer;

create function app.proposal_json(p_proposal public.ai_proposals)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_proposal.id, 'workspace_id', p_proposal.workspace_id, 'contact_id', p_proposal.contact_id,
    'conversation_id', p_proposal.conversation_id, 'kind', p_proposal.kind, 'name', p_proposal.name,
    'task', case when p_proposal.kind = 'task' then p_proposal.payload end, 'confidence', p_proposal.confidence,
    'state', p_proposal.state, 'created_at', p_proposal.created_at, 'decided_at', p_proposal.decided_at,
    'decided_by', p_proposal.decided_by);
$$;
revoke execute on function app.proposal_json from public;
grant execute on function app.proposal_json to parley_writer;

-- A contact as Claude and people have come to see it, and why. One merged into another is shown as that one.
-- Refuses: PT404 unknown or not theirs.
create function public.read_contact(p_workspace_id uuid, p_contact_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's, which sees what whoever asks may see
set search_path = ''
as $$
declare
  v_contact public.contacts;
  v_id uuid := p_contact_id;
begin
  while v_id is not null loop
    select * into v_contact
    from public.contacts
    where workspace_id = p_workspace_id
      and id = v_id;
    v_id := v_contact.merged_into;
  end loop;
  if v_contact.id is null then
    raise exception 'contact not found' using
      errcode = 'PT404', detail = 'contact_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return pg_catalog.jsonb_build_object(
    'id', v_contact.id,
    'workspace_id', v_contact.workspace_id,
    'name', v_contact.name,
    'username', v_contact.username,
    'first_seen_at', v_contact.first_seen_at,
    'opted_out_at', v_contact.opted_out_at,
    'blocked_at', v_contact.blocked_at,
    'lifecycle_stage', v_contact.lifecycle_stage,
    'stage_source', v_contact.stage_source,
    'tags', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'name', t.name, 'source', v_contact.tag_choices -> t.name ->> 'source') order by t.place), '[]')
      from pg_catalog.unnest(v_contact.tags) with ordinality t(name, place)),
    'score', case when v_contact.ai_score is not null then pg_catalog.jsonb_build_object(
      'now', app.decayed_score(v_contact.ai_score, v_contact.scored_at, v_contact.score_half_life_days, now()),
      'scored', v_contact.ai_score,
      'scored_at', v_contact.scored_at,
      'half_life_days', v_contact.score_half_life_days,
      'features', v_contact.score_reasons -> 'features',
      'history', (
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('score', h.score, 'at', h.at) order by h.id desc)
        from (
          select s.id, s.score, s.at
          from public.contact_scores s
          where s.workspace_id = p_workspace_id
            and s.contact_id = v_contact.id
            and s.undone_at is null
          order by s.id desc
          limit 50
        ) h)) end,
    'why', (
      select pg_catalog.jsonb_build_object('conversation_id', a.conversation_id, 'analysed_at', a.created_at,
               'prompt_version', a.prompt_version, 'model', a.model, 'result', a.result)
      from public.whatsapp_conversations v
      join public.conversation_analyses a on a.workspace_id = v.workspace_id and a.conversation_id = v.id
      where v.workspace_id = p_workspace_id
        and v.contact_id = v_contact.id
        and v.deleted_at is null
        and a.result <> '{}'
      order by a.created_at desc, a.attempt_id desc
      limit 1),
    'tasks', (
      select coalesce(pg_catalog.jsonb_agg(app.task_json(t) order by t.due_at nulls last, t.id), '[]')
      from public.tasks t
      where t.workspace_id = p_workspace_id
        and t.contact_id = v_contact.id
        and t.state = 'open'),
    'proposals', (
      select coalesce(pg_catalog.jsonb_agg(app.proposal_json(o) order by o.id), '[]')
      from public.ai_proposals o
      where o.workspace_id = p_workspace_id
        and o.contact_id = v_contact.id
        and o.state = 'open'),
    'ai_changes', (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', l.id, 'at', l.at, 'action', l.action, 'subject_id', l.subject_id, 'before', l.before, 'after', l.after - 'attempt') order by l.id desc), '[]')
      from (
        select a.id, a.at, a.action, a.subject_id, a.before, a.after
        from public.audit_log a
        where a.workspace_id = p_workspace_id
          and a.source = 'ai'
          and a.subject_id in (
            select v_contact.id
            union all
            select t.id from public.tasks t where t.workspace_id = p_workspace_id and t.contact_id = v_contact.id
            union all
            select o.id from public.ai_proposals o where o.workspace_id = p_workspace_id and o.contact_id = v_contact.id)
        order by a.id desc
        limit 50
      ) l),
    'server_time', now());
end;
$$;
revoke execute on function public.read_contact from public, anon, service_role;
grant execute on function public.read_contact to authenticated;

-- Tasks, newest first. p_state: open, done, dismissed; null: all. p_assigned_to, p_contact_id: only these.
-- Refuses: PT404 not a member, PT422 limit, state or cursor.
create function public.list_tasks(
  p_workspace_id uuid, p_state text default 'open', p_assigned_to uuid default null, p_contact_id uuid default null,
  p_limit integer default 50, p_cursor uuid default null
)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's, which sees what whoever asks may see
set search_path = ''
as $$
declare
  v_rows public.tasks[];
begin
  perform app.check_page(p_workspace_id, p_limit, p_state, array['open', 'done', 'dismissed']);
  v_rows := array(
    select t from public.tasks t
    where t.workspace_id = p_workspace_id
      and (p_state is null or t.state = p_state)
      and (p_assigned_to is null or t.assigned_to = p_assigned_to)
      and (p_contact_id is null or t.contact_id = p_contact_id)
      and (p_cursor is null or t.id < p_cursor)
    order by t.id desc
    limit p_limit + 1);
  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(app.task_json(v_rows[n]) order by n)
      from pg_catalog.generate_subscripts(v_rows, 1) n
      where n <= p_limit), '[]'),
    'next_cursor', case when pg_catalog.cardinality(v_rows) > p_limit then (v_rows[p_limit]).id end,
    'server_time', now());
end;
$$;
revoke execute on function public.list_tasks from public, anon, service_role;
grant execute on function public.list_tasks to authenticated;

-- What Claude proposes, newest first. p_state: open, accepted, rejected; null: all.
-- Refuses: PT404 not a member, PT422 limit, state or cursor.
create function public.list_proposals(
  p_workspace_id uuid, p_state text default 'open', p_limit integer default 50, p_cursor uuid default null
)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's, which sees what whoever asks may see
set search_path = ''
as $$
declare
  v_rows public.ai_proposals[];
begin
  perform app.check_page(p_workspace_id, p_limit, p_state, array['open', 'accepted', 'rejected']);
  v_rows := array(
    select o from public.ai_proposals o
    where o.workspace_id = p_workspace_id
      and (p_state is null or o.state = p_state)
      and (p_cursor is null or o.id < p_cursor)
    order by o.id desc
    limit p_limit + 1);
  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(app.proposal_json(v_rows[n]) order by n)
      from pg_catalog.generate_subscripts(v_rows, 1) n
      where n <= p_limit), '[]'),
    'next_cursor', case when pg_catalog.cardinality(v_rows) > p_limit then (v_rows[p_limit]).id end,
    'server_time', now());
end;
$$;
revoke execute on function public.list_proposals from public, anon, service_role;
grant execute on function public.list_proposals to authenticated;

-- Refuse what no page can be made of. Refuses: PT404 not a member, PT422.
create function app.check_page(p_workspace_id uuid, p_limit integer, p_state text, p_states text[])
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if not exists (select from public.workspaces where id = p_workspace_id) then
    raise exception 'workspace not found' using
      errcode = 'PT404', detail = 'workspace_not_found', hint = 'It does not exist, or it is not yours. GET /api/me lists yours.';
  elsif p_limit is null or p_limit not between 1 and 100 then
    raise exception 'limit out of range' using
      errcode = 'PT422', detail = 'bad_limit', hint = 'Ask for 1 to 100 at a time.';
  elsif p_state <> all (p_states) then
    raise exception 'no such state' using
      errcode = 'PT422', detail = 'bad_state', hint = 'States are: ' || pg_catalog.array_to_string(p_states, ', ') || '.';
  end if;
end;
$$;
revoke execute on function app.check_page from public;
grant execute on function app.check_page to parley_writer;

-- Lock the contact that goes on under an id, after checking who asks. Who merges locks it too, so it stays who it is.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer.
create function app.hold_contact(p_workspace_id uuid, p_contact_id uuid)
returns public.contacts
language plpgsql
set search_path = ''
as $$
declare
  v_contact public.contacts;
  v_id uuid := p_contact_id;
begin
  perform app.check_writer(p_workspace_id, 'contact');
  while v_id is not null loop
    select * into v_contact
    from public.contacts
    where workspace_id = p_workspace_id
      and id = v_id
    for no key update;
    v_id := v_contact.merged_into;
  end loop;
  if v_contact.id is null then
    raise exception 'contact not found' using
      errcode = 'PT404', detail = 'contact_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return v_contact;
end;
$$;
revoke execute on function app.hold_contact from public;
grant execute on function app.hold_contact to parley_writer;

-- Choose for some tags whether a held contact has them; log what changed.
create function app.choose_tags(p_contact public.contacts, p_set text[], p_removed text[])
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_choices jsonb := p_contact.tag_choices;
  v_tags text[];
  v_tag text;
begin
  foreach v_tag in array p_set loop
    v_choices := v_choices || pg_catalog.jsonb_build_object(v_tag, '{"source": "user", "is_set": true}'::jsonb);
  end loop;
  foreach v_tag in array p_removed loop
    v_choices := v_choices || pg_catalog.jsonb_build_object(v_tag, '{"source": "user", "is_set": false}'::jsonb);
  end loop;
  if v_choices = p_contact.tag_choices then
    return;
  end if;
  v_tags := app.tags_set(v_choices);
  update public.contacts
  set tag_choices = v_choices, tags = v_tags
  where workspace_id = p_contact.workspace_id
    and id = p_contact.id;
  perform app.audit(p_contact.workspace_id, 'contact.tags_changed', p_contact.id,
    pg_catalog.jsonb_build_object('tags', p_contact.tags), pg_catalog.jsonb_build_object('tags', v_tags));
end;
$$;
revoke execute on function app.choose_tags from public;
grant execute on function app.choose_tags to parley_writer;

create function app.choose_stage(p_contact public.contacts, p_stage text)
returns void
language plpgsql
set search_path = ''
as $$
begin
  if p_contact.lifecycle_stage is not distinct from p_stage and p_contact.stage_source = 'user' then
    return;
  end if;
  update public.contacts
  set lifecycle_stage = p_stage, stage_source = 'user'
  where workspace_id = p_contact.workspace_id
    and id = p_contact.id;
  perform app.audit(p_contact.workspace_id, 'contact.stage_changed', p_contact.id,
    pg_catalog.jsonb_build_object('stage', p_contact.lifecycle_stage), pg_catalog.jsonb_build_object('stage', p_stage));
end;
$$;
revoke execute on function app.choose_stage from public;
grant execute on function app.choose_stage to parley_writer;

-- Set and remove tags of a contact, as the person; Claude then leaves them as they are.
-- p_set, p_removed: ["tag", …]. What is set must be on the workspace's list.
-- Refuses: PT404, PT403, PT422 a tag that is not listed. As they are already: fine.
create function public.change_contact_tags(p_workspace_id uuid, p_contact_id uuid, p_set jsonb, p_removed jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_contact public.contacts;
  v_list jsonb;
  v_set text[] := array(select pg_catalog.jsonb_array_elements_text(p_set));
begin
  v_contact := app.hold_contact(p_workspace_id, p_contact_id);
  select app.ai_lists(w.settings) -> 'tags' into strict v_list
  from public.workspaces w
  where w.id = p_workspace_id;
  if exists (
    select from pg_catalog.unnest(v_set) t
    where not app.is_listed(v_list, t)
      and not t = any (v_contact.tags))
  then
    raise exception 'tag not listed' using
      errcode = 'PT422', detail = 'tag_not_listed', hint = 'Choose among the workspace''s tags; owners and admins add to them.';
  end if;
  perform app.choose_tags(v_contact, v_set, array(select pg_catalog.jsonb_array_elements_text(p_removed)));
  return public.read_contact(p_workspace_id, v_contact.id);
end;
$$;
revoke execute on function public.change_contact_tags from public, anon, service_role;
grant execute on function public.change_contact_tags to authenticated;

-- Set a contact's stage, as the person; null: none. Claude then only proposes others.
-- Refuses: PT404, PT403, PT422 a stage that is not listed. As it is already: fine.
create function public.change_contact_stage(p_workspace_id uuid, p_contact_id uuid, p_stage text)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_contact public.contacts;
begin
  v_contact := app.hold_contact(p_workspace_id, p_contact_id);
  if p_stage is not null and not exists (
    select from public.workspaces w
    where w.id = p_workspace_id
      and app.is_listed(app.ai_lists(w.settings) -> 'stages', p_stage))
  then
    raise exception 'stage not listed' using
      errcode = 'PT422', detail = 'stage_not_listed', hint = 'Choose among the workspace''s stages; owners and admins add to them.';
  end if;
  perform app.choose_stage(v_contact, p_stage);
  return public.read_contact(p_workspace_id, v_contact.id);
end;
$$;
revoke execute on function public.change_contact_stage from public, anon, service_role;
grant execute on function public.change_contact_stage to authenticated;

-- Change a task: its state (open, done, dismissed) and whom it is assigned to (a member; null: nobody).
-- p_changes: {state?, assigned_to?}. Refuses: PT404, PT403, PT409 the same task is open already, PT422.
-- As it is already: fine.
create function public.change_task(p_workspace_id uuid, p_task_id uuid, p_changes jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_task public.tasks;
  v_was public.tasks;
  v_contact_id uuid;
begin
  perform app.check_writer(p_workspace_id, 'task');
  if pg_catalog.jsonb_typeof(p_changes) is distinct from 'object' or p_changes - 'state' - 'assigned_to' <> '{}'
    or coalesce(p_changes -> 'state', '"open"') not in ('"open"', '"done"', '"dismissed"')
    or p_changes ->> 'assigned_to' is not null and not exists (
      select from public.workspace_members m
      where m.workspace_id = p_workspace_id and m.user_id::text = p_changes ->> 'assigned_to')
  then
    raise exception 'no such change' using
      errcode = 'PT422', detail = 'task_change_not_valid', hint = 'A state (open, done, dismissed) or a member to assign it to.';
  end if;
  select contact_id into v_contact_id
  from public.tasks
  where workspace_id = p_workspace_id
    and id = p_task_id;
  perform 1 from public.contacts -- whatever is done to tasks begins here
  where workspace_id = p_workspace_id
    and id = v_contact_id
  for no key update;
  select * into v_was
  from public.tasks
  where workspace_id = p_workspace_id
    and id = p_task_id
  for no key update;
  if not found then
    raise exception 'task not found' using
      errcode = 'PT404', detail = 'task_not_found', hint = 'It does not exist, or it is not yours.';
  end if;

  v_task := v_was;
  v_task.state := coalesce(p_changes ->> 'state', v_was.state);
  v_task.assigned_to := case when p_changes ? 'assigned_to' then (p_changes ->> 'assigned_to')::uuid else v_was.assigned_to end;
  if v_task = v_was then
    return app.task_json(v_was);
  end if;
  update public.tasks
  set state = v_task.state,
      assigned_to = v_task.assigned_to,
      closed_at = case when v_task.state = 'open' then null when v_was.state = v_task.state then closed_at else now() end,
      closed_by = case when v_task.state = 'open' then null when v_was.state = v_task.state then closed_by else app.actor() end
  where workspace_id = p_workspace_id
    and id = p_task_id
  returning * into v_task;
  perform app.audit(p_workspace_id, 'task.changed', p_task_id,
    pg_catalog.jsonb_build_object('state', v_was.state, 'assigned_to', v_was.assigned_to),
    pg_catalog.jsonb_build_object('state', v_task.state, 'assigned_to', v_task.assigned_to));
  return app.task_json(v_task);
exception
  when unique_violation then
    raise exception 'the same task is open' using
      errcode = 'PT409', detail = 'task_open_already', hint = 'The same task is open already.';
end;
$$;
revoke execute on function public.change_task from public, anon, service_role;
grant execute on function public.change_task to authenticated;

-- Accept or reject what Claude proposes. Accepting does it, as the person: a tag or stage also joins the workspace's list.
-- p_task_id: of the task that is made, if it is one. Locks: workspace, contact, then the rest.
-- Refuses: PT404, PT403, PT409 decided otherwise. Decided so already: fine.
create function public.decide_proposal(p_workspace_id uuid, p_proposal_id uuid, p_accept boolean, p_task_id uuid default null)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_proposal public.ai_proposals;
  v_contact public.contacts;
  v_workspace public.workspaces;
  v_state text := case when p_accept then 'accepted' else 'rejected' end;
  v_list text;
begin
  perform app.check_writer(p_workspace_id, 'proposal');
  select * into v_workspace
  from public.workspaces
  where id = p_workspace_id
  for no key update;
  select * into v_proposal
  from public.ai_proposals
  where workspace_id = p_workspace_id
    and id = p_proposal_id;
  if v_proposal.id is not null then
    v_contact := app.hold_contact(p_workspace_id, v_proposal.contact_id);
    select * into v_proposal
    from public.ai_proposals
    where workspace_id = p_workspace_id
      and id = p_proposal_id
    for no key update;
  end if;
  if v_proposal.id is null then
    raise exception 'proposal not found' using
      errcode = 'PT404', detail = 'proposal_not_found', hint = 'It does not exist, or it is not yours.';
  elsif v_proposal.state = v_state then
    return app.proposal_json(v_proposal);
  elsif v_proposal.state <> 'open' then
    raise exception 'proposal is %', v_proposal.state using
      errcode = 'PT409', detail = 'proposal_decided', hint = 'Somebody has decided on it already.';
  end if;

  if p_accept and v_proposal.kind in ('tag', 'stage') then
    v_list := v_proposal.kind || 's';
    if not app.is_listed(app.ai_lists(v_workspace.settings) -> v_list, v_proposal.name) then
      update public.workspaces
      set settings = settings || pg_catalog.jsonb_build_object(v_list,
        app.ai_lists(settings) -> v_list || pg_catalog.jsonb_build_object('name', v_proposal.name, 'description', ''))
      where id = p_workspace_id;
      perform app.audit(p_workspace_id, 'workspace.lists_changed', p_workspace_id, null,
        pg_catalog.jsonb_build_object('list', v_list, 'proposal', p_proposal_id));
    end if;
    if v_proposal.kind = 'tag' then
      perform app.choose_tags(v_contact, array[v_proposal.name], '{}');
    else
      perform app.choose_stage(v_contact, v_proposal.name);
    end if;
  elsif p_accept then
    insert into public.tasks (
      workspace_id, id, contact_id, conversation_id, kind, title, key, due_at, team, evidence, source, attempt_id)
    values (
      p_workspace_id, coalesce(p_task_id, pg_catalog.gen_random_uuid()), v_contact.id, v_proposal.conversation_id,
      v_proposal.payload ->> 'kind', v_proposal.name, v_proposal.key, (v_proposal.payload ->> 'due_at')::timestamptz,
      v_proposal.payload ->> 'team', v_proposal.payload -> 'evidence', 'user', v_proposal.attempt_id)
    on conflict do nothing;
  end if;
  update public.ai_proposals
  set state = v_state, decided_at = now(), decided_by = app.actor()
  where workspace_id = p_workspace_id
    and id = p_proposal_id
  returning * into v_proposal;
  perform app.audit(p_workspace_id, 'proposal.decided', p_proposal_id, '{"state": "open"}',
    pg_catalog.jsonb_build_object('state', v_state));
  return app.proposal_json(v_proposal);
end;
$$;
revoke execute on function public.decide_proposal from public, anon, service_role;
grant execute on function public.decide_proposal to authenticated;

-- Undo some of what Claude changed, in one call. p_changes: [id of the log]. What a person has changed since stays as they
-- left it. What is undone counts as a person's choice, so that Claude does not do it again.
-- Returns {undone: [id], left: [id]}. Refuses: PT404 one that is unknown or no change of Claude's, PT403. Undone already: left.
create function public.undo_ai_changes(p_workspace_id uuid, p_changes jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_ids bigint[];
  v_undone bigint[] := '{}';
  v_change record;
  v_contact public.contacts;
  v_earlier public.contact_scores;
  v_is_undone boolean;
begin
  perform app.check_writer(p_workspace_id, 'change');
  v_ids := array(select distinct c.value::bigint from pg_catalog.jsonb_array_elements_text(p_changes) c);
  if exists (
    select from pg_catalog.unnest(v_ids) i(id)
    where not exists (
      select from public.audit_log l where l.workspace_id = p_workspace_id and l.id = i.id and l.source = 'ai'))
  then
    raise exception 'change not found' using
      errcode = 'PT404', detail = 'change_not_found', hint = 'It does not exist, is not yours, or is not Claude''s.';
  end if;

  -- Newest first, so that a stage goes back to what it was before all of them; contacts in order of their ids.
  for v_change in
    select l.id, l.action, l.subject_id, l.before, l.after,
           coalesce(t.contact_id, o.contact_id, case when l.subject_type = 'contact' then l.subject_id end) as contact_id
    from public.audit_log l
    left join public.tasks t on l.subject_type = 'task' and t.workspace_id = l.workspace_id and t.id = l.subject_id
    left join public.ai_proposals o on l.subject_type = 'proposal' and o.workspace_id = l.workspace_id and o.id = l.subject_id
    where l.workspace_id = p_workspace_id
      and l.id = any (v_ids)
    order by 6, l.id desc
  loop
    if not exists (select from public.contacts c where c.workspace_id = p_workspace_id and c.id = v_change.contact_id) then
      continue; -- what it was about is gone
    end if;
    v_contact := app.hold_contact(p_workspace_id, v_change.contact_id);
    v_is_undone := false;
    case v_change.action
      when 'contact.tagged' then
        if v_contact.tag_choices -> (v_change.after ->> 'tag') @> '{"source": "ai", "is_set": true}' then
          perform app.choose_tags(v_contact, '{}', array[v_change.after ->> 'tag']);
          v_is_undone := true;
        end if;
      when 'contact.staged' then
        if v_contact.lifecycle_stage = v_change.after ->> 'stage'
          and (v_contact.stage_source = 'ai' or v_undone && array(
            select l.id from public.audit_log l
            where l.workspace_id = p_workspace_id and l.subject_id = v_change.subject_id and l.action = 'contact.staged'))
        then
          perform app.choose_stage(v_contact, v_change.before ->> 'stage');
          v_is_undone := true;
        end if;
      when 'contact.scored' then
        update public.contact_scores s
        set undone_at = now()
        from public.contact_scores x
        where x.workspace_id = p_workspace_id
          and x.contact_id = v_contact.id
          and x.attempt_id = (v_change.after ->> 'attempt')::bigint
          and x.undone_at is null
          and s.workspace_id = p_workspace_id
          and s.contact_id = v_contact.id
          and s.undone_at is null
          -- With it go those that came to the same right after: they are no changes, so nobody could undo them.
          and s.id >= x.id
          and not exists (
            select from public.contact_scores y
            where y.workspace_id = p_workspace_id
              and y.contact_id = v_contact.id
              and y.undone_at is null
              and y.id between x.id and s.id
              and y.score <> x.score);
        v_is_undone := found;
        if v_is_undone then
          select * into v_earlier
          from public.contact_scores
          where workspace_id = p_workspace_id
            and contact_id = v_contact.id
            and undone_at is null
          order by id desc
          limit 1;
          update public.contacts
          set ai_score = v_earlier.score, score_reasons = v_earlier.reasons, scored_at = v_earlier.at,
              score_half_life_days = v_earlier.half_life_days
          where workspace_id = p_workspace_id
            and id = v_contact.id;
          perform app.audit(p_workspace_id, 'contact.score_undone', v_contact.id,
            pg_catalog.jsonb_build_object('score', v_contact.ai_score), pg_catalog.jsonb_build_object('score', v_earlier.score));
        end if;
      when 'task.created' then
        update public.tasks
        set state = 'dismissed', closed_at = now(), closed_by = app.actor()
        where workspace_id = p_workspace_id
          and id = v_change.subject_id
          and state = 'open';
        v_is_undone := found;
        if v_is_undone then
          perform app.audit(p_workspace_id, 'task.changed', v_change.subject_id, '{"state": "open"}', '{"state": "dismissed"}');
        end if;
      when 'proposal.made' then
        update public.ai_proposals
        set state = 'rejected', decided_at = now(), decided_by = app.actor()
        where workspace_id = p_workspace_id
          and id = v_change.subject_id
          and state = 'open';
        v_is_undone := found;
        if v_is_undone then
          perform app.audit(p_workspace_id, 'proposal.decided', v_change.subject_id, '{"state": "open"}', '{"state": "rejected"}');
        end if;
      else
        null; -- a change of Claude's that is undone elsewhere
    end case;
    if v_is_undone then
      v_undone := v_undone || v_change.id;
    end if;
  end loop;
  return pg_catalog.jsonb_build_object(
    'undone', pg_catalog.to_jsonb(v_undone),
    'left', pg_catalog.to_jsonb(array(select i.id from pg_catalog.unnest(v_ids) i(id) where i.id <> all (v_undone) order by 1)));
end;
$$;
revoke execute on function public.undo_ai_changes from public, anon, service_role;
grant execute on function public.undo_ai_changes to authenticated;

-- What Claude may set by itself in a workspace, and how scores are made. Refuses: PT404 not a member.
create function public.read_ai_lists(p_workspace_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's, which sees what whoever asks may see
set search_path = ''
as $$
declare
  v_workspace public.workspaces;
begin
  select * into v_workspace
  from public.workspaces
  where id = p_workspace_id;
  if not found then
    raise exception 'workspace not found' using
      errcode = 'PT404', detail = 'workspace_not_found', hint = 'It does not exist, or it is not yours. GET /api/me lists yours.';
  end if;
  return app.ai_lists(v_workspace.settings) || pg_catalog.jsonb_build_object(
    'workspace_id', v_workspace.id,
    'analyse_conversations', v_workspace.settings -> 'analyse_conversations' is distinct from 'false');
end;
$$;
revoke execute on function public.read_ai_lists from public, anon, service_role;
grant execute on function public.read_ai_lists to authenticated;

-- Change some of them: whole lists of {name, description}, score {weights, half_life_days}, analyse_conversations.
-- What contacts have already stays. Refuses: PT404 not a member, PT403 an agent or viewer, PT422 another name or form.
create function public.change_ai_lists(p_workspace_id uuid, p_changes jsonb)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_settings jsonb;
begin
  perform app.check_manager(p_workspace_id, 'workspace');
  if pg_catalog.jsonb_typeof(p_changes) is distinct from 'object'
    or p_changes - array['tags', 'stages', 'task_kinds', 'teams', 'score', 'analyse_conversations'] <> '{}'
    or exists (
      select from pg_catalog.jsonb_each(p_changes) c
      where case
        when c.key = 'analyse_conversations' then pg_catalog.jsonb_typeof(c.value) <> 'boolean'
        when c.key = 'score' then pg_catalog.jsonb_typeof(c.value) <> 'object'
        -- A list is as long as what was read of it: nothing was without a name, or twice.
        else pg_catalog.jsonb_typeof(c.value) <> 'array'
          or pg_catalog.jsonb_array_length(app.named_in(c.value, '[]')) <> pg_catalog.jsonb_array_length(c.value)
      end)
  then
    raise exception 'no such list or form' using
      errcode = 'PT422', detail = 'list_not_valid',
      hint = 'Lists of at most 200 different names of 1 to 60 characters, each with a description.';
  end if;
  select w.settings into strict v_settings
  from public.workspaces w
  where w.id = p_workspace_id
  for no key update;
  if v_settings || p_changes <> v_settings then
    update public.workspaces
    set settings = settings || p_changes
    where id = p_workspace_id;
    perform app.audit(p_workspace_id, 'workspace.lists_changed', p_workspace_id, null,
      pg_catalog.jsonb_build_object('lists', (select pg_catalog.jsonb_agg(k) from pg_catalog.jsonb_object_keys(p_changes) k)));
  end if;
  return public.read_ai_lists(p_workspace_id);
end;
$$;
revoke execute on function public.change_ai_lists from public, anon, service_role;
grant execute on function public.change_ai_lists to authenticated;

select app.give_to_writer('public.read_contact');
select app.give_to_writer('public.list_tasks');
select app.give_to_writer('public.list_proposals');
select app.give_to_writer('public.read_ai_lists');
select app.give_to_writer('public.change_contact_tags');
select app.give_to_writer('public.change_contact_stage');
select app.give_to_writer('public.change_task');
select app.give_to_writer('public.decide_proposal');
select app.give_to_writer('public.undo_ai_changes');
select app.give_to_writer('public.change_ai_lists');

notify pgrst, 'reload schema';
