-- A message names its channel, and nothing held it to one that exists. First of two: see docs/migrations.md.
set lock_timeout = '5s';

-- Expand: creates the constraint for new rows only. The table is not read, so the lock lasts a moment.
alter table public.whatsapp_messages
  add constraint whatsapp_messages_channel foreign key (workspace_id, channel_id)
  references public.whatsapp_channels (workspace_id, id) not valid;

notify pgrst, 'reload schema';
