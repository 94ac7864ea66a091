-- What people do to conversations and contacts: read, archive, reopen, block, unblock, delete; and the log of it.
-- The rules in words: shared/domain/conversation.py. Every pair of state and action is walked against it.
set lock_timeout = '5s';

-- Owns the functions through which people write, and nothing else: no login, no table, no way past a policy. Each of
-- its privileges below names the columns some function of its changes.
do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'parley_writer') then
    create role parley_writer nologin noinherit;
  end if;
  -- Who migrates must be able to become it, to hand functions over and to replace them: making a role is not enough
  -- since PostgreSQL 16 (its documentation, "Role Membership"). Nobody else is a member.
  execute pg_catalog.format('grant parley_writer to %I', current_user);
end;
$$;
grant usage on schema app to parley_writer;
-- Where schema auth is our shim, auth.uid() calls auth.jwt(), as whoever asks. On hosted projects it calls nothing, and
-- this only warns that whoever migrates may not hand the schema on.
grant usage on schema auth to parley_writer;

-- Make parley_writer the owner of a function. Called by: migrations, after revokes and grants.
-- A new owner must be able to create in the function's schema; in public nobody but whoever migrates should, nor may
-- they hand that right on in a hosted project. app is theirs, so the way leads through it.
create function app.give_to_writer(p_function regproc)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_schema text;
begin
  select n.nspname into strict v_schema
  from pg_catalog.pg_proc p
  join pg_catalog.pg_namespace n on n.oid = p.pronamespace
  where p.oid = p_function;

  grant create on schema app to parley_writer;
  if v_schema <> 'app' then
    execute pg_catalog.format('alter function %s set schema app', p_function::oid::regprocedure);
  end if;
  execute pg_catalog.format('alter function %s owner to parley_writer', p_function::oid::regprocedure);
  if v_schema <> 'app' then
    execute pg_catalog.format('alter function %s set schema %I', p_function::oid::regprocedure, v_schema);
  end if;
  revoke create on schema app from parley_writer;
end;
$$;
revoke execute on function app.give_to_writer from public;

-- Who is asking; null: nobody signed in. Its body is bound here and now, since parley_writer may not look names up in
-- a hosted project's schema auth.
create function app.actor()
returns uuid
language sql
stable
set search_path = ''
return auth.uid();
revoke execute on function app.actor from public;
grant execute on function app.actor to parley_writer, service_role;

-- The workspaces in which whoever asks may change things: what every policy to parley_writer goes by.
create function app.writable_workspaces()
returns setof uuid
language sql
stable
set search_path = ''
as $$
  select m.workspace_id
  from public.workspace_members m
  where m.user_id = app.actor()
    and m.role in ('owner', 'admin', 'agent');
$$;
revoke execute on function app.writable_workspaces from public;
grant execute on function app.writable_workspaces to parley_writer;

