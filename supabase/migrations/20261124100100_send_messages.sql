-- What people ask to be sent: queued, scheduled, cancelled, tried again, as the person who asks.
set lock_timeout = '5s';

-- What parley_writer sees and changes besides: always within the workspaces of whoever asks.
alter policy "Members see their workspace" on public.workspaces to authenticated, parley_writer;
alter policy "Members see their channels" on public.whatsapp_channels to authenticated, parley_writer;
alter policy "Members see their contacts' identities" on public.contact_identities to authenticated, parley_writer;
alter policy "Members see their templates" on public.whatsapp_templates to authenticated, parley_writer;
grant select on public.workspaces, public.whatsapp_channels, public.contact_identities, public.whatsapp_templates to parley_writer;

grant insert (workspace_id, id, first_seen_at) on public.contacts to parley_writer;
create policy "Writers add contacts they write to" on public.contacts
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

grant insert on public.contact_identities to parley_writer;
create policy "Writers name whom they write to" on public.contact_identities
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

grant insert, update (next_seq, last_message_at) on public.whatsapp_conversations to parley_writer;
create policy "Writers begin conversations" on public.whatsapp_conversations
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

grant insert, update (status, error, sending) on public.whatsapp_messages to parley_writer;
create policy "Writers write messages" on public.whatsapp_messages
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()) and direction = 'outbound');

grant update (message_id) on public.media to parley_writer;

grant select on app.channel_tokens to parley_writer;
create policy "Writers see whether a number has a token" on app.channel_tokens
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant select on app.media_uploads to parley_writer;
create policy "Writers see which files Meta has" on app.media_uploads
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant insert, update (next_attempt_at, wait_reason, expires_at, finished_at, error) on app.outbox to parley_writer;
create policy "Writers queue what they say" on app.outbox
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

grant select, insert on app.send_pairs to parley_writer;
create policy "Writers see their pairs" on app.send_pairs
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers begin pairs" on app.send_pairs
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

grant select, insert on app.send_requests to parley_writer;
create policy "Writers see what was asked" on app.send_requests
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers ask" on app.send_requests
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

grant select, update (evidence, settled_at) on app.send_attempts to parley_writer;
create policy "Writers see their attempts" on app.send_attempts
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers settle their attempts" on app.send_attempts
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant execute on function app.phone_owner, app.contact_of to parley_writer;

-- One message as the API shows it: what intake knows of it, and what sending does.
alter function public.message_json(public.whatsapp_messages) rename to recorded_message_json;
create function public.message_json(p_message public.whatsapp_messages)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select public.recorded_message_json(p_message) || pg_catalog.jsonb_build_object(
    'sent_by', p_message.sent_by,
    'retry_of', p_message.retry_of,
    'template_id', p_message.template_id,
    'bulk_id', p_message.bulk_id,
    'send_at', p_message.send_at,
    'sending', p_message.sending);
$$;
revoke execute on function public.message_json from public, anon, service_role;
grant execute on function public.message_json to authenticated, parley_writer;
grant execute on function public.recorded_message_json to parley_writer;

-- Remember what a request made. Returns false when it was asked before; the caller then shows that thing.
-- Refuses: PT409 the same key with another body, PT422 no key.
create function app.is_new_request(p_workspace_id uuid, p_request_id text, p_digest text, p_subject_id uuid)
returns boolean
language plpgsql
set search_path = ''
as $$
declare
  v_digest bytea := pg_catalog.decode(p_digest, 'hex');
  v_known bytea;
begin
  if coalesce(p_request_id, '') = '' or pg_catalog.length(p_request_id) > 255 then
    raise exception 'an idempotency key is needed' using errcode = 'PT422', detail = 'idempotency_key_missing',
      hint = 'Send an Idempotency-Key of 1 to 255 characters: a new one for each thing you mean to do once.';
  end if;
  insert into app.send_requests (workspace_id, request_id, digest, subject_id)
  values (p_workspace_id, p_request_id, v_digest, p_subject_id)
  on conflict do nothing;
  if found then
    return true;
  end if;
  select r.digest into strict v_known
  from app.send_requests r
  where r.workspace_id = p_workspace_id
    and r.request_id = p_request_id;
  if v_known <> v_digest then
    raise exception 'this key was used for another request' using errcode = 'PT409', detail = 'idempotency_key_reused',
      hint = 'A key stands for one request. Use a new one for a new request, the same one only to repeat it unchanged.';
  end if;
  return false;
end;
$$;
revoke execute on function app.is_new_request from public;
grant execute on function app.is_new_request to parley_writer, service_role;

-- Queue something that may be repeated. p_priority: see sending_tables. Returns its id.
create function app.queue_chore(
  p_workspace_id uuid, p_channel_id uuid, p_kind text, p_payload jsonb, p_priority smallint, p_expires_in interval,
  p_lane uuid default null, p_message_id uuid default null
)
returns uuid
language plpgsql
set search_path = ''
as $$
declare
  v_id uuid := pg_catalog.gen_random_uuid();
