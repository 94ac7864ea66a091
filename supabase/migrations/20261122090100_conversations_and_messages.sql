-- What customers write: contacts and how we recognise them, conversations, messages.
set lock_timeout = '5s';

create table public.contacts (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  name text, -- the profile name Meta sent last
  username text, -- without the leading @; display only, never a key
  profile_seen_at timestamptz, -- Meta's time of the profile above: an older one never replaces a newer
  first_seen_at timestamptz not null,
  created_at timestamptz not null default now(),
  primary key (workspace_id, id)
);
comment on table public.contacts is 'A person who writes to a workspace, whatever ids Meta calls them by.';

create table public.contact_identities (
  workspace_id uuid not null,
  portfolio_id text not null,
  kind text not null check (kind in (
    'bsuid', -- business-scoped user id: the identity
    'wa_id' -- phone-derived id: an attribute that may pass to someone else
  )),
  value text not null check (value <> ''),
  contact_id uuid not null,
  seen_at timestamptz not null, -- Meta's time of the first item that showed it
  valid_to timestamptz, -- null: still theirs
  primary key (workspace_id, portfolio_id, kind, value, seen_at, contact_id),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id)
);
comment on table public.contact_identities is 'Ids Meta has shown for a contact; at most one live owner each.';
create unique index contact_identities_live
  on public.contact_identities (workspace_id, portfolio_id, kind, value) where valid_to is null;
create index contact_identities_contact on public.contact_identities (workspace_id, contact_id);

create table public.whatsapp_conversations (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  channel_id uuid not null,
  contact_id uuid, -- null in a group, where each message names its sender
  group_id text, -- Meta's group id
  phone_number text, -- the customer's, as last seen; may never be known
  assigned_to uuid,
  status text not null default 'open' check (status in (
    'open', -- active: counted, analysed
    'archived', -- inactive, searchable, silent
    'blocked' -- nothing is counted or analysed
  )),
  last_message_at timestamptz not null, -- greatest of Meta's times
  last_inbound_at timestamptz,
  window_expires_at timestamptz, -- last_inbound_at + 24 h: until then a reply may be free text
  unread_count integer not null default 0 check (unread_count >= 0),
  next_seq bigint not null default 1,
  read_seq bigint not null default 0,
  deleted_at timestamptz, -- soft: a later message opens a new conversation
  created_at timestamptz not null default now(),
  primary key (workspace_id, id),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id),
  check ((contact_id is null) <> (group_id is null))
);
comment on table public.whatsapp_conversations is 'All messages between one business number and one contact or group.';
create unique index whatsapp_conversations_live_contact
  on public.whatsapp_conversations (workspace_id, channel_id, contact_id)
  where deleted_at is null and contact_id is not null;
create unique index whatsapp_conversations_live_group
  on public.whatsapp_conversations (workspace_id, channel_id, group_id)
  where deleted_at is null and group_id is not null;
create index whatsapp_conversations_newest
  on public.whatsapp_conversations (workspace_id, last_message_at desc, id desc) where deleted_at is null;
create index whatsapp_conversations_contact on public.whatsapp_conversations (workspace_id, contact_id);

create table public.whatsapp_messages (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null,
  conversation_id uuid not null,
  channel_id uuid not null,
  contact_id uuid not null, -- in a group: who wrote this one
  phone_number text, -- the customer's; may never be known
  direction text not null check (direction in ('inbound', 'outbound')),
  message_type text not null check (message_type in (
    'text',
    'unsupported' -- kept raw in payload until its type is understood
  )),
  content text, -- sanitised: no U+0000, no lone surrogates
  status text check (status in ('queued', 'sent', 'delivered', 'read', 'played', 'failed')), -- outbound only
  wamid text, -- Meta's id; null until Meta accepted one of ours
  seq bigint not null, -- place in the conversation, assigned under its lock
  payload jsonb not null default '{}', -- the message as Meta sent it, sanitised
  sent_at timestamptz not null, -- Meta's time
  reply_to_wamid text, -- may name a message we never had
  sender_wa_id text,
  sender_user_id text,
  content_version integer not null default 1, -- raised by an edit: an analysis belongs to one version
  ai_state text not null check (ai_state in (
    'pending', -- Claude has not looked yet
    'done',
    'failed', -- given up, ai_reason says why
    'skipped' -- not to be looked at, ai_reason says why
  )),
  ai_reason text, -- stable code: refused, truncated, overloaded, timeout, nonsense, …; ai_off, unsupported_type
  ai_attempts smallint not null default 0, -- calls to Claude it was part of, but for those given back unmade
  analysed_at timestamptz,
  sentiment text check (sentiment in ('positive', 'neutral', 'negative')),
  sentiment_score real check (sentiment_score between -1 and 1),
  intent text,
  ai_summary text,
  suggested_response text,
  priority text check (priority in ('low', 'normal', 'high', 'urgent')),
  language text, -- BCP 47, as Claude names it
  created_at timestamptz not null default now(), -- ours
  primary key (workspace_id, id),
  foreign key (workspace_id, conversation_id) references public.whatsapp_conversations (workspace_id, id),
  foreign key (workspace_id, contact_id) references public.contacts (workspace_id, id),
  unique (workspace_id, channel_id, wamid),
  unique (workspace_id, conversation_id, seq)
);
comment on table public.whatsapp_messages is 'One message, with what Claude understood of it.';
create index whatsapp_messages_pending
  on public.whatsapp_messages (workspace_id, conversation_id, seq) where ai_state = 'pending';
create index whatsapp_messages_contact on public.whatsapp_messages (workspace_id, contact_id);

alter table public.contacts enable row level security;
alter table public.contact_identities enable row level security;
alter table public.whatsapp_conversations enable row level security;
alter table public.whatsapp_messages enable row level security;

revoke all on public.contacts, public.contact_identities, public.whatsapp_conversations, public.whatsapp_messages
  from anon, authenticated, service_role;
grant select on public.contacts, public.contact_identities, public.whatsapp_conversations, public.whatsapp_messages
  to authenticated;
grant select, insert, update
  on public.contacts, public.contact_identities, public.whatsapp_conversations, public.whatsapp_messages
  to service_role;

create policy "Members see their contacts" on public.contacts
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create policy "Members see their contacts' identities" on public.contact_identities
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create policy "Members see their conversations" on public.whatsapp_conversations
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

create policy "Members see their messages" on public.whatsapp_messages
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

notify pgrst, 'reload schema';
