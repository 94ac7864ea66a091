-- What Meta tells about accounts, numbers, templates and groups: what it changes, and a list for operators.
-- Each row keeps facts {attribute: [Meta's time in ms, value, …]}, of which the latest holds; its columns follow from
-- them. So it matters to nobody in which order, how often or by how many recorders events are recorded.
set lock_timeout = '5s';

-- 1. Facts.

-- Whether fact a is later than fact b: by time, then by the rest as text (so that every two differ), bytewise.
-- What is no fact, that is no array with a number in front, is earlier than all that are (element 0 of a bare number
-- is that number, so it is asked whether there is an array).
create function app.is_later_fact(p_a jsonb, p_b jsonb)
returns boolean
language plpgsql
immutable
strict
set search_path = ''
as $$
declare
  v_a_at numeric := case
    when pg_catalog.jsonb_typeof(p_a) = 'array' and pg_catalog.jsonb_typeof(p_a -> 0) = 'number' then p_a ->> 0
    else '-Infinity' end;
  v_b_at numeric := case
    when pg_catalog.jsonb_typeof(p_b) = 'array' and pg_catalog.jsonb_typeof(p_b -> 0) = 'number' then p_b ->> 0
    else '-Infinity' end;
begin
  if v_a_at <> v_b_at then
    return v_a_at > v_b_at;
  elsif v_a_at = '-Infinity' then
    return p_a::text collate "C" > p_b::text collate "C";
  end if;
  -- The whole comes last only for times that are equal and written differently (1 and 1.0).
  return ((p_a - 0)::text collate "C", p_a::text collate "C") > ((p_b - 0)::text collate "C", p_b::text collate "C");
end;
$$;
revoke execute on function app.is_later_fact from public;
grant execute on function app.is_later_fact to service_role;

-- Of each attribute the later of two facts. Commutative, associative, idempotent; null or no object counts as {}.
-- p_a: the larger one, if there is a difference: the loop runs over p_b.
create function app.later_facts(p_a jsonb, p_b jsonb)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_facts jsonb := case when pg_catalog.jsonb_typeof(p_a) = 'object' then p_a else '{}' end;
  v_attribute text;
  v_fact jsonb;
begin
  if pg_catalog.jsonb_typeof(p_b) is distinct from 'object' then
    return v_facts;
  elsif v_facts = '{}' then
    return p_b;
  end if;
  for v_attribute, v_fact in select key, value from pg_catalog.jsonb_each(p_b) loop
    if not v_facts ? v_attribute or app.is_later_fact(v_fact, v_facts -> v_attribute) then
      v_facts := v_facts || pg_catalog.jsonb_build_object(v_attribute, v_fact);
    end if;
  end loop;
  return v_facts;
end;
$$;
revoke execute on function app.later_facts from public;
grant execute on function app.later_facts to service_role;

-- The same of any number of them.
create function app.latest_facts(p_facts jsonb[])
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_facts jsonb := '{}';
  v_more jsonb;
begin
  foreach v_more in array coalesce(p_facts, '{}') loop
    v_facts := app.later_facts(v_facts, v_more);
  end loop;
  return v_facts;
end;
$$;
revoke execute on function app.latest_facts from public;
grant execute on function app.latest_facts to service_role;

-- 2. Rows.

alter table public.whatsapp_channels
  add column quality text check (quality in (
    'green', -- high
    'yellow', -- medium
    'red', -- low; Meta's older FLAGGED
    'unknown' -- not rated yet, or no longer flagged
  )),
  add column tier_mps integer not null default 80 check (tier_mps > 0), -- messages a second Meta lets through, in and out
  add column messaging_limit text, -- people one may write to first in 24 h: a number, or unlimited; of the portfolio
  add column verified_name text, -- what customers see: the latest approved
  add column name_status text check (name_status in (
    'approved',
    'pending',
    'deferred', -- looked at later
    'rejected'
  )), -- of the name asked for last
  add column username text, -- the business's, without the leading @
  add column hold_reason text check (hold_reason in (
    'account_deleted',
    'account_disabled', -- Meta banned the account; REINSTATE releases
    'pin_changed', -- the number's two-step PIN, perhaps not by us: somebody may be taking it over
    'pin_reset_request',
    'pin_request_success',
    'account_restricted' -- facts name which messaging: begun by us (templates), replies, or both
  )), -- null: none. Sending is held while it is set and hold_until is null or ahead
  add column hold_until timestamptz, -- null: until Meta, or an operator, releases it
  add column facts jsonb not null default '{}' check (pg_catalog.jsonb_typeof(facts) = 'object');
comment on column public.whatsapp_channels.facts is
  'Latest (Meta time in ms, value) of each attribute; quality to hold_until follow from it.';

create table public.whatsapp_templates (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  waba_id text not null,
  template_name text not null check (template_name <> ''),
  language text not null check (language <> ''), -- as Meta spells it: en_US
  category text, -- marketing, utility, authentication, or what Meta adds; null: not told yet
  previous_category text, -- before Meta changed it
  correct_category text, -- what Meta announced to change it to
  category_changes_at timestamptz,
  body_content text not null default '', -- '': known by name only, until an update or a sync brings it
  components jsonb not null default '[]', -- as Meta's template endpoints write them: [{type: HEADER, …}, {type: BODY, …}, …]
  status text not null default 'pending' check (status in (
    'pending', -- not reviewed yet; also one we know by name only
    'approved', -- the only one that can be sent
    'rejected', -- edit it, and it is pending again
    'paused', -- low quality; see paused_until
    'disabled', -- low quality for the third time, or a violation
    'in_appeal', -- the business asked for a second look
    'pending_deletion', -- goes once what was sent is delivered
    'deleted',
    'limit_exceeded', -- the account has too many
    'archived', -- deleted 28 days later unless unarchived
    'locked', -- cannot be edited
    'flagged' -- disabled soon unless its quality recovers
  )),
  reject_reason text, -- while rejected: Meta's code, then its sentences
  paused_until timestamptz, -- while paused, if Meta said for how long; it ends by itself
  quality text check (quality in ('green', 'yellow', 'red', 'unknown')),
  meta_id text,
  submitted_at timestamptz, -- null until sent to Meta, or made there
  usage_count bigint not null default 0,
  facts jsonb not null default '{}' check (pg_catalog.jsonb_typeof(facts) = 'object'),
  created_at timestamptz not null default now(),
  primary key (workspace_id, id),
  unique (workspace_id, waba_id, template_name, language)
);
comment on table public.whatsapp_templates is 'Message templates, as Meta last told of them.';
comment on column public.whatsapp_templates.facts is
  'Latest (Meta time in ms, value) of each attribute; status, category, content, quality and meta_id follow from it.';
alter table public.whatsapp_templates enable row level security;
revoke all on public.whatsapp_templates from anon, authenticated, service_role;
grant select on public.whatsapp_templates to authenticated;
grant select, insert, update on public.whatsapp_templates to service_role;
create policy "Members see their templates" on public.whatsapp_templates
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create table public.whatsapp_groups (
  workspace_id uuid not null,
  channel_id uuid not null,
  group_id text not null, -- Meta's
  subject text,
  description text,
  state text not null default 'active' check (state in (
    'active',
    'suspended', -- by Meta; cleared later, perhaps
    'deleted'
  )),
  participants jsonb not null default '[]', -- who is in it besides us, as far as told: [{wa_id, user_id}]
  facts jsonb not null default '{}' check (pg_catalog.jsonb_typeof(facts) = 'object'),
  created_at timestamptz not null default now(),
  primary key (workspace_id, channel_id, group_id),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id)
);
comment on table public.whatsapp_groups is 'WhatsApp groups our numbers are in, as Meta last told of them.';
alter table public.whatsapp_groups enable row level security;
revoke all on public.whatsapp_groups from anon, authenticated, service_role;
grant select on public.whatsapp_groups to authenticated;
grant select, insert, update on public.whatsapp_groups to service_role;
create policy "Members see their groups" on public.whatsapp_groups
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create table public.account_events (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  field text not null, -- Meta's: account_update, security, …
  event text not null, -- Meta's event, decision or type, in lower case; '' where the field has none
  severity text not null check (severity in (
    'critical', -- messages stop, or somebody meddles: act now
    'warning', -- something will not work until somebody looks
    'info'
  )),
  channel_id uuid, -- null: all numbers of the account, several, or none of ours
  template_id uuid,
  waba_id text,
  happened_at timestamptz not null, -- Meta's time; ours where Meta sent none that can be
  payload jsonb not null, -- the change's value as sent
  digest bytea not null, -- what makes it one: account_event_digest
  created_at timestamptz not null default now(),
  primary key (workspace_id, id),
  unique (workspace_id, digest),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id),
  foreign key (workspace_id, template_id) references public.whatsapp_templates (workspace_id, id)
);
comment on table public.account_events is 'What Meta told about accounts, numbers, templates and groups, for operators. Append-only.';
create index account_events_newest on public.account_events (workspace_id, happened_at desc, id desc);
create index account_events_severity on public.account_events (workspace_id, severity, happened_at desc, id desc);
create index account_events_channel on public.account_events (workspace_id, channel_id) where channel_id is not null;
create index account_events_template on public.account_events (workspace_id, template_id) where template_id is not null;
alter table public.account_events enable row level security;
revoke all on public.account_events from anon, authenticated, service_role;
grant select on public.account_events to authenticated;
grant select, insert, update (happened_at) on public.account_events to service_role;
create policy "Members see what Meta told about their accounts" on public.account_events
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

