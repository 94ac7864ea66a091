-- What we say to Meta: the outbox as a queue, its attempts, who may send through which number.
set lock_timeout = '5s';

-- Numbers. The token is sealed to the sender's public key, so whoever reads this table cannot use it.
create table app.channel_tokens (
  workspace_id uuid not null,
  channel_id uuid not null,
  token_sealed text not null, -- base64 of a sealed box (X25519, XSalsa20-Poly1305)
  key_id text not null, -- of the sender's key it is sealed to
  set_at timestamptz not null default now(),
  primary key (workspace_id, channel_id),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id)
);
comment on table app.channel_tokens is 'Meta''s access token of each number, which only the sender can open.';
alter table app.channel_tokens enable row level security;
grant select, insert, update, delete on app.channel_tokens to service_role;

alter table public.whatsapp_channels
  add column paused_reason text, -- while paused: our code (shared/whatsapp/errors.py) or 'by_person'
  add column paused_at timestamptz,
  add column marketing_paused_at timestamptz; -- Meta limits the number for spam: marketing waits, replies go
comment on column public.whatsapp_channels.state is
  'connected: receives and sends; paused: receives, sending is held; disconnected: neither.';

-- Messages of ours.
alter table public.whatsapp_messages
  add column sent_by uuid, -- the person who sent it; null: nobody in particular (a bulk send has its own)
  add column retry_of uuid, -- the failed message this one repeats
  add column template_id uuid,
  add column bulk_id uuid,
  add column send_at timestamptz, -- scheduled: not before
  add column sending jsonb, -- while it is not simply under way: {state, reason, attempt, since, until, evidence, …}
  add constraint whatsapp_messages_retry_of foreign key (workspace_id, retry_of) references public.whatsapp_messages (workspace_id, id),
  drop constraint whatsapp_messages_message_type_check,
  add constraint whatsapp_messages_message_type_check check (message_type in (
    'text', 'image', 'audio', 'video', 'document', 'sticker', 'location', 'contacts', 'interactive', 'button', 'order',
    'template', 'reaction', -- outbound; a customer's reaction is an event of the message it is about
    'unsupported', -- Meta says the customer's message has a type the API does not carry
    'media_placeholder', -- history: the file comes later
    'unknown' -- a type Meta added after this was written; kept raw in payload
  )) not valid;
create index whatsapp_messages_retry_of on public.whatsapp_messages (workspace_id, retry_of) where retry_of is not null;
create index whatsapp_messages_bulk on public.whatsapp_messages (workspace_id, bulk_id) where bulk_id is not null;
create index whatsapp_messages_template on public.whatsapp_messages (workspace_id, template_id) where template_id is not null;

-- The outbox. Messages are claimed by number, in order of priority and place; chores, which may be repeated, by workspace.
drop index app.outbox_due;
alter table app.outbox
  drop constraint outbox_kind_check,
  add constraint outbox_kind_check check (kind in (
    'message',
    'mark_read', 'typing', -- of the conversation that lane names: its newest inbound message
    'block', 'unblock', -- payload: contact_id
    'media_fetch', 'media_upload', 'media_delete',
    'template_submit', 'template_delete', 'template_sync',
    'channel_subscribe', 'channel_check',
    'aftermath' -- payload: then, of a refusal that came by webhook
  )),
  drop constraint outbox_state_check,
  add constraint outbox_state_check check (state in (
    'due', -- may be claimed; leased while lease_token is set. A chore: once next_attempt_at has come
    'waiting', -- a message, until next_attempt_at: wait_reason says for what
    'held', -- until a person lets it go: a paused bulk send, marketing in doubt
    'in_doubt', -- Meta may have it: its status webhook decides, or next_attempt_at
    'done', 'failed', 'expired', 'cancelled'
  )),
  add column lane uuid, -- the conversation: its messages go one after another
  add column place bigint generated always as identity,
  add column wait_reason text check (wait_reason in (
    'scheduled', -- does not keep those behind it waiting
    'backoff', -- Meta said later
    'pair', -- one message in 6 s to one person
    'behind', -- another message of the conversation goes first
    'media' -- its file is on the way to Meta
  )),
  add column is_marketing boolean not null default false,
  add column bulk_id uuid,
  add column doubt_since timestamptz, -- when the attempt in doubt began
  add column error jsonb, -- of the last attempt: {code, reason, sentence}
  add column finished_at timestamptz;
-- Priorities: 1 typing, 2 replies, 3 read marks, 4 scheduled and other single messages, 5 chores, 6 bulk, 7 media fetch.
drop index app.outbox_channel; -- outbox_ready begins with the same, and the planner took this one for it until the first analysis
create index outbox_ready on app.outbox (workspace_id, channel_id, priority, place)
  where kind = 'message' and state = 'due' and lease_token is null;
create index outbox_chores on app.outbox (workspace_id, priority, next_attempt_at) where kind <> 'message' and state = 'due';
create index outbox_waiting on app.outbox (next_attempt_at) where state = 'waiting';
create index outbox_in_doubt on app.outbox (next_attempt_at) where state = 'in_doubt';
create index outbox_leased on app.outbox (lease_token) where lease_token is not null;
create index outbox_lane on app.outbox (workspace_id, lane, priority, place)
  where kind = 'message' and state in ('due', 'waiting', 'in_doubt');
