-- Templates: written here, reviewed by Meta. What people write is a draft until Meta has accepted it; what Meta tells, by
-- webhook, by answers and by reading, are facts, of which the latest holds. Status follows from both.
set lock_timeout = '5s';

alter table public.whatsapp_templates
  add column parameter_format text, -- POSITIONAL, NAMED; null: not told, which is POSITIONAL
  add column ttl_s integer, -- how long Meta tries to deliver; -1: 30 days; null: Meta's default
  -- {category, components, parameter_format, ttl_s, body_content}: written here, not accepted by Meta yet
  add column draft jsonb check (pg_catalog.jsonb_typeof(draft) = 'object'),
  add column draft_error jsonb, -- why Meta refused the draft, or the deletion: {code, reason, sentence, details}
  add column busy text check (busy in (
    'submitting', -- the draft is on its way to Meta
    'deleting',
    'unpausing' -- Meta is asked to let it be sent again
  )),
  add column busy_until timestamptz, -- by then the outbox has given up, whatever became of it
  add column version bigint not null default 1, -- counts what people changed: two of them at once are told apart
  add column edits timestamptz[] not null default '{}', -- of the approved template, as Meta accepted them in the last 30 days
  add column next_edit_at timestamptz, -- until then Meta takes no further edit of the approved template
  add column name_free_at timestamptz, -- deleted while approved: Meta blocks the name until then
  add column created_by uuid, -- null: made at Meta
  add constraint whatsapp_templates_busy check ((busy is null) = (busy_until is null));
create index whatsapp_templates_newest on public.whatsapp_templates (workspace_id, created_at desc, id desc);
comment on column public.whatsapp_templates.usage_count is
  'As of the account''s last sync; template_usage counts exactly, in rows that no recorder waits for.';

create table public.template_usage (
  workspace_id uuid not null,
  template_id uuid not null,
  day date not null, -- UTC
  accepted bigint not null default 0, -- messages of it that Meta accepted
  last_used_at timestamptz not null,
  primary key (workspace_id, template_id, day),
  foreign key (workspace_id, template_id) references public.whatsapp_templates (workspace_id, id)
);
comment on table public.template_usage is 'How often we sent a template, by day.';
alter table public.template_usage enable row level security;
revoke all on public.template_usage from anon, authenticated, service_role;
grant select on public.template_usage to authenticated;
grant select, insert, update on public.template_usage to service_role;
create policy "Members see how often their templates were sent" on public.template_usage
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
grant select on public.template_usage to parley_writer;

create table public.template_accounts (
  workspace_id uuid not null references public.workspaces (id),
  waba_id text not null,
  next_sync_at timestamptz not null default '-infinity',
  synced_at timestamptz, -- as of when all templates are as Meta told
  sync_error jsonb, -- of the last attempt: {code, reason, sentence}; null: it went well
  calls integer not null default 0, -- to Meta for syncs, in the hour that began at calls_from
  calls_from timestamptz not null default '-infinity',
  analytics_state text not null default 'off' check (analytics_state in (
    'off', -- Meta counts nothing for us
    'asked', -- somebody wants them; Meta is told with the next sync
    'on', -- for good: Meta does not take it back
    'unavailable' -- not for this account (Meta: EU, UK, Japan)
  )),
  analytics_error jsonb, -- {code, reason, sentence}
  analytics_read_at timestamptz,
  primary key (workspace_id, waba_id)
);
comment on table public.template_accounts is 'How far the templates of a WhatsApp Business Account, and their statistics, are read.';
alter table public.template_accounts enable row level security;
revoke all on public.template_accounts from anon, authenticated, service_role;
grant select on public.template_accounts to authenticated;
grant select, insert, update on public.template_accounts to service_role;
create policy "Members see how far their templates are read" on public.template_accounts
  for select to authenticated, parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
grant select, insert (workspace_id, waba_id), update (analytics_state, analytics_error, next_sync_at)
  on public.template_accounts to parley_writer;
create policy "Writers add their accounts" on public.template_accounts
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers ask for statistics of their accounts" on public.template_accounts
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

create table public.template_analytics (
  workspace_id uuid not null,
  template_id uuid not null,
  day date not null, -- UTC
  sent bigint not null default 0,
  delivered bigint not null default 0,
  read bigint not null default 0, -- Meta counts reads and clicks for 7 days after the send
  clicked bigint not null default 0,
  clicks jsonb not null default '[]', -- by button: [{type, button_content, count}]
  cost numeric, -- an estimate of Meta's, in the account's currency; null: not told
  primary key (workspace_id, template_id, day),
  foreign key (workspace_id, template_id) references public.whatsapp_templates (workspace_id, id)
);
comment on table public.template_analytics is 'What Meta counts of a template, by day.';
alter table public.template_analytics enable row level security;
revoke all on public.template_analytics from anon, authenticated, service_role;
grant select on public.template_analytics to authenticated;
grant select, insert, update on public.template_analytics to service_role;
create policy "Members see what Meta counts of their templates" on public.template_analytics
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

grant insert (workspace_id, id, waba_id, template_name, language, category, body_content, components, parameter_format, ttl_s,
    draft, created_by),
  update (category, body_content, components, parameter_format, ttl_s, status, facts, draft, draft_error, busy, busy_until,
    version, submitted_at, created_by) on public.whatsapp_templates to parley_writer;
create policy "Writers add templates" on public.whatsapp_templates
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers change their templates" on public.whatsapp_templates
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

-- 1. What facts and drafts come to.

-- As of when something holds that we read or did at a time: Meta tells times in whole seconds, and what it says happened
-- in that very second must not lose against us.
create function app.meta_ms(p_at timestamptz)
returns bigint
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.floor(extract(epoch from p_at))::bigint * 1000 - 1;
$$;
revoke execute on function app.meta_ms from public;
grant execute on function app.meta_ms to parley_writer, service_role;

-- Status and why: the later of what webhooks told (and we did) and what was read. A webhook's rejection has sentences
-- and its pause an end, which reading the template lacks: so they are kept apart, and the sentences shown while they fit.
-- A draft of a rejected or deleted template makes it pending again.
create function app.template_standing(
  p_facts jsonb, p_draft jsonb, out status text, out reject_reason text, out paused_until timestamptz)
