-- Files: what people upload, what is fetched from Meta, what is sent to it, and what goes from storage.
-- A file's key is written down before the file: whatever dies in between, there is a row that says what to delete.
set lock_timeout = '5s';

alter table public.media
  alter column message_id drop not null, -- an upload that no message shows yet
  alter column meta_id drop not null,
  add column sniffed_type text, -- by its bytes, with codecs where they matter; null: nothing we know
  add column is_mismatched boolean not null default false, -- its bytes are not what Meta, or its sender, said
  add column thumbnail_key text,
  add column width integer, -- of an image, as it is shown
  add column height integer,
  add column problem jsonb, -- while failed or gone: {reason, sentence}
  add column uploaded_by uuid,
  add column stored_at timestamptz,
  add column file_deleted_at timestamptz, -- gone from storage too; storage_key is null then
  add constraint media_origin check (uploaded_by is not null or message_id is not null and meta_id is not null) not valid;
create index media_files_to_delete on public.media (workspace_id, id) where state in ('failed', 'gone') and storage_key is not null;
create index media_pending on public.media (created_at) where state = 'pending';

-- An upload: begun before its bytes arrive, kept for as long as its Idempotency-Key counts.
create table app.uploads (
  workspace_id uuid not null references public.workspaces (id),
  id uuid not null, -- becomes the file's
  storage_key text not null,
  user_id uuid not null,
  request_id text, -- the client's Idempotency-Key, once stored
  digest bytea, -- sha256 of kind and file
  stored_at timestamptz, -- null: under way, or given up
  created_at timestamptz not null default now(),
  primary key (workspace_id, id)
);
comment on table app.uploads is 'Files people send us, from their first byte on: what is never stored is deleted again.';
create unique index uploads_request on app.uploads (workspace_id, request_id) where request_id is not null;
create index uploads_age on app.uploads (created_at);
alter table app.uploads enable row level security;
grant select, update, delete on app.uploads to service_role;
grant select, insert, update (request_id, digest, stored_at) on app.uploads to parley_writer;
create policy "Writers see their uploads" on app.uploads
  for select to parley_writer
  using (workspace_id in (select app.writable_workspaces()));
create policy "Writers begin uploads" on app.uploads
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));
create policy "Writers finish their uploads" on app.uploads
  for update to parley_writer
  using (workspace_id in (select app.writable_workspaces()));

grant insert on public.media to parley_writer;
create policy "Writers add their media" on public.media
  for insert to parley_writer
  with check (workspace_id in (select app.writable_workspaces()));

-- Where a file is kept: <workspace>/<year>/<month>/<id>, so that no name anybody chose is a path. Its thumbnail is
-- beside it, with '-thumbnail' after it.
create function app.storage_key(p_workspace_id uuid, p_id uuid, p_at timestamptz)
returns text
language sql
stable
set search_path = ''
as $$
  select p_workspace_id::text || pg_catalog.to_char(p_at at time zone 'utc', '/YYYY/MM/') || p_id::text;
$$;
revoke execute on function app.storage_key from public;
grant execute on function app.storage_key to parley_writer, service_role;

create function public.media_json(p_media public.media)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select pg_catalog.jsonb_build_object(
    'id', p_media.id,
    'workspace_id', p_media.workspace_id,
    'message_id', p_media.message_id,
    'kind', p_media.kind,
    'mime_type', p_media.mime_type,
    'sniffed_type', p_media.sniffed_type,
    'is_mismatched', p_media.is_mismatched,
    'filename', p_media.filename,
    'size_bytes', p_media.size_bytes,
    'width', p_media.width,
    'height', p_media.height,
    'is_voice', p_media.is_voice,
    'is_animated', p_media.is_animated,
    'has_thumbnail', p_media.thumbnail_key is not null,
    'state', p_media.state,
    'problem', p_media.problem,
    'created_at', p_media.created_at,
    'stored_at', p_media.stored_at);