-- Refuse whoever may not change things in a workspace, before any lock is taken: a stranger must not hold up others.
-- p_noun: what they asked for; strangers are told that there is none.
-- Refuses: PT404 not a member, PT403 a viewer.
create function app.check_writer(p_workspace_id uuid, p_noun text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_workspace_id in (select app.writable_workspaces()) then
    return;
  elsif exists (
    select from public.workspace_members m
    where m.workspace_id = p_workspace_id
      and m.user_id = app.actor()
  ) then
    raise exception 'viewers only read' using
      errcode = 'PT403', detail = 'role_may_not_write', hint = 'Ask an owner or admin of the workspace to make you an agent.';
  end if;
  raise exception '% not found', p_noun using
    errcode = 'PT404', detail = p_noun || '_not_found', hint = 'It does not exist, or it is not yours.';
end;
$$;
revoke execute on function app.check_writer from public;
grant execute on function app.check_writer to parley_writer;

create table public.audit_log (
  workspace_id uuid not null references public.workspaces (id),
  id bigint generated always as identity,
  at timestamptz not null default now(),
  actor uuid, -- the person; null unless source is user
  source text not null check (source in (
    'user', -- a signed-in person
    'ai', -- what Claude said
    'meta', -- what Meta told
    'system' -- the passing of time: retention, expiry
  )),
  action text not null check (action ~ '^[a-z_]+\.[a-z_]+$'), -- subject and past verb: conversation.archived
  subject_type text not null,
  subject_id uuid not null,
  before jsonb, -- of what changed, ids, states and times only: this outlives what it is about
  after jsonb,
  primary key (workspace_id, id),
  check ((source = 'user') = (actor is not null))
);
comment on table public.audit_log is
  'Who changed what: written by the function that changes the row. Append-only: nobody may update or delete.';
alter table public.audit_log enable row level security;
revoke all on public.audit_log from anon, authenticated, service_role;
revoke all on sequence public.audit_log_id_seq from anon, authenticated, service_role;
grant select on public.audit_log to authenticated;
grant select, insert on public.audit_log to service_role;
grant insert on public.audit_log to parley_writer;
create policy "Members see what was changed" on public.audit_log
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create policy "Writers are logged under their own name" on public.audit_log
  for insert to parley_writer
  with check (
    workspace_id in (select app.writable_workspaces())
    and source = 'user'
    and actor = (select auth.uid()));

-- Log a change, in the transaction that makes it. p_action: 'conversation.archived'; its first half is the subject's type.
-- p_before, p_after: only what changed, never content, names or numbers.
create function app.audit(
  p_workspace_id uuid, p_action text, p_subject_id uuid, p_before jsonb default null, p_after jsonb default null,
  p_source text default 'user'
)
returns void
language sql
set search_path = ''
as $$
  insert into public.audit_log (workspace_id, actor, source, action, subject_type, subject_id, before, after)
  values (
    p_workspace_id, case when p_source = 'user' then app.actor() end, p_source, p_action,
    pg_catalog.split_part(p_action, '.', 1), p_subject_id, p_before, p_after);
$$;
revoke execute on function app.audit from public;
grant execute on function app.audit to parley_writer, service_role;

-- Below: what parley_writer sees and changes, always within the workspaces of whoever asks.
alter policy "People see their own memberships" on public.workspace_members to authenticated, parley_writer;
alter policy "Members see their contacts" on public.contacts to authenticated, parley_writer;
alter policy "Members see their conversations" on public.whatsapp_conversations to authenticated, parley_writer;
alter policy "Members see their messages" on public.whatsapp_messages to authenticated, parley_writer;
alter policy "Members see what became of their messages" on public.message_events to authenticated, parley_writer;
alter policy "Members see their analyses" on public.message_analyses to authenticated, parley_writer;
alter policy "Members see their media" on public.media to authenticated, parley_writer;
grant select on public.workspace_members, public.contacts, public.whatsapp_conversations, public.whatsapp_messages,
  public.message_events, public.message_analyses, public.media to parley_writer;

grant update (blocked_at) on public.contacts to parley_writer;
create policy "Writers change their contacts" on public.contacts
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant update (status, archived_at, blocked_at, deleted_at, read_seq, unread_count)
  on public.whatsapp_conversations to parley_writer;
create policy "Writers change their conversations" on public.whatsapp_conversations
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant update (content, payload, ai_state, ai_reason, analysed_at, sentiment, sentiment_score, intent, ai_summary,
  suggested_response, priority, language) on public.whatsapp_messages to parley_writer;
create policy "Writers wipe their messages" on public.whatsapp_messages
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant update (payload) on public.message_events to parley_writer;
create policy "Writers wipe what became of their messages" on public.message_events
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant update (result) on public.message_analyses to parley_writer;
create policy "Writers wipe their analyses" on public.message_analyses
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant update (state, filename, sha256) on public.media to parley_writer;
create policy "Writers give up their media" on public.media
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant select, insert, update (unblocked_at) on app.contact_blocks to parley_writer;
create policy "Writers see their blocks" on app.contact_blocks
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers begin blocks" on app.contact_blocks
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers end their blocks" on app.contact_blocks
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant select, update (edit, error) on app.message_states to parley_writer;
create policy "Writers see their messages' states" on app.message_states
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers wipe their messages' states" on app.message_states
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant select, insert, update (until) on app.tombstones to parley_writer;
create policy "Writers see their tombstones" on app.tombstones
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers bury their messages" on app.tombstones
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers keep their tombstones longer" on app.tombstones
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant select, delete on app.conversation_work to parley_writer;
create policy "Writers see their work" on app.conversation_work
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers call their work off" on app.conversation_work
  for delete to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant select, update (state, lease_until, lease_token) on app.outbox to parley_writer;
create policy "Writers see their outbox" on app.outbox
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers call their outbox off" on app.outbox
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant execute on function app.lock_identities, app.message_digest to parley_writer;

-- How long what was deleted is remembered by its digest. Meta redelivers for 7 days, so at least 8; and longer than raw
-- bodies are kept, since they may be replayed: who lengthens that lengthens this.
create function app.tombstone_life()
returns interval
language sql
immutable
set search_path = ''
as $$
  select interval '45 days';
$$;
revoke execute on function app.tombstone_life from public;
grant execute on function app.tombstone_life to parley_writer, service_role;

-- A conversation as the functions below answer: the fields of list_conversations that its own row holds.
create function public.conversation_json(p_conversation public.whatsapp_conversations)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_conversation.id,
    'workspace_id', p_conversation.workspace_id,
    'channel_id', p_conversation.channel_id,
    'contact_id', p_conversation.contact_id,
    'group_id', p_conversation.group_id,
    'status', p_conversation.status,
    'assigned_to', p_conversation.assigned_to,
    'unread_count', p_conversation.unread_count,
    'last_message_at', p_conversation.last_message_at,
    'window_expires_at', p_conversation.window_expires_at,
    'next_seq', p_conversation.next_seq,
    'read_seq', p_conversation.read_seq,
    'archived_at', p_conversation.archived_at,
    'blocked_at', p_conversation.blocked_at,
    'created_at', p_conversation.created_at
  );