language sql
immutable
set search_path = ''
as $$
  select
    case when p_draft is not null and s.status in ('rejected', 'deleted') then 'pending' else s.status end,
    case when s.status = 'rejected' then coalesce(
      case when p_facts #>> '{status,1}' = 'rejected' then p_facts #>> '{status,2}' end, p_facts #>> '{read_status,2}') end,
    case when s.status = 'paused' and p_facts #>> '{status,1}' = 'paused' then
      app.ms_to_time((p_facts #>> '{status,3}')::bigint) end
  from (
    select case
      when not p_facts ? 'status' or app.is_later_fact(p_facts -> 'read_status', p_facts -> 'status')
      then p_facts #>> '{read_status,1}'
      else p_facts #>> '{status,1}' end as status
  ) s;
$$;
revoke execute on function app.template_standing from public;
grant execute on function app.template_standing to parley_writer, service_role;

-- The category Meta is going to change it to: the later of announced and read. When, only a webhook tells.
create function app.template_correction(p_facts jsonb, out correct_category text, out category_changes_at timestamptz)
language sql
immutable
set search_path = ''
as $$
  select c.category, case when c.category = p_facts #>> '{announced,1}' then app.ms_to_time((p_facts #>> '{announced,2}')::bigint) end
  from (
    select case
      when not p_facts ? 'announced' or app.is_later_fact(p_facts -> 'read_correct', p_facts -> 'announced')
      then p_facts #>> '{read_correct,1}'
      else p_facts #>> '{announced,1}' end as category
  ) c;
$$;
revoke execute on function app.template_correction from public;
grant execute on function app.template_correction to service_role;

create function app.is_at_meta(p_template public.whatsapp_templates)
returns boolean
language sql
immutable
set search_path = ''
as $$
  select p_template.meta_id is not null
    and (app.template_standing(p_template.facts, null)).status is distinct from 'deleted';
$$;
revoke execute on function app.is_at_meta from public;
grant execute on function app.is_at_meta to parley_writer, service_role;

create or replace function app.merge_template_facts(
  p_workspace_id uuid, p_waba_id text, p_template_name text, p_language text, p_facts jsonb)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_id uuid;
  v_facts jsonb;
  v_draft jsonb;
begin
  insert into public.whatsapp_templates (workspace_id, id, waba_id, template_name, language)
  values (p_workspace_id, pg_catalog.gen_random_uuid(), p_waba_id, p_template_name, p_language)
  on conflict (workspace_id, waba_id, template_name, language) do nothing;

  select t.id, app.later_facts(t.facts, p_facts), t.draft
  into v_id, v_facts, v_draft
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.waba_id = p_waba_id
    and t.template_name = p_template_name
    and t.language = p_language
  for no key update;

  update public.whatsapp_templates t
  set facts = v_facts,
    meta_id = coalesce(v_facts #>> '{meta_id,1}', t.meta_id),
    category = coalesce(v_facts #>> '{category,1}', t.category),
    previous_category = coalesce(v_facts #>> '{previous_category,1}', t.previous_category),
    correct_category = nullif(c.correct_category, v_facts #>> '{category,1}'),
    category_changes_at = case when c.correct_category is distinct from v_facts #>> '{category,1}' then c.category_changes_at end,
    status = coalesce(s.status, t.status),
    reject_reason = case when s.status is null then t.reject_reason else s.reject_reason end,
    paused_until = s.paused_until,
    quality = coalesce(v_facts #>> '{quality,1}', t.quality),
    body_content = coalesce(v_facts #>> '{content,1}', t.body_content),
    components = coalesce(v_facts #> '{content,2}', t.components),
    parameter_format = coalesce(v_facts #>> '{parameter_format,1}', t.parameter_format),
    ttl_s = case when v_facts ? 'ttl_s' then (v_facts #>> '{ttl_s,1}')::integer else t.ttl_s end
  from app.template_standing(v_facts, v_draft) s, app.template_correction(v_facts) c
  where t.workspace_id = p_workspace_id
    and t.id = v_id
    and t.facts is distinct from v_facts;
end;
$$;
revoke execute on function app.merge_template_facts from public;
grant execute on function app.merge_template_facts to service_role;

create function app.body_in(p_components jsonb)
returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce((
    select app.text_in(c -> 'text', 4096)
    from app.elements_in(p_components) c
    where app.word_in(c -> 'type') = 'BODY'
    limit 1
  ), '');
$$;
revoke execute on function app.body_in from public;
grant execute on function app.body_in to parley_writer, service_role;

-- Facts in a template as Meta's endpoints show it. Nothing about it is taken for granted.
create function app.template_facts_read(p_template jsonb, p_at_ms bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_facts jsonb := '{}';
  v_status text := app.template_status_of(app.word_in(p_template -> 'status'));
  v_category text := pg_catalog.lower(app.word_in(p_template -> 'category'));
  v_correct text := pg_catalog.lower(app.word_in(p_template -> 'correct_category'));
  v_quality text := pg_catalog.lower(app.word_in(p_template #> '{quality_score,score}'));
begin
  v_facts := pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'meta_id', app.digits_in(p_template -> 'id'),
    'category', v_category,
    'previous_category', pg_catalog.lower(app.word_in(p_template -> 'previous_category')),
    'quality', case when v_quality in ('green', 'yellow', 'red', 'unknown') then v_quality end,
    'parameter_format', app.word_in(p_template -> 'parameter_format')));
  select coalesce(pg_catalog.jsonb_object_agg(f.key, pg_catalog.jsonb_build_array(p_at_ms, f.value)), '{}')
  into v_facts
  from pg_catalog.jsonb_each(v_facts) f;

  if v_status is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object(
      'read_status', pg_catalog.jsonb_build_array(p_at_ms, v_status, case
        when v_status = 'rejected' then nullif(app.word_in(p_template -> 'rejected_reason'), 'NONE') end),
      'read_correct', pg_catalog.jsonb_build_array(p_at_ms, v_correct));
  end if;
  if pg_catalog.jsonb_typeof(p_template -> 'components') = 'array' then
    v_facts := v_facts || pg_catalog.jsonb_build_object(
      'content', pg_catalog.jsonb_build_array(p_at_ms, app.body_in(p_template -> 'components'), p_template -> 'components'),
      'ttl_s', pg_catalog.jsonb_build_array(p_at_ms, case
        when p_template ->> 'message_send_ttl_seconds' ~ '^-?[0-9]{1,8}$'
        then (p_template ->> 'message_send_ttl_seconds')::integer end));
  end if;
  return v_facts;
end;
$$;
revoke execute on function app.template_facts_read from public;
grant execute on function app.template_facts_read to service_role;

-- When the next edit of an approved template may go: once in 24 hours, ten times in 30 days. p_edits: those before.
-- Source: Meta, "Template management", read 2026-11-22.
create function app.next_template_edit_at(p_edits timestamptz[])
returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select greatest(
    pg_catalog.max(e.at) + interval '24 hours',
    (pg_catalog.array_agg(e.at order by e.at desc))[10] + interval '30 days')
  from pg_catalog.unnest(p_edits) e(at);
$$;
revoke execute on function app.next_template_edit_at from public;
grant execute on function app.next_template_edit_at to service_role;

-- Refuse an edit of an approved template that Meta would not take yet. Refuses: PT409 template_edit_limit.
create function app.check_template_edit(p_template public.whatsapp_templates)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_template.status = 'approved' and p_template.next_edit_at > now() then
    raise exception 'too many edits' using
      errcode = 'PT409', detail = 'template_edit_limit',
      hint = 'WhatsApp takes one edit of an approved template in 24 hours and ten in 30 days; the next from '
        || pg_catalog.to_char(p_template.next_edit_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC on.';
  end if;
end;
$$;
revoke execute on function app.check_template_edit from public;
grant execute on function app.check_template_edit to parley_writer;

grant execute on function app.text_in, app.word_in, app.elements_in, app.later_facts, app.is_later_fact, app.ms_to_time
  to parley_writer;

-- 2. Counting.

-- Count messages of templates that Meta accepted. p_uses: [{workspace_id, template_id, uses}]; others' ids count nothing.
-- Locks rows of template_usage, in key order, and nothing else: whoever holds messages may call it.
create function app.count_template_uses(p_uses jsonb)
returns void
language sql
set search_path = ''
as $$
  insert into public.template_usage as u (workspace_id, template_id, day, accepted, last_used_at)
  select t.workspace_id, t.id, (now() at time zone 'UTC')::date, pg_catalog.sum(r.uses), now()
  from pg_catalog.jsonb_to_recordset(p_uses) as r(workspace_id uuid, template_id uuid, uses bigint)
  join public.whatsapp_templates t on t.workspace_id = r.workspace_id and t.id = r.template_id
  group by t.workspace_id, t.id
  order by t.workspace_id, t.id
  on conflict (workspace_id, template_id, day) do update
  set accepted = u.accepted + excluded.accepted,
    last_used_at = excluded.last_used_at;
$$;
revoke execute on function app.count_template_uses from public;
grant execute on function app.count_template_uses to service_role;

create function app.count_template_use(p_workspace_id uuid, p_template_id uuid)
returns void
language sql
set search_path = ''
as $$
  select app.count_template_uses(pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
    'workspace_id', p_workspace_id, 'template_id', p_template_id, 'uses', 1)));
$$;
revoke execute on function app.count_template_use from public;
grant execute on function app.count_template_use to service_role;

-- 3. Asking for syncs.

-- Through which number of an account to speak to Meta about its templates; null: none is connected and has a token.
create function app.template_channel(p_workspace_id uuid, p_waba_id text)
returns uuid
language sql
stable
set search_path = ''
as $$
  select c.id
  from public.whatsapp_channels c
  join app.channel_tokens k on k.workspace_id = c.workspace_id and k.channel_id = c.id
  where c.workspace_id = p_workspace_id
    and c.waba_id = p_waba_id
    and c.state = 'connected'
  order by c.hold_reason is not null, c.id
  limit 1;
$$;
revoke execute on function app.template_channel from public;
grant execute on function app.template_channel to parley_writer, service_role;

-- Ask for an account's templates to be read: all, or, with p_meta_id, that one. What waits already is widened instead.
-- Past 150 calls an hour it waits for the next: Meta allows 200 for an app and account, and people's edits need some.
-- Returns null when no number of the account is connected.
create function app.queue_template_sync(p_workspace_id uuid, p_waba_id text, p_meta_id text default null)
returns uuid
language plpgsql
set search_path = ''
as $$
declare
  v_channel_id uuid := app.template_channel(p_workspace_id, p_waba_id);
  v_outbox_id uuid;
  v_only jsonb;
  v_account public.template_accounts;
begin
  if v_channel_id is null then
    return null;
  end if;
  insert into public.template_accounts (workspace_id, waba_id)
  values (p_workspace_id, p_waba_id)
  on conflict do nothing;

  select o.id, o.payload -> 'only' into v_outbox_id, v_only
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.kind = 'template_sync'
    and o.state = 'due'
    and o.lease_token is null
    and o.channel_id in (
      select c.id from public.whatsapp_channels c where c.workspace_id = p_workspace_id and c.waba_id = p_waba_id)
  order by o.place
  limit 1
  for no key update skip locked;
  if found then
    -- One more to read, or all of them.
    update app.outbox o
    set payload = case
      when p_meta_id is null or v_only is null or pg_catalog.jsonb_array_length(v_only) >= 20 then o.payload - 'only'
      when v_only ? p_meta_id then o.payload
      else pg_catalog.jsonb_set(o.payload, '{only}', v_only || pg_catalog.to_jsonb(p_meta_id)) end
    where o.workspace_id = p_workspace_id
      and o.id = v_outbox_id;
    return v_outbox_id;
  end if;

  v_outbox_id := app.queue_chore(
    p_workspace_id, v_channel_id, 'template_sync',
    case when p_meta_id is null then '{}'
      else pg_catalog.jsonb_build_object('only', pg_catalog.jsonb_build_array(p_meta_id)) end,
    5::smallint, interval '6 hours');
  select * into v_account
  from public.template_accounts a
  where a.workspace_id = p_workspace_id
    and a.waba_id = p_waba_id;
  update app.outbox o
  set next_attempt_at = case
    when v_account.calls >= 150 and v_account.calls_from > now() - interval '1 hour' then v_account.calls_from + interval '1 hour'
    -- Meta tells of many at once: one reading for all that come within seconds.
    when p_meta_id is not null then now() + interval '3 seconds'
    else o.next_attempt_at end
  where o.workspace_id = p_workspace_id
    and o.id = v_outbox_id;
  return v_outbox_id;
end;
$$;
revoke execute on function app.queue_template_sync from public;
grant execute on function app.queue_template_sync to parley_writer, service_role;
grant update (payload) on app.outbox to parley_writer;

-- A webhook tells what changed, not what the template is now: read it. (Fact sheet 2.5: Meta's delta may lack parts.)
create function app.reread_template()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  perform app.queue_template_sync(new.workspace_id, new.waba_id, app.digits_in(new.payload -> 'message_template_id'));
  return null;
end;
$$;
revoke execute on function app.reread_template from public;
create trigger reread_template
  after insert on public.account_events
  for each row
  when (new.template_id is not null and new.waba_id is not null)
  execute function app.reread_template();

-- Queue a sync for each account with a connected number that has a token, once an hour; whichever dispatcher asks.
-- Returns {queued}.
create function public.schedule_template_syncs()
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_account record;
  v_queued integer := 0;
begin
  if not pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtextextended('parley.template_syncs', 0)) then
    return pg_catalog.jsonb_build_object('queued', 0);
  end if;
  for v_account in
    select c.workspace_id, c.waba_id
    from public.whatsapp_channels c
    join app.channel_tokens k on k.workspace_id = c.workspace_id and k.channel_id = c.id
    left join public.template_accounts a on a.workspace_id = c.workspace_id and a.waba_id = c.waba_id
    where c.state = 'connected'
      and coalesce(a.next_sync_at, '-infinity') <= now()
    group by c.workspace_id, c.waba_id
    order by c.workspace_id, c.waba_id
    limit 500
  loop
    perform app.queue_template_sync(v_account.workspace_id, v_account.waba_id);
    update public.template_accounts a
    set next_sync_at = now() + interval '1 hour' + pg_catalog.random() * interval '5 minutes' -- so that they spread
    where a.workspace_id = v_account.workspace_id
      and a.waba_id = v_account.waba_id;
    v_queued := v_queued + 1;
  end loop;
  return pg_catalog.jsonb_build_object('queued', v_queued);
end;
$$;
revoke execute on function public.schedule_template_syncs from public, anon, authenticated;
grant execute on function public.schedule_template_syncs to service_role;

-- 4. What people see.

create function public.template_json(p_template public.whatsapp_templates)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_template.id,
    'workspace_id', p_template.workspace_id,
    'waba_id', p_template.waba_id,
    'template_name', p_template.template_name,
    'language', p_template.language,
    'category', p_template.category,
    'previous_category', p_template.previous_category,
    'correct_category', p_template.correct_category,
    'category_changes_at', p_template.category_changes_at,
    'parameter_format', p_template.parameter_format,
    'ttl_s', p_template.ttl_s,
    'body_content', p_template.body_content,
    'components', p_template.components,
    'status', p_template.status,
    'reject_reason', p_template.reject_reason,
    'paused_until', p_template.paused_until,
    'quality', p_template.quality,
    'meta_id', p_template.meta_id,
    'submitted_at', p_template.submitted_at,
    'draft', p_template.draft,
    'draft_error', p_template.draft_error,
    'busy', case when p_template.busy_until > now() then p_template.busy end,
    'next_edit_at', case when p_template.status = 'approved' and p_template.next_edit_at > now() then p_template.next_edit_at end,
    'version', p_template.version,
    'usage_count', u.accepted,
    'last_used_at', u.last_used_at,
    'created_by', p_template.created_by,
    'created_at', p_template.created_at)
  from (
    select coalesce(pg_catalog.sum(d.accepted), 0) as accepted, pg_catalog.max(d.last_used_at) as last_used_at
    from public.template_usage d
    where d.workspace_id = p_template.workspace_id
      and d.template_id = p_template.id
  ) u;
$$;
revoke execute on function public.template_json from public, anon;
grant execute on function public.template_json to authenticated, parley_writer;

-- Refuses: PT404 unknown or not theirs.
create function public.read_template(p_workspace_id uuid, p_template_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id;
  if not found then
    raise exception 'template not found' using
      errcode = 'PT404', detail = 'template_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return public.template_json(v_template);
end;
$$;
revoke execute on function public.read_template from public, anon;
grant execute on function public.read_template to authenticated;

-- A workspace's templates, newest first; deleted ones only when asked for. Each filter: null for all.
-- p_q: part of the name or the body, in any case. p_cursor: next_cursor of the page before.
-- Refuses: PT404 unknown or not theirs, PT422 a cursor, limit or filter we do not take.
create function public.list_templates(
  p_workspace_id uuid, p_limit integer default 50, p_cursor text default null, p_status text default null,
  p_category text default null, p_language text default null, p_q text default null, p_waba_id text default null
)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_before_at timestamptz := 'infinity';
  v_before_id uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  v_q text := nullif(pg_catalog.lower(pg_catalog.btrim(p_q)), '');
  v_rows public.whatsapp_templates[];
  v_last public.whatsapp_templates;
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
    if p_cursor !~ '^[0-9]{1,17}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
      raise exception 'bad cursor' using
        errcode = 'PT422', detail = 'bad_cursor', hint = 'Pass next_cursor of the page before, unchanged.';
    end if;
    v_before_at := timestamptz 'epoch' + pg_catalog.split_part(p_cursor, '_', 1)::bigint * interval '1 microsecond';
    v_before_id := pg_catalog.split_part(p_cursor, '_', 2)::uuid;
  end if;

  v_rows := array(
    select t
    from public.whatsapp_templates t
    where t.workspace_id = p_workspace_id
      and (t.created_at, t.id) < (v_before_at, v_before_id)
      and case when p_status is null then t.status <> 'deleted' else t.status = p_status end
      and (p_category is null or t.category = pg_catalog.lower(p_category))
      and (p_language is null or t.language = p_language)
      and (p_waba_id is null or t.waba_id = p_waba_id)
      and (v_q is null or pg_catalog.strpos(t.template_name, v_q) > 0
        or pg_catalog.strpos(pg_catalog.lower(t.body_content), v_q) > 0)
    order by t.created_at desc, t.id desc
    limit p_limit + 1);
  v_last := v_rows[p_limit];

  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(public.template_json(t) order by t.created_at desc, t.id desc)
      from pg_catalog.unnest(v_rows[1:p_limit]) t
    ), '[]'),
    'next_cursor', case when pg_catalog.cardinality(v_rows) > p_limit then
      pg_catalog.trunc(extract(epoch from v_last.created_at) * 1000000)::bigint || '_' || v_last.id end,
    'accounts', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'waba_id', a.waba_id, 'synced_at', a.synced_at, 'sync_error', a.sync_error,
        'analytics_state', a.analytics_state, 'analytics_error', a.analytics_error) order by a.waba_id)
      from public.template_accounts a
      where a.workspace_id = p_workspace_id
    ), '[]'),
    'server_time', now());
end;
$$;
revoke execute on function public.list_templates from public, anon;
grant execute on function public.list_templates to authenticated;

-- What was sent of a template, by day, as we and as Meta counted it; days without either are left out.
-- p_from, p_to: UTC days, both included. Refuses: PT404, PT422 no range of at most 366 days.
create function public.list_template_analytics(p_workspace_id uuid, p_template_id uuid, p_from date, p_to date)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id;
  if not found then
    raise exception 'template not found' using
      errcode = 'PT404', detail = 'template_not_found', hint = 'It does not exist, or it is not yours.';
  elsif p_from is null or p_to is null or p_to - p_from not between 0 and 366 then
    raise exception 'bad range' using
      errcode = 'PT422', detail = 'bad_range', hint = 'Ask for a first and a last day, at most 366 days apart.';
  end if;

  return (
    select pg_catalog.jsonb_build_object(
      'template_id', p_template_id,
      'state', coalesce(a.analytics_state, 'off'),
      'error', a.analytics_error,
      'read_at', a.analytics_read_at,
      'days', coalesce((
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'day', d.day, 'accepted', coalesce(u.accepted, 0), 'sent', m.sent, 'delivered', m.delivered, 'read', m.read,
          'clicked', m.clicked, 'clicks', m.clicks, 'cost', m.cost) order by d.day)
        from (
          select u.day from public.template_usage u where u.workspace_id = p_workspace_id and u.template_id = p_template_id
          union
          select m.day from public.template_analytics m where m.workspace_id = p_workspace_id and m.template_id = p_template_id
        ) d(day)
        left join public.template_usage u
          on u.workspace_id = p_workspace_id and u.template_id = p_template_id and u.day = d.day
        left join public.template_analytics m
          on m.workspace_id = p_workspace_id and m.template_id = p_template_id and m.day = d.day
        where d.day between p_from and p_to
      ), '[]'),
      'server_time', now())
    from (select) n
    left join public.template_accounts a on a.workspace_id = p_workspace_id and a.waba_id = v_template.waba_id
  );
end;
$$;
revoke execute on function public.list_template_analytics from public, anon;
grant execute on function public.list_template_analytics to authenticated;

-- 5. What people change. Owners and admins only; each names the version they saw.

-- Refuses: PT404 not a member, PT403 an agent or viewer.
create function app.check_template_writer(p_workspace_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_role text;
begin
  select m.role into v_role
  from public.workspace_members m
  where m.workspace_id = p_workspace_id
    and m.user_id = app.actor();
  if v_role is null then
    raise exception 'workspace not found' using
      errcode = 'PT404', detail = 'workspace_not_found', hint = 'It does not exist, or it is not yours. GET /api/me lists yours.';
  elsif v_role not in ('owner', 'admin') then
    raise exception 'only owners and admins change templates' using
      errcode = 'PT403', detail = 'role_may_not_write', hint = 'Ask an owner or admin of the workspace.';
  end if;
end;
$$;
revoke execute on function app.check_template_writer from public;
grant execute on function app.check_template_writer to parley_writer;

-- Whether the outbox is at it. Rows are the truth: a chore that ended without a word keeps nobody from going on.
create function app.is_template_busy(p_template public.whatsapp_templates)
returns boolean
language sql
stable
set search_path = ''
as $$
  select p_template.busy_until > now() and exists (
    select from app.outbox o
    where o.workspace_id = p_template.workspace_id
      and o.kind in ('template_submit', 'template_delete')
      and o.state = 'due'
      and o.payload ->> 'template_id' = p_template.id::text);
$$;
revoke execute on function app.is_template_busy from public;
grant execute on function app.is_template_busy to parley_writer;

-- A template, locked, as the person saw it and with nothing under way.
-- Refuses: PT404 unknown or deleted, PT409 template_changed, template_busy.
create function app.lock_template(p_workspace_id uuid, p_template_id uuid, p_version bigint)
returns public.whatsapp_templates
language plpgsql
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  for no key update;
  if not found then
    raise exception 'template not found' using
      errcode = 'PT404', detail = 'template_not_found', hint = 'It does not exist, or it is not yours.';
  elsif app.is_template_busy(v_template) then
    raise exception 'the template is %', v_template.busy using
      errcode = 'PT409', detail = 'template_busy', hint = 'It is on its way to WhatsApp; wait a moment and read it again.';
  elsif v_template.version is distinct from p_version then
    raise exception 'somebody changed the template' using
      errcode = 'PT409', detail = 'template_changed', hint = 'Somebody changed it meanwhile. Read it again, then make your change.';
  elsif v_template.status = 'deleted' then
    raise exception 'the template is deleted' using
      errcode = 'PT409', detail = 'template_deleted', hint = 'It is deleted. Create it again under its name.';
  end if;
  return v_template;
end;
$$;
revoke execute on function app.lock_template from public;
grant execute on function app.lock_template to parley_writer;

-- Refuse files that a template's headers name and we do not have. Their ids stand as "parley:<media uuid>".
create function app.check_template_samples(p_workspace_id uuid, p_components jsonb)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if exists (
    select from pg_catalog.regexp_matches(
      p_components::text, '"parley:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"', 'g') as f(found)
    where not exists (
      select from public.media m
      where m.workspace_id = p_workspace_id
        and m.id = f.found[1]::uuid
        and m.state = 'stored'))
  then
    raise exception 'a sample file is missing' using
      errcode = 'PT422', detail = 'media_not_ready', hint = 'The header''s sample file is not here. Upload it first.';
  end if;
end;
$$;
revoke execute on function app.check_template_samples from public;
grant execute on function app.check_template_samples to parley_writer;

-- A draft of what somebody wrote. p_template: {category (any case), components, parameter_format?, ttl_s?}.
create function app.template_draft(p_template jsonb)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'category', pg_catalog.lower(p_template ->> 'category'),
    'components', p_template -> 'components',
    'parameter_format', p_template -> 'parameter_format',
    'ttl_s', p_template -> 'ttl_s',
    'body_content', app.body_in(p_template -> 'components'));
$$;
revoke execute on function app.template_draft from public;
grant execute on function app.template_draft to parley_writer;

-- Write a template, to be submitted. One of this name and language that was deleted comes to life again.
-- p_request_id, p_digest: the Idempotency-Key and the hex sha256 of the body: again, it is the same template.
-- p_template: {id, waba_id (null: the workspace's only account), name, language, category, components, parameter_format,
--   ttl_s}, checked by shared.whatsapp.templates.
-- Writes: whatsapp_templates, audit_log. Called by: services/api, as the user.
-- Refuses: PT404 not theirs, PT403 neither owner nor admin, PT409 template_exists, template_name_blocked,
-- idempotency_key_reused, PT422 account_not_found, account_needed, media_not_ready.
create function public.create_template(p_workspace_id uuid, p_request_id text, p_digest text, p_template jsonb)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_draft jsonb := app.template_draft(p_template);
  v_accounts text[];
  v_waba_id text;
  v_free_at timestamptz;
  v_template public.whatsapp_templates;
begin
  perform app.check_template_writer(p_workspace_id);

  v_accounts := array(
    select distinct c.waba_id
    from public.whatsapp_channels c
    where c.workspace_id = p_workspace_id
      and c.state <> 'disconnected'
      and c.waba_id = coalesce(p_template ->> 'waba_id', c.waba_id));
  if pg_catalog.cardinality(v_accounts) = 0 then
    raise exception 'no such account' using
      errcode = 'PT422', detail = 'account_not_found', hint = 'None of the workspace''s connected numbers belongs to this account.';
  elsif pg_catalog.cardinality(v_accounts) > 1 then
    raise exception 'several accounts' using
      errcode = 'PT422', detail = 'account_needed', hint = 'The workspace has several WhatsApp accounts; name one as waba_id.';
  end if;
  v_waba_id := v_accounts[1];
  perform app.check_template_samples(p_workspace_id, v_draft);

  -- Of two at once, one waits here for the other.
  insert into public.whatsapp_templates (
    workspace_id, id, waba_id, template_name, language, category, body_content, components, parameter_format, ttl_s,
    draft, created_by)
  values (
    p_workspace_id, (p_template ->> 'id')::uuid, v_waba_id, p_template ->> 'name', p_template ->> 'language',
    v_draft ->> 'category', v_draft ->> 'body_content', v_draft -> 'components', v_draft ->> 'parameter_format',
    (v_draft ->> 'ttl_s')::integer, v_draft, app.actor())
  on conflict (workspace_id, waba_id, template_name, language) do nothing;
  select * into strict v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.waba_id = v_waba_id
    and t.template_name = p_template ->> 'name'
    and t.language = p_template ->> 'language'
  for no key update;

  if not app.is_new_request(p_workspace_id, p_request_id, p_digest, v_template.id) then
    select t.* into strict v_template
    from public.whatsapp_templates t
    join app.send_requests r on r.workspace_id = t.workspace_id and r.subject_id = t.id
    where r.workspace_id = p_workspace_id
      and r.request_id = p_request_id;
    return public.template_json(v_template);
  end if;

  select pg_catalog.max(t.name_free_at) into v_free_at
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.waba_id = v_waba_id
    and t.template_name = v_template.template_name;
  if v_free_at > now() then
    raise exception 'the name is blocked' using
      errcode = 'PT409', detail = 'template_name_blocked',
      hint = 'An approved template of this name was deleted; WhatsApp blocks the name until '
        || pg_catalog.to_char(v_free_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC. Choose another.';
  end if;

  if v_template.id <> (p_template ->> 'id')::uuid then
    if v_template.status <> 'deleted' then
      raise exception 'the template exists' using
        errcode = 'PT409', detail = 'template_exists', hint = 'There is a template of this name in this language already; edit that one.';
    end if;
    update public.whatsapp_templates t
    set category = v_draft ->> 'category',
      body_content = v_draft ->> 'body_content',
      components = v_draft -> 'components',
      parameter_format = v_draft ->> 'parameter_format',
      ttl_s = (v_draft ->> 'ttl_s')::integer,
      status = 'pending',
      draft = v_draft,
      draft_error = null,
      busy = null,
      busy_until = null,
      submitted_at = null,
      created_by = app.actor(),
      version = t.version + 1
    where t.workspace_id = p_workspace_id
      and t.id = v_template.id
    returning * into v_template;
  end if;

  perform app.audit(p_workspace_id, 'template.created', v_template.id);
  return public.template_json(v_template);
end;
$$;
revoke execute on function public.create_template from public, anon, service_role;
grant execute on function public.create_template to authenticated;
select app.give_to_writer('public.create_template');

-- Change what is to be submitted. What is approved goes on being sent as it is until Meta accepts the edit.
-- p_template: {category, components, parameter_format, ttl_s}; null gives the draft up.
-- Writes: whatsapp_templates, audit_log. Called by: services/api, as the user.
-- Refuses: PT404, PT403, PT409 template_changed, template_busy, template_deleted, template_not_editable (Meta is at it),
-- template_edit_limit, template_not_submitted (a draft Meta does not know cannot be given up: delete it),
-- PT422 template_category_fixed, template_format_fixed, media_not_ready.
create function public.edit_template(p_workspace_id uuid, p_template_id uuid, p_version bigint, p_template jsonb)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
  v_draft jsonb := case when p_template is not null then app.template_draft(p_template) end;
  v_is_at_meta boolean;
begin
  perform app.check_template_writer(p_workspace_id);
  v_template := app.lock_template(p_workspace_id, p_template_id, p_version);
  v_is_at_meta := app.is_at_meta(v_template);

  if p_template is null and not v_is_at_meta then
    raise exception 'WhatsApp does not know the template' using
      errcode = 'PT409', detail = 'template_not_submitted', hint = 'It exists here only; delete it instead.';
  elsif p_template is not null then
    if v_is_at_meta and v_template.draft is null and v_template.status not in ('approved', 'rejected', 'paused') then
      raise exception 'the template is %', v_template.status using
        errcode = 'PT409', detail = 'template_not_editable',
        hint = 'WhatsApp takes edits of approved, rejected and paused templates only; this one is ' || v_template.status || '.';
    end if;
    if v_is_at_meta and v_template.status = 'approved' then
      if v_draft ->> 'category' is distinct from v_template.category then
        raise exception 'the category is fixed' using
          errcode = 'PT422', detail = 'template_category_fixed', hint = 'WhatsApp does not change the category of an approved template.';
      end if;
      perform app.check_template_edit(v_template);
    end if;
    if v_is_at_meta and coalesce(v_draft ->> 'parameter_format', 'POSITIONAL')
      <> coalesce(v_template.parameter_format, 'POSITIONAL')
    then
      raise exception 'the format of placeholders is fixed' using
        errcode = 'PT422', detail = 'template_format_fixed',
        hint = 'A template keeps its kind of placeholders, numbers or names. Create another one.';
    end if;
    perform app.check_template_samples(p_workspace_id, v_draft);
  end if;

  update public.whatsapp_templates t
  set draft = v_draft,
    draft_error = null,
    busy = null,
    busy_until = null,
    version = t.version + 1,
    status = case when t.facts <> '{}' then coalesce((app.template_standing(t.facts, v_draft)).status, t.status) else t.status end,
    submitted_at = case
      when v_draft is not null and t.status = 'rejected' then null
      else t.submitted_at end,
    -- What Meta does not know is as its author last wrote it.
    category = case when v_is_at_meta then t.category else v_draft ->> 'category' end,
    body_content = case when v_is_at_meta then t.body_content else v_draft ->> 'body_content' end,
    components = case when v_is_at_meta then t.components else v_draft -> 'components' end,
    parameter_format = case when v_is_at_meta then t.parameter_format else v_draft ->> 'parameter_format' end,
    ttl_s = case when v_is_at_meta then t.ttl_s else (v_draft ->> 'ttl_s')::integer end
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  returning * into v_template;

  perform app.audit(p_workspace_id, case when v_draft is null then 'template.draft_dropped' else 'template.edited' end, p_template_id);
  return public.template_json(v_template);
end;
$$;
revoke execute on function public.edit_template from public, anon, service_role;
grant execute on function public.edit_template to authenticated;
select app.give_to_writer('public.edit_template');

-- Queue what a template needs. p_payload: beside its id. Refuses: PT409 no number of its account is connected.
create function app.queue_template_chore(p_template public.whatsapp_templates, p_kind text, p_payload jsonb default '{}')
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_channel_id uuid := app.template_channel(p_template.workspace_id, p_template.waba_id);
begin
  if v_channel_id is null then
    raise exception 'no number of the account is connected' using
      errcode = 'PT409', detail = 'channel_not_connected', hint = 'Connect a number of this WhatsApp account first.';
  end if;
  perform app.queue_chore(
    p_template.workspace_id, v_channel_id, p_kind, p_payload || pg_catalog.jsonb_build_object('template_id', p_template.id),
    4::smallint, interval '6 hours');
end;
$$;
revoke execute on function app.queue_template_chore from public;
grant execute on function app.queue_template_chore to parley_writer;

-- Hand the draft to Meta for review; the outbox does. Nothing to submit, or under way already: fine.
-- Writes: whatsapp_templates, outbox, audit_log. Called by: services/api, as the user.
-- Refuses: PT404, PT403, PT409 template_changed, template_busy (deleting), template_deleted, template_not_editable,
-- template_edit_limit, channel_not_connected.
create function public.submit_template(p_workspace_id uuid, p_template_id uuid, p_version bigint)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
  v_is_at_meta boolean;
begin
  perform app.check_template_writer(p_workspace_id);
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  for no key update;
  if v_template.busy = 'submitting' and p_version in (v_template.version, v_template.version - 1)
    and app.is_template_busy(v_template)
  then
    return public.template_json(v_template);
  end if;
  v_template := app.lock_template(p_workspace_id, p_template_id, p_version);
  if v_template.draft is null then
    return public.template_json(v_template);
  end if;
  v_is_at_meta := app.is_at_meta(v_template);
  if v_is_at_meta and (app.template_standing(v_template.facts, null)).status not in ('approved', 'rejected', 'paused') then
    raise exception 'the template is %', v_template.status using
      errcode = 'PT409', detail = 'template_not_editable',
      hint = 'WhatsApp takes edits of approved, rejected and paused templates only; this one is ' || v_template.status || '.';
  end if;
  perform app.check_template_edit(v_template);

  perform app.queue_template_chore(v_template, 'template_submit');
  update public.whatsapp_templates t
  set busy = 'submitting',
    busy_until = now() + interval '6 hours 2 minutes', -- the outbox's time, and that of a call begun at its end
    draft_error = null,
    version = t.version + 1
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  returning * into v_template;

  perform app.audit(p_workspace_id, 'template.submitted', p_template_id);
  return public.template_json(v_template);
end;
$$;
revoke execute on function public.submit_template from public, anon, service_role;
grant execute on function public.submit_template to authenticated;
select app.give_to_writer('public.submit_template');

-- Delete a template in its language: at once if Meta does not know it, else there; the outbox does. Deleted: fine.
-- Writes: whatsapp_templates, outbox, audit_log. Called by: services/api, as the user.
-- Refuses: PT404, PT403, PT409 template_changed, template_busy (submitting), template_disabled, channel_not_connected.
create function public.delete_template(p_workspace_id uuid, p_template_id uuid, p_version bigint)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  perform app.check_template_writer(p_workspace_id);
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  for no key update;
  if v_template.status = 'deleted' or (v_template.busy = 'deleting' and app.is_template_busy(v_template)) then
    return public.template_json(v_template);
  end if;
  v_template := app.lock_template(p_workspace_id, p_template_id, p_version);
  if v_template.status = 'disabled' then
    raise exception 'the template is disabled' using
      errcode = 'PT409', detail = 'template_disabled', hint = 'WhatsApp keeps disabled templates: they cannot be deleted.';
  end if;

  if app.is_at_meta(v_template) then
    perform app.queue_template_chore(v_template, 'template_delete');
  end if;
  update public.whatsapp_templates t
  set status = case when app.is_at_meta(v_template) then t.status else 'deleted' end,
    facts = case when app.is_at_meta(v_template) then t.facts else app.later_facts(t.facts, pg_catalog.jsonb_build_object(
      'status', pg_catalog.jsonb_build_array(
        greatest(app.meta_ms(now()), app.status_known_ms(t.facts) + 1), 'deleted', null, null))) end,
    draft = case when app.is_at_meta(v_template) then t.draft end,
    draft_error = null,
    busy = case when app.is_at_meta(v_template) then 'deleting' end,
    busy_until = case when app.is_at_meta(v_template) then now() + interval '6 hours 2 minutes' end,
    version = t.version + 1
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  returning * into v_template;

  perform app.audit(p_workspace_id, 'template.deletion_requested', p_template_id);
  return public.template_json(v_template);
end;
$$;
revoke execute on function public.delete_template from public, anon, service_role;
grant execute on function public.delete_template to authenticated;
select app.give_to_writer('public.delete_template');

-- Have Meta let a paused template be sent again, before its time or, after a pause for sending too fast, at all; the
-- outbox does. Approved already, or under way: fine.
-- Writes: whatsapp_templates, outbox, audit_log. Called by: services/api, as the user.
-- Refuses: PT404, PT403, PT409 template_changed, template_busy, template_deleted, template_not_paused, channel_not_connected.
create function public.unpause_template(p_workspace_id uuid, p_template_id uuid, p_version bigint)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  perform app.check_template_writer(p_workspace_id);
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  for no key update;
  if v_template.busy = 'unpausing' and app.is_template_busy(v_template) then
    return public.template_json(v_template);
  end if;
  v_template := app.lock_template(p_workspace_id, p_template_id, p_version);
  if v_template.status = 'approved' then
    return public.template_json(v_template);
  elsif v_template.status <> 'paused' then
    raise exception 'the template is %', v_template.status using
      errcode = 'PT409', detail = 'template_not_paused', hint = 'Only a paused template can be let go; this one is ' || v_template.status || '.';
  end if;

  perform app.queue_template_chore(v_template, 'template_submit', '{"unpause": true}');
  update public.whatsapp_templates t
  set busy = 'unpausing',
    busy_until = now() + interval '6 hours 2 minutes',
    draft_error = null,
    version = t.version + 1
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  returning * into v_template;

  perform app.audit(p_workspace_id, 'template.unpause_requested', p_template_id);
  return public.template_json(v_template);
end;
$$;
revoke execute on function public.unpause_template from public, anon, service_role;
grant execute on function public.unpause_template to authenticated;
select app.give_to_writer('public.unpause_template');

-- Ask for all templates to be read from Meta now. Whoever may write messages may ask; one that waits is enough.
-- Writes: outbox, template_accounts. Called by: services/api, as the user.
-- Returns {accounts: of how many}. Refuses: PT404, PT403 a viewer, PT409 no number is connected.
create function public.request_template_sync(p_workspace_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_accounts integer;
begin
  perform app.check_writer(p_workspace_id, 'workspace');
  select pg_catalog.count(app.queue_template_sync(p_workspace_id, c.waba_id)) into v_accounts
  from (
    select distinct k.waba_id
    from public.whatsapp_channels k
    where k.workspace_id = p_workspace_id
      and k.state <> 'disconnected'
    order by k.waba_id
  ) c;
  if v_accounts = 0 then
    raise exception 'no number is connected' using
      errcode = 'PT409', detail = 'channel_not_connected', hint = 'Connect a number first.';
  end if;
  return pg_catalog.jsonb_build_object('accounts', v_accounts);
end;
$$;
revoke execute on function public.request_template_sync from public, anon, service_role;
grant execute on function public.request_template_sync to authenticated;
select app.give_to_writer('public.request_template_sync');

-- Have Meta count for an account's templates from now on, for good: Meta does not take it back. On already: fine.
-- Writes: template_accounts, outbox, audit_log. Called by: services/api, as the user.
-- Refuses: PT404, PT403, PT422 account_not_found.
create function public.enable_template_analytics(p_workspace_id uuid, p_waba_id text)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_state text;
begin
  perform app.check_template_writer(p_workspace_id);
  if app.queue_template_sync(p_workspace_id, p_waba_id) is null then
    raise exception 'no such account' using
      errcode = 'PT422', detail = 'account_not_found', hint = 'None of the workspace''s connected numbers belongs to this account.';
  end if;
  update public.template_accounts a
  set analytics_state = 'asked',
    analytics_error = null
  where a.workspace_id = p_workspace_id
    and a.waba_id = p_waba_id
    and a.analytics_state in ('off', 'unavailable');
  if found then
    perform app.audit(p_workspace_id, 'template_analytics.enabled', p_workspace_id);
  end if;
  select a.analytics_state into strict v_state
  from public.template_accounts a
  where a.workspace_id = p_workspace_id
    and a.waba_id = p_waba_id;
  return pg_catalog.jsonb_build_object('waba_id', p_waba_id, 'state', v_state);
end;
$$;
revoke execute on function public.enable_template_analytics from public, anon, service_role;
grant execute on function public.enable_template_analytics to authenticated;
select app.give_to_writer('public.enable_template_analytics');

-- 6. What the dispatcher does.

-- As of when the status in facts is known; what we do afterwards holds from later on, whatever the clocks say.
create function app.status_known_ms(p_facts jsonb)
returns bigint
language sql
immutable
set search_path = ''
as $$
  select coalesce(greatest((p_facts #>> '{status,0}')::bigint, (p_facts #>> '{read_status,0}')::bigint), 0);
$$;
revoke execute on function app.status_known_ms from public;
grant execute on function app.status_known_ms to parley_writer, service_role;

-- What is to be submitted: {template: {version, meta_id (null: create it), waba_id, name, language, category, components,
-- parameter_format, ttl_s, known_ms: as of when its status is known}}; null: nothing, since it is done.
create function public.template_to_submit(p_workspace_id uuid, p_template_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('template', (select pg_catalog.jsonb_build_object(
    'version', t.version,
    'meta_id', case when app.is_at_meta(t) then t.meta_id end,
    'waba_id', t.waba_id,
    'name', t.template_name,
    'language', t.language,
    'status', (app.template_standing(t.facts, null)).status,
    'category', pg_catalog.upper(coalesce(t.draft ->> 'category', t.category)),
    'components', t.draft -> 'components',
    'parameter_format', t.draft -> 'parameter_format',
    'ttl_s', t.draft -> 'ttl_s',
    'known_ms', app.status_known_ms(t.facts))
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
    and t.draft is not null
    and t.busy = 'submitting'));
$$;
revoke execute on function public.template_to_submit from public, anon, authenticated;
grant execute on function public.template_to_submit to service_role;

-- Meta has the draft, or refuses it. Repeating it changes nothing.
-- p_version, p_known_ms: of template_to_submit. p_asked_at: before the call, by our clock. p_answer: {id, status, category,
-- components} as Meta answered (components: as sent); null: refused, with p_error {code, reason, sentence, details}.
-- Locks: the template. Called by: services/sender.
create function public.finish_template_submit(
  p_workspace_id uuid, p_template_id uuid, p_version bigint, p_known_ms bigint, p_asked_at timestamptz, p_answer jsonb,
  p_error jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
  v_at_ms bigint := greatest(app.meta_ms(p_asked_at), p_known_ms + 1);
  v_facts jsonb;
  v_edits timestamptz[];
begin
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  for no key update;
  if not found or v_template.version <> p_version or v_template.busy is distinct from 'submitting' then
    return pg_catalog.jsonb_build_object('settled', false);
  end if;

  if p_answer is null then
    update public.whatsapp_templates t
    set draft_error = p_error,
      busy = null,
      busy_until = null
    where t.workspace_id = p_workspace_id
      and t.id = p_template_id;
    perform app.audit(p_workspace_id, 'template.refused', p_template_id,
      p_after => pg_catalog.jsonb_build_object('code', p_error -> 'code', 'reason', p_error -> 'reason'), p_source => 'meta');
    return pg_catalog.jsonb_build_object('settled', true);
  end if;

  v_edits := case
    when not app.is_at_meta(v_template) then '{}'
    when (app.template_standing(v_template.facts, null)).status <> 'approved' then v_template.edits
    else array(
      select e.at from pg_catalog.unnest(v_template.edits) e(at) where e.at > p_asked_at - interval '30 days') || p_asked_at end;
  v_facts := pg_catalog.jsonb_build_object(
    'status', pg_catalog.jsonb_build_array(
      v_at_ms, coalesce(app.template_status_of(app.word_in(p_answer -> 'status')), 'pending'), null, null),
    'category', pg_catalog.jsonb_build_array(v_at_ms, pg_catalog.lower(coalesce(
      app.word_in(p_answer -> 'category'), v_template.draft ->> 'category', v_template.category))),
    'content', pg_catalog.jsonb_build_array(
      v_at_ms, v_template.draft -> 'body_content', coalesce(p_answer -> 'components', v_template.draft -> 'components')),
    'ttl_s', pg_catalog.jsonb_build_array(v_at_ms, v_template.draft -> 'ttl_s'));
  if app.digits_in(p_answer -> 'id') is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object(
      'meta_id', pg_catalog.jsonb_build_array(v_at_ms, app.digits_in(p_answer -> 'id')));
  end if;
  if v_template.draft ->> 'parameter_format' is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object(
      'parameter_format', pg_catalog.jsonb_build_array(v_at_ms, v_template.draft -> 'parameter_format'));
  end if;

  update public.whatsapp_templates t
  set draft = null,
    draft_error = null,
    busy = null,
    busy_until = null,
    submitted_at = p_asked_at,
    edits = v_edits,
    next_edit_at = app.next_template_edit_at(v_edits)
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id;
  perform app.merge_template_facts(
    p_workspace_id, v_template.waba_id, v_template.template_name, v_template.language, v_facts);
  perform app.audit(p_workspace_id, 'template.accepted', p_template_id, p_source => 'meta');
  return pg_catalog.jsonb_build_object('settled', true);
end;
$$;
revoke execute on function public.finish_template_submit from public, anon, authenticated;
grant execute on function public.finish_template_submit to service_role;

-- What is to be deleted at Meta: {template: {version, meta_id, waba_id, name, language, known_ms}}; null: nothing.
create function public.template_to_delete(p_workspace_id uuid, p_template_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('template', (select pg_catalog.jsonb_build_object(
    'version', t.version, 'meta_id', t.meta_id, 'waba_id', t.waba_id, 'name', t.template_name, 'language', t.language,
    'known_ms', app.status_known_ms(t.facts))
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
    and t.busy = 'deleting'
    and app.is_at_meta(t)));
$$;
revoke execute on function public.template_to_delete from public, anon, authenticated;
grant execute on function public.template_to_delete to service_role;

-- Meta has deleted it, or refuses to (p_error). Repeating it changes nothing.
-- Locks: the template. Called by: services/sender.
create function public.finish_template_delete(
  p_workspace_id uuid, p_template_id uuid, p_version bigint, p_known_ms bigint, p_asked_at timestamptz, p_error jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
  for no key update;
  if not found or v_template.version <> p_version or v_template.busy is distinct from 'deleting' then
    return pg_catalog.jsonb_build_object('settled', false);
  end if;

  update public.whatsapp_templates t
  set busy = null,
    busy_until = null,
    draft_error = p_error,
    draft = case when p_error is not null then t.draft end,
    name_free_at = case
      when p_error is null and t.status = 'approved' then p_asked_at + interval '30 days' else t.name_free_at end
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id;
  if p_error is null then
    perform app.merge_template_facts(
      p_workspace_id, v_template.waba_id, v_template.template_name, v_template.language, pg_catalog.jsonb_build_object(
        'status', pg_catalog.jsonb_build_array(
          greatest(app.meta_ms(p_asked_at), p_known_ms + 1), 'deleted', null, null)));
    perform app.audit(p_workspace_id, 'template.deleted', p_template_id, p_source => 'meta');
  end if;
  return pg_catalog.jsonb_build_object('settled', true);
end;
$$;
revoke execute on function public.finish_template_delete from public, anon, authenticated;
grant execute on function public.finish_template_delete to service_role;

-- Which template Meta is to let go: {template: {version, meta_id}}; null: none any more.
create function public.template_to_unpause(p_workspace_id uuid, p_template_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('template', (select pg_catalog.jsonb_build_object('version', t.version, 'meta_id', t.meta_id)
    from public.whatsapp_templates t
    where t.workspace_id = p_workspace_id
      and t.id = p_template_id
      and t.busy = 'unpausing'
      and app.is_at_meta(t)));
$$;
revoke execute on function public.template_to_unpause from public, anon, authenticated;
grant execute on function public.template_to_unpause to service_role;

-- Meta has let it go, which reading it then shows, or refuses to (p_error). Repeating it changes nothing.
-- Locks: the template. Called by: services/sender.
create function public.finish_template_unpause(p_workspace_id uuid, p_template_id uuid, p_version bigint, p_error jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  update public.whatsapp_templates t
  set busy = null,
    busy_until = null,
    draft_error = p_error
  where t.workspace_id = p_workspace_id
    and t.id = p_template_id
    and t.version = p_version
    and t.busy = 'unpausing'
  returning * into v_template;
  if found and p_error is null then
    perform app.queue_template_sync(p_workspace_id, v_template.waba_id, v_template.meta_id);
  end if;
  return '{}';
end;
$$;
revoke execute on function public.finish_template_unpause from public, anon, authenticated;
grant execute on function public.finish_template_unpause to service_role;

-- Merge templates as Meta showed them. p_read_at: before it was asked, by our clock. p_templates: as Meta writes them;
-- what has no name or language is left out. Locks: templates, in key order. Returns {merged}.
create function public.merge_templates(p_workspace_id uuid, p_waba_id text, p_read_at timestamptz, p_templates jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_at_ms bigint := app.meta_ms(p_read_at);
  v_template record;
  v_merged integer := 0;
begin
  for v_template in
    select n.name, n.language, app.latest_facts(pg_catalog.array_agg(app.template_facts_read(e, v_at_ms))) as facts
    from app.elements_in(p_templates) e
    cross join lateral (
      select app.text_in(e -> 'name', 512) as name, app.text_in(e -> 'language', 35) as language
    ) n
    where n.name is not null
      and n.language is not null
    group by n.name, n.language
    order by n.name collate "C", n.language collate "C"
  loop
    perform app.merge_template_facts(p_workspace_id, p_waba_id, v_template.name, v_template.language, v_template.facts);
    v_merged := v_merged + 1;
  end loop;
  return pg_catalog.jsonb_build_object('merged', v_merged);
end;
$$;
revoke execute on function public.merge_templates from public, anon, authenticated;
grant execute on function public.merge_templates to service_role;

-- Which of an account's templates a reading of all did not show: [meta_id], at most 20 of those known before it began.
-- p_seen: [meta_id].
create function public.unseen_templates(p_workspace_id uuid, p_waba_id text, p_read_at timestamptz, p_seen jsonb)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select coalesce(pg_catalog.jsonb_agg(m.meta_id), '[]')
  from (
    select t.meta_id
    from public.whatsapp_templates t
    where t.workspace_id = p_workspace_id
      and t.waba_id = p_waba_id
      and t.meta_id is not null
      and t.created_at < p_read_at
      and (app.template_standing(t.facts, null)).status is distinct from 'deleted'
      and not p_seen ? t.meta_id
    order by t.created_at, t.id
    limit 20
  ) m;
$$;
revoke execute on function public.unseen_templates from public, anon, authenticated;
grant execute on function public.unseen_templates to service_role;

-- Templates that Meta says it does not have: deleted as of then, unless something later is known of them.
-- p_meta_ids: [meta_id]. Locks: templates, in key order. Returns {deleted}.
create function public.forget_templates(p_workspace_id uuid, p_waba_id text, p_read_at timestamptz, p_meta_ids jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_template record;
  v_deleted integer := 0;
begin
  for v_template in
    select t.template_name, t.language
    from public.whatsapp_templates t
    where t.workspace_id = p_workspace_id
      and t.waba_id = p_waba_id
      and p_meta_ids ? t.meta_id
    order by t.template_name collate "C", t.language collate "C"
  loop
    perform app.merge_template_facts(
      p_workspace_id, p_waba_id, v_template.template_name, v_template.language, pg_catalog.jsonb_build_object(
        'read_status', pg_catalog.jsonb_build_array(app.meta_ms(p_read_at), 'deleted', null)));
    v_deleted := v_deleted + 1;
  end loop;
  return pg_catalog.jsonb_build_object('deleted', v_deleted);
end;
$$;
revoke execute on function public.forget_templates from public, anon, authenticated;
grant execute on function public.forget_templates to service_role;

-- A sync has come to an end. p_read_at: all templates are as Meta showed them then; null: it did not read them all.
-- p_calls: how many it made. p_error: {code, reason, sentence}. Returns {analytics: what to do about them, or null:
-- {enable: whether to switch them on first, from: unix seconds, groups: [[meta_id, at most 10]]}}.
create function public.finish_template_sync(
  p_workspace_id uuid, p_waba_id text, p_read_at timestamptz, p_calls integer, p_error jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_account public.template_accounts;
begin
  insert into public.template_accounts as a (workspace_id, waba_id, synced_at, sync_error, calls, calls_from)
  values (p_workspace_id, p_waba_id, p_read_at, p_error, p_calls, now())
  on conflict (workspace_id, waba_id) do update
  set synced_at = greatest(a.synced_at, excluded.synced_at),
    sync_error = case when p_error is null and p_read_at is null then a.sync_error else p_error end,
    calls = case when a.calls_from > now() - interval '1 hour' then a.calls else 0 end + p_calls,
    calls_from = case when a.calls_from > now() - interval '1 hour' then a.calls_from else now() end
  returning * into v_account;

  if p_read_at is not null then
    update public.whatsapp_templates t
    set usage_count = u.accepted
    from (
      select d.template_id, pg_catalog.sum(d.accepted) as accepted
      from public.template_usage d
      where d.workspace_id = p_workspace_id
      group by d.template_id
    ) u
    where t.workspace_id = p_workspace_id
      and t.waba_id = p_waba_id
      and t.id = u.template_id
      and t.usage_count <> u.accepted;
  end if;

  if p_read_at is null or v_account.analytics_state not in ('asked', 'on')
    or v_account.analytics_read_at > now() - interval '20 hours'
  then
    return pg_catalog.jsonb_build_object('analytics', null);
  end if;
  return (
    select pg_catalog.jsonb_build_object('analytics', pg_catalog.jsonb_build_object(
      'enable', v_account.analytics_state = 'asked',
      -- Reads and clicks are counted for 7 days after the send; Meta looks back 90. From the start of a day.
      'from', extract(epoch from pg_catalog.date_trunc('day', now() at time zone 'UTC')
        - case when v_account.analytics_read_at > now() - interval '80 days'
          then now() - v_account.analytics_read_at + interval '8 days' else interval '88 days' end)::bigint / 86400 * 86400,
      'groups', coalesce(pg_catalog.jsonb_agg(g.ids), '[]')))
    from (
      select pg_catalog.jsonb_agg(m.meta_id) as ids
      from (
        select t.meta_id, pg_catalog.row_number() over (order by t.usage_count desc, t.id) as place
        from public.whatsapp_templates t
        where t.workspace_id = p_workspace_id
          and t.waba_id = p_waba_id
          and t.meta_id is not null
          and t.status <> 'deleted'
      ) m
      where m.place <= 300 -- 30 calls of the hour's 200
      group by (m.place - 1) / 10
    ) g);
end;
$$;
revoke execute on function public.finish_template_sync from public, anon, authenticated;
grant execute on function public.finish_template_sync to service_role;

-- Store what Meta counted. p_points: [{meta_id, day, sent, delivered, read, clicked, clicks, cost}]; a later reading of a
-- day replaces an earlier one. Returns {stored}.
create function public.store_template_analytics(p_workspace_id uuid, p_waba_id text, p_points jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_stored integer;
begin
  insert into public.template_analytics (workspace_id, template_id, day, sent, delivered, read, clicked, clicks, cost)
  select distinct on (t.id, p.day) p_workspace_id, t.id, p.day, p.sent, p.delivered, p.read, p.clicked, p.clicks, p.cost
  from pg_catalog.jsonb_to_recordset(p_points) as p(
    meta_id text, day date, sent bigint, delivered bigint, read bigint, clicked bigint, clicks jsonb, cost numeric)
  join public.whatsapp_templates t on t.workspace_id = p_workspace_id and t.waba_id = p_waba_id and t.meta_id = p.meta_id
  order by t.id, p.day
  on conflict (workspace_id, template_id, day) do update
  set sent = excluded.sent, delivered = excluded.delivered, read = excluded.read, clicked = excluded.clicked,
    clicks = excluded.clicks, cost = excluded.cost;
  get diagnostics v_stored = row_count;
  return pg_catalog.jsonb_build_object('stored', v_stored);
end;
$$;
revoke execute on function public.store_template_analytics from public, anon, authenticated;
grant execute on function public.store_template_analytics to service_role;

-- How reading an account's statistics ended. p_state: on, off, unavailable. p_error: {code, reason, sentence} or null.
create function public.finish_template_analytics(
  p_workspace_id uuid, p_waba_id text, p_state text, p_calls integer, p_error jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
begin
  update public.template_accounts a
  set analytics_state = p_state,
    analytics_error = p_error,
    analytics_read_at = case when p_error is null then now() else a.analytics_read_at end,
    calls = a.calls + p_calls
  where a.workspace_id = p_workspace_id
    and a.waba_id = p_waba_id;
  return '{}';
end;
$$;
revoke execute on function public.finish_template_analytics from public, anon, authenticated;
grant execute on function public.finish_template_analytics to service_role;

notify pgrst, 'reload schema';