begin
  insert into app.outbox (workspace_id, id, channel_id, kind, message_id, payload, priority, expires_at, lane)
  values (p_workspace_id, v_id, p_channel_id, p_kind, p_message_id, p_payload, p_priority, now() + p_expires_in, p_lane)
  on conflict (workspace_id, lane) where kind = 'mark_read' and state = 'due' and lease_token is null do nothing;
  return v_id;
end;
$$;
revoke execute on function app.queue_chore from public;
grant execute on function app.queue_chore to parley_writer, service_role;

-- The files of ours that a payload names.
create function app.media_in(p_payload jsonb)
returns uuid[]
language sql
immutable
set search_path = ''
as $$
  select coalesce(pg_catalog.array_agg(distinct f.found[1]::uuid), '{}')
  from pg_catalog.regexp_matches(
    p_payload::text, '"id": "parley:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"', 'g') as f(found);
$$;
revoke execute on function app.media_in from public;
grant execute on function app.media_in to parley_writer, service_role;

-- Ask for files to be brought to Meta for a number, but for those it has or that are on the way.
-- Returns how many are missing.
create function app.queue_uploads(p_workspace_id uuid, p_channel_id uuid, p_media_ids uuid[])
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_missing uuid[];
begin
  select pg_catalog.array_agg(f.id) into v_missing
  from pg_catalog.unnest(p_media_ids) f(id)
  where not exists (
    select from app.media_uploads u
    where u.workspace_id = p_workspace_id and u.media_id = f.id and u.channel_id = p_channel_id
      and u.expires_at > now() + interval '1 hour');
  perform app.queue_chore(
    p_workspace_id, p_channel_id, 'media_upload', pg_catalog.jsonb_build_object('media_id', f.id), 2::smallint, interval '1 day')
  from pg_catalog.unnest(v_missing) f(id)
  where not exists (
    select from app.outbox o
    where o.workspace_id = p_workspace_id and o.channel_id = p_channel_id and o.kind = 'media_upload' and o.state = 'due'
      and o.payload ->> 'media_id' = f.id::text);
  return coalesce(pg_catalog.cardinality(v_missing), 0);
end;
$$;
revoke execute on function app.queue_uploads from public;
grant execute on function app.queue_uploads to parley_writer, service_role;

-- Queue a message whose row is there. p_state: due, or held until a person lets it go.
create function app.queue_message(
  p_message public.whatsapp_messages, p_priority smallint, p_is_marketing boolean, p_media_ids uuid[], p_expires_at timestamptz,
  p_state text default 'due'
)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_missing integer := app.queue_uploads(p_message.workspace_id, p_message.channel_id, p_media_ids);
  v_reason text := case when p_state <> 'due' then null
                        when p_message.send_at > now() then 'scheduled'
                        when v_missing > 0 then 'media' end;
begin
  insert into app.send_pairs (workspace_id, lane)
  values (p_message.workspace_id, p_message.conversation_id)
  on conflict do nothing;
  insert into app.outbox (
    workspace_id, id, channel_id, kind, message_id, payload, priority, state, wait_reason, next_attempt_at, expires_at, lane,
    is_marketing, bulk_id)
  values (
    p_message.workspace_id, pg_catalog.gen_random_uuid(), p_message.channel_id, 'message', p_message.id,
    case when p_media_ids = '{}' then '{}' else pg_catalog.jsonb_build_object('media_ids', p_media_ids) end,
    p_priority, case when v_reason is null then p_state else 'waiting' end, v_reason,
    -- Its file may have arrived while this was being written, and let nobody go: in 10 s a claim looks.
    case v_reason when 'scheduled' then p_message.send_at when 'media' then now() + interval '10 seconds' else now() end,
    p_expires_at, p_message.conversation_id, p_is_marketing, p_message.bulk_id);
end;
$$;
revoke execute on function app.queue_message from public;
grant execute on function app.queue_message to parley_writer, service_role;

-- The contact behind a phone number or user id, made if nobody knows them. The caller holds the identities: shared will
-- do for somebody known, alone for somebody new.
create function app.outbound_contact(p_workspace_id uuid, p_channel_id uuid, p_wa_id text, p_user_id text)
returns uuid
language plpgsql
set search_path = ''
as $$
declare
  v_portfolio_id text;
  v_contact_id uuid;
  v_at timestamptz := pg_catalog.clock_timestamp();
begin
  select c.portfolio_id into strict v_portfolio_id
  from public.whatsapp_channels c
  where c.workspace_id = p_workspace_id
    and c.id = p_channel_id;
  v_contact_id := app.contact_of(p_workspace_id, v_portfolio_id, p_user_id, p_wa_id, v_at);
  if v_contact_id is null then
    v_contact_id := pg_catalog.gen_random_uuid();
    insert into public.contacts (workspace_id, id, first_seen_at) values (p_workspace_id, v_contact_id, v_at);
    insert into public.contact_identities (workspace_id, portfolio_id, kind, value, user_id, contact_id, seen_at)
    values (p_workspace_id, v_portfolio_id, case when p_user_id is null then 'wa_id' else 'bsuid' end,
            coalesce(p_user_id, p_wa_id), coalesce(p_user_id, ''), v_contact_id, v_at);
  end if;
  return v_contact_id;