-- 3. Reading a value of Meta's: null unless it is what it should be. Nothing here ever fails.

create function app.text_in(p_value jsonb, p_most integer)
returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when pg_catalog.jsonb_typeof(p_value) = 'string' and pg_catalog.length(p_value #>> '{}') between 1 and p_most
    then p_value #>> '{}'
  end;
$$;
revoke execute on function app.text_in from public;
grant execute on function app.text_in to service_role;

-- Upper case, since Meta's pages show both.
create function app.word_in(p_value jsonb)
returns text
language sql
immutable
set search_path = ''
as $$
  select case when app.text_in(p_value, 64) ~ '^[A-Za-z][A-Za-z0-9_]*$' then pg_catalog.upper(p_value #>> '{}') end;
$$;
revoke execute on function app.word_in from public;
grant execute on function app.word_in to service_role;

-- An id or a phone number as digits, whether sent as a number or as a string (with +, blanks …).
create function app.digits_in(p_value jsonb)
returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when pg_catalog.jsonb_typeof(p_value) = 'number' and p_value #>> '{}' ~ '^[0-9]{1,40}$' then p_value #>> '{}'
    when pg_catalog.jsonb_typeof(p_value) = 'string' and p_value #>> '{}' ~ '^[-+ ().0-9]{1,40}$'
    then nullif(pg_catalog.regexp_replace(p_value #>> '{}', '[^0-9]', '', 'g'), '')
  end;
$$;
revoke execute on function app.digits_in from public;
grant execute on function app.digits_in to service_role;

-- Unix seconds or milliseconds, string or number, as milliseconds.
create function app.ms_in(p_value jsonb)
returns bigint
language sql
immutable
set search_path = ''
as $$
  select case
    when pg_catalog.jsonb_typeof(p_value) not in ('string', 'number') then null
    when p_value #>> '{}' ~ '^[0-9]{9,11}$' then (p_value #>> '{}')::bigint * 1000
    when p_value #>> '{}' ~ '^[0-9]{12,14}$' then (p_value #>> '{}')::bigint
  end;
$$;
revoke execute on function app.ms_in from public;
grant execute on function app.ms_in to service_role;

create function app.elements_in(p_value jsonb)
returns setof jsonb
language sql
immutable
set search_path = ''
as $$
  select * from pg_catalog.jsonb_array_elements(case pg_catalog.jsonb_typeof(p_value) when 'array' then p_value else '[]' end);
$$;
revoke execute on function app.elements_in from public;
grant execute on function app.elements_in to service_role;

-- A messaging limit: 2000, "TIER_2K" and "2000" are the same; -1 and TIER_UNLIMITED too.
create function app.limit_in(p_value jsonb)
returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when l ~ '^[0-9]{1,9}K$' then pg_catalog.rtrim(l, 'K') || '000'
    when l = '-1' then 'unlimited'
    when l ~ '^([0-9]{1,12}|[A-Z_]{1,32})$' then pg_catalog.lower(l)
  end
  from pg_catalog.regexp_replace(pg_catalog.upper(p_value #>> '{}'), '^TIER_', '') l
  where pg_catalog.jsonb_typeof(p_value) in ('string', 'number');
$$;
revoke execute on function app.limit_in from public;
grant execute on function app.limit_in to service_role;

create function app.ms_to_time(p_ms bigint)
returns timestamptz
language sql
immutable
set search_path = ''
as $$
  select timestamptz 'epoch' + p_ms * interval '1 millisecond';
$$;
revoke execute on function app.ms_to_time from public;
grant execute on function app.ms_to_time to service_role;

-- 4. What an event says. Pure: field, event (upper case), the change's value and its time in; facts out.
-- Where two of the same second contradict each other the greater text holds, so values are spelled such that the more
-- careful one is greater: held over free, any other status over approved, left over joined, null over a time.

create function app.channel_facts_of(p_field text, p_event text, p_value jsonb, p_at_ms bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_facts jsonb := '{}';
  v_word text;
  v_text text;
begin
  case p_field
  when 'account_update' then
    if p_event = 'ACCOUNT_DELETED' then
      v_facts := pg_catalog.jsonb_build_object('account', pg_catalog.jsonb_build_array(p_at_ms, 'held', 'deleted'));
    elsif p_event = 'DISABLED_UPDATE' then
      v_word := app.word_in(p_value #> '{ban_info,waba_ban_state}');
      if v_word in ('DISABLE', 'SCHEDULE_FOR_DISABLE', 'REINSTATE') then
        v_facts := pg_catalog.jsonb_build_object('account', pg_catalog.jsonb_build_array(
          p_at_ms, case v_word when 'DISABLE' then 'held' else 'free' end, pg_catalog.lower(v_word)));
      end if;
      if v_word = 'REINSTATE' then
        v_facts := v_facts || pg_catalog.jsonb_build_object('restrictions_lifted', pg_catalog.jsonb_build_array(p_at_ms));
      end if;
    elsif p_event = 'ACCOUNT_RESTRICTION' and p_value -> 'restriction_info' = '[]' then
      v_facts := pg_catalog.jsonb_build_object('restrictions_lifted', pg_catalog.jsonb_build_array(p_at_ms));
    elsif p_event = 'ACCOUNT_RESTRICTION' then
      -- Each kind by itself: whether an event lists all that are in force Meta does not say. Twice the same: the longer.
      select coalesce(pg_catalog.jsonb_object_agg(
        'restriction:' || pg_catalog.lower(r.kind), pg_catalog.jsonb_build_array(p_at_ms, r.until_ms)), '{}')
      into v_facts
      from (
        select distinct on (app.word_in(e -> 'restriction_type'))
          app.word_in(e -> 'restriction_type'), app.ms_in(e -> 'expiration')
        from app.elements_in(p_value -> 'restriction_info') e
        order by 1, 2 desc nulls first
      ) r(kind, until_ms)
      where r.kind is not null;
    end if;
  when 'security' then
    if p_event in ('PIN_CHANGED', 'PIN_RESET_REQUEST', 'PIN_REQUEST_SUCCESS') then
      v_facts := pg_catalog.jsonb_build_object('pin', pg_catalog.jsonb_build_array(p_at_ms, pg_catalog.lower(p_event)));
    end if;
  when 'phone_number_quality_update', 'business_capability_update' then
    v_text := coalesce(app.limit_in(p_value -> 'max_daily_conversations_per_business'), app.limit_in(p_value -> 'current_limit'));
    if v_text is not null then
      v_facts := pg_catalog.jsonb_build_object('messaging_limit', pg_catalog.jsonb_build_array(p_at_ms, v_text));
    end if;
    if p_event = 'THROUGHPUT_UPGRADE' then
      v_facts := v_facts || pg_catalog.jsonb_build_object('tier_mps', pg_catalog.jsonb_build_array(p_at_ms, 1000));
    elsif p_event in ('FLAGGED', 'UNFLAGGED') then
      v_facts := v_facts || pg_catalog.jsonb_build_object('quality', pg_catalog.jsonb_build_array(
        p_at_ms, case p_event when 'FLAGGED' then 'red' else 'unknown' end));
    end if;
  when 'phone_number_name_update' then
    v_word := app.word_in(p_value -> 'decision');
    v_text := app.text_in(p_value -> 'requested_verified_name', 512);
    if v_word in ('APPROVED', 'PENDING', 'DEFERRED', 'REJECTED') then
      v_facts := pg_catalog.jsonb_build_object('name', pg_catalog.jsonb_build_array(
        p_at_ms, pg_catalog.lower(v_word), v_text, app.text_in(p_value -> 'rejection_reason', 2000)));
    end if;
    if v_word = 'APPROVED' and v_text is not null then
      v_facts := v_facts || pg_catalog.jsonb_build_object('verified_name', pg_catalog.jsonb_build_array(p_at_ms, v_text));
    end if;
  when 'business_username_update', 'business_username_updates' then
    v_word := app.word_in(p_value -> 'status');
    v_text := app.text_in(p_value -> 'username', 100);
    if v_word = 'DELETED' or (v_word = 'APPROVED' and v_text is not null) then -- a reserved one is not shown to anybody yet
      v_facts := pg_catalog.jsonb_build_object('username', pg_catalog.jsonb_build_array(
        p_at_ms, case v_word when 'APPROVED' then v_text end));
    end if;
  else
    null; -- account_review_update, account_settings_update, flows, …: listed only
  end case;
  return v_facts;
end;
$$;
revoke execute on function app.channel_facts_of from public;
grant execute on function app.channel_facts_of to service_role;

-- Meta's template events as statuses of ours; null for one we do not know.
create function app.template_status_of(p_event text)
returns text
language sql
immutable
set search_path = ''
as $$
  select case
    when p_event in ('APPROVED', 'REINSTATED', 'UNARCHIVED') then 'approved'
    when p_event in (
      'PENDING', 'REJECTED', 'PAUSED', 'DISABLED', 'IN_APPEAL', 'PENDING_DELETION', 'DELETED', 'LIMIT_EXCEEDED', 'ARCHIVED',
      'LOCKED', 'FLAGGED'
    ) then pg_catalog.lower(p_event)
  end;
$$;
revoke execute on function app.template_status_of from public;
grant execute on function app.template_status_of to service_role;

-- Dispatches on keys besides the field: one of Meta's examples shows a quality update under the status field.
create function app.template_facts_of(p_field text, p_event text, p_value jsonb, p_at_ms bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_facts jsonb := '{}';
  v_status text := app.template_status_of(p_event);
  v_category text := pg_catalog.lower(coalesce(
    app.word_in(p_value -> 'new_category'), app.word_in(p_value -> 'message_template_category')));
  v_quality text := pg_catalog.lower(app.word_in(p_value -> 'new_quality_score'));
  v_id text := app.digits_in(p_value -> 'message_template_id');
  v_body text := app.text_in(p_value -> 'message_template_element', 4096);
  v_title text := app.text_in(p_value -> 'message_template_title', 1024);
  v_footer text := app.text_in(p_value -> 'message_template_footer', 1024);
  v_correct text := pg_catalog.lower(app.word_in(p_value -> 'correct_category'));
  v_buttons jsonb;
begin
  if v_id is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object('meta_id', pg_catalog.jsonb_build_array(p_at_ms, v_id));
  end if;
  if v_category is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object('category', pg_catalog.jsonb_build_array(p_at_ms, v_category));
  end if;
  if v_quality in ('green', 'yellow', 'red', 'unknown') then
    v_facts := v_facts || pg_catalog.jsonb_build_object('quality', pg_catalog.jsonb_build_array(p_at_ms, v_quality));
  end if;

  if p_field = 'message_template_status_update' and v_status is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object('status', pg_catalog.jsonb_build_array(
      p_at_ms,
      v_status,
      -- why it was rejected
      case v_status when 'rejected' then nullif(pg_catalog.concat_ws(' ',
        case when app.word_in(p_value -> 'reason') <> 'NONE' then app.word_in(p_value -> 'reason') || ':' end,
        app.text_in(p_value #> '{rejection_info,reason}', 2000),
        app.text_in(p_value #> '{rejection_info,recommendation}', 2000)), '') end,
      -- until when it is paused; a pause for sending too fast ends only by hand. Meta, "Template pausing", read 2026-11-22.
      case when v_status = 'paused' then p_at_ms + case app.word_in(p_value #> '{other_info,title}')
        when 'FIRST_PAUSE' then 3 * 3600 * 1000
        when 'SECOND_PAUSE' then 6 * 3600 * 1000 end end));
  end if;

  if p_field = 'template_category_update' and v_category is not null then
    -- Announced: new_category is the current one, correct_category the coming one. Done: there is a previous_category.
    v_facts := v_facts || pg_catalog.jsonb_build_object('announced', pg_catalog.jsonb_build_array(
      p_at_ms, v_correct, case when v_correct is not null then app.ms_in(p_value -> 'category_update_timestamp') end));
    if app.word_in(p_value -> 'previous_category') is not null then
      v_facts := v_facts || pg_catalog.jsonb_build_object('previous_category', pg_catalog.jsonb_build_array(
        p_at_ms, pg_catalog.lower(app.word_in(p_value -> 'previous_category'))));
    end if;
  end if;

  if v_body is not null then
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'type', app.word_in(b.e -> 'message_template_button_type'),
      'text', app.text_in(b.e -> 'message_template_button_text', 256),
      'url', app.text_in(b.e -> 'message_template_button_url', 4096),
      'phone_number', app.text_in(b.e -> 'message_template_button_phone_number', 40))) order by b.place)
    into v_buttons
    from app.elements_in(p_value -> 'message_template_buttons') with ordinality b(e, place)
    where b.place <= 20 and app.word_in(b.e -> 'message_template_button_type') is not null;
    v_facts := v_facts || pg_catalog.jsonb_build_object('content', pg_catalog.jsonb_build_array(
      p_at_ms, v_body, (
        select pg_catalog.jsonb_agg(c.component order by c.place)
        from (values
          (1, case when v_title is not null then pg_catalog.jsonb_build_object('type', 'HEADER', 'format', 'TEXT', 'text', v_title) end),
          (2, pg_catalog.jsonb_build_object('type', 'BODY', 'text', v_body)),
          (3, case when v_footer is not null then pg_catalog.jsonb_build_object('type', 'FOOTER', 'text', v_footer) end),
          (4, case when v_buttons is not null then pg_catalog.jsonb_build_object('type', 'BUTTONS', 'buttons', v_buttons) end)
        ) c(place, component)
        where c.component is not null
      )));
  end if;
  return v_facts;
end;
$$;
revoke execute on function app.template_facts_of from public;
grant execute on function app.template_facts_of to service_role;

-- Of one element of value.groups. A participant is known by the phone if told, since removals name only that.
-- Errors: what was asked for did not happen.
create function app.group_facts_of(p_group jsonb, p_at_ms bigint)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_facts jsonb := '{}';
  v_type text := app.word_in(p_group -> 'type');
  v_subject text := app.text_in(p_group -> 'subject', 1024);
  v_description text := app.text_in(p_group -> 'description', 8192);
begin
  if p_group -> 'errors' not in ('[]', 'null') then
    return v_facts;
  end if;
  case v_type
  when 'GROUP_CREATE' then
    v_facts := pg_catalog.jsonb_build_object('lifecycle', pg_catalog.jsonb_build_array(p_at_ms, 'active'));
  when 'GROUP_DELETE' then
    v_facts := pg_catalog.jsonb_build_object('lifecycle', pg_catalog.jsonb_build_array(p_at_ms, 'deleted'));
  when 'GROUP_SUSPEND' then
    v_facts := pg_catalog.jsonb_build_object('suspension', pg_catalog.jsonb_build_array(p_at_ms, 'suspended'));
  when 'GROUP_SUSPEND_CLEARED' then
    v_facts := pg_catalog.jsonb_build_object('suspension', pg_catalog.jsonb_build_array(p_at_ms, 'cleared'));
  when 'GROUP_SETTINGS_UPDATE' then
    v_subject := case when p_group #> '{group_subject,update_successful}' = 'true'
      then app.text_in(p_group #> '{group_subject,text}', 1024) end;
    v_description := case when p_group #> '{group_description,update_successful}' = 'true'
      then app.text_in(p_group #> '{group_description,text}', 8192) end;
  when 'GROUP_PARTICIPANTS_ADD', 'GROUP_PARTICIPANTS_REMOVE' then
    select coalesce(pg_catalog.jsonb_object_agg('participant:' || coalesce(p.phone, p.user_id), pg_catalog.jsonb_build_array(
      p_at_ms, case v_type when 'GROUP_PARTICIPANTS_ADD' then 'joined' else 'left' end, p.phone, p.user_id)), '{}')
    into v_facts
    from (
      select coalesce(app.digits_in(e -> 'wa_id'), app.digits_in(e -> 'input')) as phone,
        coalesce(app.text_in(e -> 'user_id', 256),
          case when app.digits_in(e -> 'input') is null then app.text_in(e -> 'input', 256) end) as user_id
      from app.elements_in(p_group -> case v_type
        when 'GROUP_PARTICIPANTS_ADD' then 'added_participants' else 'removed_participants' end) e
      limit 1024 -- a group holds 8
    ) p
    where coalesce(p.phone, p.user_id) is not null;
    return v_facts;
  else
    return v_facts; -- join requests and what Meta adds: listed only
  end case;
  if v_type in ('GROUP_CREATE', 'GROUP_SETTINGS_UPDATE') and v_subject is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object('subject', pg_catalog.jsonb_build_array(p_at_ms, v_subject));
  end if;
  if v_type in ('GROUP_CREATE', 'GROUP_SETTINGS_UPDATE') and v_description is not null then
    v_facts := v_facts || pg_catalog.jsonb_build_object('description', pg_catalog.jsonb_build_array(p_at_ms, v_description));
  end if;
  return v_facts;
end;
$$;
revoke execute on function app.group_facts_of from public;
grant execute on function app.group_facts_of to service_role;

-- How much it matters to an operator.
create function app.account_event_severity(p_field text, p_event text, p_value jsonb)
returns text
language sql
immutable
set search_path = ''
as $$
  select case p_field
    when 'security' then 'critical'
    when 'account_update' then case
      when p_event in ('ACCOUNT_DELETED', 'ACCOUNT_VIOLATION', 'ACCOUNT_RESTRICTION', 'ACCOUNT_OFFBOARDED', 'PARTNER_REMOVED')
        then 'critical'
      when p_event = 'DISABLED_UPDATE' and app.word_in(p_value #> '{ban_info,waba_ban_state}') is distinct from 'REINSTATE'
        then 'critical'
      when p_event = 'PARTNER_APP_UNINSTALLED' then 'warning'
    end
    when 'account_alerts' then case app.word_in(p_value #> '{alert_info,alert_severity}')
      when 'CRITICAL' then 'critical'
      when 'WARNING' then 'warning'
    end
    when 'account_review_update' then case when app.word_in(p_value -> 'decision') = 'REJECTED' then 'warning' end
    when 'message_template_status_update' then case
      when p_event in ('REJECTED', 'PAUSED', 'DISABLED', 'FLAGGED', 'LIMIT_EXCEEDED', 'LOCKED', 'ARCHIVED') then 'warning'
      when app.word_in(p_value -> 'new_quality_score') = 'RED' then 'warning'
    end
    when 'message_template_quality_update' then case when app.word_in(p_value -> 'new_quality_score') = 'RED' then 'warning' end
    when 'template_category_update' then 'warning' -- another category has another price
    when 'phone_number_quality_update' then case when p_event in ('FLAGGED', 'DOWNGRADE') then 'warning' end
    when 'phone_number_name_update' then case when app.word_in(p_value -> 'decision') = 'REJECTED' then 'warning' end
    when 'flows' then case
      when p_event = 'FLOW_VERSION_EXPIRY_WARNING'
        or app.word_in(p_value -> 'alert_state') = 'ACTIVATED'
        or app.word_in(p_value -> 'new_status') in ('BLOCKED', 'THROTTLED') then 'warning'
    end
    when 'group_status_update' then case when pg_catalog.jsonb_path_exists(
      p_value, '$.groups[*] ? (@.type == "group_suspend" || exists(@.errors))') then 'warning' end
    when 'group_lifecycle_update' then case when pg_catalog.jsonb_path_exists(p_value, '$.groups[*].errors') then 'warning' end
    when 'group_settings_update' then case when pg_catalog.jsonb_path_exists(
      p_value, '$.groups[*] ? (exists(@.errors) || exists(@.*.errors))') then 'warning' end
    when 'group_participants_update' then case when pg_catalog.jsonb_path_exists(
      p_value, '$.groups[*] ? (exists(@.errors) || exists(@.failed_participants[*]))') then 'warning' end
  end;
$$;
revoke execute on function app.account_event_severity from public;
grant execute on function app.account_event_severity to service_role;

-- What makes an event the same as one before: all but when we received it.
create function app.account_event_digest(
  p_field text, p_waba_id text, p_phone_number_id text, p_sent_at timestamptz, p_value jsonb)
returns bytea
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.jsonb_build_array(
    p_field, p_waba_id, p_phone_number_id,
    case when pg_catalog.isfinite(p_sent_at) then (extract(epoch from p_sent_at) * 1000)::bigint end, p_value)::text, 'UTF8'));
$$;
revoke execute on function app.account_event_digest from public;
grant execute on function app.account_event_digest to service_role;

-- 5. Facts into rows. Each locks its row first; columns without a fact keep what they have.

-- Why sending over a number is held, and until when. An operator's release ends all that began before it.
create function app.hold_of(p_facts jsonb, out hold_reason text, out hold_until timestamptz)
language sql
immutable
set search_path = ''
as $$
  with hold as (
    select 1 as rank, 'account_' || case p_facts #>> '{account,2}' when 'disable' then 'disabled' else 'deleted' end as reason,
      (p_facts #>> '{account,0}')::bigint as at_ms, null::bigint as until_ms
    where p_facts #>> '{account,1}' = 'held'
    union all
    select 2, p_facts #>> '{pin,1}', (p_facts #>> '{pin,0}')::bigint, null
    where p_facts ? 'pin'
    union all
    select 3, 'account_restricted', (r.value ->> 0)::bigint, (r.value ->> 1)::bigint
    from pg_catalog.jsonb_each(p_facts) r
    where r.key in ('restriction:restricted_biz_initiated_messaging', 'restriction:restricted_customer_initiated_messaging')
      and (r.value ->> 0)::bigint >= coalesce((p_facts #>> '{restrictions_lifted,0}')::bigint, 0)
  )
  select (pg_catalog.array_agg(h.reason order by h.rank))[1],
    case when pg_catalog.bool_and(h.until_ms is not null) then app.ms_to_time(pg_catalog.max(h.until_ms)) end
  from hold h
  where h.at_ms > coalesce((p_facts #>> '{released,0}')::bigint, -1);
$$;
revoke execute on function app.hold_of from public;
grant execute on function app.hold_of to service_role;

create function app.merge_channel_facts(p_workspace_id uuid, p_channel_id uuid, p_facts jsonb)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_facts jsonb;
begin
  select app.later_facts(c.facts, p_facts)
  into v_facts
  from public.whatsapp_channels c
  where c.workspace_id = p_workspace_id
    and c.id = p_channel_id
  for no key update;

  update public.whatsapp_channels c
  set facts = v_facts,
    quality = coalesce(v_facts #>> '{quality,1}', c.quality),
    tier_mps = coalesce((v_facts #>> '{tier_mps,1}')::integer, c.tier_mps),
    messaging_limit = coalesce(v_facts #>> '{messaging_limit,1}', c.messaging_limit),
    verified_name = coalesce(v_facts #>> '{verified_name,1}', c.verified_name),
    name_status = coalesce(v_facts #>> '{name,1}', c.name_status),
    username = case when v_facts ? 'username' then v_facts #>> '{username,1}' else c.username end,
    hold_reason = h.hold_reason,
    hold_until = h.hold_until
  from app.hold_of(v_facts) h
  where c.workspace_id = p_workspace_id
    and c.id = p_channel_id
    and c.facts is distinct from v_facts;
end;
$$;
revoke execute on function app.merge_channel_facts from public;
grant execute on function app.merge_channel_facts to service_role;

-- Makes the template if it is new. Whoever learns its state in another way (a sync) merges facts here, too.
create function app.merge_template_facts(
  p_workspace_id uuid, p_waba_id text, p_template_name text, p_language text, p_facts jsonb)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_id uuid;
  v_facts jsonb;
begin
  insert into public.whatsapp_templates (workspace_id, id, waba_id, template_name, language)
  values (p_workspace_id, pg_catalog.gen_random_uuid(), p_waba_id, p_template_name, p_language)
  on conflict (workspace_id, waba_id, template_name, language) do nothing;

  select t.id, app.later_facts(t.facts, p_facts)
  into v_id, v_facts
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
    correct_category = v_facts #>> '{announced,1}',
    category_changes_at = app.ms_to_time((v_facts #>> '{announced,2}')::bigint),
    status = coalesce(v_facts #>> '{status,1}', t.status),
    reject_reason = case when v_facts ? 'status' then v_facts #>> '{status,2}' else t.reject_reason end,
    paused_until = app.ms_to_time((v_facts #>> '{status,3}')::bigint),
    quality = coalesce(v_facts #>> '{quality,1}', t.quality),
    body_content = coalesce(v_facts #>> '{content,1}', t.body_content),
    components = coalesce(v_facts #> '{content,2}', t.components)
  where t.workspace_id = p_workspace_id
    and t.id = v_id
    and t.facts is distinct from v_facts;
end;
$$;
revoke execute on function app.merge_template_facts from public;
grant execute on function app.merge_template_facts to service_role;

-- Makes the group if it is new.
create function app.merge_group_facts(p_workspace_id uuid, p_channel_id uuid, p_group_id text, p_facts jsonb)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_facts jsonb;
begin
  insert into public.whatsapp_groups (workspace_id, channel_id, group_id)
  values (p_workspace_id, p_channel_id, p_group_id)
  on conflict do nothing;

  select app.later_facts(g.facts, p_facts)
  into v_facts
  from public.whatsapp_groups g
  where g.workspace_id = p_workspace_id
    and g.channel_id = p_channel_id
    and g.group_id = p_group_id
  for no key update;

  update public.whatsapp_groups g
  set facts = v_facts,
    subject = v_facts #>> '{subject,1}',
    description = v_facts #>> '{description,1}',
    state = case
      when v_facts #>> '{lifecycle,1}' = 'deleted' then 'deleted'
      when v_facts #>> '{suspension,1}' = 'suspended' then 'suspended'
      else 'active' end,
    participants = (
      select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'wa_id', p.value -> 2, 'user_id', p.value -> 3) order by p.key collate "C"), '[]')
      from pg_catalog.jsonb_each(v_facts) p
      where p.key like 'participant:%' and p.value ->> 1 = 'joined')
  where g.workspace_id = p_workspace_id
    and g.channel_id = p_channel_id
    and g.group_id = p_group_id
    and g.facts is distinct from v_facts;
end;
$$;
revoke execute on function app.merge_group_facts from public;
grant execute on function app.merge_group_facts to service_role;

-- An operator has looked: sending over a number goes on, until Meta tells of something later.
-- Called by: runbooks, as the service.
create function app.release_channel_hold(p_workspace_id uuid, p_channel_id uuid)
returns void
language sql
security invoker
set search_path = ''
as $$
  select app.merge_channel_facts(p_workspace_id, p_channel_id, pg_catalog.jsonb_build_object(
    'released', pg_catalog.jsonb_build_array((extract(epoch from pg_catalog.clock_timestamp()) * 1000)::bigint)));
$$;
revoke execute on function app.release_channel_hold from public;
grant execute on function app.release_channel_hold to service_role;

-- 6. Recording.

create type app.account_event as (
  n integer,
  workspace_id uuid,
  channel_id uuid, -- the number of ours it names
  channel_ids uuid[], -- those of ours it is about: that one, or all of the account
  waba_id text,
  field text,
  event text,
  severity text,
  happened_at timestamptz,
  payload jsonb,
  digest bytea,
  channel_facts jsonb,
  template_name text, -- null: about none
  template_language text,
  template_facts jsonb,
  group_facts jsonb -- [{group_id, facts}]
);

-- Read events: whom each is about, and what it says. Nothing about payload is taken for granted.
create function app.read_account_events(p_events jsonb)
returns setof app.account_event
language sql
stable
security invoker
set search_path = ''
as $$
  select
    e.n, e.workspace_id,
    case when e.channel_id is not null or p.id is not null or p.by_number then c.ids[1] end,
    c.ids, e.waba_id, pg_catalog.left(e.field, 100), pg_catalog.left(pg_catalog.lower(e.event), 100),
    coalesce(app.account_event_severity(e.field, v.event, v.value), 'info'),
    greatest(coalesce(v.sent_at, e.received_at), timestamptz 'epoch'),
    v.value,
    d.digest,
    case when v.at_ms is not null then app.channel_facts_of(e.field, v.event, v.value, v.at_ms) else '{}' end,
    t.name, t.language,
    case when t.name is not null then app.template_facts_of(e.field, v.event, v.value, v.at_ms) end,
    g.facts
  from pg_catalog.jsonb_to_recordset(p_events) as r(
    n integer, workspace_id uuid, channel_id uuid, waba_id text, phone_number_id text, field text, event text,
    sent_at timestamptz, received_at timestamptz, payload jsonb)
  cross join lateral (
    select r.n, r.workspace_id, r.channel_id, r.waba_id, r.phone_number_id, coalesce(r.field, '') as field,
      coalesce(r.event, '') as event, r.sent_at, r.received_at, r.payload
  ) e
  cross join lateral (
    -- A time more than a day ahead would hold for ever: such an event is listed and changes nothing.
    select coalesce(e.payload, 'null') as value, pg_catalog.upper(e.event) as event,
      case when e.sent_at between timestamptz 'epoch' and e.received_at + interval '1 day' then e.sent_at end as sent_at,
      case when e.sent_at is null or e.sent_at between timestamptz 'epoch' and e.received_at + interval '1 day'
        then (extract(epoch from coalesce(e.sent_at, e.received_at)) * 1000)::bigint end as at_ms
  ) v
  cross join lateral (
    select app.account_event_digest(e.field, e.waba_id, e.phone_number_id, e.sent_at, v.value) as digest
  ) d
  cross join lateral (
    select coalesce(e.phone_number_id, app.text_in(v.value #> '{metadata,phone_number_id}', 64),
        app.text_in(v.value #> '{phone_number_settings,phone_number_id}', 64),
        app.text_in(v.value #> '{recipient,phone_number_id}', 64)) as id,
      v.value ? 'display_phone_number'
        -- these are about one number, so without one they are about none
        or e.field in ('phone_number_quality_update', 'phone_number_name_update', 'business_username_update',
          'business_username_updates') as by_number
  ) p
  cross join lateral (
    select coalesce(pg_catalog.array_agg(k.id order by k.id), '{}') as ids
    from public.whatsapp_channels k
    where k.workspace_id = e.workspace_id
      and case
        when e.channel_id is not null then k.id = e.channel_id
        when k.state = 'disconnected' then false
        when p.id is not null then k.phone_number_id = p.id
        when p.by_number then k.waba_id = e.waba_id
          and pg_catalog.regexp_replace(k.display_phone_number, '[^0-9]', '', 'g')
            = app.digits_in(v.value -> 'display_phone_number')
        else k.waba_id = e.waba_id
      end
  ) c
  left join lateral (
    select app.text_in(v.value -> 'message_template_name', 512) as name,
      app.text_in(v.value -> 'message_template_language', 35) as language
    where v.at_ms is not null
      and pg_catalog.length(e.waba_id) <= 64 -- an index row holds 2,700 bytes
      and e.field in ('message_template_status_update', 'message_template_quality_update', 'template_category_update',
        'message_template_components_update')
  ) t on t.name is not null and t.language is not null
  left join lateral (
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('group_id', f.group_id, 'facts', f.facts)) as facts
    from (
      select app.text_in(x -> 'group_id', 256) as group_id, app.group_facts_of(x, a.at_ms) as facts
      from app.elements_in(v.value -> 'groups') x
      cross join lateral (select coalesce(app.ms_in(x -> 'timestamp'), v.at_ms) as at_ms) a
      where a.at_ms <= (extract(epoch from e.received_at + interval '1 day') * 1000)::bigint
    ) f
    where f.group_id is not null
      and f.facts <> '{}'
  ) g on e.field like 'group\_%'
    -- One that is listed has told its facts. Told again, it would bring back who was erased since.
    and not exists (
      select from public.account_events a
      where a.workspace_id = e.workspace_id
        and a.digest = d.digest
        and a.happened_at = v.sent_at);
$$;
revoke execute on function app.read_account_events from public;
grant execute on function app.read_account_events to service_role;

-- Record what Meta told about accounts, numbers, templates and groups. Repeating it, in any order, beside any other
-- recorder, changes nothing more; a payload that cannot be read is listed and changes nothing.
-- p_events: [{n, workspace_id, channel_id (null: find out), waba_id, phone_number_id, field, event, sent_at (null: none),
--   received_at, payload (the change's value)}]; an event for several workspaces comes once for each, with one n.
-- Returns the n that were new, as an array; the others are duplicates.
-- Locks: channels, templates, groups, each in key order, and none of them if an event says nothing about one. Called by:
-- recording, inside its transaction and before it locks contacts.
create function app.record_account_events(p_events jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_events app.account_event[];
  v_new jsonb;
  v_event record;
begin
  v_events := array(select e from app.read_account_events(p_events) e);

  perform app.merge_channel_facts(m.workspace_id, m.id, m.facts)
  from (
    select e.workspace_id, c.id, app.latest_facts(pg_catalog.array_agg(e.channel_facts)) as facts
    from pg_catalog.unnest(v_events) e
    cross join lateral pg_catalog.unnest(e.channel_ids) c(id)
    where e.channel_facts <> '{}'
    group by e.workspace_id, c.id
    order by e.workspace_id, c.id
  ) m;

  perform app.merge_template_facts(m.workspace_id, m.waba_id, m.template_name, m.template_language, m.facts)
  from (
    select e.workspace_id, e.waba_id, e.template_name, e.template_language,
      app.latest_facts(pg_catalog.array_agg(e.template_facts)) as facts
    from pg_catalog.unnest(v_events) e
    where e.template_name is not null
    group by e.workspace_id, e.waba_id, e.template_name, e.template_language
    order by e.workspace_id, e.waba_id collate "C", e.template_name collate "C", e.template_language collate "C"
  ) m;

  perform app.merge_group_facts(m.workspace_id, m.channel_id, m.group_id, m.facts)
  from (
    select e.workspace_id, e.channel_id, g.group_id, app.latest_facts(pg_catalog.array_agg(g.facts)) as facts
    from pg_catalog.unnest(v_events) e
    cross join lateral pg_catalog.jsonb_to_recordset(e.group_facts) as g(group_id text, facts jsonb)
    where e.channel_id is not null
    group by e.workspace_id, e.channel_id, g.group_id
    order by e.workspace_id, e.channel_id, g.group_id collate "C"
  ) m;

  with listed as (
    select distinct on (e.workspace_id, e.digest) e.*
    from pg_catalog.unnest(v_events) e
    order by e.workspace_id, e.digest, e.happened_at, e.n
  ), inserted as (
    insert into public.account_events (
      workspace_id, id, field, event, severity, channel_id, template_id, waba_id, happened_at, payload, digest)
    select
      l.workspace_id, pg_catalog.gen_random_uuid(), l.field, l.event, l.severity,
      l.channel_id, t.id, l.waba_id, l.happened_at, l.payload, l.digest
    from listed l
    left join public.whatsapp_templates t
      on t.workspace_id = l.workspace_id
      and t.waba_id = l.waba_id
      and t.template_name = l.template_name
      and t.language = l.template_language
    order by l.workspace_id, l.digest
    on conflict (workspace_id, digest) do nothing
    returning workspace_id, digest
  )
  select coalesce(pg_catalog.jsonb_agg(distinct l.n), '[]')
  into v_new
  from listed l
  join inserted i on i.workspace_id = l.workspace_id and i.digest = l.digest;

  -- Without a time of Meta's it happened when it was first received, whichever of two deliveries is recorded first.
  for v_event in
    select e.workspace_id, e.digest, e.happened_at
    from pg_catalog.unnest(v_events) e
    join public.account_events a on a.workspace_id = e.workspace_id and a.digest = e.digest and a.happened_at > e.happened_at
    order by e.workspace_id, e.digest -- the order of their locks
  loop
    update public.account_events a
    set happened_at = v_event.happened_at
    where a.workspace_id = v_event.workspace_id
      and a.digest = v_event.digest
      and a.happened_at > v_event.happened_at;
  end loop;

  return v_new;
end;
$$;
revoke execute on function app.record_account_events from public;
grant execute on function app.record_account_events to service_role;

-- 7. Reading.

-- What Meta told about a workspace's accounts, newest first.
-- p_cursor: next_cursor of the page before, null for the first. p_limit: 1 to 100. p_severity: only these; null: all.
-- Refuses: PT404 unknown or not theirs, PT422 a cursor, limit or severity we did not issue.
create function public.list_account_events(
  p_workspace_id uuid, p_limit integer default 50, p_cursor text default null, p_severity text default null
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
  v_rows public.account_events[];
  v_last public.account_events;
begin
  if not exists (select from public.workspaces where id = p_workspace_id) then
    raise exception 'workspace not found' using
      errcode = 'PT404', detail = 'workspace_not_found', hint = 'It does not exist, or it is not yours. GET /api/me lists yours.';
  end if;
  if p_limit is null or p_limit not between 1 and 100 then
    raise exception 'limit out of range' using
      errcode = 'PT422', detail = 'bad_limit', hint = 'Ask for 1 to 100 at a time.';
  end if;
  if p_severity not in ('critical', 'warning', 'info') then
    raise exception 'unknown severity' using
      errcode = 'PT422', detail = 'bad_severity', hint = 'Ask for critical, warning or info, or leave it out.';
  end if;
  if p_cursor is not null then
    if p_cursor !~ '^[0-9]{1,17}_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then
      raise exception 'bad cursor' using
        errcode = 'PT422', detail = 'bad_cursor', hint = 'Pass next_cursor of the page before, unchanged.';
    end if;
    v_before_at := timestamptz 'epoch' + pg_catalog.split_part(p_cursor, '_', 1)::bigint * interval '1 microsecond';
    v_before_id := pg_catalog.split_part(p_cursor, '_', 2)::uuid;
  end if;

  -- Two queries, so that each has its index.
  if p_severity is null then
    v_rows := array(
      select e from public.account_events e
      where e.workspace_id = p_workspace_id and (e.happened_at, e.id) < (v_before_at, v_before_id)
      order by e.happened_at desc, e.id desc limit p_limit + 1);
  else
    v_rows := array(
      select e from public.account_events e
      where e.workspace_id = p_workspace_id and e.severity = p_severity and (e.happened_at, e.id) < (v_before_at, v_before_id)
      order by e.happened_at desc, e.id desc limit p_limit + 1);
  end if;
  v_last := v_rows[p_limit];

  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', e.id,
        'workspace_id', e.workspace_id,
        'field', e.field,
        'event', e.event,
        'severity', e.severity,
        'channel_id', e.channel_id,
        'template_id', e.template_id,
        'waba_id', e.waba_id,
        'happened_at', e.happened_at,
        'payload', e.payload,
        'created_at', e.created_at
      ) order by e.happened_at desc, e.id desc)
      from pg_catalog.unnest(v_rows[1:p_limit]) e
    ), '[]'),
    'next_cursor', case when pg_catalog.cardinality(v_rows) > p_limit then
      pg_catalog.trunc(extract(epoch from v_last.happened_at) * 1000000)::bigint || '_' || v_last.id end,
    'server_time', now()
  );
end;
$$;
revoke execute on function public.list_account_events from public, anon;
grant execute on function public.list_account_events to authenticated;

notify pgrst, 'reload schema';
