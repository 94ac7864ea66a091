"""Messages in the outbox, many at once, as a person's sends leave them; for tests and benchmarks."""

from __future__ import annotations

from base64 import b64encode
from uuid import UUID

import psycopg
from nacl.public import PrivateKey

from shared.auth.seal import seal

TOKEN = "sandbox-token"

_QUEUE = """
do $do$
declare
  v_workspace uuid := current_setting('seed.workspace')::uuid;
  v_channel uuid := current_setting('seed.channel')::uuid;
  v_conversation uuid;
  v_contact uuid;
  v_message public.whatsapp_messages;
begin
  for n in 1..current_setting('seed.conversations')::integer loop
    v_contact := app.outbound_contact(
      v_workspace, v_channel, (current_setting('seed.first')::bigint + n)::text, null);
    v_conversation := app.outbound_conversation(v_workspace, v_channel, v_contact);
    for k in 1..current_setting('seed.each')::integer loop
      insert into public.whatsapp_messages (
        workspace_id, id, conversation_id, channel_id, contact_id, phone_number, direction, message_type, content,
        status, seq, payload, sent_at, sender_wa_id, ai_state, ai_reason)
      select v_workspace, gen_random_uuid(), v_conversation, v_channel, v_contact, w.phone, 'outbound', 'text', w.body,
             'queued', v.next_seq, jsonb_build_object('type', 'text', 'text', jsonb_build_object('body', w.body)),
             now(), w.phone, 'skipped', 'outbound'
      from (select (current_setting('seed.first')::bigint + n)::text as phone,
                   current_setting('seed.text') || ' ' || n || '.' || k as body) w
      join public.whatsapp_conversations v on v.workspace_id = v_workspace and v.id = v_conversation
      returning * into v_message;
      update public.whatsapp_conversations set next_seq = next_seq + 1
      where workspace_id = v_workspace and id = v_conversation;
      perform app.queue_message(
        v_message, current_setting('seed.priority')::smallint, false, '{}'::uuid[], now() + interval '1 hour');
    end loop;
  end loop;
end
$do$
"""


def new_keys() -> tuple[str, str]:
    """Return a pair for tokens, in base64: private, public."""
    made = PrivateKey.generate()
    return b64encode(bytes(made)).decode(), b64encode(bytes(made.public_key)).decode()


async def give_token(
    admin: psycopg.AsyncConnection, workspace_id: UUID, channel_id: UUID, *, public_key: str, token: str = TOKEN
) -> None:
    """Seal a token for a number, as connecting it does."""
    sealed = seal(token, public_key)
    await admin.execute(
        "insert into app.channel_tokens (workspace_id, channel_id, token_sealed, key_id) values (%s, %s, %s, %s)"
        " on conflict (workspace_id, channel_id) do update"
        " set token_sealed = excluded.token_sealed, key_id = excluded.key_id",
        (workspace_id, channel_id, sealed.token_sealed, sealed.key_id),
    )


async def queue(
    admin: psycopg.AsyncConnection,
    workspace_id: UUID,
    channel_id: UUID,
    *,
    conversations: int,
    each: int = 1,
    first: int = 12_025_000_000,
    priority: int = 2,
    text: str = "Message",
) -> None:
    """Queue `each` messages to every one of so many people, whose numbers follow `first`."""
    settings = {
        "workspace": workspace_id, "channel": channel_id, "conversations": conversations, "each": each,
        "first": first, "priority": priority, "text": text,
    }  # fmt: skip
    async with admin.transaction():
        for name, value in settings.items():
            await admin.execute("select set_config(%s, %s, true)", (f"seed.{name}", str(value)))
        await admin.execute(_QUEUE)