$$;
revoke execute on function public.conversation_json from public, anon, authenticated, service_role;
grant execute on function public.conversation_json to parley_writer;

-- A contact with its live conversations, as blocking and unblocking answer.
create function app.blocked_contact_json(p_workspace_id uuid, p_contact_id uuid)
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
revoke execute on function app.blocked_contact_json from public;
grant execute on function app.blocked_contact_json to parley_writer;

-- Lock a conversation that whoever asks is about to change, deleted ones included: deleting twice is fine.
-- Refuses: PT404 unknown, not theirs, or merged into another (deleting that would leave its messages), PT403 a viewer.
create function app.lock_conversation(p_workspace_id uuid, p_conversation_id uuid)
returns public.whatsapp_conversations
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
begin
  perform app.check_writer(p_workspace_id, 'conversation');

  select * into v_conversation
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id
    and merged_into is null
  for no key update;

  if not found then
    raise exception 'conversation not found' using
      errcode = 'PT404', detail = 'conversation_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return v_conversation;
end;
$$;
revoke execute on function app.lock_conversation from public;
grant execute on function app.lock_conversation to parley_writer;

-- Refuse an action that the state of a conversation forbids, with the sentence that says what would help.
-- p_needed: open or archived. Refuses, always: PT404 deleted, PT409 otherwise.
create function app.refuse_action(p_status text, p_needed text)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if p_status = 'deleted' then
    raise exception 'conversation not found' using
      errcode = 'PT404', detail = 'conversation_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  raise exception 'conversation is %', p_status using
    errcode = 'PT409',
    detail = 'conversation_not_' || p_needed,
    hint = case p_status when 'blocked' then 'Unblock the contact first.' else 'Archive it first.' end;
end;
$$;
revoke execute on function app.refuse_action from public;
grant execute on function app.refuse_action to parley_writer;

