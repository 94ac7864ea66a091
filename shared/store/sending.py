"""What a signed-in person asks to be sent; answers are JSON text that goes straight through to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from shared.domain.person import Person
from shared.store.port import Store


class Sending:
    """The functions of migration *_send_messages, and those of *_bulk_sends that help to ask.

    Repeating a call under the same request id is the same thing. Raises: NotFound, Forbidden (a viewer), Conflict,
    Rejected.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def send(
        self, workspace_id: UUID, message: Mapping[str, Any], *, request_id: str, digest: str, as_user: Person
    ) -> str:
        """Queue a message, shaped as the function's comment says; return it as the API shows it.

        digest: sha256 of what was asked, in hex: another request under the same id is refused.
        """
        args = _workspace(workspace_id) | {"p_request_id": request_id, "p_digest": digest, "p_message": dict(message)}
        return await self._store.call("send_message", args, as_user=as_user)

    async def reply_window(self, workspace_id: UUID, conversation_id: UUID, *, as_user: Person) -> str:
        """When the customer last wrote, and what can be sent to them now."""
        args = _workspace(workspace_id) | {"p_conversation_id": str(conversation_id)}
        return await self._store.call("reply_window", args, as_user=as_user)

    async def recipient_window(self, workspace_id: UUID, recipient: Mapping[str, Any], *, as_user: Person) -> str:
        """The same of whom a message names, whether or not there is a conversation with them yet."""
        args = _workspace(workspace_id) | {"p_recipient": dict(recipient)}
        return await self._store.call("recipient_window", args, as_user=as_user)

    async def template(self, workspace_id: UUID, wanted: Mapping[str, Any], *, as_user: Person) -> str:
        """A template as Meta keeps it; `wanted`: {template_id} or {channel_id | conversation_id, name, language}."""
        args = _workspace(workspace_id) | {"p_wanted": dict(wanted)}
        return await self._store.call("template_to_send", args, as_user=as_user)

    async def files(self, workspace_id: UUID, media_ids: Sequence[str], *, as_user: Person) -> str:
        """As what files of ours may be sent: {id: {kind, is_voice}}; those that are not there are left out."""
        args = _workspace(workspace_id) | {"p_media_ids": list(media_ids)}
        return await self._store.call("files_to_send", args, as_user=as_user)

    async def group(self, workspace_id: UUID, conversation_id: UUID, *, as_user: Person) -> str:
        """Which group a conversation is with: {group_id}, null for a contact."""
        args = _workspace(workspace_id) | {"p_conversation_id": str(conversation_id)}
        return await self._store.call("group_of_conversation", args, as_user=as_user)

    async def cancel(self, workspace_id: UUID, message_id: UUID, *, as_user: Person) -> str:
        """Take back a message that is not under way."""
        return await self._store.call("cancel_message", _message(workspace_id, message_id), as_user=as_user)

    async def retry(
        self, workspace_id: UUID, message_id: UUID, *, new_id: UUID, request_id: str, digest: str, as_user: Person
    ) -> str:
        """Send a failed message again, as a new one that names it."""
        args = _message(workspace_id, message_id) | {
            "p_request_id": request_id,
            "p_digest": digest,
            "p_new_id": str(new_id),
        }
        return await self._store.call("retry_message", args, as_user=as_user)

    async def resolve_doubt(self, workspace_id: UUID, message_id: UUID, *, send_again: bool, as_user: Person) -> str:
        """Decide about a message of which nobody knows whether Meta has it."""
        args = _message(workspace_id, message_id) | {"p_send_again": send_again}
        return await self._store.call("resolve_doubt", args, as_user=as_user)

    async def start_typing(self, workspace_id: UUID, conversation_id: UUID, *, as_user: Person) -> str:
        """Show the customer that somebody types."""
        args = _workspace(workspace_id) | {"p_conversation_id": str(conversation_id)}
        return await self._store.call("start_typing", args, as_user=as_user)


def _workspace(workspace_id: UUID) -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id)}


def _message(workspace_id: UUID, message_id: UUID) -> dict[str, object]:
    return {"p_workspace_id": str(workspace_id), "p_message_id": str(message_id)}
