-- Where everything Meta can tell us about a message, a person or an account is kept.
-- Stop recorders while this is applied, or let them fail: what they cannot record stays in the stream.
set lock_timeout = '5s';

-- People: facts of which the latest holds are kept with their time, so that their order of arrival does not matter.
alter table public.contacts
  add column facts jsonb not null default '{}', -- {profile|status_profile|address_book|marketing|identity_hash: [at, value, …]}
  add column phone_facts jsonb not null default '{}', -- the same, from items that named a phone alone: these may move
  add column opted_out_at timestamptz, -- since when they want no marketing
  add column blocked_at timestamptz, -- an agent blocked them; the intervals are in app.contact_blocks
  add column merged_into uuid, -- the contact that goes on; this one is empty
  add constraint contacts_merged_into foreign key (workspace_id, merged_into) references public.contacts (workspace_id, id);
comment on column public.contacts.facts is
  'Latest (Meta time, value) of each attribute; name, username and opted_out_at follow from it.';
update public.contacts
set facts = pg_catalog.jsonb_build_object('profile', pg_catalog.jsonb_build_array(
  (extract(epoch from profile_seen_at) * 1000)::bigint, coalesce(name, ''), coalesce(username, '')))
where profile_seen_at is not null;
alter table public.contacts drop column profile_seen_at;
create index contacts_merged_into on public.contacts (workspace_id, merged_into) where merged_into is not null;

-- An id belongs to a user id from when it was first seen with it; a phone-derived id passes on to whoever is first
-- seen with it later. user_id is '' for a phone nobody has been seen with yet.
alter table public.contact_identities rename to contact_identities_by_contact;
alter index public.contact_identities_pkey rename to contact_identities_by_contact_pkey;
alter index public.contact_identities_contact rename to contact_identities_by_contact_contact;
create table public.contact_identities (
  workspace_id uuid not null,
  portfolio_id text not null,
  kind text not null check (kind in (
    'bsuid', -- business-scoped user id: the identity; user_id repeats it
    'parent_bsuid', -- the same person for portfolios enrolled together; one can send to it
    'wa_id' -- phone-derived id: an attribute that may pass to someone else
  )),
  value text not null check (value <> ''),
  user_id text not null, -- the business-scoped user id it was seen with; '': none
  contact_id uuid not null,
  seen_at timestamptz not null, -- Meta's time of the earliest item that showed the two together
  facts jsonb, -- of a user id that shares its contact with another: its part of the contact's facts, should they part again
  primary key (workspace_id, portfolio_id, kind, value, user_id),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id)
);
insert into public.contact_identities (workspace_id, portfolio_id, kind, value, user_id, contact_id, seen_at)
select distinct on (i.workspace_id, i.portfolio_id, i.kind, i.value, u.user_id)
  i.workspace_id, i.portfolio_id, i.kind, i.value, u.user_id, i.contact_id, i.seen_at
from public.contact_identities_by_contact i
cross join lateral (
  select case i.kind when 'bsuid' then i.value else coalesce((
    select b.value
    from public.contact_identities_by_contact b
    where b.workspace_id = i.workspace_id and b.contact_id = i.contact_id and b.kind = 'bsuid'
    order by b.seen_at, b.value
    limit 1), '') end as user_id
) u
order by i.workspace_id, i.portfolio_id, i.kind, i.value, u.user_id, i.seen_at;
drop table public.contact_identities_by_contact;
comment on table public.contact_identities is 'Ids Meta has shown for a contact, and since when.';
create index contact_identities_contact on public.contact_identities (workspace_id, contact_id);
create index contact_identities_user
  on public.contact_identities (workspace_id, portfolio_id, kind, user_id) where user_id <> '';