-- Archive an open conversation on behalf of the person who asks.
-- p_seen_seq: the last seq they saw.
-- Writes: whatsapp_conversations (one row), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer, PT409 blocked, PT409 a message they have not seen, PT422 no seq.
-- Archived already: fine.
create function public.archive_conversation(p_workspace_id uuid, p_conversation_id uuid, p_seen_seq bigint)
returns jsonb
language plpgsql
security definer -- parley_writer's, as all below: users hold select only
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
begin
  v_conversation := app.lock_conversation(p_workspace_id, p_conversation_id);
  if v_conversation.status = 'archived' then
    return public.conversation_json(v_conversation);
  elsif v_conversation.status <> 'open' then
    perform app.refuse_action(v_conversation.status, 'open');
  end if;

  if p_seen_seq is null then
    raise exception 'no seen_seq' using
      errcode = 'PT422', detail = 'bad_seq', hint = 'Say which message you saw last: its seq, or 0 for none.';
  end if;
  -- Messages come under the conversation's lock, so none arrives between this and the update. Those sent while
  -- blocked are shown to nobody, so nobody can have seen them.
  if v_conversation.next_seq - 1 > p_seen_seq and exists (
    select from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id
      and m.conversation_id = p_conversation_id
      and m.seq > p_seen_seq
      and m.suppressed_at is null
  ) then
    raise exception 'a message arrived meanwhile' using
      errcode = 'PT409', detail = 'new_message', hint = 'Read it first, then archive with its seq.';
  end if;

  update public.whatsapp_conversations
  set status = 'archived', archived_at = now()
  where workspace_id = p_workspace_id
    and id = p_conversation_id
  returning * into v_conversation;

  perform app.audit(p_workspace_id, 'conversation.archived', p_conversation_id, '{"status": "open"}', '{"status": "archived"}');
  return public.conversation_json(v_conversation);
end;
$$;
revoke execute on function public.archive_conversation from public, anon, service_role;
grant execute on function public.archive_conversation to authenticated;
select app.give_to_writer('public.archive_conversation');