$$;
revoke execute on function public.media_json from public, anon;
grant execute on function public.media_json to authenticated, parley_writer, service_role;

-- Say that a file is about to come in, and where it is to be kept. Before its first byte: whoever may not write sends
-- nothing, and what is given up half-way is known.
-- Returns {id, storage_key}. Writes: uploads. Called by: the sender, as the user.
-- Refuses: PT404 a stranger, PT403 a viewer.
create function public.begin_upload(p_workspace_id uuid, p_id uuid)
returns jsonb
language plpgsql
security definer -- owned by parley_writer
set search_path = ''
as $$
declare
  v_key text := app.storage_key(p_workspace_id, p_id, now());
begin
  perform app.check_writer(p_workspace_id, 'workspace');
  insert into app.uploads (workspace_id, id, storage_key, user_id)
  values (p_workspace_id, p_id, v_key, app.actor());
  return pg_catalog.jsonb_build_object('id', p_id, 'storage_key', v_key);
end;
$$;
revoke execute on function public.begin_upload from public, anon, service_role;
grant execute on function public.begin_upload to authenticated;
select app.give_to_writer('public.begin_upload');

-- Write down a file that is in storage now. p_file: {kind, mime_type, sha256 (hex), filename, size_bytes, is_voice,
--   is_animated, width, height, thumbnail_key}. p_request_id: the Idempotency-Key, or null; p_digest: hex, of kind and file.
-- Returns the file as public.media_json; under a key that was used for the same file, the file stored then: this one's
--   bytes are deleted later. Writes: uploads, media. Called by: the sender, as the user.
-- Refuses: PT404 no such upload of theirs, PT403 a viewer, PT409 idempotency_key_reused.
create function public.store_upload(p_workspace_id uuid, p_id uuid, p_file jsonb, p_request_id text, p_digest text)
returns jsonb
language plpgsql
security definer -- owned by parley_writer
set search_path = ''
as $$
declare
  v_upload app.uploads;
  v_earlier app.uploads;
  v_media public.media;
begin
  perform app.check_writer(p_workspace_id, 'upload');
  select * into v_upload
  from app.uploads u
  where u.workspace_id = p_workspace_id
    and u.id = p_id
    and u.user_id = app.actor()
  for no key update;
  if not found then
    raise exception 'upload not found' using
      errcode = 'PT404', detail = 'upload_not_found', hint = 'It took too long; send the file again.';
  end if;

  if v_upload.stored_at is null then
    begin
      update app.uploads u
      set request_id = p_request_id, digest = pg_catalog.decode(p_digest, 'hex'), stored_at = now()
      where u.workspace_id = p_workspace_id
        and u.id = p_id;
    exception when unique_violation then
      select * into v_earlier
      from app.uploads u
      where u.workspace_id = p_workspace_id
        and u.request_id = p_request_id;
      if v_earlier.digest is distinct from pg_catalog.decode(p_digest, 'hex') then
        raise exception 'another file came under this key' using
          errcode = 'PT409', detail = 'idempotency_key_reused', hint = 'Use a new Idempotency-Key for another file.';
      end if;
      v_upload := v_earlier;
    end;
  end if;

  insert into public.media (workspace_id, id, kind, mime_type, sniffed_type, sha256, filename, is_voice, is_animated, state,
    size_bytes, width, height, storage_key, thumbnail_key, uploaded_by, stored_at)
  select p_workspace_id, v_upload.id, f.kind, f.mime_type, f.mime_type, f.sha256, f.filename, coalesce(f.is_voice, false),
         coalesce(f.is_animated, false), 'stored', f.size_bytes, f.width, f.height, v_upload.storage_key, f.thumbnail_key,
         app.actor(), now()
  from pg_catalog.jsonb_to_record(p_file) as f(kind text, mime_type text, sha256 text, filename text, is_voice boolean,
    is_animated boolean, size_bytes bigint, width integer, height integer, thumbnail_key text)
  where v_upload.id = p_id
  on conflict (workspace_id, id) do nothing;
  select * into strict v_media
  from public.media f
  where f.workspace_id = p_workspace_id
    and f.id = v_upload.id;
  return public.media_json(v_media);
