-- Numbers: connecting them with a sealed token, pausing, checking; read marks and blocks at Meta; sending settings.
set lock_timeout = '5s';

alter table public.whatsapp_channels
  add column connecting_since timestamptz, -- Meta has yet to say that the token opens this number; until then disconnected
  add column checked_at timestamptz,
  add column last_check jsonb, -- {outcome: ok|warn|fail, findings: [{code, sentence}]} of checked_at
  add column subscription jsonb; -- {at, is_subscribed, code, sentence}: whether Meta sends this account's webhooks to us
create index whatsapp_channels_check_due on public.whatsapp_channels (checked_at nulls first) where state <> 'disconnected';
alter table public.contacts
  add column meta_blocks jsonb not null default '{}';
create index contacts_blocked on public.contacts (workspace_id, id) where blocked_at is not null;
comment on column public.contacts.meta_blocks is
  'What became of blocking them at Meta, by channel: {wanted: block|unblock, state: asked|done|refused, at_meta, reason, sentence, at}.';

-- What parley_writer sees and changes for the functions below, within the workspaces of whoever asks.
alter policy "Members see their workspace" on public.workspaces to authenticated, parley_writer;
alter policy "Members see their channels" on public.whatsapp_channels to authenticated, parley_writer;
alter policy "Members see what their numbers sent" on public.channel_usage to authenticated, parley_writer;
grant select on public.workspaces, public.whatsapp_channels, public.channel_usage, public.channel_intake to parley_writer;
alter policy "Members see how far behind their numbers are" on public.channel_intake to authenticated, parley_writer;

grant update (settings) on public.workspaces to parley_writer;
create policy "Writers change their workspace's settings" on public.workspaces
  for update to parley_writer
  using (id in (select app.writable_workspaces()));

grant insert (workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number, state),
  update (waba_id, state, paused_reason, paused_at, marketing_paused_at, connecting_since, facts, quality, tier_mps,
    messaging_limit, verified_name, name_status, username, hold_reason, hold_until)
  on public.whatsapp_channels to parley_writer;
create policy "Writers connect numbers" on public.whatsapp_channels
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers change their numbers" on public.whatsapp_channels
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
-- What releasing a hold goes through.
grant execute on function app.release_channel_hold, app.merge_channel_facts, app.later_facts, app.is_later_fact, app.hold_of,
  app.ms_to_time to parley_writer;

grant select, insert, update (token_sealed, key_id, set_at), delete on app.channel_tokens to parley_writer;
create policy "Members' numbers have a token or not" on app.channel_tokens
  for select to parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create policy "Writers set their numbers' tokens" on app.channel_tokens
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers renew their numbers' tokens" on app.channel_tokens
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers take their numbers' tokens away" on app.channel_tokens
  for delete to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant update (meta_blocks) on public.contacts to parley_writer;
grant update (finished_at) on app.outbox to parley_writer;
-- Viewers count what waits at their numbers; its rows are shown to nobody.
create policy "Members' numbers have an outbox" on app.outbox
  for select to parley_writer
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

-- Refuse whoever does not run the workspace. p_noun: as in check_writer.
-- Refuses: PT404 not a member, PT403 an agent or viewer.
create function app.check_manager(p_workspace_id uuid, p_noun text)
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
    raise exception '% not found', p_noun using
      errcode = 'PT404', detail = p_noun || '_not_found', hint = 'It does not exist, or it is not yours.';
  elsif v_role not in ('owner', 'admin') then
    raise exception 'only owners and admins manage' using
      errcode = 'PT403', detail = 'role_may_not_manage', hint = 'Ask an owner or admin of the workspace.';
  end if;
end;
$$;
revoke execute on function app.check_manager from public;
grant execute on function app.check_manager to parley_writer;

-- 1. Numbers, as people see and change them.

-- A number with what waits at it. outbox_depth: messages that could go now, 10,001 for more than 10,000.
create function app.channel_json(p_channel public.whatsapp_channels)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_channel.id, 'workspace_id', p_channel.workspace_id,
    'display_phone_number', p_channel.display_phone_number, 'waba_id', p_channel.waba_id,
    'phone_number_id', p_channel.phone_number_id,
    'state', case when p_channel.connecting_since is not null then 'connecting' else p_channel.state end,
    'paused_reason', p_channel.paused_reason, 'paused_at', p_channel.paused_at,
    'marketing_paused_at', p_channel.marketing_paused_at,
    'quality', p_channel.quality, 'tier_mps', p_channel.tier_mps, 'messaging_limit', p_channel.messaging_limit,
    'verified_name', p_channel.verified_name,
    'hold_reason', p_channel.hold_reason, 'hold_until', p_channel.hold_until,
    'newest_sent_at', k.newest_sent_at, 'recorded_at', k.recorded_at,
    'lag_ms', pg_catalog.round(greatest(0, extract(epoch from k.recorded_at - k.newest_sent_at)) * 1000)::bigint,
    'has_token', t.channel_id is not null, 'token_set_at', t.set_at,
    'checked_at', p_channel.checked_at, 'last_check', p_channel.last_check, 'subscription', p_channel.subscription,
    'outbox_depth', o.depth, 'outbox_oldest_at', o.oldest_at,
    'service_messages', coalesce(u.service_messages, 0),
    'service_messages_free', 1000) -- a number and month; Meta's price list of October 2026
  from (select 1) one
  left join public.channel_intake k on k.workspace_id = p_channel.workspace_id and k.channel_id = p_channel.id
  left join app.channel_tokens t on t.workspace_id = p_channel.workspace_id and t.channel_id = p_channel.id
  left join public.channel_usage u on u.workspace_id = p_channel.workspace_id and u.channel_id = p_channel.id
    and u.month = pg_catalog.date_trunc('month', now() at time zone 'utc')::date
  cross join lateral (
    select count(*) as depth, min(w.next_attempt_at) as oldest_at
    from (
      select o.next_attempt_at
      from app.outbox o
      where o.workspace_id = p_channel.workspace_id
        and o.channel_id = p_channel.id
        and o.kind = 'message'
        and o.state = 'due'
        and o.lease_token is null
      order by o.priority, o.place
      limit 10001
    ) w
  ) o;