alter table public.contact_identities enable row level security;
revoke all on public.contact_identities from anon, authenticated, service_role;
grant select on public.contact_identities to authenticated;
grant select, insert, update on public.contact_identities to service_role;
create policy "Members see their contacts' identities" on public.contact_identities
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create table app.identity_changes (
  workspace_id uuid not null,
  portfolio_id text not null,
  wamid text not null,
  previous_user_id text,
  previous_wa_id text,
  user_id text,
  wa_id text,
  sent_at timestamptz not null,
  primary key (workspace_id, portfolio_id, wamid)
);
comment on table app.identity_changes is 'What Meta said of people who go on under other ids: the only thing that joins user ids.';
create index identity_changes_user on app.identity_changes (workspace_id, portfolio_id, user_id);
create index identity_changes_previous_user on app.identity_changes (workspace_id, portfolio_id, previous_user_id);
create index identity_changes_phone on app.identity_changes (workspace_id, portfolio_id, wa_id);
create index identity_changes_previous_phone on app.identity_changes (workspace_id, portfolio_id, previous_wa_id);
alter table app.identity_changes enable row level security;
grant select, insert, update, delete on app.identity_changes to service_role;

create table app.phone_facts (
  workspace_id uuid not null,
  portfolio_id text not null,
  wa_id text not null,
  sent_at timestamptz not null,
  facts jsonb not null,
  primary key (workspace_id, portfolio_id, wa_id, sent_at)
);
comment on table app.phone_facts is 'What items said of a person they named by phone alone: whose it is may turn out later.';
alter table app.phone_facts enable row level security;
grant select, insert, update, delete on app.phone_facts to service_role;

create table app.contact_blocks (
  workspace_id uuid not null,
  contact_id uuid not null,
  blocked_at timestamptz not null,
  unblocked_at timestamptz, -- null: still
  primary key (workspace_id, contact_id, blocked_at),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id)
);
comment on table app.contact_blocks is 'When agents blocked whom: what was sent in between is suppressed, whenever it arrives.';
alter table app.contact_blocks enable row level security;
grant select, insert, update, delete on app.contact_blocks to service_role;

-- Conversations.
alter table public.whatsapp_conversations
  add column first_seq bigint not null default 1, -- history is numbered downwards from here, so that it stands before
  add column archived_at timestamptz,
  add column blocked_at timestamptz,
  add column merged_into uuid, -- where its messages went when two contacts turned out to be one
  drop constraint whatsapp_conversations_status_check,
  add constraint whatsapp_conversations_status_check check (status in (
    'open', -- active: counted, analysed
    'archived', -- inactive, searchable, silent
    'blocked', -- nothing is counted or analysed
    'deleted' -- gone for people; a later message opens a new one
  )) not valid,
  add constraint whatsapp_conversations_deleted check ((status = 'deleted') = (deleted_at is not null)) not valid;
-- By status, so that nothing but the list can use it: on a young table the planner thinks few rows have a null and
-- would look a contact's conversation up here, through all of them.
drop index public.whatsapp_conversations_newest;
create index whatsapp_conversations_newest
  on public.whatsapp_conversations (workspace_id, last_message_at desc, id desc) where status <> 'deleted';
update public.whatsapp_conversations set status = 'deleted' where deleted_at is not null and status <> 'deleted';

-- Messages.
alter table public.whatsapp_messages
  alter column contact_id drop not null, -- one of ours to a group is to nobody in particular
  add column origin text not null default 'live' check (origin in (
    'history', -- from before the number was connected: never unread, never analysed
    'app', -- written by staff in the WhatsApp Business app
    'live'
  )),
  add column edited_at timestamptz,
  add column revoked_at timestamptz, -- deleted for everyone by its author: content, payload and analysis are gone
  add column suppressed_at timestamptz, -- sent while its contact was blocked: not shown, counted or analysed
  add column error jsonb, -- {code, title}: why it failed, Meta's words
  drop constraint whatsapp_messages_message_type_check,
  add constraint whatsapp_messages_message_type_check check (message_type in (
    'text', 'image', 'audio', 'video', 'document', 'sticker', 'location', 'contacts', 'interactive', 'button', 'order',
    'template', -- outbound
    'unsupported', -- Meta says the customer's message has a type the API does not carry
    'media_placeholder', -- history: the file comes later
    'unknown' -- a type Meta added after this was written; kept raw in payload
  )) not valid;