end;
$$;
revoke execute on function app.outbound_contact from public;
grant execute on function app.outbound_contact to parley_writer, service_role;

-- A contact's live conversation on a number, begun if there is none. The caller holds the identities.
create function app.outbound_conversation(p_workspace_id uuid, p_channel_id uuid, p_contact_id uuid)
returns uuid
language plpgsql
set search_path = ''
as $$
declare
  v_id uuid;
begin
  insert into public.whatsapp_conversations (workspace_id, id, channel_id, contact_id, status, blocked_at, last_message_at)
  select p_workspace_id, pg_catalog.gen_random_uuid(), p_channel_id, p_contact_id,
         case when k.blocked_at is null then 'open' else 'blocked' end, k.blocked_at, now()
  from public.contacts k
  where k.workspace_id = p_workspace_id
    and k.id = p_contact_id
    and not exists (
      select from public.whatsapp_conversations v
      where v.workspace_id = p_workspace_id and v.channel_id = p_channel_id and v.contact_id = p_contact_id
        and v.deleted_at is null)
  on conflict do nothing;
  select v.id into strict v_id
  from public.whatsapp_conversations v
  where v.workspace_id = p_workspace_id
    and v.channel_id = p_channel_id
    and v.contact_id = p_contact_id
    and v.deleted_at is null;
  return v_id;
end;
$$;
revoke execute on function app.outbound_conversation from public;
grant execute on function app.outbound_conversation to parley_writer, service_role;

-- How to address a contact: by phone where one is known to be theirs, since that keeps numbers in Meta's webhooks.
create function app.address_of(p_workspace_id uuid, p_channel_id uuid, p_contact_id uuid, out wa_id text, out user_id text)
language sql
stable
set search_path = ''
as $$
  select (
    select i.value
    from public.contact_identities i
    where i.workspace_id = p_workspace_id and i.contact_id = p_contact_id and i.kind = 'wa_id' and i.portfolio_id = c.portfolio_id
      and app.phone_owner(p_workspace_id, i.portfolio_id, i.value, now()) = i.user_id
    order by i.seen_at desc, i.value
    limit 1
  ), (
    select i.value
    from public.contact_identities i
    where i.workspace_id = p_workspace_id and i.contact_id = p_contact_id and i.kind = 'bsuid' and i.portfolio_id = c.portfolio_id
    order by i.seen_at desc, i.value
    limit 1
  )
  from public.whatsapp_channels c
  where c.workspace_id = p_workspace_id
    and c.id = p_channel_id;
$$;
revoke execute on function app.address_of from public;
grant execute on function app.address_of to parley_writer, service_role;

-- Refuse a number through which nothing goes. Refuses: PT404 unknown, PT409 not connected, without token, paused or held.
create function app.check_sending(p_workspace_id uuid, p_channel_id uuid)
returns public.whatsapp_channels
language plpgsql
stable
set search_path = ''
as $$
declare
  v_channel public.whatsapp_channels;
  v_held text;
begin
  select * into v_channel
  from public.whatsapp_channels
  where workspace_id = p_workspace_id
    and id = p_channel_id;
  if not found then
    raise exception 'channel not found' using
      errcode = 'PT404', detail = 'channel_not_found', hint = 'It does not exist, or it is not yours. GET /api/whatsapp/channels lists yours.';
  end if;
  v_held := case
    when v_channel.state = 'paused' then coalesce(v_channel.paused_reason, 'by_person')
    when v_channel.hold_reason is not null and coalesce(v_channel.hold_until, 'infinity') > now() then v_channel.hold_reason end;
  if v_channel.state = 'disconnected'
    or not exists (select from app.channel_tokens t where t.workspace_id = p_workspace_id and t.channel_id = p_channel_id)
  then
    raise exception 'this number cannot send' using errcode = 'PT409', detail = 'channel_not_connected',
      hint = 'An owner or admin connects it, with a token of Meta''s, under channels.';
  elsif v_held is not null then
    raise exception 'sending through this number is held: %', v_held using errcode = 'PT409', detail = 'channel_paused',
      hint = 'Sending through this number is paused (' || v_held || '). An owner or admin can look into it, and resume it, under channels.';
  end if;
  return v_channel;
end;
$$;
revoke execute on function app.check_sending from public;
grant execute on function app.check_sending to parley_writer, service_role;

create function app.raise_not_found(p_noun text)
returns void
language plpgsql
set search_path = ''
as $$
begin
  raise exception '% not found', p_noun using
    errcode = 'PT404', detail = p_noun || '_not_found', hint = 'It does not exist, or it is not yours.';