end;
$$;
revoke execute on function public.store_upload from public, anon, service_role;
grant execute on function public.store_upload to authenticated;
select app.give_to_writer('public.store_upload');

-- A file as its reader may have it, with where it is kept: what an address for it is made of.
-- Returns public.media_json with storage_key and thumbnail_key. Called by: the sender, as the user, under RLS.
-- Refuses: PT404 unknown or not theirs, PT409 not there: media_pending, media_failed, media_gone.
create function public.read_media(p_workspace_id uuid, p_media_id uuid)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_media public.media;
begin
  select * into v_media
  from public.media f
  where f.workspace_id = p_workspace_id
    and f.id = p_media_id;
  if not found then
    raise exception 'file not found' using
      errcode = 'PT404', detail = 'media_not_found', hint = 'It does not exist, or it is not yours.';
  elsif v_media.state <> 'stored' then
    raise exception 'the file is %', v_media.state using
      errcode = 'PT409', detail = 'media_' || v_media.state,
      hint = coalesce(v_media.problem ->> 'sentence', case v_media.state
        when 'pending' then 'It is being fetched from WhatsApp; try again in a moment.'
        when 'failed' then 'It could not be fetched; ask the customer to send it again.'
        else 'It was deleted, or WhatsApp no longer has it.' end);
  end if;
  return public.media_json(v_media)
    || pg_catalog.jsonb_build_object('storage_key', v_media.storage_key, 'thumbnail_key', v_media.thumbnail_key);
end;
$$;
revoke execute on function public.read_media from public, anon, service_role;
grant execute on function public.read_media to authenticated;

-- What to fetch from Meta, with the key it is to be kept under, which is written down now.
-- Returns {state, meta_id, kind, mime_type, sha256, storage_key}, or {state: null} for a file that was erased.
-- Writes: media. Called by: the dispatcher.
create function public.begin_media_fetch(p_workspace_id uuid, p_media_id uuid)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_media public.media;
begin
  update public.media f
  set storage_key = app.storage_key(f.workspace_id, f.id, f.created_at)
  where f.workspace_id = p_workspace_id
    and f.id = p_media_id
    and f.state = 'pending';
  select * into v_media
  from public.media f
  where f.workspace_id = p_workspace_id
    and f.id = p_media_id;
  return pg_catalog.jsonb_build_object(
    'state', v_media.state, 'meta_id', v_media.meta_id, 'kind', v_media.kind, 'mime_type', v_media.mime_type,
    'sha256', v_media.sha256, 'storage_key', v_media.storage_key);
end;
$$;
revoke execute on function public.begin_media_fetch from public, anon, authenticated;
grant execute on function public.begin_media_fetch to service_role;

-- Write down what came of fetching a file. p_result: {state: stored, mime_type, sniffed_type, is_mismatched, size_bytes,
--   sha256 (hex), is_animated, width, height, thumbnail_key}, or {state: failed | gone, problem: {reason, sentence}}.
-- Returns {state} as it is now; null: erased meanwhile. Anything but stored: whoever put the file there deletes it.
-- Writes: media. Called by: the dispatcher.
create function public.finish_media_fetch(p_workspace_id uuid, p_media_id uuid, p_result jsonb)
returns jsonb
language plpgsql
set search_path = ''
as $$
declare
  v_state text;