$$;
revoke execute on function app.channel_json from public;
grant execute on function app.channel_json to parley_writer;

-- A workspace's numbers: their state, what waits at them, and how far behind Meta each is.
-- Called by: services/api and frontends, as the user. Refuses: PT404 unknown or not theirs.
create or replace function public.list_channels(p_workspace_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's: people see nothing of app
set search_path = ''
as $$
begin
  if not exists (
    select from public.workspace_members m where m.workspace_id = p_workspace_id and m.user_id = app.actor()
  ) then
    raise exception 'workspace not found' using
      errcode = 'PT404', detail = 'workspace_not_found', hint = 'It does not exist, or it is not yours. GET /api/me lists yours.';
  end if;
  return pg_catalog.jsonb_build_object(
    'items', coalesce((
      select pg_catalog.jsonb_agg(app.channel_json(c) order by c.display_phone_number, c.id)
      from public.whatsapp_channels c
      where c.workspace_id = p_workspace_id
    ), '[]'),
    'server_time', now());
end;
$$;
select app.give_to_writer('public.list_channels');

-- One number, as in list_channels. Called by: services/api and frontends, as the user. Refuses: PT404.
create function public.channel_health(p_workspace_id uuid, p_channel_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's: people see nothing of app
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
begin
  select c.* into v_channel
  from public.whatsapp_channels c
  where c.workspace_id = p_workspace_id
    and c.id = p_channel_id
    and exists (
      select from public.workspace_members m where m.workspace_id = p_workspace_id and m.user_id = app.actor());
  if not found then
    raise exception 'channel not found' using
      errcode = 'PT404', detail = 'channel_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return app.channel_json(v_channel);
end;
$$;
revoke execute on function public.channel_health from public, anon, service_role;
grant execute on function public.channel_health to authenticated;
select app.give_to_writer('public.channel_health');

-- Lock a number that whoever asks is about to change. Refuses: PT404 unknown or not theirs, PT403 an agent or viewer.
create function app.lock_channel(p_workspace_id uuid, p_channel_id uuid)
returns public.whatsapp_channels
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
begin
  perform app.check_manager(p_workspace_id, 'channel');
  select * into v_channel
  from public.whatsapp_channels
  where workspace_id = p_workspace_id
    and id = p_channel_id
  for no key update;
  if not found then
    raise exception 'channel not found' using
      errcode = 'PT404', detail = 'channel_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return v_channel;
end;
$$;
revoke execute on function app.lock_channel from public;
grant execute on function app.lock_channel to parley_writer;

-- Call off what a number has yet to ask of Meta about itself, or all chores if p_kinds is null; not what is under way.
create function app.call_chores_off(p_workspace_id uuid, p_channel_id uuid, p_kinds text[])
returns void
language sql
security invoker
set search_path = ''
as $$
  with idle as (
    select o.workspace_id, o.id
    from app.outbox o
    where o.workspace_id = p_workspace_id
      and o.channel_id = p_channel_id
      and o.kind <> 'message'
      and o.state = 'due'
      and o.lease_token is null
      and (p_kinds is null or o.kind = any (p_kinds))
    order by o.id
    for no key update
  )
  update app.outbox o
  set state = 'cancelled', finished_at = now()
  from idle i
  where o.workspace_id = i.workspace_id
    and o.id = i.id;
$$;
revoke execute on function app.call_chores_off from public;
grant execute on function app.call_chores_off to parley_writer, service_role;

-- Ask Meta, anew, all that is asked of a number that has just become ours, or has another token.
create function app.queue_first_chores(p_workspace_id uuid, p_channel_id uuid)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
begin
  perform app.call_chores_off(p_workspace_id, p_channel_id, array['channel_subscribe', 'channel_check', 'template_sync']);
  perform app.queue_chore(p_workspace_id, p_channel_id, k, '{}', 5::smallint, interval '1 day')
  from pg_catalog.unnest(array['channel_subscribe', 'channel_check', 'template_sync']) k;
end;
$$;
revoke execute on function app.queue_first_chores from public;
grant execute on function app.queue_first_chores to parley_writer, service_role;

-- Connect a number, or give one of ours another token. A number that is not connected here becomes so when Meta has
-- said that the token opens it (record_channel_check): whoever merely knows a number's id must not get its messages.
-- p_id: for a new number's row. p_token_sealed, p_key_id: see shared/auth/seal.py.
-- A number paused for what a token can mend goes on; one paused by a person stays so.
-- Writes: whatsapp_channels, channel_tokens, outbox, audit_log. Called by: services/api, as the user.
-- Refuses: PT404 not a member, PT403 an agent or viewer, PT409 connected to another workspace, or to ours under another
-- account, PT422 what cannot be an id or a sealed token. The same again: the token is the newest one.
create function public.connect_channel(
  p_workspace_id uuid, p_id uuid, p_waba_id text, p_phone_number_id text, p_token_sealed text, p_key_id text)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
  v_was text;
begin
  perform app.check_manager(p_workspace_id, 'workspace');
  if p_id is null or p_waba_id !~ '^[0-9]{5,20}$' or p_phone_number_id !~ '^[0-9]{5,20}$'
    or p_waba_id is null or p_phone_number_id is null then
    raise exception 'no id of Meta''s' using
      errcode = 'PT422', detail = 'number_not_valid',
      hint = 'Copy the phone number id and the WhatsApp Business Account id from Meta''s API setup page: digits only.';
  elsif p_token_sealed is null or p_token_sealed !~ '^[A-Za-z0-9+/]+={0,2}$' or pg_catalog.length(p_token_sealed) not between 64 and 8000
    or p_key_id is null or p_key_id !~ '^[0-9a-f]{16}$' then
    raise exception 'no sealed token' using
      errcode = 'PT422', detail = 'token_not_sealed', hint = 'Give the token to POST /api/whatsapp/channels, which seals it.';
  end if;

  -- One at a time a number, so that asking twice at once makes one row.
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('number ' || p_phone_number_id, 0));
  select * into v_channel
  from public.whatsapp_channels
  where workspace_id = p_workspace_id
    and phone_number_id = p_phone_number_id
  order by state = 'disconnected', created_at desc
  limit 1
  for no key update;
  v_was := v_channel.state;

  if v_was is null or v_was = 'disconnected' then
    -- For a moment connected: only the index over all workspaces, whose rows nobody here sees, can tell that it is taken.
    begin
      if v_was is null then
        v_channel.id := p_id;
        insert into public.whatsapp_channels (
          workspace_id, id, waba_id, portfolio_id, phone_number_id, display_phone_number, state)
        values (p_workspace_id, p_id, p_waba_id, '', p_phone_number_id, '', 'connected'); -- Meta will tell the rest
      else
        update public.whatsapp_channels
        set state = 'connected', waba_id = p_waba_id
        where workspace_id = p_workspace_id
          and id = v_channel.id;
      end if;
    exception when unique_violation then
      raise exception 'the number is connected elsewhere' using
        errcode = 'PT409', detail = 'number_taken',
        hint = 'Disconnect it in its other workspace first: a number belongs to one workspace at a time.';
    end;
    update public.whatsapp_channels
    set state = 'disconnected', connecting_since = now(), paused_reason = null, paused_at = null
    where workspace_id = p_workspace_id
      and id = v_channel.id
    returning * into v_channel;
  elsif v_channel.waba_id <> p_waba_id then
    raise exception 'connected under another account' using
      errcode = 'PT409', detail = 'channel_of_other_account', hint = 'Disconnect the number first, then connect it under this account.';
  elsif v_channel.paused_reason is distinct from 'by_person' then
    update public.whatsapp_channels
    set state = 'connected', paused_reason = null, paused_at = null
    where workspace_id = p_workspace_id
      and id = v_channel.id
    returning * into v_channel;
  end if;

  insert into app.channel_tokens as t (workspace_id, channel_id, token_sealed, key_id)
  values (p_workspace_id, v_channel.id, p_token_sealed, p_key_id)
  on conflict (workspace_id, channel_id) do update
    set token_sealed = excluded.token_sealed, key_id = excluded.key_id, set_at = now();

  if v_channel.connecting_since is null then
    perform app.queue_first_chores(p_workspace_id, v_channel.id);
  else
    perform app.call_chores_off(p_workspace_id, v_channel.id, null);
    perform app.queue_chore(p_workspace_id, v_channel.id, 'channel_check', '{}', 5::smallint, interval '1 day');
  end if;
  perform app.audit(
    p_workspace_id, case when v_channel.connecting_since is null then 'channel.token_renewed' else 'channel.connecting' end,
    v_channel.id, pg_catalog.jsonb_build_object('state', v_was),
    pg_catalog.jsonb_build_object('state', v_channel.state, 'key_id', p_key_id));
  return app.channel_json(v_channel);
end;
$$;
revoke execute on function public.connect_channel from public, anon, service_role;
grant execute on function public.connect_channel to authenticated;
select app.give_to_writer('public.connect_channel');

-- Hold what a number sends, on behalf of the person who asks; it goes on receiving.
-- Writes: whatsapp_channels, audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404, PT403 an agent or viewer, PT409 disconnected. Paused already: now by this person.
create function public.pause_channel_by_person(p_workspace_id uuid, p_channel_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
  v_before jsonb;
begin
  v_channel := app.lock_channel(p_workspace_id, p_channel_id);
  if v_channel.state = 'disconnected' then
    raise exception 'channel is disconnected' using
      errcode = 'PT409', detail = 'channel_not_connected', hint = 'Connect the number first.';
  elsif v_channel.state = 'paused' and v_channel.paused_reason = 'by_person' then
    return app.channel_json(v_channel);
  end if;
  v_before := pg_catalog.jsonb_build_object('state', v_channel.state, 'paused_reason', v_channel.paused_reason);
  update public.whatsapp_channels
  set state = 'paused', paused_reason = 'by_person', paused_at = now()
  where workspace_id = p_workspace_id
    and id = p_channel_id
  returning * into v_channel;
  perform app.audit(
    p_workspace_id, 'channel.paused', p_channel_id, v_before, '{"state": "paused", "paused_reason": "by_person"}');
  return app.channel_json(v_channel);
end;
$$;
revoke execute on function public.pause_channel_by_person from public, anon, service_role;
grant execute on function public.pause_channel_by_person to authenticated;
select app.give_to_writer('public.pause_channel_by_person');

-- Let a number send again, on behalf of an owner or admin who has looked: whatever held it, a pause, one of marketing,
-- or what Meta told (a changed PIN, a ban), until Meta tells of something later.
-- Writes: whatsapp_channels, audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404, PT403 an agent or viewer, PT409 disconnected. Nothing held it: fine.
create function public.resume_channel(p_workspace_id uuid, p_channel_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
  v_before jsonb;
begin
  v_channel := app.lock_channel(p_workspace_id, p_channel_id);
  if v_channel.state = 'disconnected' then
    raise exception 'channel is disconnected' using
      errcode = 'PT409', detail = 'channel_not_connected', hint = 'Connect the number first.';
  elsif v_channel.state = 'connected' and v_channel.marketing_paused_at is null and v_channel.hold_reason is null then
    return app.channel_json(v_channel);
  end if;
  v_before := pg_catalog.jsonb_build_object(
    'state', v_channel.state, 'paused_reason', v_channel.paused_reason, 'hold_reason', v_channel.hold_reason,
    'marketing_paused_at', v_channel.marketing_paused_at);
  update public.whatsapp_channels
  set state = 'connected', paused_reason = null, paused_at = null, marketing_paused_at = null
  where workspace_id = p_workspace_id
    and id = p_channel_id;
  if v_channel.hold_reason is not null then
    perform app.release_channel_hold(p_workspace_id, p_channel_id);
  end if;
  perform app.release_marketing(p_workspace_id, p_channel_id);
  select * into v_channel
  from public.whatsapp_channels
  where workspace_id = p_workspace_id
    and id = p_channel_id;
  perform app.audit(
    p_workspace_id, 'channel.resumed', p_channel_id, v_before,
    pg_catalog.jsonb_build_object('state', v_channel.state, 'hold_reason', v_channel.hold_reason));
  return app.channel_json(v_channel);
end;
$$;
revoke execute on function public.resume_channel from public, anon, service_role;
grant execute on function public.resume_channel to authenticated;
select app.give_to_writer('public.resume_channel');

-- Let a number go: it neither receives nor sends, its token is gone, and it may be connected elsewhere. What was said
-- stays. Messages that wait end when they are too old, or go should it be connected again before.
-- Writes: whatsapp_channels, channel_tokens, outbox, audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404, PT403 an agent or viewer. Disconnected already: fine.
create function public.disconnect_channel(p_workspace_id uuid, p_channel_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
  v_was text;
begin
  v_channel := app.lock_channel(p_workspace_id, p_channel_id);
  if v_channel.state = 'disconnected' and v_channel.connecting_since is null then
    return app.channel_json(v_channel);
  end if;
  v_was := v_channel.state;
  update public.whatsapp_channels
  set state = 'disconnected', connecting_since = null, paused_reason = null, paused_at = null
  where workspace_id = p_workspace_id
    and id = p_channel_id
  returning * into v_channel;
  delete from app.channel_tokens
  where workspace_id = p_workspace_id
    and channel_id = p_channel_id;
  perform app.call_chores_off(p_workspace_id, p_channel_id, null);
  perform app.audit(
    p_workspace_id, 'channel.disconnected', p_channel_id, pg_catalog.jsonb_build_object('state', v_was),
    '{"state": "disconnected"}');
  return app.channel_json(v_channel);
end;
$$;
revoke execute on function public.disconnect_channel from public, anon, service_role;
grant execute on function public.disconnect_channel to authenticated;
select app.give_to_writer('public.disconnect_channel');

-- 2. Numbers, as the sender looks after them.

-- Ask for the daily check of numbers that had none for a day; return how many. Called by: the dispatcher, every few
-- minutes. Those with one under way or waiting are passed over.
create function public.schedule_channel_checks(p_limit integer)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with due as (
    select c.workspace_id, c.id
    from public.whatsapp_channels c
    join app.channel_tokens t on t.workspace_id = c.workspace_id and t.channel_id = c.id
    where (c.state <> 'disconnected' and (c.checked_at is null or c.checked_at < now() - interval '1 day')
        or c.connecting_since < now() - interval '5 minutes') -- its first check never came to an end
      and not exists (
        select from app.outbox o
        where o.workspace_id = c.workspace_id and o.channel_id = c.id and o.kind = 'channel_check' and o.state = 'due')
    order by c.checked_at nulls first
    limit p_limit
    for no key update of c skip locked
  )
  select pg_catalog.jsonb_build_object('queued', count(
    app.queue_chore(d.workspace_id, d.id, 'channel_check', '{}', 5::smallint, interval '6 hours')))
  from due d;
$$;
revoke execute on function public.schedule_channel_checks from public, anon, authenticated;
grant execute on function public.schedule_channel_checks to service_role;

-- Record what Meta said of a number. p_check: {outcome, findings, facts, is_ours, display_phone_number, portfolio_id};
-- is_ours: true: Meta showed it with its token, false: refused for good, null: could not be told; facts as
-- merge_channel_facts takes them. Settles whether a connecting number becomes ours. Called by: the dispatcher.
-- Returns {state}. Refuses: PT404 the number is gone.
create function public.record_channel_check(p_workspace_id uuid, p_channel_id uuid, p_check jsonb)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
  v_is_ours boolean := (p_check ->> 'is_ours')::boolean;
  v_result jsonb := pg_catalog.jsonb_build_object('outcome', p_check -> 'outcome', 'findings', p_check -> 'findings');
begin
  select * into v_channel
  from public.whatsapp_channels
  where workspace_id = p_workspace_id
    and id = p_channel_id
  for no key update;
  if not found then
    raise exception 'channel not found' using errcode = 'PT404', detail = 'channel_not_found';
  end if;

  perform app.merge_channel_facts(p_workspace_id, p_channel_id, coalesce(p_check -> 'facts', '{}'));
  if v_channel.connecting_since is not null and v_is_ours then
    begin
      update public.whatsapp_channels
      set state = 'connected', connecting_since = null,
          display_phone_number = coalesce(nullif(p_check ->> 'display_phone_number', ''), display_phone_number),
          portfolio_id = coalesce(nullif(p_check ->> 'portfolio_id', ''), portfolio_id)
      where workspace_id = p_workspace_id
        and id = p_channel_id;
      perform app.queue_chore(p_workspace_id, p_channel_id, k, '{}', 5::smallint, interval '1 day')
      from pg_catalog.unnest(array['channel_subscribe', 'template_sync']) k;
      perform app.audit(
        p_workspace_id, 'channel.connected', p_channel_id, '{"state": "disconnected"}', '{"state": "connected"}', 'meta');
    exception when unique_violation then
      v_is_ours := false;
      v_result := pg_catalog.jsonb_build_object('outcome', 'fail', 'findings', pg_catalog.jsonb_build_array(
        pg_catalog.jsonb_build_object('code', 'number_taken', 'sentence',
          'Meanwhile the number was connected to another workspace; disconnect it there first.')));
    end;
  end if;
  if v_channel.connecting_since is not null and not v_is_ours then
    update public.whatsapp_channels
    set connecting_since = null
    where workspace_id = p_workspace_id
      and id = p_channel_id;
    delete from app.channel_tokens
    where workspace_id = p_workspace_id
      and channel_id = p_channel_id;
    perform app.audit(p_workspace_id, 'channel.refused', p_channel_id, null, null, 'meta');
  end if;
  update public.whatsapp_channels
  set checked_at = now(), last_check = v_result
  where workspace_id = p_workspace_id
    and id = p_channel_id
  returning * into v_channel;
  return pg_catalog.jsonb_build_object('state', v_channel.state);
end;
$$;
revoke execute on function public.record_channel_check from public, anon, authenticated;
grant execute on function public.record_channel_check to service_role;

-- Record whether Meta sends us an account's webhooks, on every number of it in the workspace. p_code, p_sentence: why not.
-- Called by: the dispatcher.
create function public.record_channel_subscription(
  p_workspace_id uuid, p_channel_id uuid, p_is_subscribed boolean, p_code text, p_sentence text)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with changed as (
    update public.whatsapp_channels c
    set subscription = pg_catalog.jsonb_build_object(
      'at', now(), 'is_subscribed', p_is_subscribed, 'code', p_code, 'sentence', p_sentence)
    where c.workspace_id = p_workspace_id
      and c.id in (
        select b.id
        from public.whatsapp_channels a
        join public.whatsapp_channels b on b.workspace_id = a.workspace_id and b.waba_id = a.waba_id and b.state <> 'disconnected'
        where a.workspace_id = p_workspace_id and a.id = p_channel_id
        order by b.id
        for no key update of b)
    returning 1
  )
  select pg_catalog.jsonb_build_object('changed', count(*)) from changed;
$$;
revoke execute on function public.record_channel_subscription from public, anon, authenticated;
grant execute on function public.record_channel_subscription to service_role;

-- Numbers with their sealed tokens, for the doctor and for turning keys; of one workspace, or of all.
-- Called by: an operator's commands of the sender.
create function public.channels_with_tokens(p_workspace_id uuid default null)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('items', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'workspace_id', c.workspace_id, 'workspace', w.name, 'channel_id', c.id, 'phone_number_id', c.phone_number_id,
    'waba_id', c.waba_id, 'portfolio_id', c.portfolio_id,
    'state', case when c.connecting_since is not null then 'connecting' else c.state end,
    'paused_reason', c.paused_reason, 'hold_reason', c.hold_reason, 'marketing_paused_at', c.marketing_paused_at,
    'token_sealed', t.token_sealed, 'key_id', t.key_id,
    'templates', (
      select count(*) from public.whatsapp_templates m
      where m.workspace_id = c.workspace_id and m.waba_id = c.waba_id and m.status = 'approved')
  ) order by c.workspace_id, c.id), '[]'))
  from public.whatsapp_channels c
  join public.workspaces w on w.id = c.workspace_id
  left join app.channel_tokens t on t.workspace_id = c.workspace_id and t.channel_id = c.id
  where (p_workspace_id is null or c.workspace_id = p_workspace_id)
    and (c.state <> 'disconnected' or c.connecting_since is not null);
$$;
revoke execute on function public.channels_with_tokens from public, anon, authenticated;
grant execute on function public.channels_with_tokens to service_role;

-- Put a token that was sealed anew in place of the old one, unless somebody set another meanwhile.
-- Called by: `python -m services.sender keys rotate`.
create function public.reseal_channel_token(
  p_workspace_id uuid, p_channel_id uuid, p_was text, p_token_sealed text, p_key_id text)
returns jsonb
language sql
security invoker
set search_path = ''
as $$
  with changed as (
    update app.channel_tokens
    set token_sealed = p_token_sealed, key_id = p_key_id -- set_at stays: it is the same token
    where workspace_id = p_workspace_id
      and channel_id = p_channel_id
      and token_sealed = p_was
    returning 1
  )
  select pg_catalog.jsonb_build_object('changed', count(*) > 0) from changed;
$$;
revoke execute on function public.reseal_channel_token from public, anon, authenticated;
grant execute on function public.reseal_channel_token to service_role;

-- 3. Read marks at Meta.

-- Mark a conversation read up to the last message the person saw; never back, never past the last there is.
-- Where the workspace tells customers when their messages are opened, Meta is told.
-- Writes: whatsapp_conversations (one row), outbox, audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer, PT422 no seq. Read already: fine.
create or replace function public.mark_conversation_read(p_workspace_id uuid, p_conversation_id uuid, p_seen_seq bigint)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
  v_read_seq bigint;
begin
  v_conversation := app.lock_conversation(p_workspace_id, p_conversation_id);
  if v_conversation.status = 'deleted' then
    perform app.refuse_action('deleted', 'open');
  elsif p_seen_seq is null then
    raise exception 'no seen_seq' using
      errcode = 'PT422', detail = 'bad_seq', hint = 'Say which message you saw last: its seq, or 0 for none.';
  end if;
  v_read_seq := least(p_seen_seq, v_conversation.next_seq - 1);
  if v_read_seq <= v_conversation.read_seq then
    return public.conversation_json(v_conversation);
  end if;

  perform app.audit(
    p_workspace_id, 'conversation.read', p_conversation_id,
    pg_catalog.jsonb_build_object('read_seq', v_conversation.read_seq), pg_catalog.jsonb_build_object('read_seq', v_read_seq));
  update public.whatsapp_conversations
  set read_seq = v_read_seq,
      unread_count = (
        select count(*)
        from public.whatsapp_messages m
        where m.workspace_id = p_workspace_id
          and m.conversation_id = p_conversation_id
          and m.seq > v_read_seq
          and m.direction = 'inbound'
          and m.origin = 'live'
          and m.revoked_at is null
          and m.suppressed_at is null)
  where workspace_id = p_workspace_id
    and id = p_conversation_id
  returning * into v_conversation;
  if v_conversation.status <> 'blocked'
    and exists (select from public.workspaces w where w.id = p_workspace_id and w.settings ->> 'mark_read' = 'on_open')
    and exists (
      select from app.channel_tokens t
      where t.workspace_id = p_workspace_id and t.channel_id = v_conversation.channel_id)
  then
    perform app.queue_chore(
      p_workspace_id, v_conversation.channel_id, 'mark_read', '{}', 3::smallint, interval '1 day', p_conversation_id);
  end if;
  return public.conversation_json(v_conversation);
end;
$$;

-- The message of a conversation that is to be marked read at Meta now: {wamid, reason}; no wamid: reason says why.
-- Marks all before it, too. With 'on_open' only as far as somebody here has read. Called by: the dispatcher.
create function public.read_mark_target(p_workspace_id uuid, p_conversation_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
  v_policy text;
  v_wamid text;
begin
  select * into v_conversation
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id;
  select coalesce(w.settings ->> 'mark_read', 'on_receipt') into v_policy
  from public.workspaces w
  where w.id = p_workspace_id;
  if v_conversation.status is null or v_conversation.status not in ('open', 'archived') then
    return pg_catalog.jsonb_build_object('wamid', null, 'reason', coalesce(v_conversation.status, 'gone'));
  elsif v_policy not in ('on_receipt', 'on_open') then
    return pg_catalog.jsonb_build_object('wamid', null, 'reason', 'policy');
  end if;
  select m.wamid into v_wamid
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
    and m.direction = 'inbound'
    and m.origin = 'live'
    and m.wamid is not null
    and m.revoked_at is null
    and m.suppressed_at is null
    and m.sent_at > now() - interval '30 days' -- Meta marks none that are older
    and (v_policy = 'on_receipt' or m.seq <= v_conversation.read_seq)
  order by m.seq desc
  limit 1;
  return pg_catalog.jsonb_build_object('wamid', v_wamid, 'reason', case when v_wamid is null then 'nothing_to_mark' end);
end;
$$;
revoke execute on function public.read_mark_target from public, anon, authenticated;
grant execute on function public.read_mark_target to service_role;

-- 4. Blocks at Meta.

-- A contact with its live conversations, and what became of blocking at Meta, as blocking and unblocking answer.
create or replace function app.blocked_contact_json(p_workspace_id uuid, p_contact_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', c.id,
    'workspace_id', c.workspace_id,
    'blocked_at', c.blocked_at,
    'meta_blocks', coalesce((
      select pg_catalog.jsonb_agg(
        pg_catalog.jsonb_build_object('channel_id', b.key) || (b.value - 'at_meta') order by b.key)
      from pg_catalog.jsonb_each(c.meta_blocks) b
    ), '[]'),
    'conversations', coalesce((
      select pg_catalog.jsonb_agg(public.conversation_json(v) order by v.id)
      from public.whatsapp_conversations v
      where v.workspace_id = p_workspace_id
        and v.contact_id = p_contact_id
        and v.deleted_at is null
    ), '[]')
  )
  from public.contacts c
  where c.workspace_id = p_workspace_id
    and c.id = p_contact_id;
$$;

-- A contact as blocking answers: for whoever wants to know how far that has come at Meta.
-- Called by: services/api and frontends, as the user. Refuses: PT404 unknown or not theirs.
create function public.contact_block_state(p_workspace_id uuid, p_contact_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_id uuid := p_contact_id;
  v_next uuid := p_contact_id;
begin
  while v_next is not null loop
    v_id := v_next;
    select c.merged_into into v_next
    from public.contacts c
    where c.workspace_id = p_workspace_id
      and c.id = v_id;
  end loop;
  if not exists (select from public.contacts c where c.workspace_id = p_workspace_id and c.id = v_id) then
    raise exception 'contact not found' using
      errcode = 'PT404', detail = 'contact_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return app.blocked_contact_json(p_workspace_id, v_id);
end;
$$;
revoke execute on function public.contact_block_state from public, anon, service_role;
grant execute on function public.contact_block_state to authenticated;
select app.give_to_writer('public.contact_block_state');

-- Ask Meta to block or unblock a contact, whose row is locked, on each number with a token that they talked with.
-- What was asked before and has not begun is called off; if then nothing differs from what Meta has, nothing is asked.
-- p_kind: block or unblock.
create function app.queue_blocks(p_workspace_id uuid, p_contact_id uuid, p_kind text)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_channel_id uuid;
  v_called_off integer; -- least attempts of those called off; null: none were
  v_before jsonb;
begin
  for v_channel_id in
    select distinct v.channel_id
    from public.whatsapp_conversations v
    join app.channel_tokens t on t.workspace_id = v.workspace_id and t.channel_id = v.channel_id
    where v.workspace_id = p_workspace_id
      and v.contact_id = p_contact_id
    order by v.channel_id
  loop
    with idle as (
      select o.workspace_id, o.id
      from app.outbox o
      where o.workspace_id = p_workspace_id
        and o.channel_id = v_channel_id
        and o.kind in ('block', 'unblock')
        and o.state = 'due'
        and o.lease_token is null
        and o.payload ->> 'contact_id' = p_contact_id::text
      order by o.id
      for no key update
    ), called_off as (
      update app.outbox o
      set state = 'cancelled', finished_at = now()
      from idle i
      where o.workspace_id = i.workspace_id
        and o.id = i.id
      returning o.attempts
    )
    select max(attempts) into v_called_off from called_off;
    select c.meta_blocks -> v_channel_id::text into v_before
    from public.contacts c
    where c.workspace_id = p_workspace_id
      and c.id = p_contact_id;

    if v_called_off = 0 and coalesce((v_before ->> 'at_meta')::boolean, false) = (p_kind = 'block') then
      v_before := v_before || pg_catalog.jsonb_build_object('state', 'done', 'reason', null, 'sentence', null);
    else
      v_before := coalesce(v_before, '{}')
        || pg_catalog.jsonb_build_object('state', 'asked', 'reason', null, 'sentence', null);
      perform app.queue_chore(
        p_workspace_id, v_channel_id, p_kind, pg_catalog.jsonb_build_object('contact_id', p_contact_id),
        5::smallint, interval '1 day');
    end if;
    update public.contacts
    set meta_blocks = meta_blocks || pg_catalog.jsonb_build_object(
      v_channel_id, v_before || pg_catalog.jsonb_build_object('wanted', p_kind, 'at', now()))
    where workspace_id = p_workspace_id
      and id = p_contact_id;
  end loop;
end;
$$;
revoke execute on function app.queue_blocks from public;
grant execute on function app.queue_blocks to parley_writer;

-- Block a contact, and with them their conversations on every channel, on behalf of the person who asks; Meta is asked, too.
-- What they send from now on is stored, suppressed; what Claude has not looked at yet, its worker skips.
-- Writes: contact_blocks, contacts, whatsapp_conversations, outbox, audit_log. Called by: services/api and frontends, as
-- the user. Locks: identities, the contact, their conversations in key order, outbox.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer. Blocked already: fine.
create or replace function public.block_contact(p_workspace_id uuid, p_contact_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_contact public.contacts;
  v_now timestamptz;
begin
  v_contact := app.lock_contact(p_workspace_id, p_contact_id);
  if v_contact.blocked_at is null then
    -- Not now(): what was recorded while this waited for its locks was not sent to somebody who had blocked.
    v_now := pg_catalog.clock_timestamp();
    insert into app.contact_blocks (workspace_id, contact_id, blocked_at)
    values (p_workspace_id, v_contact.id, v_now);
    perform app.set_blocked(p_workspace_id, v_contact.id, v_now);
    perform app.queue_blocks(p_workspace_id, v_contact.id, 'block');
    perform app.audit(
      p_workspace_id, 'contact.blocked', v_contact.id,
      '{"blocked_at": null}', pg_catalog.jsonb_build_object('blocked_at', v_now));
  end if;
  return app.blocked_contact_json(p_workspace_id, v_contact.id);
end;
$$;

-- Unblock a contact and open their conversations, on behalf of the person who asks; Meta is asked, too.
-- Writes: contact_blocks, contacts, whatsapp_conversations, outbox, audit_log. Called by: services/api and frontends, as
-- the user. Locks: identities, the contact, their conversations in key order, outbox.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer. Not blocked: fine.
create or replace function public.unblock_contact(p_workspace_id uuid, p_contact_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_contact public.contacts;
begin
  v_contact := app.lock_contact(p_workspace_id, p_contact_id);
  if v_contact.blocked_at is not null then
    update app.contact_blocks
    set unblocked_at = pg_catalog.clock_timestamp()
    where workspace_id = p_workspace_id
      and contact_id = v_contact.id
      and unblocked_at is null;
    perform app.set_blocked(p_workspace_id, v_contact.id, null);
    perform app.queue_blocks(p_workspace_id, v_contact.id, 'unblock');
    perform app.audit(
      p_workspace_id, 'contact.unblocked', v_contact.id,
      pg_catalog.jsonb_build_object('blocked_at', v_contact.blocked_at), '{"blocked_at": null}');
  end if;
  return app.blocked_contact_json(p_workspace_id, v_contact.id);
end;
$$;

-- Whom a chore is to block or unblock at Meta, and whether it still should: {contact_id, is_blocked, is_other_under_way,
-- user_id, wa_id}; contact_id null: erased. The ids are those they last wrote with to this number: only people who wrote
-- within 24 h can be blocked. is_other_under_way: another dispatcher is at the opposite just now. Called by: the dispatcher.
create function public.block_target(p_workspace_id uuid, p_channel_id uuid, p_contact_id uuid, p_kind text)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_contact public.contacts;
  v_next uuid := p_contact_id;
  v_user_id text;
  v_wa_id text;
begin
  while v_next is not null loop
    select * into v_contact
    from public.contacts
    where workspace_id = p_workspace_id
      and id = v_next;
    v_next := v_contact.merged_into;
  end loop;
  select m.sender_user_id, m.sender_wa_id into v_user_id, v_wa_id
  from public.whatsapp_conversations v
  join public.whatsapp_messages m
    on m.workspace_id = v.workspace_id and m.conversation_id = v.id and m.contact_id = v_contact.id and m.direction = 'inbound'
  where v.workspace_id = p_workspace_id
    and v.channel_id = p_channel_id
    and v.contact_id = v_contact.id
  order by m.sent_at desc, m.seq desc
  limit 1;
  if v_user_id is null and v_wa_id is null then
    select (pg_catalog.array_agg(i.value order by i.seen_at desc) filter (where i.kind = 'bsuid'))[1],
      (pg_catalog.array_agg(i.value order by i.seen_at desc) filter (where i.kind = 'wa_id'))[1]
    into v_user_id, v_wa_id
    from public.contact_identities i
    join public.whatsapp_channels c on c.workspace_id = i.workspace_id and c.id = p_channel_id and c.portfolio_id = i.portfolio_id
    where i.workspace_id = p_workspace_id
      and i.contact_id = v_contact.id;
  end if;
  return pg_catalog.jsonb_build_object(
    'contact_id', v_contact.id, 'is_blocked', v_contact.blocked_at is not null,
    'user_id', v_user_id, 'wa_id', v_wa_id,
    'is_other_under_way', exists (
      select from app.outbox o
      where o.workspace_id = p_workspace_id
        and o.channel_id = p_channel_id
        and o.kind = case p_kind when 'block' then 'unblock' else 'block' end
        and o.state = 'due'
        and o.lease_token is not null
        and o.lease_until > now()
        and o.payload ->> 'contact_id' = p_contact_id::text));
end;
$$;
revoke execute on function public.block_target from public, anon, authenticated;
grant execute on function public.block_target to service_role;

-- Record what Meta made of a block or unblock. p_reason, p_sentence: why it refused, null if it did it. An answer to what
-- nobody wants any more says only what Meta has. Called by: the dispatcher.
create function public.record_block(
  p_workspace_id uuid, p_channel_id uuid, p_contact_id uuid, p_kind text, p_reason text, p_sentence text)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_entry jsonb;
begin
  select c.meta_blocks -> p_channel_id::text into v_entry
  from public.contacts c
  where c.workspace_id = p_workspace_id
    and c.id = p_contact_id
  for no key update;
  if not found then
    return '{"state": "gone"}'; -- erased meanwhile
  end if;
  v_entry := coalesce(v_entry, pg_catalog.jsonb_build_object('wanted', p_kind));
  if p_reason is null then
    v_entry := v_entry || pg_catalog.jsonb_build_object('at_meta', p_kind = 'block');
  end if;
  if v_entry ->> 'wanted' = p_kind then
    v_entry := v_entry || pg_catalog.jsonb_build_object(
      'state', case when p_reason is null then 'done' else 'refused' end,
      'reason', p_reason, 'sentence', p_sentence, 'at', now());
  end if;
  update public.contacts
  set meta_blocks = meta_blocks || pg_catalog.jsonb_build_object(p_channel_id, v_entry)
  where workspace_id = p_workspace_id
    and id = p_contact_id;
  return pg_catalog.jsonb_build_object('state', v_entry -> 'state');
end;
$$;
revoke execute on function public.record_block from public, anon, authenticated;
grant execute on function public.record_block to service_role;

-- Ask Meta again to block people it would not block, since they had not written lately, and who have since.
-- Called by: the dispatcher, every minute. Returns {queued}.
create function public.schedule_blocks(p_limit integer)
returns jsonb
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_contact record;
  v_queued integer := 0;
begin
  for v_contact in
    select c.workspace_id, c.id, b.key::uuid as channel_id
    from public.contacts c
    cross join lateral pg_catalog.jsonb_each(c.meta_blocks) b
    where c.blocked_at is not null
      and b.value @> '{"wanted": "block", "state": "refused", "reason": "not_recent"}'
      and exists (
        select
        from public.whatsapp_conversations v
        join public.whatsapp_messages m on m.workspace_id = v.workspace_id and m.conversation_id = v.id
        where v.workspace_id = c.workspace_id
          and v.contact_id = c.id
          and v.channel_id = b.key::uuid
          and v.deleted_at is null
          and m.direction = 'inbound'
          and m.sent_at > greatest((b.value ->> 'at')::timestamptz, now() - interval '23 hours'))
    order by c.workspace_id, c.id
    limit p_limit
    for no key update of c skip locked
  loop
    perform app.queue_chore(
      v_contact.workspace_id, v_contact.channel_id, 'block', pg_catalog.jsonb_build_object('contact_id', v_contact.id),
      5::smallint, interval '1 day');
    update public.contacts c
    set meta_blocks = pg_catalog.jsonb_set(
      c.meta_blocks, array[v_contact.channel_id::text, 'state'], '"asked"')
    where c.workspace_id = v_contact.workspace_id
      and c.id = v_contact.id;
    v_queued := v_queued + 1;
  end loop;
  return pg_catalog.jsonb_build_object('queued', v_queued);
end;
$$;
revoke execute on function public.schedule_blocks from public, anon, authenticated;
grant execute on function public.schedule_blocks to service_role;

-- 5. What a workspace wants of sending and receiving.

create function app.workspace_settings_json(p_workspace public.workspaces)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'workspace_id', p_workspace.id,
    'mark_read', coalesce(p_workspace.settings ->> 'mark_read', 'on_receipt'),
    'reopen_archived', p_workspace.settings -> 'reopen_archived' is not distinct from 'true');
$$;
revoke execute on function app.workspace_settings_json from public;
grant execute on function app.workspace_settings_json to parley_writer;

-- Read a workspace's settings. Called by: services/api and frontends, as the user. Refuses: PT404 not a member.
create function public.workspace_settings(p_workspace_id uuid)
returns jsonb
language plpgsql
stable
security definer -- parley_writer's
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
  return app.workspace_settings_json(v_workspace);
end;
$$;
revoke execute on function public.workspace_settings from public, anon, service_role;
grant execute on function public.workspace_settings to authenticated;
select app.give_to_writer('public.workspace_settings');

-- Change some of a workspace's settings: mark_read ('on_receipt', 'on_open', 'never'), reopen_archived (true, false).
-- Writes: workspaces (one row), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 not a member, PT403 an agent or viewer, PT422 another name or value. As they are already: fine.
create function public.change_workspace_settings(p_workspace_id uuid, p_changes jsonb)
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
    or p_changes - 'mark_read' - 'reopen_archived' <> '{}'
    or coalesce(p_changes -> 'mark_read', '"never"') not in ('"on_receipt"', '"on_open"', '"never"')
    or coalesce(p_changes -> 'reopen_archived', 'true') not in ('true', 'false')
  then
    raise exception 'no such setting or value' using
      errcode = 'PT422', detail = 'setting_not_valid', hint = 'mark_read: on_receipt, on_open or never; reopen_archived: true or false.';
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
revoke execute on function public.change_workspace_settings from public, anon, service_role;
grant execute on function public.change_workspace_settings to authenticated;
select app.give_to_writer('public.change_workspace_settings');

notify pgrst, 'reload schema';