end;
$$;
revoke execute on function app.raise_not_found from public;
grant execute on function app.raise_not_found to parley_writer, service_role;

-- Find, or begin, the conversation that a message goes to, with the identities in hand and its row locked.
-- p_message: {conversation_id} or {channel_id, contact_id} or {channel_id, to: {wa_id | user_id}}.
-- Refuses: PT404, and PT409 blocked or not open.
create function app.lock_recipient(p_workspace_id uuid, p_message jsonb)
returns public.whatsapp_conversations
language plpgsql
set search_path = ''
as $$
declare
  v_channel_id uuid := (p_message ->> 'channel_id')::uuid;
  v_id uuid := (p_message ->> 'conversation_id')::uuid;
  v_contact_id uuid := (p_message ->> 'contact_id')::uuid;
  v_wa_id text := p_message #>> '{to,wa_id}';
  v_user_id text := p_message #>> '{to,user_id}';
  v_portfolio_id text;
  v_into uuid;
  v_conversation public.whatsapp_conversations;
begin
  if v_id is null then
    select c.portfolio_id into v_portfolio_id
    from public.whatsapp_channels c
    where c.workspace_id = p_workspace_id
      and c.id = v_channel_id;
    if not found then
      perform app.raise_not_found('channel');
    elsif v_contact_id is null and v_wa_id is null and v_user_id is null then
      perform app.raise_not_found('contact');
    end if;
  end if;
  -- Nobody is merged or erased meanwhile; and somebody new, or a conversation that is not there, is made by one alone.
  perform app.lock_identities(array[p_workspace_id], v_id is null and not exists (
    select from public.whatsapp_conversations v
    where v.workspace_id = p_workspace_id
      and v.channel_id = v_channel_id
      and v.deleted_at is null
      and v.contact_id = coalesce(
        v_contact_id, app.contact_of(p_workspace_id, v_portfolio_id, v_user_id, v_wa_id, pg_catalog.clock_timestamp()))));

  if v_id is null then
    while v_contact_id is not null loop
      select c.merged_into into v_into
      from public.contacts c
      where c.workspace_id = p_workspace_id
        and c.id = v_contact_id;
      if not found then
        perform app.raise_not_found('contact');
      end if;
      exit when v_into is null;
      v_contact_id := v_into;
    end loop;
    v_id := app.outbound_conversation(p_workspace_id, v_channel_id, coalesce(
      v_contact_id, app.outbound_contact(p_workspace_id, v_channel_id, v_wa_id, v_user_id)));
  end if;

  loop
    select * into v_conversation
    from public.whatsapp_conversations
    where workspace_id = p_workspace_id
      and id = v_id
    for no key update;
    exit when v_conversation.merged_into is null;
    v_id := v_conversation.merged_into;
  end loop;
  if v_conversation.id is null or v_conversation.status = 'deleted' then
    perform app.raise_not_found('conversation');
  elsif v_conversation.status = 'blocked' then
    raise exception 'the contact is blocked' using errcode = 'PT409', detail = 'contact_blocked', hint = 'Unblock the contact first.';
  elsif v_conversation.status <> 'open' then
    raise exception 'conversation is %', v_conversation.status using
      errcode = 'PT409', detail = 'conversation_not_open', hint = 'Reopen it first.';
  end if;
  return v_conversation;
end;
$$;
revoke execute on function app.lock_recipient from public;
grant execute on function app.lock_recipient to parley_writer;

-- The template a message names, if it may be sent now. Refuses: PT422 not approved or not known, PT409 opted out.
create function app.check_template(p_channel public.whatsapp_channels, p_payload jsonb, p_contact_id uuid)
returns public.whatsapp_templates
language plpgsql
stable
set search_path = ''
as $$
declare
  v_template public.whatsapp_templates;
begin
  select * into v_template
  from public.whatsapp_templates t
  where t.workspace_id = p_channel.workspace_id
    and t.waba_id = p_channel.waba_id
    and t.template_name = p_payload #>> '{template,name}'
    and t.language = p_payload #>> '{template,language,code}';
  if not found then
    raise exception 'there is no such template' using errcode = 'PT422', detail = 'template_not_approved',
      hint = 'The number''s account has no template of this name in this language. Synchronise the templates, or choose another.';
  elsif v_template.status <> 'approved' then
    raise exception 'the template is %', v_template.status using errcode = 'PT422', detail = 'template_not_approved',
      hint = 'Only approved templates can be sent; this one is ' || v_template.status || '. Choose another.';
  elsif v_template.category = 'marketing' and exists (
    select from public.contacts c
    where c.workspace_id = p_channel.workspace_id and c.id = p_contact_id and c.opted_out_at is not null)
  then
    raise exception 'the contact wants no marketing' using errcode = 'PT409', detail = 'opted_out',
      hint = 'The customer wants no marketing messages from you.';
  end if;
  return v_template;