comment on column public.whatsapp_messages.sender_wa_id is 'The customer''s phone-derived id; of an outbound message: the recipient''s.';
comment on column public.whatsapp_messages.sender_user_id is 'The customer''s user id; of an outbound message: the recipient''s.';

-- Whatever concerns one of Meta's messages first upserts this row, and only a later statement looks for the message:
-- without a shared row a message and its status recorded side by side miss each other (tried: 1,984 times in 2,000).
create table app.message_states (
  workspace_id uuid not null,
  channel_id uuid not null,
  wamid text not null,
  rank smallint not null default -1, -- greatest of queued 0 < sent 1 < failed 2 < delivered 3 < read 4 < played 5; -1: none
  sent_at timestamptz, -- each the earliest Meta told
  delivered_at timestamptz,
  read_at timestamptz,
  played_at timestamptz,
  failed_at timestamptz,
  error jsonb, -- of the earliest failure: {code, title}
  revoked_at timestamptz,
  edited_at timestamptz, -- of the latest edit, as is:
  edit jsonb, -- {content, payload}
  edits integer not null default 0,
  file jsonb, -- what stands for its media_placeholder, from an item that names nobody: {message_type, content, payload, media}
  primary key (workspace_id, channel_id, wamid)
);
comment on table app.message_states is 'What Meta has told of a message, whether or not we have the message.';
alter table app.message_states enable row level security;
grant select, insert, update, delete on app.message_states to service_role;

create table public.message_events (
  workspace_id uuid not null,
  channel_id uuid not null,
  wamid text not null, -- the message it is about; a call's own id
  kind text not null, -- a status (sent, …), reaction, edit, revoke, or call_ and its event
  key text not null, -- what makes it one: a status' participant (or ''), the own id of the others
  contact_id uuid, -- of customers' reactions and of calls: who
  wa_id text, -- and by which ids, so that it can be worked out anew
  user_id text,
  by_customer boolean not null default false, -- something they did: it opens the reply window as a message would
  sent_at timestamptz not null,
  payload jsonb,
  created_at timestamptz not null default now(),
  primary key (workspace_id, channel_id, wamid, kind, key)
);
comment on table public.message_events is 'Facts about messages, as Meta told them: statuses, edits, revokes, reactions, calls. Append-only.';
create index message_events_contact on public.message_events (workspace_id, contact_id) where contact_id is not null;
alter table public.message_events enable row level security;
revoke all on public.message_events from anon, authenticated, service_role;
grant select on public.message_events to authenticated;
grant select, insert, update on public.message_events to service_role;
create policy "Members see what became of their messages" on public.message_events
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

-- What was deleted stays deleted, however often Meta or a replay brings it again.
create table app.tombstones (
  workspace_id uuid not null,
  digest bytea not null, -- app.message_digest or app.person_digest: tells nothing about whom
  sent_before timestamptz, -- of a person: items up to then; null: a message, whenever sent
  until timestamptz not null, -- longer than raw bodies are kept, and than Meta retries
  primary key (workspace_id, digest)
);
comment on table app.tombstones is 'Digests of deleted messages and erased people.';
create index tombstones_until on app.tombstones (until);
alter table app.tombstones enable row level security;
grant select, insert, update, delete on app.tombstones to service_role;

create function app.message_digest(p_channel_id uuid, p_wamid text)
returns bytea
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.sha256(pg_catalog.convert_to('m ' || p_channel_id || ' ' || p_wamid, 'UTF8'));
$$;
revoke execute on function app.message_digest from public;
grant execute on function app.message_digest to service_role;