begin
  update public.media f
  set state = r.state,
      mime_type = coalesce(f.mime_type, r.mime_type),
      sniffed_type = r.sniffed_type,
      is_mismatched = coalesce(r.is_mismatched, false),
      size_bytes = coalesce(r.size_bytes, f.size_bytes),
      sha256 = coalesce(r.sha256, f.sha256),
      is_animated = f.is_animated or coalesce(r.is_animated, false),
      width = r.width,
      height = r.height,
      thumbnail_key = r.thumbnail_key,
      problem = r.problem,
      stored_at = case when r.state = 'stored' then now() end
  from pg_catalog.jsonb_to_record(p_result) as r(state text, mime_type text, sniffed_type text, is_mismatched boolean,
    size_bytes bigint, sha256 text, is_animated boolean, width integer, height integer, thumbnail_key text, problem jsonb)
  where f.workspace_id = p_workspace_id
    and f.id = p_media_id
    and f.state = 'pending';
  select f.state into v_state
  from public.media f
  where f.workspace_id = p_workspace_id
    and f.id = p_media_id;
  return pg_catalog.jsonb_build_object('state', v_state);
end;
$$;
revoke execute on function public.finish_media_fetch from public, anon, authenticated;
grant execute on function public.finish_media_fetch to service_role;

-- A file that Meta is to have, and under which id it has it already (for another day at least).
-- Returns {state, kind, mime_type, size_bytes, storage_key, meta_id, expires_at}; state null: erased.
-- Called by: the dispatcher.
create function public.media_to_upload(p_workspace_id uuid, p_media_id uuid, p_channel_id uuid)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce((
    select pg_catalog.jsonb_build_object(
      'state', f.state, 'kind', f.kind, 'mime_type', coalesce(f.sniffed_type, f.mime_type), 'size_bytes', f.size_bytes,
      'storage_key', f.storage_key, 'meta_id', u.meta_id, 'expires_at', u.expires_at)
    from public.media f
    left join app.media_uploads u on u.workspace_id = f.workspace_id and u.media_id = f.id
      and u.channel_id = p_channel_id and u.expires_at > now() + interval '1 day'
    where f.workspace_id = p_workspace_id
      and f.id = p_media_id), '{"state": null}');
$$;
revoke execute on function public.media_to_upload from public, anon, authenticated;
grant execute on function public.media_to_upload to service_role;

-- Keep under which id Meta knows a file. p_lives: for how long, somewhat less than Meta's 30 days.
-- Returns {}; a file erased meanwhile has nothing to keep. Writes: media_uploads. Called by: the dispatcher.
create function public.record_media_upload(
  p_workspace_id uuid, p_media_id uuid, p_channel_id uuid, p_meta_id text, p_lives_days integer
)
returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  insert into app.media_uploads as u (workspace_id, media_id, channel_id, meta_id, expires_at)
  select f.workspace_id, f.id, p_channel_id, p_meta_id, now() + pg_catalog.make_interval(days => p_lives_days)
  from public.media f
  where f.workspace_id = p_workspace_id
    and f.id = p_media_id
  on conflict (workspace_id, media_id, channel_id) do update
    set meta_id = excluded.meta_id, expires_at = excluded.expires_at;
  return '{}';
end;
$$;
revoke execute on function public.record_media_upload from public, anon, authenticated;
grant execute on function public.record_media_upload to service_role;

-- A message its author deleted for everyone takes its file along, as a deleted conversation does.
create function app.give_up_revoked_media()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  update public.media f
  set state = 'gone', filename = null, sha256 = null
  where f.workspace_id = new.workspace_id
    and f.message_id = new.id;
  return null;
end;
$$;
revoke execute on function app.give_up_revoked_media from public;
grant execute on function app.give_up_revoked_media to service_role;
create trigger give_up_revoked_media
  after update of revoked_at on public.whatsapp_messages
  for each row
  when (old.revoked_at is null and new.revoked_at is not null)
  execute function app.give_up_revoked_media();

-- The same if the file's row comes after: the rows are the same in whatever order Meta told.
create function app.forget_gone_media()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.filename := null;
  new.sha256 := null;
  return new;
end;
$$;
revoke execute on function app.forget_gone_media from public;
create trigger forget_gone_media
  before insert on public.media
  for each row
  when (new.state = 'gone')
  execute function app.forget_gone_media();