end;
$$;
revoke execute on function app.check_template from public;
grant execute on function app.check_template to parley_writer, service_role;

-- Refuse a payload that is not what its type says, and nothing more: it becomes part of the request to Meta, and people may
-- call send_message without the API in front of it. The particulars of each type are the API's (shared/whatsapp/outbound).
create function app.check_payload(p_message_type text, p_payload jsonb)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if p_message_type in (
      'text', 'image', 'audio', 'video', 'document', 'sticker', 'location', 'contacts', 'interactive', 'template', 'reaction')
    and pg_catalog.jsonb_typeof(p_payload) = 'object'
    and p_payload ->> 'type' = p_message_type
    and p_payload ? p_message_type
    and (p_payload - 'type' - p_message_type = '{}'
      or p_message_type = 'text' -- Direct Send, which needs no window
        and p_payload - 'type' - 'text' - 'category' - 'ttl_seconds' = '{}'
        and p_payload ->> 'category' in ('utility', 'authentication')
        and pg_catalog.jsonb_typeof(p_payload -> 'ttl_seconds') = 'number')
  then
    return;
  end if;
  raise exception 'the payload is not what its type says' using errcode = 'PT422', detail = 'payload_not_valid',
    hint = 'Send the message by POST /api/whatsapp/send, which builds what WhatsApp expects.';
end;
$$;
revoke execute on function app.check_payload from public;
grant execute on function app.check_payload to parley_writer;

-- Refuse what cannot be answered to, or files that are not there. Returns the wamid of the message answered to.
create function app.check_references(p_conversation public.whatsapp_conversations, p_message jsonb)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_reply_to public.whatsapp_messages;
  v_file uuid;
begin
  select f.id into v_file
  from pg_catalog.unnest(app.media_in(p_message -> 'payload')) f(id)
  where not exists (
    select from public.media x
    where x.workspace_id = p_conversation.workspace_id and x.id = f.id and x.state = 'stored')
  limit 1;
  if found then
    raise exception 'a file is not there' using errcode = 'PT422', detail = 'media_not_ready',
      hint = 'Upload the file first (POST /api/whatsapp/media), and name it by the id you get.';
  end if;
  if p_message ->> 'retry_of' is not null and not exists (
    select from public.whatsapp_messages m
    where m.workspace_id = p_conversation.workspace_id and m.id = (p_message ->> 'retry_of')::uuid
      and m.conversation_id = p_conversation.id and m.direction = 'outbound' and m.status = 'failed')
  then
    perform app.raise_not_found('message');
  end if;
  if p_message ->> 'reply_to_wamid' is null and p_message ->> 'reply_to_id' is null then
    return null;
  end if;
  select * into v_reply_to
  from public.whatsapp_messages m
  where m.workspace_id = p_conversation.workspace_id
    and m.channel_id = p_conversation.channel_id
    and (m.id = (p_message ->> 'reply_to_id')::uuid or m.wamid = p_message ->> 'reply_to_wamid')
    and m.conversation_id = p_conversation.id;
  if not found then
    perform app.raise_not_found('reply_target');
  elsif v_reply_to.wamid is null then
    raise exception 'the message answered to is not sent yet' using errcode = 'PT409', detail = 'reply_target_not_sent',
      hint = 'Wait until it is sent, or answer without a quotation.';
  end if;
  return v_reply_to.wamid;
end;
$$;
revoke execute on function app.check_references from public;
grant execute on function app.check_references to parley_writer;

-- Queue a message on behalf of the person who asks: the row, its place in the outbox and the log, in one transaction.
-- p_request_id, p_digest: the client's key and the sha256 (hex) of what it asked: the same again is the same message.
-- p_message: {id, conversation_id | channel_id with contact_id or to {wa_id | user_id}, message_type, content, payload (as
--   Meta's request body has it), reply_to_id | reply_to_wamid, send_at, seen_seq, retry_of, suggestion_id (the customer's
--   message whose suggestion it was made from; one that is not there any more is passed over)}.
-- Writes: send_requests, contacts, contact_identities, whatsapp_conversations, whatsapp_messages, media, send_pairs, outbox,
--   audit_log. Called by: services/sender and frontends, as the user. Locks: identities, then in that order.
-- Refuses: PT404, PT403 a viewer, PT409 and PT422 as the functions it calls, and: PT422 reply_window_closed, send_at_not_valid,
--   payload_not_valid, PT409 new_message, too_many_queued, contact_unreachable.
create function public.send_message(p_workspace_id uuid, p_request_id text, p_digest text, p_message jsonb)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_id uuid := (p_message ->> 'id')::uuid;
  v_payload jsonb := p_message -> 'payload';
  v_send_at timestamptz := (p_message ->> 'send_at')::timestamptz;
  v_media_ids uuid[] := app.media_in(p_message -> 'payload');
  v_conversation public.whatsapp_conversations;
  v_channel public.whatsapp_channels;
  v_template public.whatsapp_templates;
  v_reply_to text;
  v_address record;
  v_message public.whatsapp_messages;