create index outbox_expiring on app.outbox (expires_at) where state in ('due', 'waiting', 'held', 'in_doubt');
create index outbox_finished on app.outbox (finished_at) where finished_at is not null;
create index outbox_stopped on app.outbox (workspace_id, id) where state = 'held' and next_attempt_at = '-infinity'; -- see app.tell_stopped
create index outbox_held on app.outbox (workspace_id, channel_id) where state = 'held';
create index outbox_bulk on app.outbox (workspace_id, bulk_id) where bulk_id is not null;
-- One read mark a conversation, one upload of a file to a number: asking again while it waits is the same.
create unique index outbox_one_mark on app.outbox (workspace_id, lane)
  where kind = 'mark_read' and state = 'due' and lease_token is null;

-- Whoever ends one, intake and deletion included, leaves it to be forgotten in time.
create function app.note_end()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.finished_at := now();
  return new;
end;
$$;
revoke execute on function app.note_end from public;
create trigger note_end
  before update of state on app.outbox
  for each row
  when (new.finished_at is null and new.state in ('done', 'failed', 'expired', 'cancelled'))
  execute function app.note_end();

create table app.send_attempts (
  workspace_id uuid not null,
  message_id uuid not null,
  attempt smallint not null, -- from 1; callback data is <message_id>.<attempt>
  outbox_id uuid not null,
  started_at timestamptz not null default now(),
  outcome text check (outcome in (
    'accepted', -- Meta has it
    'held', -- Meta has it, and looks at the template first
    'refused',
    'put_off', -- certainly not sent: nothing left, or Meta said later
    'throttled', -- likewise: too fast
    'unsent', -- likewise: never called
    'unknown' -- it may have left
  )), -- null: under way, or its dispatcher died
  evidence text check (evidence in ('answer', 'status', 'person', 'silence')), -- what outcome rests on
  wamid text,
  meta_code integer,
  settled_at timestamptz,
  primary key (workspace_id, message_id, attempt),
  foreign key (workspace_id, outbox_id) references app.outbox (workspace_id, id) on delete cascade
);
comment on table app.send_attempts is 'Each call to Meta that was to send a message: committed before it is made.';
create index send_attempts_outbox on app.send_attempts (workspace_id, outbox_id);
alter table app.send_attempts enable row level security;
grant select, insert, update, delete on app.send_attempts to service_role;

create table app.send_pairs (
  workspace_id uuid not null,
  lane uuid not null, -- the conversation: a number and a person
  free_at timestamptz not null default '-infinity', -- when all that was sent would have been sent at one in 6 s
  burst_from timestamptz not null default '-infinity',
  burst smallint not null default 0,
  primary key (workspace_id, lane)
);
comment on table app.send_pairs is 'How much a number has said to a person lately; see app.pair_allows.';
alter table app.send_pairs enable row level security;
grant select, insert, update, delete on app.send_pairs to service_role;

create table app.send_requests (
  workspace_id uuid not null references public.workspaces (id),
  request_id text not null check (request_id <> ''), -- the client's Idempotency-Key
  digest bytea not null, -- of the request's body: another one under the same key is refused
  subject_id uuid not null, -- what it made
  created_at timestamptz not null default now(),
  primary key (workspace_id, request_id)
);
comment on table app.send_requests is 'What was asked under which Idempotency-Key: the same again is the same thing.';
create index send_requests_age on app.send_requests (created_at);
alter table app.send_requests enable row level security;
grant select, insert, update, delete on app.send_requests to service_role;

create table app.media_uploads (
  workspace_id uuid not null,
  media_id uuid not null,
  channel_id uuid not null,
  meta_id text not null,
  expires_at timestamptz not null, -- Meta keeps it 30 days
  primary key (workspace_id, media_id, channel_id),
  foreign key (workspace_id, media_id) references public.media (workspace_id, id) on delete cascade
);
comment on table app.media_uploads is 'Under which id Meta knows a file of ours, by number.';
alter table app.media_uploads enable row level security;
grant select, insert, update, delete on app.media_uploads to service_role;

create table public.channel_usage (
  workspace_id uuid not null,
  channel_id uuid not null,
  month date not null, -- its first day, UTC
  service_messages bigint not null default 0, -- accepted, not from a template: Meta charges delivered ones beyond 1,000
  template_messages bigint not null default 0,
  primary key (workspace_id, channel_id, month),
  foreign key (workspace_id, channel_id) references public.whatsapp_channels (workspace_id, id)
);
comment on table public.channel_usage is 'What a number said each month, as far as it may cost.';
alter table public.channel_usage enable row level security;
revoke all on public.channel_usage from anon, authenticated, service_role;
grant select on public.channel_usage to authenticated;
grant select, insert, update on public.channel_usage to service_role;
create policy "Members see what their numbers sent" on public.channel_usage
  for select to authenticated
  using (workspace_id in (select m.workspace_id from public.workspace_members m where m.user_id = (select auth.uid())));

notify pgrst, 'reload schema';