-- Reopen an archived conversation on behalf of the person who asks.
-- Writes: whatsapp_conversations (one row), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer, PT409 blocked. Open already: fine.
create function public.reopen_conversation(p_workspace_id uuid, p_conversation_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
begin
  v_conversation := app.lock_conversation(p_workspace_id, p_conversation_id);
  if v_conversation.status = 'open' then
    return public.conversation_json(v_conversation);
  elsif v_conversation.status <> 'archived' then
    perform app.refuse_action(v_conversation.status, 'archived');
  end if;

  update public.whatsapp_conversations
  set status = 'open', archived_at = null
  where workspace_id = p_workspace_id
    and id = p_conversation_id
  returning * into v_conversation;

  perform app.audit(p_workspace_id, 'conversation.reopened', p_conversation_id, '{"status": "archived"}', '{"status": "open"}');
  return public.conversation_json(v_conversation);
end;
$$;
revoke execute on function public.reopen_conversation from public, anon, service_role;
grant execute on function public.reopen_conversation to authenticated;
select app.give_to_writer('public.reopen_conversation');

-- Mark a conversation read up to the last message the person saw; never back, never past the last there is.
-- Writes: whatsapp_conversations (one row), audit_log. Called by: services/api and frontends, as the user.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer, PT422 no seq. Read already: fine.
create function public.mark_conversation_read(p_workspace_id uuid, p_conversation_id uuid, p_seen_seq bigint)
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
  return public.conversation_json(v_conversation);
end;
$$;
revoke execute on function public.mark_conversation_read from public, anon, service_role;
grant execute on function public.mark_conversation_read to authenticated;
select app.give_to_writer('public.mark_conversation_read');

-- Lock the contact that goes on under an id, holding the workspace's identities alone, so that nobody is merged or
-- recorded meanwhile.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer.
create function app.lock_contact(p_workspace_id uuid, p_contact_id uuid)
returns public.contacts
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_contact public.contacts;
  v_id uuid := p_contact_id;
begin
  perform app.check_writer(p_workspace_id, 'contact');
  perform app.lock_identities(array[p_workspace_id], true);

  while v_id is not null loop
    select * into v_contact
    from public.contacts
    where workspace_id = p_workspace_id
      and id = v_id;
    v_id := v_contact.merged_into;
  end loop;

  -- Merging needs the identities too, so this is still who it was; the rest of the row may have moved on.
  select * into v_contact
  from public.contacts
  where workspace_id = p_workspace_id
    and id = v_contact.id
  for no key update;

  if not found then
    raise exception 'contact not found' using
      errcode = 'PT404', detail = 'contact_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return v_contact;
end;
$$;
revoke execute on function app.lock_contact from public;
grant execute on function app.lock_contact to parley_writer;

-- Move a locked contact's live conversations to a status, blocked or open, in key order.
-- Archived ones are blocked too, though the specification draws the arrow from open only: nothing of somebody blocked
-- should show. Unblocking opens all of them, as drawn.
create function app.set_blocked(p_workspace_id uuid, p_contact_id uuid, p_blocked_at timestamptz)
returns void
language plpgsql
security invoker
set search_path = ''
as $$
declare
  v_to text := case when p_blocked_at is null then 'open' else 'blocked' end;
  v_conversation record;
begin
  update public.contacts
  set blocked_at = p_blocked_at
  where workspace_id = p_workspace_id
    and id = p_contact_id;

  for v_conversation in
    select id, status
    from public.whatsapp_conversations
    where workspace_id = p_workspace_id
      and contact_id = p_contact_id
      and status in ('open', 'archived', 'blocked')
      and (status = 'blocked') = (p_blocked_at is null)
    order by id
    for no key update
  loop
    update public.whatsapp_conversations
    set status = v_to, blocked_at = p_blocked_at, archived_at = null
    where workspace_id = p_workspace_id
      and id = v_conversation.id;
    perform app.audit(
      p_workspace_id, case v_to when 'blocked' then 'conversation.blocked' else 'conversation.unblocked' end, v_conversation.id,
      pg_catalog.jsonb_build_object('status', v_conversation.status), pg_catalog.jsonb_build_object('status', v_to));
  end loop;
end;
$$;
revoke execute on function app.set_blocked from public;
grant execute on function app.set_blocked to parley_writer;

-- Block a contact, and with them their conversations on every channel, on behalf of the person who asks.
-- What they send from now on is stored, suppressed; what Claude has not looked at yet, its worker skips.
-- Writes: contact_blocks, contacts, whatsapp_conversations, audit_log. Called by: services/api and frontends, as the user.
-- Locks: identities, the contact, their conversations in key order.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer. Blocked already: fine.
create function public.block_contact(p_workspace_id uuid, p_contact_id uuid)
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
    perform app.audit(
      p_workspace_id, 'contact.blocked', v_contact.id,
      '{"blocked_at": null}', pg_catalog.jsonb_build_object('blocked_at', v_now));
  end if;
  return app.blocked_contact_json(p_workspace_id, v_contact.id);
end;
$$;
revoke execute on function public.block_contact from public, anon, service_role;
grant execute on function public.block_contact to authenticated;
select app.give_to_writer('public.block_contact');

-- Unblock a contact and open their conversations, on behalf of the person who asks.
-- Writes: contact_blocks, contacts, whatsapp_conversations, audit_log. Called by: services/api and frontends, as the user.
-- Locks: identities, the contact, their conversations in key order.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer. Not blocked: fine.
create function public.unblock_contact(p_workspace_id uuid, p_contact_id uuid)
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
    perform app.audit(
      p_workspace_id, 'contact.unblocked', v_contact.id,
      pg_catalog.jsonb_build_object('blocked_at', v_contact.blocked_at), '{"blocked_at": null}');
  end if;
  return app.blocked_contact_json(p_workspace_id, v_contact.id);
end;
$$;
revoke execute on function public.unblock_contact from public, anon, service_role;
grant execute on function public.unblock_contact to authenticated;
select app.give_to_writer('public.unblock_contact');

-- Delete an archived or blocked conversation on behalf of the person who asks. For people this is final: the rows stay,
-- since other rows point at them, but what was said in them is gone; and Meta bringing it again changes nothing.
-- Writes: whatsapp_conversations, conversation_work, message_states, whatsapp_messages, outbox, message_analyses,
--   message_events, media, tombstones, audit_log. Called by: services/api and frontends, as the user.
-- Locks: identities, then the above in this order. Recorders look for tombstones and for the live conversation with the
-- identities in hand: were they not held alone, one at it could put an edit, or a message, into what is deleted here.
-- Refuses: PT404 unknown or not theirs, PT403 a viewer, PT409 open. Deleted already: fine.
create function public.delete_conversation(p_workspace_id uuid, p_conversation_id uuid)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
  v_status text;
begin
  perform app.check_writer(p_workspace_id, 'conversation');
  perform app.lock_identities(array[p_workspace_id], true);
  v_conversation := app.lock_conversation(p_workspace_id, p_conversation_id);
  v_status := v_conversation.status;
  if v_status = 'deleted' then
    return public.conversation_json(v_conversation);
  elsif v_status = 'open' then
    perform app.refuse_action(v_status, 'archived');
  end if;

  update public.whatsapp_conversations
  set status = 'deleted', deleted_at = now(), unread_count = 0
  where workspace_id = p_workspace_id
    and id = p_conversation_id
  returning * into v_conversation;

  -- Without its row a worker that is at it records nothing.
  delete from app.conversation_work
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id;

  perform 1
  from public.whatsapp_messages m
  join app.message_states s on s.workspace_id = m.workspace_id and s.channel_id = m.channel_id and s.wamid = m.wamid
  where m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
  order by s.channel_id, s.wamid
  for no key update of s;
  update app.message_states s
  set edit = null, error = null
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
    and s.workspace_id = m.workspace_id
    and s.channel_id = m.channel_id
    and s.wamid = m.wamid;

  perform 1
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
  order by m.id
  for no key update;
  update public.whatsapp_messages
  set content = null, payload = '{}', ai_state = 'skipped', ai_reason = 'deleted', analysed_at = null,
      sentiment = null, sentiment_score = null, intent = null, ai_summary = null, suggested_response = null,
      priority = null, language = null
  where workspace_id = p_workspace_id
    and conversation_id = p_conversation_id;

  perform 1
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.state = 'due'
    and o.message_id in (
      select m.id from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id and m.conversation_id = p_conversation_id)
  order by o.id
  for no key update;
  update app.outbox
  set state = 'expired', lease_until = null, lease_token = null
  where workspace_id = p_workspace_id
    and state = 'due'
    and message_id in (
      select m.id from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id and m.conversation_id = p_conversation_id);

  update public.message_analyses
  set result = '{}'
  where workspace_id = p_workspace_id
    and message_id in (
      select m.id from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id and m.conversation_id = p_conversation_id);

  update public.message_events e
  set payload = null
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
    and e.workspace_id = m.workspace_id
    and e.channel_id = m.channel_id
    and e.wamid = m.wamid;

  -- storage_key stays: it says which file is still to be removed.
  update public.media
  set state = 'gone', filename = null, sha256 = null
  where workspace_id = p_workspace_id
    and message_id in (
      select m.id from public.whatsapp_messages m
      where m.workspace_id = p_workspace_id and m.conversation_id = p_conversation_id);

  insert into app.tombstones as t (workspace_id, digest, until)
  select m.workspace_id, app.message_digest(m.channel_id, m.wamid), now() + app.tombstone_life()
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.conversation_id = p_conversation_id
    and m.wamid is not null
  order by 2
  on conflict (workspace_id, digest) do update
    set until = greatest(t.until, excluded.until);

  perform app.audit(
    p_workspace_id, 'conversation.deleted', p_conversation_id,
    pg_catalog.jsonb_build_object('status', v_status), '{"status": "deleted"}');
  return public.conversation_json(v_conversation);
end;
$$;
revoke execute on function public.delete_conversation from public, anon, service_role;
grant execute on function public.delete_conversation to authenticated;
select app.give_to_writer('public.delete_conversation');

notify pgrst, 'reload schema';