begin
  perform app.check_writer(p_workspace_id, 'workspace');
  if not app.is_new_request(p_workspace_id, p_request_id, p_digest, v_id) then
    select m.* into v_message
    from app.send_requests r
    join public.whatsapp_messages m on m.workspace_id = r.workspace_id and m.id = r.subject_id
    where r.workspace_id = p_workspace_id
      and r.request_id = p_request_id;
    if not found then
      perform app.raise_not_found('message');
    end if;
    return public.message_json(v_message);
  end if;
  perform app.check_payload(p_message ->> 'message_type', v_payload);
  if v_send_at is not null and v_send_at > now() + interval '90 days' then
    raise exception 'too far ahead' using errcode = 'PT422', detail = 'send_at_not_valid',
      hint = 'A message can be scheduled up to 90 days ahead.';
  elsif v_send_at <= now() then
    v_send_at := null;
  end if;

  v_conversation := app.lock_recipient(p_workspace_id, p_message);
  v_channel := app.check_sending(p_workspace_id, v_conversation.channel_id);
  if p_message ->> 'message_type' = 'template' then
    v_template := app.check_template(v_channel, v_payload, v_conversation.contact_id);
  elsif not v_payload ? 'category' -- what goes by Direct Send needs no window
    and coalesce(v_conversation.window_expires_at, '-infinity') < coalesce(v_send_at, now()) + interval '1 minute'
  then
    raise exception 'the reply window is closed' using errcode = 'PT422', detail = 'reply_window_closed',
      hint = case when v_send_at is not null and v_conversation.window_expires_at > now()
        then 'The window for replies will be closed by then; send it earlier, or send a template.'
        else 'The customer last wrote more than 24 hours ago, or never; send a template instead.' end;
  end if;
  v_reply_to := app.check_references(v_conversation, p_message);
  if p_message ? 'seen_seq' and exists (
    select from public.whatsapp_messages m
    where m.workspace_id = p_workspace_id and m.conversation_id = v_conversation.id and m.direction = 'inbound'
      and m.suppressed_at is null and m.seq > (p_message ->> 'seen_seq')::bigint)
  then
    raise exception 'a message arrived meanwhile' using errcode = 'PT409', detail = 'new_message', hint = 'Read it first.';
  elsif (
    select count(*)
    from app.outbox o
    where o.workspace_id = p_workspace_id and o.lane = v_conversation.id and o.kind = 'message'
      and o.state in ('due', 'waiting', 'in_doubt')) >= 100
  then
    raise exception 'too many messages wait' using errcode = 'PT409', detail = 'too_many_queued',
      hint = '100 messages to this customer wait already; WhatsApp lets one go every 6 seconds.';
  end if;
  v_address := app.address_of(p_workspace_id, v_channel.id, v_conversation.contact_id);
  if v_conversation.group_id is null and v_address.wa_id is null and v_address.user_id is null then
    raise exception 'the contact cannot be addressed' using errcode = 'PT409', detail = 'contact_unreachable',
      hint = 'We know neither a phone number nor a user id of this contact on this number''s account.';
  end if;

  insert into public.whatsapp_messages (
    workspace_id, id, conversation_id, channel_id, contact_id, phone_number, direction, message_type, content, status, seq,
    payload, sent_at, reply_to_wamid, sender_wa_id, sender_user_id, ai_state, ai_reason, sent_by, retry_of, template_id, send_at)
  values (
    p_workspace_id, v_id, v_conversation.id, v_channel.id, v_conversation.contact_id, v_address.wa_id, 'outbound',
    p_message ->> 'message_type', p_message ->> 'content', 'queued', v_conversation.next_seq, v_payload, now(), v_reply_to,
    v_address.wa_id, v_address.user_id, 'skipped', 'outbound', app.actor(), (p_message ->> 'retry_of')::uuid, v_template.id, v_send_at)
  returning * into v_message;
  update public.whatsapp_conversations v
  set next_seq = v.next_seq + 1,
      last_message_at = greatest(v.last_message_at, now())
  where v.workspace_id = p_workspace_id
    and v.id = v_conversation.id;
  update public.media f
  set message_id = v_id
  where f.workspace_id = p_workspace_id
    and f.id = any (v_media_ids)
    and f.message_id is null;
  perform app.queue_message(
    v_message, case when v_send_at is null then 2 else 4 end::smallint, v_template.category is not distinct from 'marketing', v_media_ids,
    coalesce(v_send_at, now()) + case when v_template.category = 'marketing' then interval '2 days' else interval '1 hour' end);
  perform app.audit(p_workspace_id, 'message.queued', v_id, null, pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'conversation_id', v_conversation.id, 'message_type', v_message.message_type, 'send_at', v_send_at, 'retry_of', v_message.retry_of)));
  if v_message.retry_of is null then
    perform app.note_reply(v_message, (p_message ->> 'suggestion_id')::uuid); -- see *_corrections
  end if;
  if p_message ? 'seen_seq' then
    perform public.mark_conversation_read(p_workspace_id, v_conversation.id, (p_message ->> 'seen_seq')::bigint);
  end if;
  return public.message_json(v_message);