-- Give up what Meta has no longer, and find files that are to go from storage: of deleted messages, of erased people,
-- of failed fetches, of uploads nobody finished.
-- Returns [{workspace_id, source: media | erasure | upload, id, key}], at most p_limit. Deleting one twice does no harm, so
--   nothing is claimed. p_upload_minutes: an upload that took longer is given up. p_keep_days: for how long the
--   Idempotency-Keys of uploads count. Writes: media, uploads.
-- Called by: the dispatcher.
create function public.files_to_delete(p_limit integer, p_upload_minutes integer, p_keep_days integer)
returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  -- Meta keeps a file 7 days; its chore has run out by then, whether or not anybody was there to try.
  update public.media f
  set state = 'gone',
      problem = '{"reason": "expired", "sentence": "WhatsApp kept the file for 7 days only; ask the customer to send it again."}'
  where (f.workspace_id, f.id) in (
    select o.workspace_id, o.id
    from public.media o
    where o.state = 'pending'
      and o.created_at < now() - interval '8 days'
    limit p_limit
    for update skip locked);

  delete from app.uploads u
  where (u.workspace_id, u.id) in (
    select o.workspace_id, o.id
    from app.uploads o
    where o.stored_at is not null
      and o.created_at < now() - pg_catalog.make_interval(days => p_keep_days)
    limit p_limit
    for update skip locked);

  return coalesce((
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'workspace_id', d.workspace_id, 'source', d.source, 'id', d.id, 'key', d.key))
    from (
      (select f.workspace_id, 'media' as source, f.id, f.storage_key as key
       from public.media f
       where f.state in ('failed', 'gone')
         and f.storage_key is not null
       limit p_limit)
      union all
      (select e.workspace_id, 'erasure', e.id, k.key
       from app.erasures e
       cross join lateral pg_catalog.unnest(e.files) as k(key)
       where e.files <> '{}'
       limit p_limit)
      union all
      (select u.workspace_id, 'upload', u.id, u.storage_key
       from app.uploads u
       where u.stored_at is null
         and u.created_at < now() - pg_catalog.make_interval(mins => p_upload_minutes)
       limit p_limit)
      limit p_limit
    ) d
  ), '[]');
end;
$$;
revoke execute on function public.files_to_delete from public, anon, authenticated;
grant execute on function public.files_to_delete to service_role;

-- Write down that files are gone from storage. p_files: as files_to_delete gave them.
-- Returns {}. Writes: media, erasures, uploads. Called by: the dispatcher.
create function public.files_deleted(p_files jsonb)
returns jsonb
language plpgsql
set search_path = ''
as $$
begin
  update public.media f
  set storage_key = null, thumbnail_key = null, file_deleted_at = now()
  from pg_catalog.jsonb_to_recordset(p_files) as d(workspace_id uuid, source text, id uuid, key text)
  where d.source = 'media'
    and f.workspace_id = d.workspace_id
    and f.id = d.id
    and f.state in ('failed', 'gone')
    and f.storage_key = d.key;
  update app.erasures e
  set files = array(select k from pg_catalog.unnest(e.files) k where k <> all (d.keys))
  from (
    select r.workspace_id, r.id, pg_catalog.array_agg(r.key) as keys
    from pg_catalog.jsonb_to_recordset(p_files) as r(workspace_id uuid, source text, id uuid, key text)
    where r.source = 'erasure'
    group by r.workspace_id, r.id
  ) d
  where e.workspace_id = d.workspace_id
    and e.id = d.id;
  delete from app.uploads u
  using pg_catalog.jsonb_to_recordset(p_files) as d(workspace_id uuid, source text, id uuid, key text)
  where d.source = 'upload'
    and u.workspace_id = d.workspace_id
    and u.id = d.id;
  return '{}';
end;
$$;
revoke execute on function public.files_deleted from public, anon, authenticated;
grant execute on function public.files_deleted to service_role;

notify pgrst, 'reload schema';