create function app.person_digest(p_portfolio_id text, p_id text)
returns bytea
language sql
immutable
set search_path = ''
as $$
  select pg_catalog.sha256(pg_catalog.convert_to('p ' || p_portfolio_id || ' ' || p_id, 'UTF8'));
$$;
revoke execute on function app.person_digest from public;
grant execute on function app.person_digest to service_role;

create table public.media (
  workspace_id uuid not null,
  id uuid not null,
  message_id uuid not null,
  meta_id text not null, -- Meta keeps it for 7 days
  kind text not null check (kind in ('image', 'audio', 'video', 'document', 'sticker')),
  mime_type text,
  sha256 text, -- hex, as Meta told
  filename text, -- the sender's: shown, never used as a path
  is_voice boolean not null default false,
  is_animated boolean not null default false,
  state text not null default 'pending' check (state in (
    'pending', -- not fetched yet
    'stored',
    'failed',
    'gone' -- Meta no longer has it, or its message was deleted
  )),
  size_bytes bigint,
  storage_key text, -- where the file is, once stored
  created_at timestamptz not null default now(),
  primary key (workspace_id, id),
  unique (workspace_id, message_id, meta_id),
  foreign key (workspace_id, message_id) references public.whatsapp_messages (workspace_id, id)
);
comment on table public.media is 'Files that belong to messages.';
alter table public.media enable row level security;
revoke all on public.media from anon, authenticated, service_role;
grant select on public.media to authenticated;
grant select, insert, update on public.media to service_role;
create policy "Members see their media" on public.media
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

-- What we have to ask of Meta: worked off by the sender's dispatcher. So far intake asks for files to be fetched.
create table app.outbox (
  workspace_id uuid not null,
  id uuid not null,
  channel_id uuid not null,
  kind text not null check (kind in ('media_fetch')),
  message_id uuid,
  payload jsonb not null default '{}', -- ids only
  priority smallint not null default 5, -- lower goes first
  state text not null default 'due' check (state in ('due', 'done', 'failed', 'expired')),
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  expires_at timestamptz not null, -- later it makes no sense
  lease_until timestamptz,
  lease_token uuid, -- fences a dispatcher that lost its lease
  created_at timestamptz not null default now(),
  primary key (workspace_id, id),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id)
);
comment on table app.outbox is 'Work for the sender: the truth behind every wake-up.';
create index outbox_due on app.outbox (workspace_id, next_attempt_at) where state = 'due';
create index outbox_message on app.outbox (workspace_id, message_id);
create index outbox_channel on app.outbox (workspace_id, channel_id);
alter table app.outbox enable row level security;
grant select, insert, update, delete on app.outbox to service_role;

-- The log of changes, by UTC day like the bodies they came in: partitions live in app, so that a policy or a grant
-- missing on one of them shows nothing to anybody.
alter table public.whatsapp_webhooks rename to whatsapp_webhooks_unpartitioned;
alter index public.whatsapp_webhooks_workspace rename to whatsapp_webhooks_unpartitioned_workspace;
alter index public.whatsapp_webhooks_unrouted rename to whatsapp_webhooks_unpartitioned_unrouted;
alter index public.whatsapp_webhooks_pkey rename to whatsapp_webhooks_unpartitioned_pkey;
create table public.whatsapp_webhooks (
  id uuid not null, -- follows from body, change and workspace: recording again finds it
  workspace_id uuid references public.workspaces (id), -- null: no connected channel had that number
  event_type text not null, -- Meta's field: messages, account_update, …
  payload jsonb not null, -- the change as Meta sent it, sanitised
  processed boolean not null, -- false: still unrouted
  phone_number_id text,
  waba_id text,
  body_received_at timestamptz not null,
  body_id uuid not null,
  created_at timestamptz not null default now(),
  primary key (body_received_at, id)
) partition by range (body_received_at);
comment on table public.whatsapp_webhooks is 'One row per change of a webhook body and workspace it concerns.';
create index whatsapp_webhooks_workspace on public.whatsapp_webhooks (workspace_id, body_received_at desc);
create index whatsapp_webhooks_unrouted on public.whatsapp_webhooks (phone_number_id, waba_id) where not processed;
alter table public.whatsapp_webhooks enable row level security;
revoke all on public.whatsapp_webhooks from anon, authenticated, service_role;
grant select on public.whatsapp_webhooks to authenticated;
grant select, insert, update on public.whatsapp_webhooks to service_role;
create policy "Members see their webhooks" on public.whatsapp_webhooks
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));
create table app.whatsapp_webhooks_default partition of public.whatsapp_webhooks default;
comment on table app.whatsapp_webhooks_default is 'Changes of days without a partition: should stay empty.';
alter table app.whatsapp_webhooks_default enable row level security;