end;
$$;
revoke execute on function public.send_message from public, anon, service_role;
grant execute on function public.send_message to authenticated;
select app.give_to_writer('public.send_message');

-- When the customer last wrote, until when replies may be free text, and which templates can be sent instead.
-- Refuses: PT404 unknown or not theirs.
create function public.reply_window(p_workspace_id uuid, p_conversation_id uuid)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
begin
  select * into v_conversation
  from public.whatsapp_conversations
  where workspace_id = p_workspace_id
    and id = p_conversation_id
    and deleted_at is null;
  if not found then
    raise exception 'conversation not found' using
      errcode = 'PT404', detail = 'conversation_not_found', hint = 'It does not exist, or it is not yours.';
  end if;
  return pg_catalog.jsonb_build_object(
    'last_inbound_at', v_conversation.last_inbound_at,
    'window_expires_at', v_conversation.window_expires_at,
    'server_time', now(),
    'templates', coalesce((
      select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
        'id', t.id, 'template_name', t.template_name, 'language', t.language, 'category', t.category,
        'body_content', t.body_content, 'components', t.components) order by t.usage_count desc, t.template_name, t.language)
      from public.whatsapp_templates t
      join public.whatsapp_channels c on c.workspace_id = t.workspace_id and c.waba_id = t.waba_id
      left join public.contacts k on k.workspace_id = t.workspace_id and k.id = v_conversation.contact_id
      where t.workspace_id = p_workspace_id
        and c.id = v_conversation.channel_id
        and t.status = 'approved'
        and t.category is distinct from 'authentication'
        and (t.category is distinct from 'marketing' or k.opted_out_at is null)
    ), '[]'));
end;
$$;
revoke execute on function public.reply_window from public, anon;
grant execute on function public.reply_window to authenticated;

-- Lock a message of ours, then its place in the outbox, for the person who asks.
-- Refuses: PT404 unknown, not theirs or not ours, PT403 a viewer.
create function app.lock_outbound(p_workspace_id uuid, p_message_id uuid, out message public.whatsapp_messages, out work app.outbox)
language plpgsql
set search_path = ''
as $$
begin
  perform app.check_writer(p_workspace_id, 'message');
  select * into message
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.id = p_message_id
    and m.direction = 'outbound'
  for no key update;
  if not found then
    perform app.raise_not_found('message');
  end if;
  select * into work
  from app.outbox o
  where o.workspace_id = p_workspace_id
    and o.message_id = p_message_id
    and o.kind = 'message'
  for no key update;
end;
$$;
revoke execute on function app.lock_outbound from public;
grant execute on function app.lock_outbound to parley_writer;

-- A refusal of ours, as a message shows it.
create function app.send_error(p_reason text, p_title text, p_sentence text)
returns jsonb
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object('code', null, 'reason', p_reason, 'title', p_title, 'sentence', p_sentence);
$$;
revoke execute on function app.send_error from public;
grant execute on function app.send_error to parley_writer, service_role;

-- Take back a message that is not under way. Cancelled already: fine.
-- Writes: whatsapp_messages, outbox, audit_log. Called by: services/sender and frontends, as the user.
-- Refuses: PT404, PT403, PT409 it is under way, or done.
create function public.cancel_message(p_workspace_id uuid, p_message_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v record;
  v_message public.whatsapp_messages;
begin
  v := app.lock_outbound(p_workspace_id, p_message_id);
  v_message := v.message;
  if v_message.status = 'failed' and v_message.error ->> 'reason' = 'cancelled' then
    return public.message_json(v_message);
  elsif v_message.status <> 'queued' or (v.work).id is null or (v.work).lease_token is not null
    or (v.work).state not in ('due', 'waiting', 'held') or (v.work).doubt_since is not null
  then
    raise exception 'the message is not waiting' using errcode = 'PT409', detail = 'message_not_queued',
      hint = 'It is on its way already, or done; only what waits can be cancelled.';
  end if;
  update public.whatsapp_messages m
  set status = 'failed', sending = null,
      error = app.send_error('cancelled', 'Cancelled', 'Cancelled before it was sent.')
  where m.workspace_id = p_workspace_id
    and m.id = p_message_id
  returning * into v_message;
  update app.outbox o
  set state = 'cancelled', finished_at = now()
  where o.workspace_id = p_workspace_id
    and o.id = (v.work).id;
  perform app.audit(p_workspace_id, 'message.cancelled', p_message_id, '{"status": "queued"}', '{"status": "failed"}');
  return public.message_json(v_message);
end;
$$;
revoke execute on function public.cancel_message from public, anon, service_role;
grant execute on function public.cancel_message to authenticated;
select app.give_to_writer('public.cancel_message');

-- Send a failed message again: a new message that names it, held to everything a new one is held to.
-- Refuses: as send_message, and PT409 it has not failed.
create function public.retry_message(p_workspace_id uuid, p_message_id uuid, p_request_id text, p_digest text, p_new_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_message public.whatsapp_messages;
begin
  perform app.check_writer(p_workspace_id, 'message');
  select * into v_message
  from public.whatsapp_messages m
  where m.workspace_id = p_workspace_id
    and m.id = p_message_id
    and m.direction = 'outbound';
  if not found then
    perform app.raise_not_found('message');
  elsif v_message.status <> 'failed' and not exists ( -- asked before: a late status may say since that it did not fail
    select from app.send_requests r where r.workspace_id = p_workspace_id and r.request_id = p_request_id)
  then
    raise exception 'the message has not failed' using errcode = 'PT409', detail = 'message_not_failed',
      hint = 'Only a failed message can be sent again.';
  end if;
  return public.send_message(p_workspace_id, p_request_id, p_digest, pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
    'id', p_new_id, 'conversation_id', v_message.conversation_id, 'message_type', v_message.message_type,
    'content', v_message.content, 'payload', v_message.payload, 'reply_to_wamid', v_message.reply_to_wamid,
    'retry_of', p_message_id)));