alter table app.webhook_bodies
  add column erased_at timestamptz; -- raw was rewritten without an erased person's items
create index webhook_bodies_unrouted on app.webhook_bodies (received_at) where unrouted > 0;
create index webhook_bodies_quarantined on app.webhook_bodies (received_at) where quarantined > 0;

-- Make the partitions of yesterday to seven days ahead; say how many rows sit in the default partitions.
-- Definer: a partition belongs to its parent's owner. They live in app and have RLS on, since partitions inherit none.
-- Called by: the recorder's housekeeping, and this migration.
create or replace function public.make_webhook_partitions()
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  v_day date;
  v_parent text;
  v_name text;
  v_made text[] := '{}';
  v_stray bigint;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('app.webhook_bodies', 0));
  for v_day, v_parent in
    select d::date, p
    from pg_catalog.generate_series((now() at time zone 'utc')::date - 1, (now() at time zone 'utc')::date + 7, interval '1 day') d
    cross join pg_catalog.unnest(array['app.webhook_bodies', 'public.whatsapp_webhooks']) p
  loop
    v_name := pg_catalog.split_part(v_parent, '.', 2) || '_' || pg_catalog.to_char(v_day, 'YYYYMMDD');
    continue when pg_catalog.to_regclass('app.' || v_name) is not null;
    begin
      execute pg_catalog.format(
        'create table app.%I partition of %s for values from (%L) to (%L)',
        v_name, v_parent, v_day::text || ' 00:00:00+00', (v_day + 1)::text || ' 00:00:00+00'
      );
      execute pg_catalog.format('alter table app.%I enable row level security', v_name);
      v_made := v_made || v_name;
    exception when check_violation then
      -- Rows of that day already sit in the default partition: they work there, and the count below alerts.
      null;
    end;
  end loop;
  select (select count(*) from app.webhook_bodies_default) + (select count(*) from app.whatsapp_webhooks_default)
  into v_stray;
  return pg_catalog.jsonb_build_object('made', v_made, 'in_default', v_stray);
end;
$$;
select public.make_webhook_partitions();

insert into public.whatsapp_webhooks (
  id, workspace_id, event_type, payload, processed, phone_number_id, body_received_at, body_id, created_at)
select id, workspace_id, event_type, payload, processed, phone_number_id, body_received_at, body_id, created_at
from public.whatsapp_webhooks_unpartitioned;
drop table public.whatsapp_webhooks_unpartitioned;

-- Identity is decided under one lock a workspace, always taken first: recorders that meet only people they know share
-- it, whoever makes, joins, blocks or erases a contact holds it alone. Until the transaction ends.
create function app.lock_identities(p_workspace_ids uuid[], p_alone boolean)
returns void
language plpgsql
set search_path = ''
as $$
declare
  v_workspace_id uuid;
begin
  for v_workspace_id in select distinct w from pg_catalog.unnest(p_workspace_ids) w order by w loop
    if p_alone then
      perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('identities ' || v_workspace_id, 0));
    else
      perform pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended('identities ' || v_workspace_id, 0));
    end if;
  end loop;
end;
$$;
revoke execute on function app.lock_identities from public;
grant execute on function app.lock_identities to service_role;

notify pgrst, 'reload schema';