end;
$$;
revoke execute on function public.retry_message from public, anon, service_role;
grant execute on function public.retry_message to authenticated;
select app.give_to_writer('public.retry_message');

-- Decide about a message of which nobody knows whether Meta has it: send it again, or leave it.
-- Writes: whatsapp_messages, send_attempts, outbox, audit_log. Refuses: PT404, PT403, PT409 it is not in doubt.
create function public.resolve_doubt(p_workspace_id uuid, p_message_id uuid, p_send_again boolean)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v record;
  v_message public.whatsapp_messages;
begin
  v := app.lock_outbound(p_workspace_id, p_message_id);
  if (v.work).doubt_since is null or (v.work).lease_token is not null or (v.work).state not in ('in_doubt', 'held') then
    raise exception 'the message is not in doubt' using errcode = 'PT409', detail = 'message_not_in_doubt',
      hint = 'Meta has said what became of it; look at its status.';
  end if;
  update public.whatsapp_messages m
  set status = case when p_send_again then 'queued' else 'failed' end,
      error = case when not p_send_again then app.send_error(
        'outcome_unknown', 'Outcome unknown', 'Nobody knows whether it was sent; you chose not to send it again.') end,
      sending = case when p_send_again then pg_catalog.jsonb_build_object(
        'state', 'retrying', 'reason', 'by_person', 'attempt', (v.work).attempts, 'since', (v.work).doubt_since, 'evidence', 'person') end
  where m.workspace_id = p_workspace_id
    and m.id = p_message_id
  returning * into v_message;
  update app.send_attempts a
  set evidence = 'person', settled_at = now()
  where a.workspace_id = p_workspace_id
    and a.message_id = p_message_id
    and a.outcome = 'unknown'
    and a.evidence is null;
  update app.outbox o
  set state = case when p_send_again then 'due' else 'failed' end,
      next_attempt_at = now(),
      expires_at = case when p_send_again then now() + interval '1 hour' else o.expires_at end,
      finished_at = case when not p_send_again then now() end
  where o.workspace_id = p_workspace_id
    and o.id = (v.work).id;
  perform app.audit(p_workspace_id, 'message.doubt_resolved', p_message_id, '{"state": "in_doubt"}',
    pg_catalog.jsonb_build_object('send_again', p_send_again));
  return public.message_json(v_message);
end;
$$;
revoke execute on function public.resolve_doubt from public, anon, service_role;
grant execute on function public.resolve_doubt to authenticated;
select app.give_to_writer('public.resolve_doubt');

-- Show the customer that somebody types, for 25 s or until we send.
-- Refuses: PT404, PT403 a viewer, PT409 blocked, or a number that cannot send.
create function public.start_typing(p_workspace_id uuid, p_conversation_id uuid)
returns jsonb
language plpgsql
security definer -- parley_writer's
set search_path = ''
as $$
declare
  v_conversation public.whatsapp_conversations;
begin
  v_conversation := app.lock_conversation(p_workspace_id, p_conversation_id);
  if v_conversation.status in ('deleted', 'blocked') then
    perform app.refuse_action(v_conversation.status, 'open');
  end if;
  perform app.check_sending(p_workspace_id, v_conversation.channel_id);
  perform app.queue_chore(
    p_workspace_id, v_conversation.channel_id, 'typing', '{}', 1::smallint, interval '20 seconds', p_lane => p_conversation_id);
  return '{}';
end;
$$;
revoke execute on function public.start_typing from public, anon, service_role;
grant execute on function public.start_typing to authenticated;
select app.give_to_writer('public.start_typing');

notify pgrst, 'reload schema';
